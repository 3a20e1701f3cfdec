//! Room on the server's disk: how much this session may use before it has to ask for more.
//!
//! A change is acknowledged only within the limit that the server granted, so that it still fits
//! when other sessions write. A program that needs more waits while the server is asked for a
//! higher limit; if the server grants none, the program gets ENOSPC.
//!
//! A file system that copies on write may say that it has room and take nothing, not even a change in
//! place. So once the server gives a link up because its disk is full, nothing is sent for a while.
//!
//! **Invariant:** within a round the limit only rises. This side begins a new round when it lowers
//! the limit, so that messages sent before are recognised.

use std::time::{Duration, Instant};

use xfer_protocol::tree::{Limit, Room};

/// The most unused room that a quiet session keeps. It gives the rest back for other sessions.
const QUIET_MAX: Room = Room { bytes: 64 << 20, files: 4096 };

/// The disk's free room is divided by this. A quiet session keeps no more than one part unused.
const QUIET_PARTS: u64 = 64;

/// How long a refusal stands for all ops that need as much room. Then the server is asked again.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long nothing is sent after the disk refused an op that was sent within the limit.
const FULL_FOR: Duration = Duration::from_secs(10);

/// The room on the disk, and this session's share of it.
#[derive(Debug)]
pub(in crate::core) struct DiskRoom {
    /// The disk's free room, as the server last said.
    disk: Room,
    limit: Limit,
    /// The room that the session's ops have taken so far.
    used: Room,
    /// The part of it that ops take which were sent over this link.
    sent: Room,
    /// The op that is held back, because it does not fit within the limit.
    held_back: Option<HeldBack>,
    question: Question,
    /// The rooms that the server did not have, and when it said so. There are several, since one op may
    /// need more bytes, and another more files.
    refused: Vec<(Room, Instant)>,
    /// Until when the disk counts as full, whatever the server grants.
    full_until: Option<Instant>,
}

/// An op that is held back. Only a new link can bring that about: others may have used the room
/// meanwhile that was there when the program made the change.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    room: Room,
    why: Why,
}

/// Why an op is held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// It exceeds the limit, and the server has not refused a higher one.
    Limit,
    /// It exceeds the limit, and the server has no room for it.
    Refused,
    /// The server's disk refused it, though it may fit within the limit.
    DiskFull,
}

/// The question for a higher limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    None,
    /// An op that takes this much did not fit.
    Waiting(Room),
    /// The same, and whether it is the one that is held back.
    Asked(Room, bool),
}

impl DiskRoom {
    pub(in crate::core) fn new(disk: Room, limit: Room) -> DiskRoom {
        DiskRoom {
            disk,
            limit: Limit { room: limit, round: 0 },
            used: Room::default(),
            sent: Room::default(),
            held_back: None,
            question: Question::None,
            refused: Vec::new(),
            full_until: None,
        }
    }

    /// The disk's free room.
    pub(in crate::core) fn disk(&self) -> Room {
        self.disk
    }

    /// Whether an op that takes `room` fits within the limit. One that takes none always fits; any
    /// other does not while one is held back for which there is no room.
    pub(in crate::core) fn fits(&self, room: Room) -> bool {
        room.is_none() || !self.is_stuck() && self.limit.room.covers(self.used.plus(room))
    }

    /// Whether an op that takes `room` may be made after those that are `pending`, while the server
    /// can't be asked: if the disk had room for all of them when the server last spoke. If others
    /// use that room meanwhile, the op is held back.
    pub(in crate::core) fn may_fit(&self, pending: Room, room: Room) -> bool {
        self.fits(room) || self.disk.covers(pending.plus(room))
    }

    /// Counts the room of an op as used.
    pub(in crate::core) fn take(&mut self, room: Room) {
        self.used = self.used.plus(room);
    }

    /// Notes that the server's disk refused an op that was sent within the limit.
    pub(in crate::core) fn note_full(&mut self, now: Instant) {
        self.full_until = Some(now + FULL_FOR);
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_until.is_some_and(|until| now < until)
    }

    /// Whether the next op fits within the limit if it takes `room`.
    fn grants(&self, room: Room) -> bool {
        self.limit.room.covers(self.sent.plus(room))
    }

    /// Whether an op that takes `room` may be sent now. If so, it counts as sent.
    pub(in crate::core) fn may_send(&mut self, room: Room, now: Instant) -> bool {
        let may = !self.is_full(now) && (room.is_none() || self.grants(room));
        if may {
            self.sent = self.sent.plus(room);
            self.held_back = None;
        }
        may
    }

    /// Holds back the next op, which takes `room`, until the server grants it, or its disk may have
    /// room again.
    pub(in crate::core) fn hold_back(&mut self, room: Room, now: Instant) {
        let why = if self.is_full(now) { Why::DiskFull } else { Why::Limit };
        let is_for_disk = |why| why == Why::DiskFull;
        if self.held_back.is_some_and(|held| is_for_disk(held.why) == is_for_disk(why)) {
            return;
        }
        self.held_back = Some(HeldBack { room, why });
        if !matches!(self.question, Question::Asked(..)) {
            self.question = Question::Waiting(room);
        }
    }

    /// Whether an op is held back for which the server has no room.
    pub(in crate::core) fn is_stuck(&self) -> bool {
        self.held_back.is_some_and(|held| held.why != Why::Limit)
    }

    /// Asks again for the room of an op that is held back.
    pub(in crate::core) fn ask_again(&mut self) {
        if let Some(held) = self.held_back {
            self.want(held.room);
        }
    }

    /// Whether the server refused this much room, or less, a moment ago. While it has no room for an
    /// op that is held back, it has none for later ops either: they can't be sent before that one.
    pub(in crate::core) fn is_refused(&self, room: Room, now: Instant) -> bool {
        let is_refused = |(refused, when): &(Room, Instant)| {
            room.covers(*refused) && now.saturating_duration_since(*when) < REFUSED_FOR
        };
        self.is_stuck() || self.refused.iter().any(is_refused)
    }

    /// Notes that the server refused this much room.
    fn note_refused(&mut self, room: Room, now: Instant) {
        let still_says_more = |(refused, when): &(Room, Instant)| {
            !refused.covers(room) && now.saturating_duration_since(*when) < REFUSED_FOR
        };
        self.refused.retain(still_says_more);
        self.refused.push((room, now));
    }

    /// Asks for room for an op that does not fit. There is one question at a time: an op that still
    /// does not fit after the answer asks again.
    pub(in crate::core) fn want(&mut self, room: Room) {
        if self.question == Question::None {
            self.question = Question::Waiting(room);
        }
    }

    /// Whether there is a question to send.
    pub(in crate::core) fn has_question(&self) -> bool {
        matches!(self.question, Question::Waiting(_))
    }

    /// The question to send now, if there is one: the limit that is wanted. It is worked out only
    /// now, since other ops may have used room since.
    pub(in crate::core) fn question(&mut self) -> Option<Room> {
        let Question::Waiting(room) = self.question else { return None };
        // An op that is held back comes before all that programs want to do.
        let (before, room) = match self.held_back {
            Some(held) => (self.sent, held.room),
            None => (self.used, room),
        };
        self.question = Question::Asked(room, self.held_back.is_some());
        Some(before.plus(room))
    }

    /// Takes in the room and the limit that come with an acknowledgement. The durable changes may
    /// have made room, so a refusal no longer stands.
    pub(in crate::core) fn hear(&mut self, disk: Room, limit: Limit) {
        self.refused.clear();
        self.set(disk, limit);
    }

    fn set(&mut self, disk: Room, limit: Limit) {
        self.disk = disk;
        // A limit of an earlier round is from before this side lowered it, and no longer counts.
        if limit.round == self.limit.round {
            self.limit.room = self.limit.room.max(limit.room);
        }
        if let Some(HeldBack { room, why: Why::Refused }) = self.held_back
            && self.grants(room)
        {
            self.held_back = Some(HeldBack { room, why: Why::Limit });
        }
    }

    /// Takes in the answer to a question.
    pub(in crate::core) fn hear_answer(&mut self, disk: Room, limit: Limit, now: Instant) {
        self.set(disk, limit);
        let Question::Asked(room, is_of_held) = self.question else { return };
        self.question = Question::None;
        if !self.fits(room) {
            self.note_refused(room, now);
        }
        let Some(HeldBack { room, why }) = self.held_back else { return };
        match is_of_held {
            _ if self.grants(room) => {}
            true if why == Why::Limit => {
                self.held_back = Some(HeldBack { room, why: Why::Refused });
            }
            true => {}
            // The answer is to an older question, and says nothing of this op.
            false => self.question = Question::Waiting(room),
        }
    }

    /// Goes on over a new link. There the server has counted nothing yet, and will count `used`: the
    /// room of the ops that are sent over it.
    pub(in crate::core) fn resume(&mut self, disk: Room, limit: Room, used: Room) {
        self.disk = disk;
        self.limit = Limit { room: limit, round: 0 };
        self.used = used;
        self.sent = Room::default();
        self.held_back = None;
        self.refused.clear();
        self.rewind();
    }

    /// Repeats a question whose link broke before the answer.
    pub(in crate::core) fn rewind(&mut self) {
        if let Question::Asked(room, _) = self.question {
            self.question = Question::Waiting(room);
        }
    }

    /// Lowers the limit of a quiet session, unless it has a question open. Returns the limit that
    /// the server must be told.
    pub(in crate::core) fn give_back(&mut self) -> Limit {
        let spare = self.limit.room.less(self.used);
        let kept = spare.min(QUIET_MAX).min(self.disk.divided(QUIET_PARTS));
        if self.question == Question::None && kept != spare {
            self.limit = Limit { room: self.used.plus(kept), round: self.limit.round + 1 };
        }
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Room = Room { bytes: 1 << 30, files: 10_000 };

    fn bytes(bytes: u64) -> Room {
        Room { bytes, files: 0 }
    }

    fn limit(bytes: u64, round: u32) -> Limit {
        Limit { room: Room { bytes, files: 100 }, round }
    }

    fn rooms(bytes: u64) -> DiskRoom {
        DiskRoom::new(DISK, limit(bytes, 0).room)
    }

    #[test]
    fn what_does_not_fit_is_asked_for_once_and_fits_when_granted() {
        let mut rooms = rooms(100);
        assert!(rooms.fits(bytes(100)));
        rooms.take(bytes(60));
        assert!(!rooms.fits(bytes(50)));
        rooms.want(bytes(50));
        rooms.want(bytes(70));
        assert_eq!((rooms.question(), rooms.question()), (Some(bytes(110)), None));
        rooms.hear_answer(DISK, limit(110, 0), Instant::now());
        assert!(rooms.fits(bytes(50)));
    }

    #[test]
    fn a_refusal_answers_for_all_that_need_as_much_and_for_less_the_server_is_asked_again() {
        let mut rooms = rooms(0);
        rooms.want(bytes(50));
        rooms.question();
        rooms.hear_answer(DISK, limit(20, 0), Instant::now());
        assert!(
            rooms.is_refused(bytes(50), Instant::now())
                && rooms.is_refused(bytes(90), Instant::now())
        );
        assert!(!rooms.is_refused(bytes(40), Instant::now()));
        rooms.want(bytes(40));
        assert_eq!(rooms.question(), Some(bytes(40)));
    }

    #[test]
    fn of_two_that_need_different_things_the_refusal_of_one_leaves_that_of_the_other() {
        let (mut rooms, now) = (rooms(0), Instant::now());
        let [long, new] = [Room { bytes: 50, files: 0 }, Room { bytes: 40, files: 200 }];
        for room in [long, new, long] {
            rooms.want(room);
            assert!(rooms.question().is_some());
            rooms.hear_answer(DISK, limit(20, 0), now);
        }
        assert!(rooms.is_refused(long, now) && rooms.is_refused(new, now));
        assert!(rooms.refused.len() == 2, "{:?}", rooms.refused);
        assert!(!rooms.is_refused(long, now + REFUSED_FOR));
    }

    #[test]
    fn what_becomes_durable_may_have_made_room() {
        let mut rooms = rooms(0);
        rooms.want(bytes(50));
        rooms.question();
        rooms.hear_answer(DISK, limit(0, 0), Instant::now());
        rooms.hear(DISK, limit(0, 0));
        assert!(!rooms.is_refused(bytes(50), Instant::now()));
    }

    #[test]
    fn on_a_new_link_only_the_ops_that_are_sent_over_it_count() {
        let mut rooms = rooms(100);
        rooms.take(bytes(90));
        rooms.want(bytes(50));
        rooms.question();
        rooms.resume(DISK, limit(60, 0).room, bytes(30));
        assert!(rooms.fits(bytes(30)) && !rooms.fits(bytes(31)));
        assert_eq!(rooms.question(), Some(bytes(80)), "it was not answered");
        // The new link begins with the first round.
        rooms.hear_answer(DISK, limit(80, 0), Instant::now());
        assert!(rooms.fits(bytes(50)));
    }

    #[test]
    fn an_op_for_which_there_is_no_room_any_more_is_held_back_until_there_is() {
        let (mut rooms, now) = (rooms(100), Instant::now());
        rooms.resume(DISK, limit(60, 0).room, bytes(90));
        assert!(rooms.may_send(bytes(50), now) && !rooms.may_send(bytes(40), now));
        rooms.hold_back(bytes(40), now);
        assert_eq!(rooms.question(), Some(bytes(90)));
        assert!(!rooms.is_stuck(), "the server was not asked yet");
        rooms.hear_answer(DISK, limit(60, 0), Instant::now());
        assert!(rooms.is_stuck() && !rooms.has_question());
        assert!(rooms.is_refused(bytes(1), Instant::now()), "it would come before");
        rooms.want(bytes(7));
        assert_eq!(rooms.question(), Some(bytes(90)), "it comes before what programs want");
        rooms.hear_answer(DISK, limit(60, 0), Instant::now());
        rooms.ask_again();
        rooms.question();
        rooms.hear_answer(DISK, limit(90, 0), Instant::now());
        assert!(!rooms.is_stuck());
        assert!(rooms.may_send(bytes(40), now) && rooms.may_send(Room::default(), now));
    }

    #[test]
    fn an_answer_to_an_older_question_refuses_nothing_that_is_held_back() {
        let (mut rooms, now) = (rooms(100), Instant::now());
        rooms.resume(DISK, limit(60, 0).room, bytes(90));
        rooms.want(bytes(500));
        assert_eq!(rooms.question(), Some(bytes(590)));
        assert!(rooms.may_send(bytes(50), now) && !rooms.may_send(bytes(40), now));
        rooms.hold_back(bytes(40), now);
        rooms.hear_answer(DISK, limit(70, 0), now);
        assert!(!rooms.is_stuck());
        assert_eq!(rooms.question(), Some(bytes(90)));
        rooms.hear_answer(DISK, limit(90, 0), now);
        assert!(!rooms.is_stuck() && rooms.may_send(bytes(40), now));
    }

    #[test]
    fn once_the_disk_refused_an_op_nothing_is_sent_for_a_while_whatever_is_granted() {
        let (mut rooms, now) = (rooms(100), Instant::now());
        rooms.note_full(now);
        rooms.resume(DISK, limit(90, 0).room, bytes(50));
        for room in [bytes(50), Room::default()] {
            assert!(!rooms.may_send(room, now));
            rooms.hold_back(room, now);
            assert!(rooms.is_stuck() && !rooms.fits(bytes(1)) && rooms.fits(Room::default()));
        }
        rooms.question();
        rooms.hear_answer(DISK, limit(1000, 0), now);
        assert!(rooms.is_stuck());
        assert!(rooms.may_send(bytes(50), now + FULL_FOR) && !rooms.is_stuck());
    }

    #[test]
    fn what_a_quiet_session_gave_back_is_not_taken_again_from_an_old_message() {
        let mut rooms = rooms(DISK.bytes);
        let kept = rooms.give_back();
        assert_eq!((kept.round, kept.room.bytes), (1, DISK.bytes / QUIET_PARTS));
        assert_eq!(rooms.give_back(), kept);
        rooms.hear(DISK, limit(DISK.bytes, 0));
        assert!(!rooms.fits(bytes(DISK.bytes / 2)));
        rooms.hear(DISK, limit(DISK.bytes, 1));
        assert!(rooms.fits(bytes(DISK.bytes / 2)));
    }
}

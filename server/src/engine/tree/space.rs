//! Room on the disk, shared out to sessions. A session is promised room before its client lets
//! programs make changes that the server does not have yet.
//!
//! **Invariant:** the room that is promised to sessions and not committed yet, plus a reserve, fits
//! on the disk, unless another program fills it. So a change within the client's limit is never
//! refused. Even on a full disk rows can be written, so users can log in and remove files.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use xfer_protocol::tree::{Limit, Room};
use xfer_store::{Contents, Disk, StoreError};

/// The most room that a session is promised without asking for more: enough for a full log.
const SHARE_MAX: Room = Room { bytes: 256 << 20, files: 4096 };

/// The divisor that gives the fraction of the available room that a session gets without asking, if
/// it is the only one. Among many sessions each gets that much less, so that hundreds that begin at
/// once leave enough for each other.
const SHARE_PARTS: u64 = 8;

/// The reserve for rows and their journal: a third of the disk, but no more than this.
const RESERVE_MAX: Room = Room { bytes: 128 << 20, files: 1024 };

/// While the disk can take this much, no client waits for room.
const PLENTY: Room = Room { bytes: 256 << 20, files: 8192 };

/// The room of one disk.
pub(crate) struct Space {
    contents: Arc<dyn Contents>,
    promised: Mutex<Promised>,
}

/// The room that is promised to all sessions together.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// The promised room that is not known to be used up.
    now: Room,
    /// All room that was ever promised.
    ever: Room,
    /// The number of sessions that have a share.
    shares: u64,
}

/// The room that the disk had at one moment, without the reserve.
///
/// **Invariant:** promises that were open before the disk was asked, and those made since, are
/// subtracted from its answer, because data written under them meanwhile may or may not show in
/// that answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The room that the disk can still take.
    pub(crate) free: Room,
    before: Promised,
}

/// The room that one session is promised: a limit on the room that all of its ops take up.
pub(crate) struct Share {
    space: Arc<Space>,
    limit: Room,
    /// How often the client has lowered the limit.
    round: u32,
    /// The room that applied ops take up.
    used: Room,
    /// The room that committed ops take up, which the disk itself shows.
    durable: Room,
}

impl Space {
    /// Manages the room of the disk that holds these contents and the rows.
    pub(crate) fn new(contents: Arc<dyn Contents>) -> Arc<Space> {
        Arc::new(Space { contents, promised: Mutex::default() })
    }

    /// Makes a share without any room yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let none = Room::default();
        self.promised().shares += 1;
        Share { space: self.clone(), limit: none, round: 0, used: none, durable: none }
    }

    /// The room that is promised, and the number of shares.
    pub(crate) fn held(&self) -> (Room, u64) {
        let promised = self.promised();
        (promised.now, promised.shares)
    }

    /// Asks the disk how much room it has.
    ///
    /// # Errors
    /// If the disk can't be asked.
    pub(crate) async fn look(&self) -> Result<Seen, StoreError> {
        let before = *self.promised();
        let Disk { free, size } = self.contents.disk().await?;
        Ok(Seen { free: free.less(size.divided(3).min(RESERVE_MAX)), before })
    }

    /// Whether the disk has so little room that a commit should reclaim space first, because a
    /// client may wait for it.
    pub(crate) async fn is_scarce(&self) -> bool {
        // If the disk can't be asked, waiting would not help.
        self.look().await.is_ok_and(|seen| !seen.free.covers(PLENTY))
    }

    fn promised(&self) -> MutexGuard<'_, Promised> {
        self.promised.lock()
    }
}

impl Share {
    /// The limit on the room that all ops of the session take up.
    pub(crate) fn limit(&self) -> Limit {
        Limit { room: self.limit, round: self.round }
    }

    /// Returns the room that the session's ops take up with one more op, if that exceeds the limit.
    pub(crate) fn excess(&self, room: Room) -> Option<Room> {
        let used = self.used.plus(room);
        (!room.is_none() && !self.limit.covers(used)).then_some(used)
    }

    /// Counts the room of an op as used.
    pub(crate) fn admit(&mut self, room: Room) {
        self.used = self.used.plus(room);
    }

    /// The room that the ops applied so far take up.
    pub(crate) fn used(&self) -> Room {
        self.used
    }

    /// Notes that the ops that take up `used` are committed.
    pub(crate) fn note_durable(&mut self, used: Room) {
        let durable = used.less(self.durable);
        self.durable = used;
        let mut promised = self.space.promised();
        promised.now = promised.now.less(durable);
    }

    /// Raises the limit: by some spare room, and to `wanted` if the disk had room for that when it
    /// was asked.
    pub(crate) fn extend(&mut self, wanted: Room, seen: Seen) {
        let mut promised = self.space.promised();
        let since = promised.ever.less(seen.before.ever);
        let available = seen.free.less(seen.before.now.plus(since));
        let spare = self.limit.less(self.used);
        let generous = SHARE_MAX.less(spare).min(available.divided(SHARE_PARTS * promised.shares));
        let missing = wanted.less(self.limit);
        let extension = match available.covers(missing) {
            true => generous.max(missing),
            false => generous,
        };
        self.limit = self.limit.plus(extension);
        promised.now = promised.now.plus(extension);
        promised.ever = promised.ever.plus(extension);
    }

    /// Lowers the limit as the client offers, but not below the room that is used.
    pub(crate) fn give_back(&mut self, limit: Limit) {
        if limit.round == self.round {
            return;
        }
        self.round = limit.round;
        let lowered = self.limit.min(limit.room).max(self.used);
        let given = self.limit.less(lowered);
        self.limit = lowered;
        let mut promised = self.space.promised();
        promised.now = promised.now.less(given);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.limit.less(self.durable);
        let mut promised = self.space.promised();
        promised.now = promised.now.less(held);
        promised.shares -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;
    use xfer_protocol::ContentId;
    use xfer_store::{Answer, Effect, Later, Placements, Stop, Undone};

    use super::*;

    /// Contents that are never called, because these tests pass the disk's room in.
    struct NoContents;

    impl Contents for NoContents {
        fn perform_until(&self, _: Vec<Effect>, _: Stop) -> Later<'_, Result<(), Undone>> {
            unreachable!("only the disk is asked for")
        }
        fn read(&self, _: ContentId, _: Range<u64>) -> Answer<'_, Vec<u8>> {
            unreachable!("only the disk is asked for")
        }
        fn make_durable(
            &self,
            _: Vec<Vec<ContentId>>,
        ) -> Answer<'_, Vec<Result<Placements, StoreError>>> {
            unreachable!("only the disk is asked for")
        }
        fn reclaim(&self) -> Answer<'_, ()> {
            unreachable!("only the disk is asked for")
        }
        fn disk(&self) -> Answer<'_, Disk> {
            unreachable!("it is told")
        }
    }

    fn space() -> Arc<Space> {
        Space::new(Arc::new(NoContents))
    }

    /// The answer of a disk that can take `free` in addition to its reserve.
    fn seen(space: &Space, free: Room) -> Seen {
        Seen { free, before: *space.promised() }
    }

    /// Whether an op fits, after asking the disk if the limit is too low.
    fn admit(share: &mut Share, room: Room, free: Room) -> bool {
        if let Some(wanted) = share.excess(room) {
            let seen = seen(&share.space, free);
            share.extend(wanted, seen);
        }
        let fits = share.excess(room).is_none();
        if fits {
            share.admit(room);
        }
        fits
    }

    fn bytes(bytes: u64) -> Room {
        Room { bytes, files: 0 }
    }

    #[test]
    fn one_session_can_have_all_that_is_there_to_the_last_byte() {
        let (mut share, free) = (space().share(), bytes(1000));
        assert!(admit(&mut share, bytes(1000), free));
        assert!(!admit(&mut share, bytes(1), free));
        assert!(admit(&mut share, Room::default(), free));
    }

    #[test]
    fn what_one_session_was_promised_no_other_gets_until_it_is_given_back() {
        let (space, free) = (space(), bytes(1000));
        let (mut first, mut second) = (space.share(), space.share());
        first.extend(bytes(900), seen(&space, free));
        assert!(!admit(&mut second, bytes(200), free));
        first.give_back(Limit { room: bytes(300), round: 1 });
        assert!(admit(&mut second, bytes(700), free));
        drop(first);
        assert!(admit(&mut second, bytes(300), free));
        assert!(!admit(&mut second, bytes(1), free));
    }

    #[test]
    fn what_was_promised_while_the_disk_was_asked_is_held_against_its_answer() {
        let (space, free) = (space(), bytes(1000));
        let (mut first, mut second) = (space.share(), space.share());
        let before = seen(&space, free);
        assert!(admit(&mut first, bytes(800), free));
        // The data is on the disk now, but the answer does not show it.
        first.note_durable(bytes(800));
        second.extend(bytes(300), before);
        assert!(!second.limit.covers(bytes(300)));
        second.extend(bytes(200), before);
        assert!(second.limit.covers(bytes(200)));
    }

    #[test]
    fn a_thousand_sessions_that_begin_at_once_leave_enough_for_each() {
        let (space, free) = (space(), bytes(16 << 30));
        let mut shares: Vec<Share> = (0..1000).map(|_| space.share()).collect();
        shares.iter_mut().for_each(|share| share.extend(Room::default(), seen(&space, free)));
        assert!(shares.iter_mut().all(|share| admit(share, bytes(1 << 20), free)));
    }

    /// One step of one session.
    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, u64),
        Commit(usize),
        Ask(usize, u64),
        GiveBack(usize, u64),
        End(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = || 0..4usize;
        let room = || 0..2_000u64;
        prop_oneof![
            6 => (who(), room()).prop_map(|(who, room)| Step::Write(who, room)),
            3 => who().prop_map(Step::Commit),
            2 => (who(), room()).prop_map(|(who, room)| Step::Ask(who, room)),
            1 => (who(), room()).prop_map(|(who, room)| Step::GiveBack(who, room)),
            1 => who().prop_map(Step::End),
        ]
    }

    proptest! {
        /// For any sequence of requests, writes, commits and returns of room, a write within the
        /// limit fits on the disk beside the reserve.
        #[test]
        fn what_is_within_a_limit_fits(steps in prop::collection::vec(step(), 1..200)) {
            let space = space();
            let mut free = bytes(10_000);
            let mut shares: Vec<Share> = (0..4).map(|_| space.share()).collect();
            for step in steps {
                match step {
                    Step::Write(who, wanted) => {
                        let spare = shares[who].limit.less(shares[who].used);
                        let written = bytes(wanted).min(spare);
                        prop_assert!(admit(&mut shares[who], written, free));
                        prop_assert!(free.covers(written));
                        free = free.less(written);
                    }
                    Step::Commit(who) => {
                        let used = shares[who].used();
                        shares[who].note_durable(used);
                    }
                    Step::Ask(who, room) => {
                        let wanted = shares[who].used().plus(bytes(room));
                        shares[who].extend(wanted, seen(&space, free));
                    }
                    Step::GiveBack(who, room) => {
                        let lower = shares[who].used().plus(bytes(room));
                        let round = shares[who].round + 1;
                        shares[who].give_back(Limit { room: lower, round });
                    }
                    Step::End(who) => shares[who] = space.share(),
                }
            }
            drop(shares);
            prop_assert_eq!(space.promised().now, Room::default());
        }
    }
}

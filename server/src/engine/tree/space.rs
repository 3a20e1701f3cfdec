//! Room on the disk, shared out to sessions: each is promised some before its client acknowledges
//! changes that the server does not have yet.
//!
//! **Invariant:** what is promised to sessions and not committed yet, and a reserve, fit on the disk,
//! as far as no other program fills it. So a client's change that was within its limit is never
//! refused, and on a disk that is full rows can be written: people log in and remove files.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use xfer_protocol::tree::{Limit, Room};
use xfer_store::{Contents, Disk, StoreError};

/// What a session is promised at most without asking for more: a log's worth.
const SHARE_MAX: Room = Room { bytes: 256 << 20, files: 4096 };

/// The part of the available room that a session gets without asking, if it is the only one. Of many
/// sessions each gets as much less, so that hundreds that begin at once leave enough for each other.
const SHARE_PARTS: u64 = 8;

/// The reserve for rows and their journal: a third of the disk, but no more than this.
const RESERVE_MAX: Room = Room { bytes: 128 << 20, files: 1024 };

/// As long as the disk can take this, nobody waits for room.
const PLENTY: Room = Room { bytes: 256 << 20, files: 8192 };

/// The room of one disk.
pub(crate) struct Space {
    contents: Arc<dyn Contents>,
    promised: Mutex<Promised>,
}

/// What was promised.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// What of it is not known to be used up.
    now: Room,
    /// All of it, ever.
    ever: Room,
    /// The number of sessions that have a share.
    shares: u64,
}

/// What the disk can still take, but for the reserve, as it was seen at some moment.
///
/// **Invariant:** promises that were open before it was asked, and those that were made since, are held
/// against what it said then: what they are used up for meanwhile may or may not be part of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What it can take.
    pub(crate) free: Room,
    before: Promised,
}

/// What one session is promised: a limit on what all of its ops take up.
pub(crate) struct Share {
    space: Arc<Space>,
    limit: Room,
    /// How often the client has lowered it.
    round: u32,
    /// By ops that were applied.
    used: Room,
    /// By ops that are committed, so that the disk itself shows it.
    durable: Room,
}

impl Space {
    /// The room of the disk that has these contents, and the rows.
    pub(crate) fn new(contents: Arc<dyn Contents>) -> Arc<Space> {
        Arc::new(Space { contents, promised: Mutex::default() })
    }

    /// A share of nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let none = Room::default();
        self.promised().shares += 1;
        Share { space: self.clone(), limit: none, round: 0, used: none, durable: none }
    }

    /// Asks what the disk can still take.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) async fn look(&self) -> Result<Seen, StoreError> {
        let before = *self.promised();
        let Disk { free, size } = self.contents.disk().await?;
        Ok(Seen { free: free.less(size.divided(3).min(RESERVE_MAX)), before })
    }

    /// Whether a commit should wait for the room that it gives back, since somebody may wait for it.
    pub(crate) async fn is_scarce(&self) -> bool {
        // That it can't be asked is no reason to wait.
        self.look().await.is_ok_and(|seen| !seen.free.covers(PLENTY))
    }

    fn promised(&self) -> MutexGuard<'_, Promised> {
        self.promised.lock()
    }
}

impl Share {
    /// The limit on the sum of what the session's ops take up.
    pub(crate) fn limit(&self) -> Limit {
        Limit { room: self.limit, round: self.round }
    }

    /// What the session's ops take up with one more, if that is beyond the limit.
    pub(crate) fn excess(&self, room: Room) -> Option<Room> {
        let used = self.used.plus(room);
        (!room.is_none() && !self.limit.covers(used)).then_some(used)
    }

    /// Takes an op into account.
    pub(crate) fn admit(&mut self, room: Room) {
        self.used = self.used.plus(room);
    }

    /// What the ops applied so far take up.
    pub(crate) fn used(&self) -> Room {
        self.used
    }

    /// Notes that ops that take up so much are committed.
    pub(crate) fn note_durable(&mut self, used: Room) {
        let durable = used.less(self.durable);
        self.durable = used;
        let mut promised = self.space.promised();
        promised.now = promised.now.less(durable);
    }

    /// Raises the limit: to what is wanted, if there is room for it by what was seen, and to some more.
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

    /// Lowers the limit, as the client says.
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
    use xfer_store::{Answer, Effect, Later, Placements, Undone};

    use super::*;

    /// The room of a disk, which is told and never asked.
    struct NoContents;

    impl Contents for NoContents {
        fn perform(&self, _: Vec<Effect>) -> Later<'_, Result<(), Undone>> {
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

    /// What is seen of a disk that can take so much beside its reserve.
    fn seen(space: &Space, free: Room) -> Seen {
        Seen { free, before: *space.promised() }
    }

    /// Whether an op fits, when the disk is asked if it has to be.
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
        // It is on the disk now, which the answer does not show.
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

    /// What a session may do next.
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
        /// Whatever sessions ask for, write, commit and give back: what is within a limit always
        /// fits on the disk beside the reserve.
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

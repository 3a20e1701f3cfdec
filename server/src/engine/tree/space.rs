//! Room on the disk, shared out to sessions: each is promised some before its client acknowledges
//! changes that the server does not have yet.
//!
//! **Invariant:** what is promised to sessions and not committed yet, and a reserve, fit on the disk,
//! as far as no other program fills it. So a client's change that was within its limit is never
//! refused, and on a disk that is full rows can be written: people log in and remove files.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use xfer_protocol::tree::{Limit, Room};
use xfer_store::{ContentStore, Disk, StoreError};

/// What a session is promised at most without asking for more: a log's worth.
const SHARE_MAX: Room = Room { bytes: 256 << 20, files: 4096 };

/// The part of what is available that a session gets without asking.
const SHARE_PARTS: u64 = 8;

/// The reserve for rows and their journal: a third of the disk, but no more than this.
const RESERVE_MAX: Room = Room { bytes: 128 << 20, files: 1024 };

/// As long as the disk can take this, nobody waits for room.
const PLENTY: Room = Room { bytes: 256 << 20, files: 8192 };

/// The room of one disk.
pub(crate) struct Space {
    disk: Box<dyn Fn() -> Result<Disk, StoreError> + Send + Sync>,
    /// What was promised and is not known to be used up.
    promised: Mutex<Room>,
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
    settled: Room,
}

impl Space {
    /// The room of the disk that has these contents, and the rows.
    pub(crate) fn new(contents: Arc<dyn ContentStore>) -> Arc<Space> {
        Space::over(move || contents.disk())
    }

    fn over(disk: impl Fn() -> Result<Disk, StoreError> + Send + Sync + 'static) -> Arc<Space> {
        Arc::new(Space { disk: Box::new(disk), promised: Mutex::default() })
    }

    /// A share of nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let none = Room::default();
        Share { space: self.clone(), limit: none, round: 0, used: none, settled: none }
    }

    /// What the disk can still take, but for the reserve.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) fn free(&self) -> Result<Room, StoreError> {
        let Disk { free, size } = (self.disk)()?;
        Ok(free.less(size.divided(3).min(RESERVE_MAX)))
    }

    /// Whether a commit should wait for the room that it gives back, since somebody may wait for it.
    pub(crate) fn is_scarce(&self) -> bool {
        // That it can't be asked is no reason to wait.
        self.free().is_ok_and(|free| !free.covers(PLENTY))
    }

    fn promised(&self) -> MutexGuard<'_, Room> {
        self.promised.lock()
    }
}

impl Share {
    /// The limit on the sum of what the session's ops take up.
    pub(crate) fn limit(&self) -> Limit {
        Limit { room: self.limit, round: self.round }
    }

    /// Takes an op into account. False if there is no room for it.
    pub(crate) fn admit(&mut self, room: Room) -> bool {
        let used = self.used.plus(room);
        let fits = room.is_none() || self.limit.covers(used) || {
            // A session without a client never asks.
            self.extend(used).is_ok() && self.limit.covers(used)
        };
        if fits {
            self.used = used;
        }
        fits
    }

    /// What the ops applied so far take up.
    pub(crate) fn used(&self) -> Room {
        self.used
    }

    /// Notes that ops that take up so much are committed.
    pub(crate) fn settle(&mut self, used: Room) {
        let settled = used.less(self.settled);
        self.settled = used;
        let mut promised = self.space.promised();
        *promised = promised.less(settled);
    }

    /// Raises the limit: to what is wanted, if there is room for it, and to some more. Gives what the
    /// disk can still take.
    ///
    /// # Errors
    /// If the disk can't be asked; the limit stays.
    pub(crate) fn extend(&mut self, wanted: Room) -> Result<Room, StoreError> {
        let mut promised = self.space.promised();
        let free = self.space.free()?;
        let available = free.less(*promised);
        let spare = self.limit.less(self.used);
        let generous = SHARE_MAX.less(spare).min(available.divided(SHARE_PARTS));
        let missing = wanted.less(self.limit);
        let extension = match available.covers(missing) {
            true => generous.max(missing),
            false => generous,
        };
        self.limit = self.limit.plus(extension);
        *promised = promised.plus(extension);
        Ok(free)
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
        *promised = promised.less(given);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.limit.less(self.settled);
        let mut promised = self.space.promised();
        *promised = promised.less(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: Room = Room { bytes: 300 << 20, files: 3000 };

    /// A disk with so much free, beside its reserve.
    fn disk(free: Room) -> (Arc<Space>, Arc<Mutex<Room>>) {
        let held = Arc::new(Mutex::new(free.plus(SIZE.divided(3))));
        let shown = held.clone();
        let space = Space::over(move || {
            let free = *shown.lock();
            Ok(Disk { free, size: SIZE })
        });
        (space, held)
    }

    fn bytes(bytes: u64) -> Room {
        Room { bytes, files: 0 }
    }

    #[test]
    fn one_session_can_have_all_that_is_there_to_the_last_byte() {
        let (space, _) = disk(bytes(1000));
        let mut share = space.share();
        assert!(share.admit(bytes(1000)));
        assert!(!share.admit(bytes(1)));
        assert!(share.admit(Room::default()));
    }

    #[test]
    fn what_one_session_was_promised_no_other_gets_until_it_is_given_back() {
        let (space, _) = disk(bytes(1000));
        let (mut first, mut second) = (space.share(), space.share());
        assert!(first.extend(bytes(900)).is_ok());
        assert!(!second.admit(bytes(200)));
        first.give_back(Limit { room: bytes(300), round: 1 });
        assert!(second.admit(bytes(700)));
        drop(first);
        assert!(second.admit(bytes(300)));
        assert!(!second.admit(bytes(1)));
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
            let (space, free) = disk(bytes(10_000));
            let mut shares: Vec<Share> = (0..4).map(|_| space.share()).collect();
            for step in steps {
                match step {
                    Step::Write(who, wanted) => {
                        let spare = shares[who].limit.less(shares[who].used);
                        let written = bytes(wanted).min(spare);
                        prop_assert!(shares[who].admit(written));
                        let mut free = free.lock();
                        prop_assert!(free.less(SIZE.divided(3)).covers(written));
                        *free = free.less(written);
                    }
                    Step::Commit(who) => {
                        let used = shares[who].used();
                        shares[who].settle(used);
                    }
                    Step::Ask(who, room) => {
                        let wanted = shares[who].used().plus(bytes(room));
                        prop_assert!(shares[who].extend(wanted).is_ok());
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
            prop_assert_eq!(*space.promised(), Room::default());
        }
    }
}

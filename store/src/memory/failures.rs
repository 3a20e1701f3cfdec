//! Wrong passwords in memory.

use super::{Memory, answer};
use crate::{Answer, Failures, ForgottenBefore, Pair, WrongPasswords};

impl Failures for Memory {
    fn of(&self, pairs: Vec<Pair>) -> Answer<'_, Vec<Option<WrongPasswords>>> {
        let state = self.lock();
        answer(Ok(pairs.iter().map(|pair| state.failures.get(pair).cloned()).collect()))
    }

    fn list(&self) -> Answer<'_, Vec<WrongPasswords>> {
        answer(Ok(self.lock().failures.values().cloned().collect()))
    }

    fn set(&self, failures: Vec<WrongPasswords>) -> Answer<'_, ()> {
        let mut state = self.lock();
        for one in failures {
            let pair = Pair { user: one.user.clone(), address: one.address.clone() };
            match one.count {
                0 => drop(state.failures.remove(&pair)),
                _ => drop(state.failures.insert(pair, one)),
            }
        }
        answer(Ok(()))
    }

    fn forget(&self, before: ForgottenBefore) -> Answer<'_, ()> {
        self.lock().failures.retain(|pair, one| {
            let bound = if pair.user.is_empty() { before.sources } else { before.users };
            one.last.secs().max(one.blocked_until.secs()) >= bound.secs()
        });
        answer(Ok(()))
    }
}

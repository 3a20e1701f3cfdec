//! Counts wrong passwords, and locks out the accounts and sources that have too many of them.
//!
//! Counts are kept for each account and source, and for each source alone (under the user ""). So a
//! source can't lock a user out elsewhere, and a source that guesses at many accounts is locked out as
//! well. Running sessions are not affected. The rule itself is in [`rule`].
//!
//! Lockouts run on a monotonic clock. The wall clock is used only to store them and to load them
//! after a restart. If it was set in between, a lockout lasts at worst its full length again.
//!
//! **Invariant:** an attempt is counted before it is checked, and uncounted if the password was right.
//! That it was wrong is written down, or is being written by another caller, before the client is told.
//! So a server that ends while it checks right passwords locks nobody out, and a guesser who makes it
//! end learns nothing.
//!
//! **Invariant:** counting needs only memory. No state is locked while the store is written, and at
//! most one caller waits for it; the other callers leave their changes to that one.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use xfer_protocol::Timestamp;
use xfer_store::{Failures, ForgottenBefore, Pair, WrongPasswords};

use crate::login::source::Source;

pub mod rule;

use rule::{Rule, Streak};

/// The most pairs in memory. Evicted ones are read from the store again.
const PAIRS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// Rows that no longer count are removed from the store after this many attempts.
const SWEEP_ATTEMPTS: u32 = 1024;

/// How many pairs are written at a time.
const WRITTEN_AT_ONCE: usize = 64;

/// The user name under which a source's wrong passwords for all accounts are counted.
const ANY_USER: &str = "";

/// Counts wrong passwords and decides about lockouts.
pub struct Lockouts {
    store: Arc<dyn Failures>,
    start: Instant,
    state: Mutex<Streaks>,
    /// Held by the thread that writes to the store.
    writing: Semaphore,
}

struct Streaks {
    known: LruCache<Pair, Option<Streak>>,
    /// Changes that are not in the store yet.
    unwritten: HashMap<Pair, Streak>,
    attempts_until_sweep: u32,
}

/// What the store has of some pairs.
type Stored = HashMap<Pair, Option<Streak>>;

/// A password that is being checked. While this server runs, it counts as wrong unless passed to
/// [`Lockouts::succeed`] or [`Lockouts::take_back`]; for good, once it is passed to [`Lockouts::fail`].
#[must_use]
pub struct Attempt {
    pair: Counted,
    source: Counted,
}

/// What an attempt did to one count.
struct Counted {
    of: Pair,
    before: Option<Streak>,
    made: Streak,
}

/// Attempts are refused for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockedOut {
    /// The time left, in seconds.
    pub seconds: u64,
}

impl Lockouts {
    /// Uses the counts in this store.
    pub fn new(store: Arc<dyn Failures>) -> Lockouts {
        let known = LruCache::new(PAIRS_MAX);
        let state = Streaks { known, unwritten: HashMap::new(), attempts_until_sweep: 0 };
        let (start, state, writing) = (Instant::now(), Mutex::new(state), Semaphore::new(1));
        Lockouts { store, start, state, writing }
    }

    /// Counts a password that is about to be checked. May wait for the store.
    ///
    /// # Errors
    /// If the account is locked out for this source, or the source for all accounts.
    pub async fn begin(&self, user: &str, source: Source) -> Result<Attempt, LockedOut> {
        let pair = Pair { user: user.to_owned(), address: source.to_string() };
        let source = Pair { user: ANY_USER.to_owned(), address: pair.address.clone() };
        let stored = self.read(&[&pair, &source]).await;
        self.count(pair, source, stored)
    }

    fn count(&self, pair: Pair, source: Pair, stored: Stored) -> Result<Attempt, LockedOut> {
        let mut state = self.lock();
        state.attempts_until_sweep = state.attempts_until_sweep.saturating_sub(1);
        let now_ms = self.now_ms();
        let of_pair = state.attempt(Rule::PAIR, pair, &stored, now_ms);
        let of_source = state.attempt(Rule::SOURCE, source, &stored, now_ms);
        match (of_pair, of_source) {
            (Ok(pair), Ok(source)) => {
                state.count(&pair.of, pair.made);
                state.count(&source.of, source.made);
                Ok(Attempt { pair, source })
            }
            (of_pair, of_source) => {
                let remaining_ms = of_pair.err().max(of_source.err()).unwrap_or(0);
                Err(LockedOut { seconds: (remaining_ms as u64).div_ceil(1000) })
            }
        }
    }

    /// Writes down an attempt whose password was wrong. May wait for the store.
    pub async fn fail(&self, attempt: Attempt) {
        {
            let mut state = self.lock();
            state.keep_count(&attempt.pair);
            state.keep_count(&attempt.source);
        }
        self.write_down().await;
    }

    /// Uncounts an attempt whose password could not be checked.
    pub fn take_back(&self, attempt: Attempt) {
        let mut state = self.lock();
        for (rule, counted) in [(Rule::PAIR, attempt.pair), (Rule::SOURCE, attempt.source)] {
            if let Some(streak) = state.known.get(&counted.of).copied().flatten() {
                let left = rule.forgive(streak, counted.before, counted.made);
                state.count(&counted.of, left);
            }
        }
    }

    /// Uncounts an attempt whose password was right. May wait for the store.
    ///
    /// This clears the account's count but not the source's: otherwise a guesser with an account
    /// could reset it at will.
    pub async fn succeed(&self, attempt: Attempt) {
        let Attempt { pair, source } = attempt;
        let stored = self.read(&[&source.of]).await;
        {
            let mut state = self.lock();
            let now_ms = self.now_ms();
            state.keep(&pair.of, Streak { count: 0, last_ms: now_ms, locked_until_ms: now_ms });
            if let Some(streak) = state.streak(&source.of, &stored) {
                let left = Rule::SOURCE.forgive(streak, source.before, source.made);
                state.keep(&source.of, left);
            }
        }
        self.write_down().await;
    }

    fn lock(&self) -> MutexGuard<'_, Streaks> {
        // No change made under this lock can panic halfway.
        self.state.lock()
    }

    fn now_ms(&self) -> i64 {
        self.start.elapsed().as_millis() as i64
    }

    /// What the store has of those pairs that are not known.
    async fn read(&self, pairs: &[&Pair]) -> Stored {
        let unknown: Vec<Pair> = {
            let mut state = self.lock();
            pairs.iter().filter(|pair| !state.knows(pair)).map(|pair| (*pair).clone()).collect()
        };
        if unknown.is_empty() {
            return Stored::new();
        }
        let stored = self.store.of(unknown.clone()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "wrong passwords cannot be read");
            Vec::new()
        });
        let streaks = stored.into_iter().map(|one| one.map(|one| self.stored_streak(&one)));
        unknown.into_iter().zip(streaks.chain(std::iter::repeat(None))).collect()
    }

    /// Writes all changes to the store, unless another thread is doing so: it then writes these, too.
    async fn write_down(&self) {
        while !self.lock().unwritten.is_empty() {
            let Ok(_writing) = self.writing.try_acquire() else { return };
            if self.is_sweep_due() {
                self.sweep().await;
            }
            loop {
                let some = self.unwritten();
                if some.is_empty() {
                    break;
                }
                let stored = some.iter().map(|(pair, streak)| self.to_stored(pair, *streak));
                // A failing store must not lock users out; the counts in memory go on.
                if let Err(error) = self.store.set(stored.collect()).await {
                    tracing::error!(%error, "wrong passwords cannot be written down");
                }
                let mut state = self.lock();
                some.iter().for_each(|(pair, streak)| state.is_written(pair, *streak));
            }
        }
    }

    fn unwritten(&self) -> Vec<(Pair, Streak)> {
        let state = self.lock();
        let some = state.unwritten.iter().take(WRITTEN_AT_ONCE);
        some.map(|(pair, streak)| (pair.clone(), *streak)).collect()
    }

    fn stored_streak(&self, failures: &WrongPasswords) -> Streak {
        let (now_ms, wall) = (self.now_ms(), SystemTime::now());
        let on_our_clock = |time: Timestamp| now_ms.saturating_add(millis_from(wall, time.into()));
        let streak = Streak {
            count: failures.count,
            last_ms: on_our_clock(failures.last).min(now_ms),
            locked_until_ms: on_our_clock(failures.blocked_until),
        };
        // Limit the lockout to its rule's length once, here; from now on it runs on a monotonic clock.
        let remaining_ms = rule_of(&failures.user).remaining_ms(streak, now_ms);
        Streak { locked_until_ms: now_ms + remaining_ms, ..streak }
    }

    fn to_stored(&self, pair: &Pair, streak: Streak) -> WrongPasswords {
        let (now_ms, wall) = (self.now_ms(), SystemTime::now());
        let on_the_wall = |time_ms: i64| {
            let distance = Duration::from_millis(time_ms.abs_diff(now_ms));
            let time = if time_ms >= now_ms { wall + distance } else { wall - distance };
            Timestamp::from(time)
        };
        WrongPasswords {
            user: pair.user.clone(),
            address: pair.address.clone(),
            count: streak.count,
            last: on_the_wall(streak.last_ms),
            blocked_until: on_the_wall(streak.locked_until_ms),
        }
    }

    fn is_sweep_due(&self) -> bool {
        let mut state = self.lock();
        let is_due = state.attempts_until_sweep == 0;
        if is_due {
            state.attempts_until_sweep = SWEEP_ATTEMPTS;
        }
        is_due
    }

    async fn sweep(&self) {
        let now = SystemTime::now();
        let forgotten_before = |rule: Rule| {
            Timestamp::from(now - Duration::from_millis(rule.forgotten_after_ms.unsigned_abs()))
        };
        let before = ForgottenBefore {
            users: forgotten_before(Rule::PAIR),
            sources: forgotten_before(Rule::SOURCE),
        };
        if let Err(error) = self.store.forget(before).await {
            tracing::error!(%error, "old wrong passwords cannot be removed");
        }
    }
}

impl Streaks {
    fn knows(&mut self, pair: &Pair) -> bool {
        self.known.get(pair).is_some() || self.unwritten.contains_key(pair)
    }

    /// What an attempt does to a count. The error is the time for which it is locked, in milliseconds.
    fn attempt(
        &mut self,
        rule: Rule,
        of: Pair,
        stored: &Stored,
        now_ms: i64,
    ) -> Result<Counted, i64> {
        let before = self.streak(&of, stored);
        let made = rule.attempt(before, now_ms)?;
        Ok(Counted { of, before, made })
    }

    /// What counts for a pair. Of one that is not known, that is what was stored.
    fn streak(&mut self, pair: &Pair, stored: &Stored) -> Option<Streak> {
        if let Some(known) = self.known.get(pair) {
            return *known;
        }
        if let Some(unwritten) = self.unwritten.get(pair) {
            return Some(*unwritten);
        }
        let streak = stored.get(pair).copied().flatten();
        self.known.put(pair.clone(), streak);
        streak
    }

    /// Counts in memory only.
    fn count(&mut self, pair: &Pair, streak: Streak) {
        self.known.put(pair.clone(), (streak.count > 0).then_some(streak));
    }

    fn keep(&mut self, pair: &Pair, streak: Streak) {
        self.count(pair, streak);
        self.unwritten.insert(pair.clone(), streak);
    }

    /// Keeps what counts by now; what the attempt made of it, if that is not known any more.
    fn keep_count(&mut self, counted: &Counted) {
        match self.known.get(&counted.of).copied() {
            // A right password has cleared it meanwhile.
            Some(None) => {}
            Some(Some(streak)) => self.keep(&counted.of, streak),
            None => self.keep(&counted.of, counted.made),
        }
    }

    /// Marks a change as written, unless the count has changed again since.
    fn is_written(&mut self, pair: &Pair, streak: Streak) {
        if self.unwritten.get(pair) == Some(&streak) {
            self.unwritten.remove(pair);
        }
    }
}

fn rule_of(user: &str) -> Rule {
    if user == ANY_USER { Rule::SOURCE } else { Rule::PAIR }
}

fn millis_from(from: SystemTime, to: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    }
}

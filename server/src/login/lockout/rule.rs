//! How many wrong passwords cause a lockout, and for how long. Pure: the time is passed in.
//!
//! **Invariant:** a lockout never lasts longer than the length for its count, whatever the clocks
//! say.

/// The length of the first lockout, in milliseconds. Each further wrong password doubles it.
pub const LOCKOUT_FIRST_MS: i64 = 30_000;

/// The longest lockout, in milliseconds.
pub const LOCKOUT_MAX_MS: i64 = 3_600_000;

/// The thresholds for counting wrong passwords.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The number of wrong passwords that causes the first lockout.
    pub lockout_at: u32,
    /// The time after the last attempt (and its lockout) until the streak is forgotten, in milliseconds.
    pub forgotten_after_ms: i64,
}

/// Consecutive wrong passwords. Times are in milliseconds of any one clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Streak {
    /// The number of wrong passwords.
    pub count: u32,
    /// The time of the last one.
    pub last_ms: i64,
    /// Until this time no attempt is accepted.
    pub locked_until_ms: i64,
}

impl Rule {
    /// Wrong passwords for one account from one source.
    pub const PAIR: Rule = Rule { lockout_at: 5, forgotten_after_ms: 24 * 3_600_000 };

    /// Wrong passwords from one source, for any accounts.
    pub const SOURCE: Rule = Rule { lockout_at: 20, forgotten_after_ms: 10 * 60_000 };

    /// The length of the lockout that this many wrong passwords cause.
    pub fn lockout_ms(self, count: u32) -> i64 {
        match count.checked_sub(self.lockout_at) {
            None => 0,
            // Sixteen doublings already exceed the longest lockout, and more might overflow.
            Some(further) => (LOCKOUT_FIRST_MS << further.min(16)).min(LOCKOUT_MAX_MS),
        }
    }

    /// The time left of a lockout; 0 if there is none.
    pub fn remaining_ms(self, streak: Streak, now_ms: i64) -> i64 {
        streak.locked_until_ms.saturating_sub(now_ms).clamp(0, self.lockout_ms(streak.count))
    }

    /// Whether the streak no longer counts.
    pub fn is_forgotten(self, streak: Streak, now_ms: i64) -> bool {
        let end_ms = streak.last_ms.max(streak.locked_until_ms);
        streak.count == 0 || now_ms.saturating_sub(end_ms) >= self.forgotten_after_ms
    }

    /// Counts a password that is about to be checked, as if it were wrong. So parallel attempts get
    /// no more guesses than consecutive ones.
    ///
    /// # Errors
    /// The time left of the lockout, in milliseconds; then nothing may be checked or counted.
    pub fn attempt(self, streak: Option<Streak>, now_ms: i64) -> Result<Streak, i64> {
        let streak = streak.filter(|streak| !self.is_forgotten(*streak, now_ms));
        let remaining_ms = streak.map_or(0, |streak| self.remaining_ms(streak, now_ms));
        if remaining_ms > 0 {
            return Err(remaining_ms);
        }
        let count = streak.map_or(0, |streak| streak.count).saturating_add(1);
        let locked_until_ms = now_ms.saturating_add(self.lockout_ms(count));
        Ok(Streak { count, last_ms: now_ms, locked_until_ms })
    }

    /// Uncounts an attempt whose password was right. `before` and `made` are the streaks before and
    /// after that attempt; `streak` is the present one, with other attempts made since.
    ///
    /// Without other attempts the times are restored, too: otherwise right passwords beside a few
    /// wrong ones would keep those from ever being forgotten. A lockout that another attempt caused
    /// stays, for as long as the remaining count stands for.
    pub fn forgive(self, streak: Streak, before: Option<Streak>, made: Streak) -> Streak {
        let count = streak.count.saturating_sub(1);
        let when = |streak: Streak| (streak.last_ms, streak.locked_until_ms);
        if when(streak) != when(made) || streak.count > made.count {
            return Streak { count, ..streak };
        }
        let (last_ms, locked_until_ms) = before.map_or((made.last_ms, made.last_ms), when);
        Streak { count, last_ms, locked_until_ms }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn after(count: u32, now_ms: i64) -> Streak {
        let locked_until_ms = now_ms + Rule::PAIR.lockout_ms(count);
        Streak { count, last_ms: now_ms, locked_until_ms }
    }

    #[test]
    fn the_fifth_wrong_password_locks_out_and_each_further_one_doubles_it_up_to_an_hour() {
        let seconds: Vec<i64> = (3..14).map(|n| Rule::PAIR.lockout_ms(n) / 1000).collect();
        assert_eq!(seconds, [0, 0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(Rule::PAIR.lockout_ms(u32::MAX), LOCKOUT_MAX_MS);
    }

    #[test]
    fn a_lockout_ends_and_the_next_wrong_password_brings_a_longer_one() {
        let streak = after(5, 0);
        assert_eq!(Rule::PAIR.attempt(Some(streak), 29_999), Err(1));
        let next = Rule::PAIR.attempt(Some(streak), 30_000).unwrap();
        assert_eq!(Rule::PAIR.remaining_ms(next, 30_000), 60_000);
    }

    #[test]
    fn a_day_after_the_last_lockout_all_is_forgotten() {
        let streak = after(9, 0);
        let end_ms = streak.locked_until_ms + Rule::PAIR.forgotten_after_ms;
        assert_eq!(Rule::PAIR.attempt(Some(streak), end_ms - 1).unwrap().count, 10);
        assert_eq!(Rule::PAIR.attempt(Some(streak), end_ms).unwrap().count, 1);
    }

    #[test]
    fn a_right_password_takes_back_all_that_its_attempt_did() {
        let before = after(5, 0);
        let made = Rule::PAIR.attempt(Some(before), 40_000).unwrap();
        assert_eq!(Rule::PAIR.forgive(made, Some(before), made), before);
        let made = Rule::PAIR.attempt(None, 40_000).unwrap();
        assert!(Rule::PAIR.is_forgotten(Rule::PAIR.forgive(made, None, made), 40_000));
    }

    #[test]
    fn a_right_password_leaves_the_lockout_that_another_attempt_brought() {
        let before = after(5, 0);
        let right = Rule::PAIR.attempt(Some(before), 30_000).unwrap();
        let wrong = Rule::PAIR.attempt(Some(right), 90_000).unwrap();
        let left = Rule::PAIR.forgive(wrong, Some(before), right);
        assert_eq!((left.count, left.last_ms), (6, 90_000));
        assert_eq!(Rule::PAIR.remaining_ms(left, 90_000), Rule::PAIR.lockout_ms(6));
    }

    proptest! {
        #[test]
        fn no_lockout_is_longer_than_its_count_stands_for(
            count in 0u32..100, last_ms: i64, locked_until_ms: i64, now_ms: i64,
        ) {
            let streak = Streak { count, last_ms, locked_until_ms };
            let remaining_ms = Rule::PAIR.remaining_ms(streak, now_ms);
            prop_assert!((0..=Rule::PAIR.lockout_ms(count)).contains(&remaining_ms));
        }

        #[test]
        fn guessing_at_any_times_gets_no_more_guesses_than_the_lockouts_leave(
            waits_ms in prop::collection::vec(0i64..100_000, 1..200),
        ) {
            let (mut now_ms, mut streak, mut tried) = (0, None, 0u32);
            for wait_ms in waits_ms {
                now_ms += wait_ms;
                if let Ok(next) = Rule::PAIR.attempt(streak, now_ms) {
                    streak = Some(next);
                    tried += 1;
                }
            }
            let least_ms: i64 = (1..tried).map(|n| Rule::PAIR.lockout_ms(n)).sum();
            prop_assert!(least_ms <= now_ms, "{tried} tries in {now_ms} ms");
        }
    }
}

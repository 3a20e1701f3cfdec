//! The size of a test's work and its time limit: what fits in a few minutes, unless tests/long.sh
//! asks for more.

use std::time::Duration;

/// The time limit of a test, unless `XFER_TEST_LIMIT_S` sets another.
const TIME_LIMIT_S: usize = 420;

/// A count, which the environment variable `variable` can raise.
pub fn count(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no count")),
        Err(_) => usual,
    }
}

/// The time limit of a test.
pub fn time_limit() -> Duration {
    Duration::from_secs(count("XFER_TEST_LIMIT_S", TIME_LIMIT_S) as u64)
}

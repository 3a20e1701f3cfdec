//! How much a test does, and how long it may take: what a few minutes allow, unless tests/long.sh
//! asks for all of it.

use std::time::Duration;

/// How long a test may take in all, unless `XFER_TEST_LIMIT_S` says otherwise.
const TIME_LIMIT_S: usize = 420;

/// A count that the environment variable `variable` can make larger.
pub fn count(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no count")),
        Err(_) => usual,
    }
}

/// How long a test may take in all.
pub fn time_limit() -> Duration {
    Duration::from_secs(count("XFER_TEST_LIMIT_S", TIME_LIMIT_S) as u64)
}

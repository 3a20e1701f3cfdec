//! Group commits and how long they take, and the failures that end sessions.

pub(crate) mod commit;
pub(crate) mod latency;
pub(crate) mod trouble;

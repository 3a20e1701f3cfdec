//! Group commits, and the failures that end sessions.

pub(crate) mod commit;
pub(crate) mod trouble;

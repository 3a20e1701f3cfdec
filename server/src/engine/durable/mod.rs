//! How ops become durable.

pub(crate) mod commit;
pub(crate) mod trouble;

//! How ops become durable, and how space that no row needs any more goes back to the disk.

pub(crate) mod commit;
pub(crate) mod trouble;
pub(crate) mod garbage;
pub(crate) mod leftovers;

//! System calls, by family: each does one operation on one side.

pub(super) mod data;
pub(super) mod mappings;
pub(super) mod locks;
pub(super) mod listings;
pub(super) mod naming;
pub(super) mod attributes;

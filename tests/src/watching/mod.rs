//! What tests look at: trees, their space, memory, and what was sent.

pub mod files;
pub mod snapshot;
pub mod space;
pub mod sending;
pub mod memory;

//! What tests look at: trees, their space, memory, what was sent, and what servers measure.

pub mod files;
pub mod snapshot;
pub mod space;
pub mod sending;
pub mod memory;
pub mod metrics;

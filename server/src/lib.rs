//! The xfer server: keeps users' trees and applies their sessions' logs to a store.

pub mod link;
pub mod store;

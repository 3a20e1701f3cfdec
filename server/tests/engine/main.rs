//! The engine over real stores, spoken to over pipes in memory by a scripted client.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod client;
mod crashes;
mod leftovers;
mod log;
mod memory;
mod reading;
mod resume;
mod secrets;
mod sending;
mod seats;
mod sessions;
mod space;
mod storage;
mod world;

//! Mounting and unmounting, and the programs around a mount.

mod main_job;
mod options;
mod commands;
mod messages;
mod said;
mod refusals;
mod waits;
mod stale;
mod status;
mod stats;
mod upgrades;

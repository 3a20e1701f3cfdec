//! The program around the sessions: how it starts and ends, what it says, and what may be asked of it.

pub mod serve;
pub mod systemd;
pub mod control;
pub mod console;
pub mod store_location;
pub mod waiting;
pub mod rights;
pub mod log;
pub mod exit;

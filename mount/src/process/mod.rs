//! The program as a process: how it goes into the background, what it says, and how it exits.

pub mod background;
pub mod signals;
pub mod sleep;
pub mod report;
#[cfg(target_os = "linux")]
pub mod notify;
pub mod output;
pub mod syslog;
pub mod exit;

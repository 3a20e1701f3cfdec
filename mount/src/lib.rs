//! Mounts an xfer server's storage as a directory.
//!
//! Reading order: `session` (what a login gives), `client` (the replica, the log and the caches),
//! `fuse` (the kernel's side), `connect` (how a session begins), `control` (`xfer status` and so on).

pub mod session;

pub mod cli;

pub mod options;

pub mod config;

pub mod helper;

pub mod connect;

pub mod exit;

pub mod client;

pub mod fuse;

pub mod background;

pub mod control;

pub mod mountinfo;

pub mod mountpoint;

pub mod holders;

pub mod unmounting;

pub mod stale;

pub mod password;

pub mod run;

pub mod syslog;

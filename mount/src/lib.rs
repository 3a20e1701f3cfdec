//! Mounts an xfer server's storage as a directory.
//!
//! Reading order: `fuse` (the kernel's side of `xfer-client`), `run` (a mount from start to end),
//! `control` (`xfer status` and the other commands).

pub mod cli;

pub mod options;

pub mod config;

pub mod helper;

pub mod exit;

pub mod fuse;

pub mod background;

pub mod control;

pub mod mountinfo;

pub mod mountpoint;

pub mod holders;

pub mod unmounting;

pub mod stale;

pub mod terminal;

pub mod password;

pub mod run;

pub mod syslog;

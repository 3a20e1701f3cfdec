//! Mounts an xfer server's storage as a directory.
//!
//! Reading order: [`fuse`] (the kernel's side of `xfer-client`), [`run`] (a mount from its start to its
//! end) with [`running`], [`operations`] (its counters), `session_note` and `offline`, [`account`] (`xfer login` and so on), [`at_login`] (`xfer mount`),
//! [`files`] (`xfer ls`, `xfer get` and so on), [`control`] (`xfer status` and so on), [`rescue`] (what did not reach the server), then what they use: [`command`] (the
//! command line), [`mountpoint`], [`process`].

pub mod fuse;
pub mod run;
pub mod account;
pub mod at_login;
pub mod files;
mod beginning;
mod reaching;
pub mod running;
mod session_note;
pub mod rescue;
mod offline;
mod losses;
pub mod operations;
pub mod control;
pub mod command;
pub mod mountpoint;
pub mod process;

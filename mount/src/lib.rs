//! Mounts an xfer server's storage as a directory.
//!
//! Reading order: [`fuse`] (the kernel's side of `xfer-client`), [`run`] (a mount from its start to its
//! end) with [`running`], [`operations`] (its counters), `session_note` and `offline`, [`account`] (`xfer login` and so on), [`at_login`] (`xfer mount`),
//! [`files`] (`xfer ls`, `xfer get` and so on), [`control`] (`xfer status` and so on), [`rescue`] (what did not reach the server), then what they use: [`command`] (the
//! command line), [`mountpoint`], [`process`].
//!
//! Mounts are Linux's. Elsewhere, `xfer` is built without what has to do with them.

#[cfg(target_os = "linux")]
pub mod fuse;
#[cfg(target_os = "linux")]
pub mod run;
pub mod xfer;
pub mod account;
#[cfg(target_os = "linux")]
pub mod at_login;
pub mod files;
mod beginning;
mod reaching;
#[cfg(target_os = "linux")]
pub mod running;
mod session_note;
#[cfg(target_os = "linux")]
pub mod rescue;
#[cfg(target_os = "linux")]
mod offline;
#[cfg(target_os = "linux")]
mod losses;
#[cfg(target_os = "linux")]
pub mod operations;
#[cfg(target_os = "linux")]
pub mod control;
pub mod command;
#[cfg(target_os = "linux")]
pub mod mountpoint;
pub mod process;

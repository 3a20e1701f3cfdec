//! The client of an xfer server, without a kernel or a command line. Everything that shows a tree
//! to programs stands on it.
//!
//! Reading order: [`connect`] (how a session begins), [`core`] (the state of a session: pure),
//! [`drive`] (links, timers and tasks around it), [`machine`], [`durable`] and [`offline`] (what
//! is kept on this machine's disk), [`files`] (a tree by path, for programs that are no mount).

pub mod connect;
pub mod core;
pub mod drive;
pub mod machine;
pub mod durable;
pub mod offline;
pub mod files;

//! What xfer's two sides agree on: the wire's messages, and the rules of the tree.
//!
//! This crate is pure: no I/O, no clock, no threads. Both `xfer-server` and `xfer-mount` run the
//! code in [`tree`]: the client predicts an outcome, the server decides it. Since both run the same
//! code, outcomes never need to be negotiated.
//!
//! Reading order: [`limits`], [`ids`], [`shown`], [`size`], [`name`], [`user`], then [`tree`] (nodes,
//! ops and rules), then [`message`] (the messages), [`invitation`], [`frame`] and [`codec`] (their encoding).

pub mod limits;
pub mod ids;
pub mod time;
pub mod errno;
pub mod shown;
pub mod size;
pub mod name;
pub mod user;
pub mod tree;
pub mod message;
pub mod invitation;
pub mod frame;
pub mod codec;

pub use errno::Errno;
pub use ids::{ContentId, DeliveryId, Epoch, IdRange, Ino, Seq, SessionId};
pub use name::Name;
pub use time::Timestamp;

//! A session as it begins: what the server granted, the open log link, and a way to open more.
//!
//! Made by `connect` from a real server, and by tests from anything that speaks the protocol.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use xfer_protocol::message::Grant;

/// The half of a link that is read.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The half of a link that is written.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Opens one more read link of the session.
pub type Dial = Arc<
    dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<(Reader, Writer)>> + Send>> + Send + Sync,
>;

/// A session that has just begun.
pub struct Session {
    /// What the server granted.
    pub grant: Grant,
    /// The log link's reading half.
    pub reader: Reader,
    /// The log link's writing half.
    pub writer: Writer,
    /// Opens read links.
    pub dial: Dial,
}

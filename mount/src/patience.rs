//! A stream that fails when its peer is silent for too long.
//!
//! Silence is the absence of bytes, not of whole frames: a large frame on a slow line takes its time
//! as long as bytes move.
//!
//! It is counted in short looks, and only those that end on time count. So the time in which this
//! process did not run (a busy machine, a stopped process) is never held against the peer, whose
//! bytes may have waited in the socket all the while: they are read before the next look begins.
//!
//! The server has much the same for itself, as it has for links.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Sleep;

/// How many looks in a row have to find nothing.
const LOOKS: u32 = 8;

/// The peer said nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the peer is silent")]
struct Silent;

/// Whether a stream failed since its peer was silent.
pub(crate) fn is_silence(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Silent>())
}

/// Counts looks in a row that found nothing.
pub(crate) struct Looks {
    len: Duration,
    empty: u32,
    /// Runs while somebody waits; time before does not count.
    look: Option<Pin<Box<Sleep>>>,
}

impl Looks {
    /// Enough of them take about `silence_max`.
    pub(crate) fn new(silence_max: Duration) -> Looks {
        Looks { len: silence_max / LOOKS, empty: 0, look: None }
    }

    /// Something was found: begins anew.
    pub(crate) fn found(&mut self) {
        (self.empty, self.look) = (0, None);
    }

    /// The end of a look, and whether enough of them found nothing.
    pub(crate) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let begin = || Box::pin(tokio::time::sleep(self.len));
        let look = self.look.get_or_insert_with(begin);
        ready!(look.as_mut().poll(cx));
        let on_time = look.deadline().elapsed() < self.len;
        self.empty += u32::from(on_time);
        self.look = None;
        Poll::Ready(self.empty >= LOOKS)
    }
}

/// The half of a link that is read, with a bound on how long it waits for the peer at a time.
pub(crate) struct Patient<S> {
    stream: S,
    looks: Looks,
    heard: Heard,
}

/// Counts how often bytes came over a link.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// How often they came so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, silence_max: Duration) -> Patient<S> {
        Patient { stream, looks: Looks::new(silence_max), heard: Heard::default() }
    }

    /// What counts its bytes.
    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Reads the first byte of what comes next, however long the peer has nothing to say.
    pub(crate) async fn first_byte(&mut self) -> io::Result<u8> {
        self.stream.read_u8().await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.looks.found();
            self.heard.0.fetch_add(1, Ordering::Relaxed);
            return polled;
        }
        while !ready!(self.looks.poll_look(cx)) {}
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Silent)))
    }
}

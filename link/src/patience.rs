//! A stream that fails when its peer is silent for too long.
//!
//! Silence is the absence of bytes, not of whole frames: a large frame may take its time on a slow
//! line as long as bytes move.
//!
//! The wait is divided into short *looks*, and a look counts only if it ends on time. So time in
//! which this process did not run (a busy machine, a stopped process) is never held against the
//! peer: its bytes may have waited in the socket, and they are read before the next look begins.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The number of consecutive looks without bytes that makes a peer silent.
const LOOKS: u32 = 8;

/// The peer sent no bytes, or accepted none, for too long.
#[derive(Debug, thiserror::Error)]
#[error("the peer is silent")]
struct Silent;

/// Whether a stream failed because its peer was silent.
pub fn is_silence(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Silent>())
}

/// Counts consecutive looks without bytes.
pub struct Looks {
    len: Duration,
    empty: u32,
    /// Runs only while a read or write waits; time before that does not count.
    look: Option<Pin<Box<Sleep>>>,
}

impl Looks {
    /// `LOOKS` of these take about `silence_max`.
    pub fn new(silence_max: Duration) -> Looks {
        Looks { len: silence_max / LOOKS, empty: 0, look: None }
    }

    /// Restarts the count: bytes moved.
    pub fn found(&mut self) {
        (self.empty, self.look) = (0, None);
    }

    /// Resolves at the end of a look: whether the peer is silent by now.
    pub fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.empty >= LOOKS {
            return Poll::Ready(true);
        }
        let begin = || Box::pin(tokio::time::sleep(self.len));
        let look = self.look.get_or_insert_with(begin);
        ready!(look.as_mut().poll(cx));
        let on_time = look.deadline().elapsed() < self.len;
        self.empty += u32::from(on_time);
        self.look = None;
        Poll::Ready(self.empty >= LOOKS)
    }
}

/// A link, or one direction of it, whose waits for the peer are bounded.
pub struct Patient<S> {
    stream: S,
    looks: Looks,
    heard: Heard,
    expectation: Expectation,
}

/// Whether the peer is expected to send something. While it is not, its silence does not count, and
/// a task that reads is not woken.
#[derive(Clone, Debug)]
pub struct Expectation(Arc<Mutex<Expected>>);

#[derive(Debug)]
struct Expected {
    now: bool,
    /// Wakes the task that reads once something is expected.
    reader: Option<Waker>,
}

impl Default for Expectation {
    fn default() -> Expectation {
        Expectation(Arc::new(Mutex::new(Expected { now: true, reader: None })))
    }
}

impl Expectation {
    /// Sets whether something is expected from now on.
    pub fn set(&self, expected: bool) {
        let waker = {
            let mut state = self.0.lock();
            if state.now == expected {
                return;
            }
            state.now = expected;
            state.reader.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether something is expected. If not, the task is woken once it is.
    fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        if !state.now {
            state.reader = Some(cx.waker().clone());
        }
        state.now
    }
}

/// Counts how often bytes arrived on a link.
#[derive(Clone, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// The number of arrivals so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Patient<S> {
    /// Wraps `stream` so that a wait fails after about `silence_max`.
    pub fn new(stream: S, silence_max: Duration) -> Patient<S> {
        let (heard, expectation) = (Heard::default(), Expectation::default());
        Patient { stream, looks: Looks::new(silence_max), heard, expectation }
    }

    /// Bounds only the waits in which the peer is expected to send something.
    #[must_use]
    pub fn expecting(self, expectation: Expectation) -> Patient<S> {
        Patient { expectation, ..self }
    }

    /// The counter of this stream's arrivals.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.looks.found();
            return polled;
        }
        if !self.expectation.poll(cx) {
            self.looks.found();
            return Poll::Pending;
        }
        while !ready!(self.looks.poll_look(cx)) {}
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Silent)))
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Reads the first byte of the next frame, without a bound: the peer may have nothing to send.
    pub async fn first_byte(&mut self) -> io::Result<u8> {
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
            self.heard.0.fetch_add(1, Ordering::Relaxed);
        }
        self.limit(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit(cx, polled)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, advance, sleep};

    const SILENCE: Duration = Duration::from_secs(8);

    fn pair() -> (Patient<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(16);
        (Patient::new(ours, SILENCE), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up_in_time() {
        let (mut ours, _theirs) = pair();
        let start = Instant::now();
        let error = ours.read_u8().await.unwrap_err();
        assert!(is_silence(&error), "{error}");
        assert!((SILENCE..SILENCE * 2).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_in_time() {
        let (mut ours, _theirs) = pair();
        let start = Instant::now();
        assert!(is_silence(&ours.write_all(&[0; 17]).await.unwrap_err()));
        assert!((SILENCE..SILENCE * 2).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_and_go_slowly_are_life() {
        let (mut ours, mut theirs) = pair();
        let start = Instant::now();
        let slow = tokio::spawn(async move {
            let mut back = [0; 100];
            for byte in 0..100 {
                sleep(SILENCE * 3 / 4).await;
                theirs.write_u8(byte).await.unwrap();
                theirs.read_exact(&mut back[byte as usize..=byte as usize]).await.unwrap();
            }
            back
        });
        let sent: [u8; 100] = std::array::from_fn(|index| index as u8 + 100);
        let (mut reader, mut writer) = tokio::io::split(&mut ours);
        let mut came = [0; 100];
        let (read, written) = tokio::join!(reader.read_exact(&mut came), writer.write_all(&sent));
        read.unwrap();
        written.unwrap();
        assert_eq!((came[99], slow.await.unwrap()), (99, sent));
        assert!(start.elapsed() > SILENCE * 50);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_this_process_did_not_run_is_not_held_against_the_peer() {
        let (mut ours, mut theirs) = pair();
        let reading = tokio::spawn(async move { ours.read_u8().await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
            // In one jump, as a stopped process sees it when it is continued.
            advance(SILENCE * 10).await;
        }
        assert!(!reading.is_finished());
        theirs.write_u8(7).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_moment_at_which_something_is_expected() {
        let (ours, _theirs) = pair();
        let expectation = Expectation::default();
        let mut ours = ours.expecting(expectation.clone());
        expectation.set(false);
        let reading = tokio::spawn(async move { ours.read_u8().await });
        sleep(SILENCE * 10).await;
        assert!(!reading.is_finished());
        expectation.set(true);
        let start = Instant::now();
        assert!(is_silence(&reading.await.unwrap().unwrap_err()));
        assert!((SILENCE..SILENCE * 2).contains(&start.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_frames_a_peer_may_be_silent() {
        let (mut ours, mut theirs) = pair();
        let reading = tokio::spawn(async move { ours.first_byte().await });
        sleep(SILENCE * 10).await;
        theirs.write_u8(7).await.unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 7);
    }
}

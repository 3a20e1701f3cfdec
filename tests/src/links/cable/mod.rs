//! Cables between clients and engines in memory: they can be cut, pulled, silent in one direction, or
//! stalled, delay what they carry, and record the ops or the kinds of messages that are sent.

mod gauge;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep, sleep_until};
use xfer_link::watch;
use xfer_protocol::Seq;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::ToServer;
use xfer_protocol::tree::{Action, Op};

use super::kinds::{Ear, Seen};
use gauge::Gauge;

pub use gauge::{Cut, Lane, LinkKind, Way};

const PIPE_BYTES: usize = 1 << 20;

/// How long the server's end of a log link stays open once the server has said something that does
/// not arrive: the user timeout of its TCP.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A cable. A link that it carried when it was pulled stays silent for ever, even once it is
/// plugged in again; one that was cut is closed at both ends. A log link that was stalled says later
/// what it was given, when another may have taken its place.
#[derive(Clone)]
pub struct Cable {
    state: Arc<watch::Sender<State>>,
    wiring: Wiring,
    /// By kind of link, then by direction.
    gauges: Arc<[[Gauge; 2]; 2]>,
}

/// The options of a cable.
#[derive(Clone, Default)]
pub struct Wiring {
    /// Records the ops that the client sends.
    pub tap: Option<Wiretap>,
    /// The delay of answers on read links.
    pub lag: Duration,
    /// The delay in each direction of log links. What is on its way is lost with its link.
    pub log_lag: Duration,
    /// The bandwidth for answers on a read link in bytes per second, if limited.
    pub bytes_per_s: Option<u32>,
    /// Records the kinds of all messages, if the links begin as on a real server.
    pub seen: Option<Seen>,
    /// Whether the client behaves as if it had used up most of its numbers.
    pub spends_numbers: bool,
}

/// An op that was sent to the server.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its seq in the log.
    pub seq: Seq,
    /// The op itself.
    pub op: Op,
    /// Its data, if it is a write; otherwise empty.
    pub data: Bytes,
}

/// Records all ops that a client sends.
#[derive(Clone, Default)]
pub struct Wiretap(Arc<Mutex<Vec<Said>>>);

#[derive(Clone, Copy, Default)]
struct State {
    /// The directions in which nothing is carried.
    silent: [bool; 2],
    /// How often it was plugged in again.
    plugs: u64,
    /// How often it was cut.
    cuts: u64,
    /// Whether it is stalled for links that were made before the last stall.
    is_stalled: bool,
    /// How often it was stalled.
    stalls: u64,
}

/// The most messages, or pieces of some, that are on their way in one direction of a delayed log link.
const ON_THE_WAY_MAX: usize = 10_000;

/// What is on its way in one direction of a log link, and when it arrives.
type OnTheWay = (Instant, Vec<u8>);

/// Where one direction of a log link ends.
type End = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

/// One link over a cable, or one direction of it.
#[derive(Clone)]
struct Link {
    cable: watch::Receiver<State>,
    /// The cable's state when the link was made.
    made: State,
    /// The direction of a log link; a read link has but one state.
    way: Option<Way>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carries {
    Everything,
    Nothing,
    /// Everything, but later.
    Stalled,
    /// It is closed at both ends.
    Closed,
}

impl Link {
    fn carries(&mut self) -> Carries {
        let State { silent, plugs, cuts, is_stalled, stalls } = self.cable.get();
        let is_silent = self.way.map_or(silent != [false; 2], |way| silent[way as usize]);
        if cuts != self.made.cuts {
            Carries::Closed
        } else if is_silent || plugs != self.made.plugs {
            Carries::Nothing
        } else if is_stalled && stalls != self.made.stalls && self.way.is_some() {
            Carries::Stalled
        } else {
            Carries::Everything
        }
    }

    /// Waits until the link carries nothing any more; for ever, if its owner is gone.
    async fn broken(&mut self) {
        self.until(|carries| matches!(carries, Carries::Nothing | Carries::Closed)).await;
    }

    /// Waits out a stall.
    async fn moving(&mut self) {
        self.until(|carries| carries != Carries::Stalled).await;
    }

    /// Waits until the link is closed; for ever, if its owner is gone.
    async fn closed(&mut self) {
        self.until(|carries| carries == Carries::Closed).await;
    }

    async fn until(&mut self, reached: impl Fn(Carries) -> bool) {
        while !reached(self.carries()) {
            if self.cable.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Keeps the ends of a pulled cable open, so that neither side sees the connection close.
    /// Returns when it is cut, or its owner is gone.
    async fn silence(mut self) {
        while self.carries() == Carries::Nothing && self.cable.changed().await.is_ok() {}
    }
}

impl Cable {
    /// A cable that is plugged in.
    pub fn new(wiring: Wiring) -> Cable {
        let state = Arc::new(watch::Sender::new(State::default()));
        Cable { state, wiring, gauges: Arc::default() }
    }

    /// Pulls the cable: from now on it silently drops everything.
    pub fn pull(&self) {
        self.state.send_modify(|state| state.silent = [true; 2]);
    }

    /// Drops everything in one direction, silently. As no answer comes, no new link can be made.
    pub fn silence(&self, way: Way) {
        self.state.send_modify(|state| state.silent[way as usize] = true);
    }

    /// Holds up what log links say that there are now. New ones can be made.
    pub fn stall(&self) {
        self.state.send_modify(|state| (state.is_stalled, state.stalls) = (true, state.stalls + 1));
    }

    /// Ends a stall: what was said meanwhile arrives, though the links' clients may be gone.
    pub fn release(&self) {
        self.state.send_modify(|state| state.is_stalled = false);
    }

    /// Plugs the cable in again, for new links.
    pub fn plug_in(&self) {
        self.state.send_modify(|state| {
            state.silent = [false; 2];
            state.plugs += 1;
        });
    }

    /// Closes all its links, at both ends. New ones can be made.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Loses all its links, which stay silent, as a router that forgets them does. New ones can be made.
    fn lose(&self) {
        self.state.send_modify(|state| state.plugs += 1);
    }

    /// Cuts in the middle of what is said, once links have carried so many more bytes in a direction:
    /// the cable, or only the read link that carried the last one.
    pub fn cut_after(&self, lane: impl Into<Lane>, bytes: u64) {
        self.end_after(lane, bytes, Cut::Closed);
    }

    /// Like [`Cable::cut_after`], in this way.
    pub fn end_after(&self, lane: impl Into<Lane>, bytes: u64, cut: Cut) {
        self.gauge(lane.into()).end_after(bytes, cut);
    }

    /// Takes back what was asked for last, if it has not happened.
    pub fn end_never(&self, lane: impl Into<Lane>) {
        self.gauge(lane.into()).end_never();
    }

    /// Whether the cut that was asked for last was made.
    pub fn was_cut(&self, lane: impl Into<Lane>) -> bool {
        self.gauge(lane.into()).has_ended()
    }

    /// The bytes that links have carried in a direction.
    pub fn carried(&self, lane: impl Into<Lane>) -> u64 {
        self.gauge(lane.into()).carried()
    }

    /// The cable's options.
    pub(super) fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    fn gauge(&self, Lane { kind, way }: Lane) -> &Gauge {
        &self.gauges[kind as usize][way as usize]
    }

    fn ear(&self, lane: Lane) -> Option<Ear> {
        self.wiring.seen.clone().map(|seen| Ear::new(seen, lane))
    }

    /// Whether a new link can be made.
    pub fn is_whole(&self) -> bool {
        self.state.get().silent == [false; 2]
    }

    fn link(&self, way: Option<Way>) -> Link {
        let mut cable = self.state.subscribe();
        Link { made: cable.get(), cable, way }
    }

    /// Makes a pair of ends for a read link.
    pub(super) fn lay_reads(&self) -> (DuplexStream, DuplexStream) {
        let (ours, near) = duplex(PIPE_BYTES);
        let (far, theirs) = duplex(PIPE_BYTES);
        let (mut from_client, mut to_client) = split(near);
        let (mut from_server, mut to_server) = split(far);
        let (cable, mut link) = (self.clone(), self.link(None));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = cable.carry_reads(Way::Up, &mut from_client, &mut to_server) => {}
                _ = cable.carry_reads(Way::Down, &mut from_server, &mut to_client) => {}
                () = link.broken() => link.clone().silence().await,
            }
        });
        (ours, theirs)
    }

    /// Makes a pair of ends for the log link.
    pub(super) fn lay_log(&self) -> (DuplexStream, DuplexStream) {
        let (ours, near) = duplex(PIPE_BYTES);
        let (far, theirs) = duplex(PIPE_BYTES);
        let (mut from_client, to_client) = split(near);
        let (mut from_server, to_server) = split(far);
        let (to_client, to_server): (End, End) = (shared(to_client), shared(to_server));
        let to_server_too = to_server.clone();
        let (mut up, mut down) = (self.link(Some(Way::Up)), self.link(Some(Way::Down)));
        let (tap, upward, downward) = (self.wiring.tap.clone(), self.clone(), self.clone());
        tokio::spawn(async move {
            let carried = async {
                match tap {
                    Some(tap) => {
                        upward.carry_up(tap, up.clone(), &mut from_client, &to_server).await;
                    }
                    None => upward.carry(Way::Up, up.clone(), &mut from_client, &to_server).await,
                }
            };
            let mut closing = up.clone();
            tokio::select! {
                biased;
                () = carried => {}
                () = closing.closed() => {}
            }
            if up.carries() == Carries::Nothing {
                up.silence().await;
            } else {
                // The server may already have closed its end.
                close(&to_server).await;
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = downward.carry(Way::Down, down.clone(), &mut from_server, &to_client) => {
                    close(&to_client).await;
                }
                () = down.broken() => {
                    tokio::select! {
                        biased;
                        () = down.silence() => {}
                        never = give_up(&mut from_server, &to_server_too) => match never {},
                    }
                }
            }
        });
        (ours, theirs)
    }
}

fn shared(end: WriteHalf<DuplexStream>) -> End {
    Arc::new(tokio::sync::Mutex::new(end))
}

/// Says no more to an end, which may be closed already.
async fn close(end: &End) {
    let _ = end.lock().await.shutdown().await;
}

/// Closes the server's end once it has said something that nobody acknowledges. The client is not
/// told.
async fn give_up(from_server: &mut ReadHalf<DuplexStream>, to_server: &End) -> Infallible {
    if from_server.read_u8().await.is_ok() {
        sleep(UNACKNOWLEDGED).await;
        close(to_server).await;
    }
    std::future::pending().await
}

impl Cable {
    /// Carries bytes in one direction of a log link, until there are no more or the cable is cut. A
    /// pulled cable drops them.
    async fn carry(&self, way: Way, link: Link, from: &mut ReadHalf<DuplexStream>, to: &End) {
        let (queue, arriving) = channel(self.on_the_way_max());
        let setting_off = async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(len @ 1..) = from.read(&mut buffer).await {
                if queue.send((self.arrival(), buffer[..len].to_vec())).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(setting_off, self.arrive(way, link, arriving, to));
    }

    /// Carries what a client says on its log link, until it says no more.
    async fn carry_up(
        &self,
        tap: Wiretap,
        link: Link,
        from: &mut ReadHalf<DuplexStream>,
        to: &End,
    ) {
        let (queue, arriving) = channel(self.on_the_way_max());
        let setting_off = async move {
            while let Ok((message, data)) =
                xfer_link::receive::<ToServer, _>(from, Bounds::OPEN).await
            {
                // The tap also records ops that don't arrive.
                tap.note(&message, &data);
                let mut frame = Vec::new();
                // Memory takes everything, and the frame was within these bounds.
                let _ = xfer_link::send(&mut frame, &message, &data, Bounds::OPEN).await;
                let _ = queue.send((self.arrival(), frame)).await;
            }
        };
        tokio::join!(setting_off, self.arrive(Way::Up, link, arriving, to));
    }

    /// Has what is on its way arrive in time, in order, until there is no more.
    async fn arrive(&self, way: Way, mut link: Link, mut arriving: Receiver<OnTheWay>, to: &End) {
        let mut ear = self.ear(way.into());
        while let Some((arrival, said)) = arriving.recv().await {
            if !self.wiring.log_lag.is_zero() {
                sleep_until(arrival).await;
            }
            link.moving().await;
            if link.carries() != Carries::Everything {
                continue;
            }
            tokio::select! {
                biased;
                passed = self.pass(way, &mut ear, &said, to) => if passed.is_err() { return },
                () = link.broken() => {}
            }
        }
    }

    /// When something arrives that is said now on a log link.
    fn arrival(&self) -> Instant {
        Instant::now() + self.wiring.log_lag
    }

    /// How much may be on its way at once: without a delay, the ends themselves hold enough.
    fn on_the_way_max(&self) -> usize {
        if self.wiring.log_lag.is_zero() { 1 } else { ON_THE_WAY_MAX }
    }

    /// Passes on what is said on a log link, or a part of it if the link ends there.
    async fn pass(&self, way: Way, ear: &mut Option<Ear>, said: &[u8], to: &End) -> io::Result<()> {
        let gauge = self.gauge(way.into());
        let passed = gauge.pass(said.len());
        ear.iter_mut().for_each(|ear| ear.hear(&said[..passed]));
        to.lock().await.write_all(&said[..passed]).await?;
        if passed < said.len() {
            match gauge.cut() {
                Cut::Closed => self.cut(),
                Cut::Silent => self.lose(),
            }
        }
        Ok(())
    }

    /// Carries bytes in one direction of a read link, until there are no more or it is cut. Answers
    /// have the cable's delay and bandwidth.
    async fn carry_reads(
        &self,
        way: Way,
        from: &mut ReadHalf<DuplexStream>,
        to: &mut WriteHalf<DuplexStream>,
    ) -> io::Result<()> {
        let Wiring { lag, bytes_per_s, .. } = self.wiring;
        let lane = Lane { kind: LinkKind::Read, way };
        let (mut buffer, mut ear) = (vec![0; 64 << 10], self.ear(lane));
        if way == Way::Down && bytes_per_s.is_some() {
            buffer.truncate(4 << 10);
        }
        loop {
            let len = from.read(&mut buffer).await?;
            let on_line = |bytes| Duration::from_secs(len as u64) / bytes;
            let late = lag + bytes_per_s.map_or(Duration::ZERO, on_line);
            if way == Way::Down && !late.is_zero() && len > 0 {
                sleep(late).await;
            }
            let passed = self.gauge(lane).pass(len);
            ear.iter_mut().for_each(|ear| ear.hear(&buffer[..passed]));
            to.write_all(&buffer[..passed]).await?;
            if passed < len && self.gauge(lane).cut() == Cut::Silent {
                return std::future::pending().await;
            }
            if len == 0 || passed < len {
                return Ok(());
            }
        }
    }
}

impl Wiretap {
    /// Takes the ops recorded since the last call.
    pub fn take(&self) -> Vec<Said> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The last op recorded since then.
    pub fn last(&self) -> Option<Seq> {
        self.0.lock().unwrap().last().map(|said| said.seq)
    }

    fn note(&self, message: &ToServer, data: &Bytes) {
        let ToServer::Ops { first, ops } = message else { return };
        let mut at = 0;
        let said = ops.iter().zip(first.0..).map(|(op, seq)| {
            let len = if let Action::Write { len, .. } = op.action { len as usize } else { 0 };
            at += len;
            Said { seq: Seq(seq), op: op.clone(), data: data.slice(at - len..at) }
        });
        self.0.lock().unwrap().extend(said);
    }
}

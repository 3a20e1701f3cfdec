//! One direction of a cable: packets leave in order, each after its time on the line plus half the
//! round trip, and never earlier.

use std::collections::VecDeque;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Cable;
use super::faults::Faults;
use super::packet::{Shape, shape};
use super::traffic::{Meter, Way};
use super::tun::{PACKET_BYTES_MAX, Tun};

/// The bytes that may wait for the line, beyond one round trip's worth.
const QUEUE_BYTES: u64 = 4 << 20;

/// The bytes that may be in flight on a line without a bandwidth limit.
const UNLIMITED_BYTES: u64 = 64 << 20;

/// One direction of a cable.
pub(super) struct Wire {
    from: Arc<Tun>,
    to: Arc<Tun>,
    meter: Arc<Meter>,
    way: Way,
    /// Packets that these take are not counted.
    faults: Arc<Faults>,
    delay: Duration,
    bytes_per_s: Option<f64>,
    /// The most bytes in flight or waiting.
    bytes_max: u64,
    under_way: VecDeque<Sent>,
    bytes: u64,
    /// The time when the line is free for the next packet.
    free: Instant,
}

struct Sent {
    due: Instant,
    shape: Shape,
    chain: u64,
    packet: Box<[u8]>,
}

impl Wire {
    pub(super) fn new(
        cable: Cable,
        from: Arc<Tun>,
        to: Arc<Tun>,
        (meter, way): (Arc<Meter>, Way),
        faults: Arc<Faults>,
    ) -> Wire {
        let bytes_per_s = cable.bits_per_s.map(|bits| bits as f64 / 8.0);
        let in_a_round_trip = |rate: f64| (rate * cable.round_trip.as_secs_f64()) as u64;
        // Half a round trip's worth is in flight; the other half and the queue wait for the line.
        let bytes_max =
            bytes_per_s.map_or(UNLIMITED_BYTES, |r| in_a_round_trip(r) * 3 / 2 + QUEUE_BYTES);
        let delay = cable.round_trip / 2;
        let (under_way, free) = (VecDeque::new(), Instant::now());
        Wire {
            from,
            to,
            meter,
            way,
            faults,
            delay,
            bytes_per_s,
            bytes_max,
            under_way,
            bytes: 0,
            free,
        }
    }

    /// Carries packets until the other end of `ended` is closed.
    pub(super) fn carry(mut self, ended: &OwnedFd) {
        // Waking up late would add delay, so run without timer slack and with the highest priority.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
        let _ = rustix::process::setpriority_process(None, -20);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while self.wait(ended) {
            while let Some(len) = self.from.read(&mut buffer) {
                self.take(&buffer[..len]);
                self.deliver();
            }
            self.deliver();
        }
    }

    /// Waits for a packet to arrive or become due; returns whether to go on.
    fn wait(&self, ended: &OwnedFd) -> bool {
        let due = self.under_way.front().map(|sent| sent.due);
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).expect("a short time"));
        let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        let _ = poll(&mut fds, left.as_ref());
        fds[1].revents().is_empty()
    }

    fn take(&mut self, packet: &[u8]) {
        if self.faults.takes(self.way) {
            return;
        }
        let shape = shape(packet);
        let chain = self.meter.leaves(self.way, shape);
        if self.bytes + shape.bytes > self.bytes_max {
            self.meter.drops();
            return;
        }
        let now = Instant::now();
        let on_line = self.bytes_per_s.map_or(0.0, |rate| shape.bytes as f64 / rate);
        self.free = self.free.max(now) + Duration::from_secs_f64(on_line);
        self.bytes += shape.bytes;
        let due = self.free + self.delay;
        self.under_way.push_back(Sent { due, shape, chain, packet: packet.into() });
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.under_way.front().is_some_and(|sent| sent.due <= now) {
            let Some(sent) = self.under_way.pop_front() else { return };
            self.bytes -= sent.shape.bytes;
            self.meter.arrives(self.way, sent.shape, sent.chain);
            if !self.to.write(&sent.packet) {
                self.meter.drops();
            }
        }
    }
}

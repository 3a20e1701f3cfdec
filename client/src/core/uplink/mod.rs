//! The log link's side of the core: what is to go up, and what the server allows.
//!
//! Reading order: [`log`] (ops until they are durable), [`rate`] (how fast they become so),
//! [`numbers`] and [`disk_room`] (what the server granted), [`outgoing`] (what goes out next),
//! [`incoming`] (what the server says).

mod rate;
mod log;
mod numbers;
mod disk_room;
mod outgoing;
mod incoming;

use std::time::{Duration, Instant};

use xfer_protocol::Seq;
use xfer_protocol::message::Grant;

pub(crate) use incoming::Then;
pub(crate) use log::Group;
pub(crate) use outgoing::Outgoing;

use disk_room::DiskRoom;
use log::Log;
use numbers::Numbers;

/// All that belongs to the log link.
#[derive(Debug)]
pub(in crate::core) struct Uplink {
    pub(in crate::core) log: Log,
    /// The last op that a program, or another user, waits for.
    pub(in crate::core) barrier: Seq,
    pub(in crate::core) numbers: Numbers,
    pub(in crate::core) disk_room: DiskRoom,
    pub(in crate::core) heartbeat: Heartbeat,
    /// What was said over the present link.
    sent: Sent,
}

/// What was said over a link so far.
#[derive(Debug, Default)]
struct Sent {
    barrier: Seq,
    bytes_since_barrier: usize,
    logout: bool,
}

/// Signs of life of a quiet link.
#[derive(Debug, Default)]
pub(in crate::core) struct Heartbeat {
    /// When one was asked for, until it comes.
    pinged: Option<Instant>,
    /// How long the last one took.
    pub(in crate::core) round_trip: Option<Duration>,
}

impl Uplink {
    pub(in crate::core) fn new(grant: &Grant, log_bytes: usize) -> Uplink {
        Uplink {
            log: Log::new(grant.applied, log_bytes),
            barrier: Seq::default(),
            numbers: Numbers::new(grant.ids),
            disk_room: DiskRoom::new(grant.disk, grant.limit),
            heartbeat: Heartbeat::default(),
            sent: Sent::default(),
        }
    }

    /// Makes everything that is not durable unsent, and forgets what was asked over a link that broke:
    /// the next link carries it again.
    pub(in crate::core) fn rewind(&mut self) {
        self.log.rewind();
        self.numbers.rewind();
        self.disk_room.rewind();
        self.heartbeat.pinged = None;
        self.sent = Sent::default();
    }
}

//! The core's side of the log link: what goes up, and what the server has granted.
//!
//! Reading order: [`log`] (ops until they are durable), [`rate`] (how fast they become so),
//! [`numbers`] and [`disk_room`] (what the server granted), [`outgoing`] (the next frame to send),
//! [`incoming`] (messages from the server).

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
pub(in crate::core) use log::Astray;
pub(crate) use log::Group;
pub(crate) use numbers::can_be_granted;
pub(crate) use outgoing::Outgoing;

use disk_room::DiskRoom;
use log::Log;
use numbers::Numbers;

/// The state of the log link.
#[derive(Debug)]
pub(in crate::core) struct Uplink {
    pub(in crate::core) log: Log,
    /// The seq of the last op that a program, or another user, waits for.
    pub(in crate::core) barrier: Seq,
    pub(in crate::core) numbers: Numbers,
    pub(in crate::core) disk_room: DiskRoom,
    pub(in crate::core) heartbeat: Heartbeat,
    /// The messages sent over the current link.
    sent: Sent,
}

/// The messages sent over a link so far, besides ops. They are lost with the link.
#[derive(Debug, Default)]
struct Sent {
    /// The seq up to which a commit was asked for.
    barrier: Seq,
    /// The data of ops sent since the last early barrier, in bytes.
    bytes_since_barrier: usize,
    logout: bool,
    yielded: bool,
}

/// Pings on a quiet link.
#[derive(Debug, Default)]
pub(in crate::core) struct Heartbeat {
    /// When the last ping was sent, until its answer comes.
    pinged: Option<Instant>,
    /// How long the last answer took.
    pub(in crate::core) round_trip: Option<Duration>,
}

impl Uplink {
    pub(in crate::core) fn new(grant: &Grant, log_bytes: usize) -> Uplink {
        Uplink {
            log: Log::new(grant.applied, log_bytes),
            barrier: Seq::default(),
            numbers: Numbers::new(&grant.ids),
            disk_room: DiskRoom::new(grant.disk, grant.limit),
            heartbeat: Heartbeat::default(),
            sent: Sent::default(),
        }
    }

    /// Goes on over a new link, which [`Log::check`] has found to fit.
    pub(in crate::core) fn resume(&mut self, grant: &Grant, now: Instant) {
        self.log.resume(grant.applied, now);
        self.numbers.resume(&grant.ids);
        self.disk_room.resume(grant.disk, grant.limit, self.log.room());
    }

    /// Prepares for a new link, which carries everything again that is not durable, and every
    /// question that was not answered.
    pub(in crate::core) fn rewind(&mut self) {
        self.log.rewind();
        self.numbers.rewind();
        self.disk_room.rewind();
        self.heartbeat.pinged = None;
        self.sent = Sent::default();
    }
}

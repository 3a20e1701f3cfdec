//! A core to test with, and how its session ends.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use xfer_protocol::message::{Grant, Secret, Silence};
use xfer_protocol::tree::{Quota, Room, Usage};
use xfer_protocol::{Epoch, IdRange, Name, Seq, SessionId, Timestamp};

use super::link::{Ending, Link, LinkLoss};
use super::options::{Options, Owners};
use super::state::Core;
use super::time::Now;

/// The grant of a session of an empty tree.
pub(in crate::core) fn grant() -> Grant {
    Grant {
        session: SessionId([0; 16]),
        secret: Secret([0; 32]),
        resume: Secret([0; 32]),
        epoch: Epoch(1),
        applied: Seq(0),
        user: Name::new(b"alice").unwrap(),
        silence: Silence::default(),
        ids: vec![IdRange { first: 5000, end: 6000 }],
        usage: Usage::default(),
        quota: Quota::UNLIMITED,
        disk: Room::default(),
        limit: Room::default(),
        users: Vec::new(),
        deliveries: Vec::new(),
    }
}

/// The core of a session that has just begun.
pub(in crate::core) fn core() -> Core {
    let (cache_bytes, log_bytes, tree_bytes) = (1 << 20, 1 << 20, 1 << 20);
    let (owners, label) = (Owners::Stored, String::new());
    let wait = Some(Duration::from_secs(30));
    let (offline_bytes, handoff, silence) = (None, false, Silence::default());
    let options = Options {
        cache_bytes,
        log_bytes,
        tree_bytes,
        owners,
        label,
        wait,
        offline_bytes,
        handoff,
        silence,
    };
    let now = Now { monotonic: Instant::now(), wall: Timestamp::default() };
    Core::new(&grant(), &options, [0; 16], now)
}

#[test]
fn a_session_that_was_drained_ends_for_the_reason_it_was_asked_to() {
    let mut core = core();
    core.begin_drain(Ending::LoggedOut);
    assert!(core.end(Ending::LinkLost(LinkLoss::Closed), ""));
    assert_eq!(core.session.link, Link::Over(Ending::LoggedOut));
    assert!(!core.end(Ending::Fault, ""));
}

#[test]
fn the_drive_is_told_once_that_a_draft_is_to_be_tried_again() {
    let mut core = core();
    core.outbox.resend = true;
    assert!(core.take_effects().look_again);
    assert!(!core.take_effects().look_again, "it would wake itself for ever");
    assert_eq!(core.take_outbox_due().map(|due| due.resend), Some(true));
    core.outbox.resend = true;
    assert!(core.take_effects().look_again);
}

//! A standing seat: its session lost the link, and the client may come back to it.
//!
//! A session in memory lives as long as its log link. Its seat stands on for a lease, so that
//! nobody else takes the tree while the client is away for a moment. The lease is judged when
//! somebody asks, so no timer is needed. It keeps others out, but not the client: a session whose
//! seat nobody took can be resumed however late. A client that only waits for a free seat does not
//! get one that stands. One whose lease has passed is forgotten.

use std::time::Duration;

use tokio::time::Instant;
use xfer_protocol::limits::{LEASE_ASKED_MS, LEASE_MS};
use xfer_protocol::message::Refusal;
use xfer_protocol::{Epoch, Seq, SessionId};
use xfer_store::{Account, Resumable};

use crate::engine::seats::seat::Who;
use crate::engine::session::counters::Counts;
use crate::engine::session::{Session, SessionInfo};
use crate::login::authority::Authority;

/// The longest time that a seat stands.
const LEASE: Duration = Duration::from_millis(LEASE_MS);

/// The longest time that a seat stands once somebody else has asked for it.
const LEASE_ASKED: Duration = Duration::from_millis(LEASE_ASKED_MS);

/// A seat without a link.
pub(crate) struct Standing {
    pub(crate) session: SessionId,
    pub(crate) who: Who,
    /// When the client was lost.
    since: Instant,
    /// The session's epoch and its last op. Everything is durable.
    position: (Epoch, Seq),
    /// When somebody else first asked for the seat.
    asked: Option<Instant>,
    /// Whether the client knows of its session.
    pub(crate) is_heard: bool,
}

impl Standing {
    /// The seat that a session leaves.
    pub(crate) fn left_by(session: &Session, since: Instant) -> Standing {
        let position = (session.position.epoch().unwrap_or_default(), session.position.durable());
        // A client that was refused just now waits since then.
        let asked = session.seat.asked().filter(|asked| *asked + LEASE_ASKED > since);
        let is_heard = session.seat.is_heard();
        let (session, who) = (session.seat.id, session.seat.who.clone());
        Standing { session, who, since, position, asked, is_heard }
    }

    /// The seat of a session in the store, which its client may resume.
    pub(crate) fn found(known: &Resumable, account: &Account, since: Instant) -> Standing {
        let authority = Authority::of(known, account);
        let who = Who::of(account.id, &account.name, known, authority);
        let position = (account.epoch, account.applied);
        Standing { session: known.session, who, since, position, asked: None, is_heard: true }
    }

    pub(crate) fn info(&self, now: Instant) -> SessionInfo {
        let (epoch, applied) = self.position;
        SessionInfo {
            user: self.who.user.clone(),
            host: self.who.host.clone(),
            address: self.who.address.clone(),
            since: self.who.since,
            away: Some(now.saturating_duration_since(self.since)),
            epoch,
            applied,
            durable: applied,
            counts: Counts::default(),
        }
    }

    /// Whether it stands no longer, though nobody has asked for it.
    pub(crate) fn has_lapsed(&self, now: Instant) -> bool {
        now >= self.since + LEASE
    }

    /// Asks for the seat in favour of another client. Refused while the lease lasts, unless the client
    /// does not know of its session.
    pub(crate) fn ask(&mut self, now: Instant) -> Result<(), Refusal> {
        if !self.is_heard {
            return Ok(());
        }
        let asked = *self.asked.get_or_insert(now);
        let end = (self.since + LEASE).min(asked + LEASE_ASKED);
        if now < end { Err(self.who.in_use()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use xfer_protocol::{Name, Timestamp};
    use xfer_store::AccountId;

    fn seat(since: Instant) -> Standing {
        let who = Who::of(
            AccountId(1),
            &Name::new(b"alice").unwrap(),
            &Resumable {
                session: SessionId([1; 16]),
                key: Default::default(),
                secret: Default::default(),
                shown: Default::default(),
                host: "host".to_owned(),
                address: "address".to_owned(),
                since: Timestamp::default(),
                attempt: 0,
                device: None,
            },
            Authority::Password("hash".to_owned()),
        );
        let position = (Epoch(1), Seq(1));
        let session = SessionId([1; 16]);
        Standing { session, who, since, position, asked: None, is_heard: true }
    }

    /// Asks at these seconds. All but the last are refused.
    fn check(seconds: &[f64]) {
        let since = Instant::now();
        let mut seat = seat(since);
        let (last, before) = seconds.split_last().unwrap();
        let mut ask = |at: &f64| seat.ask(since + Duration::from_secs_f64(*at));
        for at in before {
            assert!(matches!(ask(at), Err(Refusal::InUse { .. })), "{at} of {seconds:?}");
        }
        assert_eq!(ask(last), Ok(()), "{seconds:?}");
    }

    #[test]
    fn a_seat_stands_until_45_s_after_somebody_asked_and_no_longer_than_5_min() {
        check(&[0.0, 1.0, 44.9, 45.0]);
        check(&[100.0, 100.1, 144.9, 145.0]);
        check(&[299.9, 300.0]);
        check(&[290.0, 300.0]);
        check(&[10_000.0]);
    }
}

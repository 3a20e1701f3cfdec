//! The next frame for the log link.
//!
//! The order of preference matters:
//!
//! 1. Questions for numbers and room, since programs wait for the answers and the frames are short.
//! 2. A barrier, as soon as all ops up to it were sent. The server then commits while later ops are
//!    in flight.
//! 3. Ops.
//! 4. A barrier for a full log, when all ops were sent: only a commit makes room in it.
//! 5. The logout, when everything is durable; the word that the seat is given up; or the end of the
//!    link, if the server is stopping.
//!
//! An op for which the server's disk has no room is held back, with all later ones, and the server is
//! asked for room again with each ping. That can only happen after a break of the link: others may
//! have used the room meanwhile that was there when the program made the change, or the disk had less
//! than it said.
//!
//! Nothing is written to the link from here. The drive writes, and decides when a ping is due.
//!
//! **Invariant:** a barrier covers only ops that were sent before it.

use bytes::Bytes;
use xfer_protocol::message::ToServer;

use super::Uplink;
use super::log::Group;
use crate::core::away::Seat;
use crate::core::state::Core;

/// While programs wait for room in the log, a commit is asked for each time that this much data was
/// sent, in bytes. The server makes it durable while the rest is in flight.
const BARRIER_BYTES: usize = 8 << 20;

/// A frame for the log link.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Ops with their data.
    Ops(Group),
    /// Anything else, without data.
    Message(ToServer),
    /// Nothing more: the link is to be closed, since the server is stopping.
    Close,
}

impl Core {
    /// The next frame to send, if there is one.
    pub(crate) fn poll_outgoing(&mut self) -> Option<Outgoing> {
        if !self.session.is_up() {
            return None;
        }
        self.question()
            .or_else(|| self.early_barrier())
            .or_else(|| self.ops())
            .or_else(|| self.late_barrier())
            .or_else(|| self.logout())
            .or_else(|| self.yielding())
            .or_else(|| self.parting())
    }

    /// Whether [`Core::poll_outgoing`] may have something to send.
    pub(in crate::core) fn has_outgoing(&self) -> bool {
        let uplink = &self.uplink;
        uplink.log.last_sent() < uplink.log.last()
            || uplink.barrier > uplink.log.durable()
            || uplink.numbers.are_low()
            || uplink.disk_room.has_question()
    }

    /// A ping for a quiet link. The ping also returns unused room to the server.
    pub(crate) fn ping(&mut self) -> ToServer {
        self.uplink.heartbeat.pinged = Some(self.now.monotonic);
        self.uplink.disk_room.ask_again();
        ToServer::Ping { limit: self.uplink.disk_room.give_back() }
    }

    fn question(&mut self) -> Option<Outgoing> {
        let uplink = &mut self.uplink;
        if uplink.numbers.are_low() {
            uplink.numbers.note_asked();
            return Some(Outgoing::Message(ToServer::MoreIds));
        }
        let wanted = uplink.disk_room.question()?;
        Some(Outgoing::Message(ToServer::Room { wanted }))
    }

    /// A barrier that goes out before the remaining ops. It is due if a program waits for an op
    /// that was sent, or if programs wait for room in the log. It covers everything that was sent,
    /// and not only the op that is waited for, since one commit does for all.
    fn early_barrier(&mut self) -> Option<Outgoing> {
        let uplink = &mut self.uplink;
        let upto = uplink.log.last_sent();
        let waited_for = uplink.barrier > uplink.sent.barrier && uplink.barrier <= upto;
        let crowded = uplink.sent.bytes_since_barrier >= BARRIER_BYTES && !uplink.log.has_room();
        if !waited_for && !crowded {
            return None;
        }
        uplink.sent.barrier = upto;
        uplink.sent.bytes_since_barrier = 0;
        Some(Outgoing::Message(ToServer::Barrier { upto }))
    }

    fn ops(&mut self) -> Option<Outgoing> {
        let (Uplink { log, disk_room, .. }, now) = (&mut self.uplink, self.now.monotonic);
        let group = log.take(|room| disk_room.may_send(room, now));
        let Some(group) = group else {
            log.next_room().into_iter().for_each(|room| disk_room.hold_back(room, now));
            return None;
        };
        let bytes = group.payloads.iter().map(Bytes::len).sum::<usize>();
        self.uplink.sent.bytes_since_barrier += bytes;
        Some(Outgoing::Ops(group))
    }

    /// A barrier for a full log. It comes after [`Core::ops`], so everything was sent that may be.
    fn late_barrier(&mut self) -> Option<Outgoing> {
        let uplink = &mut self.uplink;
        let upto = uplink.log.last_sent();
        if uplink.log.has_room() || uplink.sent.barrier >= upto {
            return None;
        }
        uplink.sent.barrier = upto;
        Some(Outgoing::Message(ToServer::Barrier { upto }))
    }

    fn parting(&self) -> Option<Outgoing> {
        let is_done = self.session.holding && self.uplink.log.pending().0 == 0;
        is_done.then_some(Outgoing::Close)
    }

    /// The word that the seat is given up, once over each link.
    fn yielding(&mut self) -> Option<Outgoing> {
        if self.session.seat != (Seat::Left { is_settled: true }) || self.uplink.sent.yielded {
            return None;
        }
        self.uplink.sent.yielded = true;
        Some(Outgoing::Message(ToServer::Yield))
    }

    /// The logout of a session that is drained, once over each link. Not before the journal is empty: if
    /// this machine crashed in between, the next client would find no session, and take changes that the
    /// server has for ones that came too late.
    fn logout(&mut self) -> Option<Outgoing> {
        let drained = self.session.draining.is_some() && self.uplink.log.pending().0 == 0;
        if !drained || self.is_any_kept() || self.uplink.sent.logout {
            return None;
        }
        self.uplink.sent.logout = true;
        Some(Outgoing::Message(ToServer::Logout))
    }
}

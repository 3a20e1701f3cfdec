//! The log link: ops go up, acknowledgements come down.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{HEARTBEAT_MS, SILENCE_TIMEOUT_MS};
use xfer_protocol::message::{DeliveryState, EndReason, ToClient, ToServer};
use xfer_protocol::{DeliveryId, Ino, Name, Seq};

use super::kernel::Notice;
use super::log::Group;
use super::state::{Phase, State};
use super::{Client, Lost};
use crate::session::{Reader, Writer};
use xfer_link::LinkError;
use xfer_link::patience::{Patient, is_silence};

/// After this much since the last one, a commit is asked for while programs wait for room in the
/// log, in bytes: so that what is done makes room while the rest is on its way.
const BARRIER_BYTES: usize = 8 << 20;

/// How long the server's last word may take to be read, once nothing can be written any more.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What goes out next.
enum Outgoing {
    Ops(Group),
    Message(ToServer),
}

/// What the sending task did so far.
#[derive(Default)]
struct Sent {
    barrier: Seq,
    bytes_since_barrier: usize,
    logout: bool,
}

impl Client {
    /// Sends ops as they come, until the session is over.
    pub(super) async fn transmit(self: Arc<Self>, mut writer: Writer) {
        let mut sent = Sent::default();
        let mut ping_at = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
        loop {
            let next = {
                let mut state = self.lock();
                if state.is_over() {
                    return;
                }
                state.next_outgoing(&mut sent)
            };
            let result = match next {
                Some(Outgoing::Ops(group)) => self.send_ops(&mut writer, group).await,
                Some(Outgoing::Message(message)) => self.send(&mut writer, &message, &[]).await,
                None => tokio::select! {
                    () = self.outgoing.notified() => continue,
                    () = sleep_until(ping_at) => {
                        let ping = self.lock().ping();
                        self.send(&mut writer, &ping, &[]).await
                    }
                },
            };
            ping_at = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
            if let Err(error) = result {
                // A server that hung up said why, if it could: that is still to be read.
                let _ = tokio::time::timeout(LAST_WORD, self.wait_over()).await;
                self.lose(&format!("the connection broke: {error}"));
                return;
            }
        }
    }

    /// Takes what the server says, until the session is over.
    pub(super) async fn receive(self: Arc<Self>, reader: Reader) {
        let mut reader = Patient::new(reader, Duration::from_millis(SILENCE_TIMEOUT_MS));
        loop {
            let heard = tokio::select! {
                biased;
                heard = xfer_link::receive::<ToClient, _>(&mut reader, Bounds::OPEN) => heard,
                () = self.wait_over() => return,
            };
            let said = match heard {
                Ok((message, _)) => self.hear(message),
                Err(error) if error.is_end() => Err("the server went away".to_owned()),
                Err(LinkError::Io(error)) if is_silence(&error) => {
                    Err("the server fell silent".to_owned())
                }
                Err(error) => Err(format!("the connection broke: {error}")),
            };
            if let Err(reason) = said {
                self.lose(&reason);
                return;
            }
        }
    }

    fn hear(self: &Arc<Self>, message: ToClient) -> Result<(), String> {
        let mut state = self.lock();
        match message {
            ToClient::Durable { seq, disk, limit } => {
                state.rooms.hear(disk, limit);
                if !state.settle(seq) {
                    return Err("the server acknowledged what it was not sent".to_owned());
                }
            }
            ToClient::Room { disk, limit } => state.rooms.hear_answer(disk, limit),
            ToClient::Diverged { seq, errno } => {
                return Err(format!("the server refused change {seq}: {errno}"));
            }
            ToClient::Arrived(head) => state.waiting.push_back(head),
            ToClient::Settled { delivery, state: became } => {
                drop(state);
                self.learn_settled(delivery, became);
                state = self.lock();
            }
            ToClient::Users(users) => state.set_users(users.into_iter().collect()),
            ToClient::Quota(quota) => state.table.set_quota(quota),
            ToClient::Ids(range) => {
                if !state.add_numbers(range) {
                    return Err("the server granted numbers that can't be".to_owned());
                }
            }
            ToClient::Pong => {
                state.round_trip = state.pinged.take().map(|pinged| pinged.elapsed());
                return Ok(());
            }
            ToClient::Drain { reason, .. } => self.drain_soon(reason.to_string()),
            ToClient::Ended(EndReason::LoggedOut) => return Err(Lost::LOGGED_OUT.to_owned()),
            ToClient::Ended(reason) => return Err(reason.to_string()),
        }
        let notices = std::mem::take(&mut state.notices);
        drop(state);
        self.pass_on(notices);
        self.tick();
        self.outgoing.notify_one();
        Ok(())
    }

    /// Takes in what became of something that was sent. What was received made room.
    fn learn_settled(self: &Arc<Self>, id: DeliveryId, became: DeliveryState) {
        let mut state = self.lock();
        state.learn_state(id, became.clone());
        match became {
            DeliveryState::NoRoom(_) => {
                drop(state);
                self.run(move |state: &mut State| state.take_back(id), |_| {});
            }
            DeliveryState::Received(_) | DeliveryState::Refused(_) => {
                state.sent.remove(&id);
                state.resend |= !state.drafts.is_empty();
            }
            DeliveryState::Sent(_) | DeliveryState::Unknown => {}
        }
    }

    #[tracing::instrument(level = "trace", skip_all, fields(first = %group.first, ops = group.ops.len()))]
    async fn send_ops(&self, writer: &mut Writer, group: Group) -> Result<(), String> {
        let Group { first, ops, payloads } = group;
        self.send(writer, &ToServer::Ops { first, ops }, &payloads).await
    }

    /// Writes a message, for as long as the session lives: a server that is busy may take nothing
    /// for a long time, and one that is gone is noticed by its silence.
    async fn send(
        &self,
        writer: &mut Writer,
        message: &ToServer,
        payloads: &[Bytes],
    ) -> Result<(), String> {
        tokio::select! {
            sent = xfer_link::send_parts(writer, message, payloads, Bounds::OPEN) => {
                sent.map_err(|error| error.to_string())
            }
            () = self.wait_over() => Err("the session is over".to_owned()),
        }
    }

    /// The session is over: whatever waits is told so.
    pub(super) fn lose(self: &Arc<Self>, reason: &str) {
        if self.lock().end(reason, &self.options.label) {
            self.tell_over();
        }
    }

    /// Tells whatever waits, and the kernel, that the session is over.
    pub(super) fn tell_over(self: &Arc<Self>) {
        self.over.send_replace(true);
        self.tick();
        self.outgoing.notify_one();
        self.outdate_kernel();
    }
}

impl State {
    /// Ends the session for a reason. False if it was over before.
    pub(super) fn end(&mut self, reason: &str, label: &str) -> bool {
        if self.is_over() {
            return false;
        }
        let (ops, bytes) = self.log.pending();
        if ops > 0 {
            self.note_error(format!(
                "{label}: {reason}; {ops} changes ({bytes} bytes) were not durable"
            ));
        }
        self.phase = match &self.phase {
            // It was asked to end for a reason, and it did.
            Phase::Draining(why) if ops == 0 => Phase::Over(why.clone()),
            Phase::Draining(_) | Phase::Connected | Phase::Over(_) => {
                Phase::Over(reason.to_owned())
            }
        };
        true
    }

    /// No more changes are taken; when all are durable, the session ends.
    pub(super) fn begin_drain(&mut self, reason: &str) {
        if self.phase == Phase::Connected {
            self.phase = Phase::Draining(reason.to_owned());
            self.barrier = self.log.last();
        }
    }

    /// Takes over who can be sent to; what the outbox shows changes with it.
    fn set_users(&mut self, users: HashSet<Name>) {
        let changed = self.users.symmetric_difference(&users).cloned();
        self.notices.extend(changed.map(|name| Notice::Entry(Ino::OUTBOX, name)));
        self.notices.push(Notice::Contents(Ino::OUTBOX));
        self.users = users;
        self.users_changes += 1;
        // What waited for one who went was refused.
        self.deliveries.retain(|_, state| !matches!(state, DeliveryState::Sent(_)));
        // One who is back can be sent to.
        self.resend |= !self.drafts.is_empty();
    }

    /// The sign of life of a quiet link. A session whose programs make no changes gives back room.
    fn ping(&mut self) -> ToServer {
        self.pinged = Some(std::time::Instant::now());
        ToServer::Ping { limit: self.rooms.give_back() }
    }

    fn next_outgoing(&mut self, sent: &mut Sent) -> Option<Outgoing> {
        if self.numbers_are_low() {
            self.ids_asked = true;
            return Some(Outgoing::Message(ToServer::MoreIds));
        }
        if let Some(wanted) = self.rooms.question() {
            return Some(Outgoing::Message(ToServer::Room { wanted }));
        }
        let waited_for = self.barrier > sent.barrier && self.barrier <= self.log.last_sent();
        let crowded = sent.bytes_since_barrier >= BARRIER_BYTES && !self.log.has_room();
        if waited_for || crowded {
            let upto = self.log.last_sent();
            *sent = Sent { barrier: upto, bytes_since_barrier: 0, ..*sent };
            return Some(Outgoing::Message(ToServer::Barrier { upto }));
        }
        if let Some(group) = self.log.take() {
            sent.bytes_since_barrier += group.payloads.iter().map(Bytes::len).sum::<usize>();
            return Some(Outgoing::Ops(group));
        }
        if !self.log.has_room() && sent.barrier < self.log.last() {
            sent.barrier = self.log.last();
            return Some(Outgoing::Message(ToServer::Barrier { upto: sent.barrier }));
        }
        let drained = matches!(self.phase, Phase::Draining(_)) && self.log.pending().0 == 0;
        if drained && !sent.logout {
            sent.logout = true;
            return Some(Outgoing::Message(ToServer::Logout));
        }
        None
    }
}

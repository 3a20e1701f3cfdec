//! The log link: ops go up, acknowledgements come down, until the link is lost.
//!
//! The core decides what is sent and what a message means. Here frames are written and read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use xfer_link::LinkError;
use xfer_link::patience::{Patient, is_silence};
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::IDLE_HEARTBEAT_MS;
use xfer_protocol::message::{ToClient, ToServer};

use crate::connect::{Reader, Writer};
use crate::core::{Core, Ending, Group, LinkLoss, Outgoing, Then};
use crate::drive::{Client, Origin};

/// The longest wait for the server's last message once writing has failed.
const LAST_MESSAGE: Duration = Duration::from_secs(2);

/// How long nothing is sent while nothing waits.
const IDLE_HEARTBEAT: Duration = Duration::from_millis(IDLE_HEARTBEAT_MS);

/// Why a link is no longer served.
pub(super) enum Served {
    /// It was lost.
    Lost(LinkLoss),
    /// The session is over, or is to end.
    Over(Option<Ending>),
}

impl Client {
    /// Serves a link in both directions until it is lost, or the session is over.
    pub(super) async fn serve_link(self: &Arc<Self>, reader: Reader, writer: Writer) -> Served {
        let (reader, writer) = self.traffic.counted(reader, writer);
        tokio::select! {
            biased;
            () = self.wait_over() => Served::Over(None),
            served = self.receive(reader) => served,
            loss = self.transmit(writer) => Served::Lost(loss),
            () = self.address_lost() => Served::Lost(LinkLoss::Moved),
            () = self.asleep() => Served::Lost(LinkLoss::Asleep),
        }
    }

    /// Completes when this machine no longer has the address of its end. After any other change of the
    /// network, the link is tried: packets may go another way now, which leads nowhere.
    async fn address_lost(&self) {
        loop {
            self.dial.network_change().await;
            if self.dial.has_lost_address() {
                return;
            }
            self.try_link();
        }
    }

    /// Sends the core's frames as they come, and pings on a quiet link, until the link is lost. Says
    /// something at once: until it has heard of a new client, the server may give its seat to another.
    async fn transmit(&self, mut writer: Writer) -> LinkLoss {
        let (heartbeat, mut sent_at) = (self.links.silence().heartbeat(), None);
        loop {
            let next = self.lock().poll_outgoing();
            let quiet_max = if self.expect() { heartbeat } else { IDLE_HEARTBEAT };
            let result = match next {
                Some(Outgoing::Ops(group)) => send_ops(&mut writer, group).await,
                Some(Outgoing::Message(message)) => send(&mut writer, &message, &[]).await,
                Some(Outgoing::Close) => return LinkLoss::Stopping,
                None if self.must_try_link() => self.ping(&mut writer).await,
                None => tokio::select! {
                    biased;
                    () = self.outgoing.notified() => continue,
                    () = quiet(sent_at, quiet_max) => self.ping(&mut writer).await,
                },
            };
            sent_at = Some(Instant::now());
            if let Err(error) = result {
                // A server that hung up may have said why: its message may still be unread.
                sleep(LAST_MESSAGE).await;
                return LinkLoss::Broken(error.to_string());
            }
        }
    }

    /// Takes in the server's messages.
    async fn receive(self: &Arc<Self>, reader: Reader) -> Served {
        let silence = self.links.silence().time();
        let mut reader = Patient::new(reader, silence).expecting(self.expectation());
        loop {
            let heard = xfer_link::receive::<ToClient, _>(&mut reader, Bounds::OPEN).await;
            let served = match heard {
                Ok((message, _)) => {
                    let served = self.handle(message);
                    self.note_sign_of_life();
                    served
                }
                Err(error) => Some(Served::Lost(loss(error))),
            };
            if let Some(served) = served {
                return served;
            }
        }
    }

    /// Takes in one message. Returns a reason to serve the link no longer, if it is one.
    fn handle(self: &Arc<Self>, message: ToClient) -> Option<Served> {
        let is_pong = matches!(message, ToClient::Pong);
        let mut core = self.lock();
        let then = match core.handle_message(message) {
            Ok(then) => then,
            Err(ending) => return Some(Served::Over(Some(ending))),
        };
        if is_pong {
            // No attempt waits for a pong.
            return None;
        }
        let effects = core.take_effects();
        drop(core);
        self.perform(effects);
        let served = self.follow_up(then);
        self.tick();
        self.outgoing.notify_one();
        self.unkept.notify_one();
        served
    }

    /// Does the work that a message left.
    pub(super) fn follow_up(self: &Arc<Self>, then: Then) -> Option<Served> {
        match then {
            Then::Nothing => {}
            Then::Lost(loss) => return Some(Served::Lost(loss)),
            Then::Drain(ending) => self.drain_soon(ending),
            Then::Leave => self.leave_soon(),
            Then::HandOver => self.wanted.notify_one(),
            Then::TakeBack(id) => {
                let take_back = move |core: &mut Core| core.take_back(id);
                self.run_until(Origin::Housekeeping, take_back, std::future::pending, |_| {});
            }
        }
        None
    }
}

#[tracing::instrument(level = "trace", skip_all, fields(first = %group.first, ops = group.ops.len()))]
async fn send_ops(writer: &mut Writer, group: Group) -> Result<(), LinkError> {
    let Group { first, ops, payloads } = group;
    send(writer, &ToServer::Ops { first, ops }, &payloads).await
}

impl Client {
    async fn ping(&self, writer: &mut Writer) -> Result<(), LinkError> {
        self.note_ping();
        let ping = self.lock().ping();
        send(writer, &ping, &[]).await
    }
}

/// Waits until nothing was sent for so long; not at all, if nothing was sent yet.
async fn quiet(sent_at: Option<Instant>, quiet_max: Duration) {
    if let Some(sent_at) = sent_at {
        sleep_until(sent_at + quiet_max).await;
    }
}

/// Writes a message. There is no deadline: a busy server may take nothing for a long time, and one
/// that is gone is noticed by its silence.
async fn send(
    writer: &mut Writer,
    message: &ToServer,
    payloads: &[Bytes],
) -> Result<(), LinkError> {
    xfer_link::send_parts(writer, message, payloads, Bounds::OPEN).await
}

fn loss(error: LinkError) -> LinkLoss {
    match error {
        error if error.is_end() => LinkLoss::Closed,
        LinkError::Io(error) if is_silence(&error) => LinkLoss::Silent,
        error => LinkLoss::Broken(error.to_string()),
    }
}

//! The log link: ops go up, acknowledgements come down.
//!
//! The core decides what is sent and what a message means. Here frames are written and read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};
use xfer_link::LinkError;
use xfer_link::patience::{Patient, is_silence};
use xfer_protocol::frame::Bounds;
use xfer_protocol::limits::{HEARTBEAT_MS, SILENCE_TIMEOUT_MS};
use xfer_protocol::message::{ToClient, ToServer};

use crate::connect::{Reader, Writer};
use crate::core::{Core, Ending, Group, LinkLoss, Outgoing, Then};
use crate::drive::Client;

/// The longest wait for the server's last message once writing has failed.
const LAST_MESSAGE: Duration = Duration::from_secs(2);

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

impl Client {
    /// Sends the core's frames as they come, and pings on a quiet link, until the session is over.
    pub(in crate::drive) async fn transmit(self: Arc<Self>, mut writer: Writer) {
        let mut ping_at = Instant::now() + HEARTBEAT;
        while !self.lock().is_over() {
            let next = self.lock().poll_outgoing();
            let result = match next {
                Some(Outgoing::Ops(group)) => self.send_ops(&mut writer, group).await,
                Some(Outgoing::Message(message)) => self.send(&mut writer, &message, &[]).await,
                None => tokio::select! {
                    biased;
                    () = self.outgoing.notified() => continue,
                    () = sleep_until(ping_at) => {
                        let ping = self.lock().ping();
                        self.send(&mut writer, &ping, &[]).await
                    }
                },
            };
            ping_at = Instant::now() + HEARTBEAT;
            if let Err(error) = result {
                // A server that hung up may have said why: its message may still be unread.
                let _ = timeout(LAST_MESSAGE, self.wait_over()).await;
                self.lose_link(LinkLoss::Broken(error.to_string()));
                return;
            }
        }
    }

    /// Takes in the server's messages until the session is over.
    pub(in crate::drive) async fn receive(self: Arc<Self>, reader: Reader) {
        let mut reader = Patient::new(reader, Duration::from_millis(SILENCE_TIMEOUT_MS));
        loop {
            let heard = tokio::select! {
                biased;
                heard = xfer_link::receive::<ToClient, _>(&mut reader, Bounds::OPEN) => heard,
                () = self.wait_over() => return,
            };
            match heard {
                Ok((message, _)) => {
                    if let Err(ending) = self.handle(message) {
                        return self.end(ending);
                    }
                }
                Err(error) => return self.lose_link(loss(error)),
            }
        }
    }

    fn handle(self: &Arc<Self>, message: ToClient) -> Result<(), Ending> {
        let is_pong = matches!(message, ToClient::Pong);
        let mut core = self.lock();
        let then = core.handle_message(message)?;
        if is_pong {
            // No attempt waits for a pong.
            return Ok(());
        }
        let effects = core.take_effects();
        drop(core);
        self.perform(effects);
        match then {
            Then::Nothing => {}
            Then::Drain(ending) => self.drain_soon(ending),
            Then::TakeBack(id) => self.run(move |core: &mut Core| core.take_back(id), |_| {}),
        }
        self.tick();
        self.outgoing.notify_one();
        Ok(())
    }

    #[tracing::instrument(level = "trace", skip_all, fields(first = %group.first, ops = group.ops.len()))]
    async fn send_ops(&self, writer: &mut Writer, group: Group) -> Result<(), LinkError> {
        let Group { first, ops, payloads } = group;
        self.send(writer, &ToServer::Ops { first, ops }, &payloads).await
    }

    /// Writes a message, and gives up when the session ends. There is no other deadline: a busy
    /// server may take nothing for a long time, and one that is gone is noticed by its silence.
    async fn send(
        &self,
        writer: &mut Writer,
        message: &ToServer,
        payloads: &[Bytes],
    ) -> Result<(), LinkError> {
        tokio::select! {
            biased;
            sent = xfer_link::send_parts(writer, message, payloads, Bounds::OPEN) => sent,
            () = self.wait_over() => Ok(()),
        }
    }

    /// Notes that the link broke. Sessions are not resumed over another link, so this ends the
    /// session.
    fn lose_link(self: &Arc<Self>, loss: LinkLoss) {
        self.lock().lose_link(&loss);
        self.end(Ending::LinkLost(loss));
    }

    /// Ends the session, and wakes everything that waits.
    pub(in crate::drive) fn end(self: &Arc<Self>, ending: Ending) {
        let ended = self.lock().end(ending, &self.options.label);
        if ended {
            self.tell_over();
        }
    }

    /// Wakes everything that waits, and tells the kernel that the session is over.
    pub(in crate::drive) fn tell_over(self: &Arc<Self>) {
        self.over.send_replace(true);
        self.tick();
        self.outgoing.notify_one();
        self.outdate_kernel();
    }
}

fn loss(error: LinkError) -> LinkLoss {
    match error {
        error if error.is_end() => LinkLoss::Closed,
        LinkError::Io(error) if is_silence(&error) => LinkLoss::Silent,
        error => LinkLoss::Broken(error.to_string()),
    }
}

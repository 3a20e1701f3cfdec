//! Keeping the session's log link: it is served until it is lost, and then the server is dialled
//! until the session goes on over another one.
//!
//! The first try is at once. The pauses then double from half a second to half a minute, and are
//! spread at random, so that the clients of a server that was restarted don't all come together.
//! While a program waits, there is a try each second, and one at once when the network changes.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use xfer_protocol::DeliveryId;
use xfer_protocol::message::{Answer, Ask};

use super::log_link::Served;
use crate::connect::{Begin, Credentials, EndpointError, LogLink, Phase, Reader, Ticket, Writer};
use crate::core::{Ending, LinkLoss};
use crate::drive::Client;

/// The pause after the first try, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The shortest time between two tries while programs wait.
const HASTE: Duration = Duration::from_secs(1);

/// A link that was served for less time than this is not a reason to dial again at once: each
/// might break as soon as it carries something.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// The longest time that one try may take.
const TRY_MAX: Duration = Duration::from_secs(60);

/// Wakes the dialler when a program begins to wait.
#[derive(Default)]
pub(in crate::drive) struct Attention(Notify);

impl Attention {
    /// Notes that a program waits for the server.
    pub(in crate::drive) fn call(&self) {
        self.0.notify_one();
    }
}

/// The pauses between tries.
struct Pauses {
    next: Duration,
    random: SipHasher13,
    count: u64,
}

impl Pauses {
    fn new(key: &[u8; 16]) -> Pauses {
        Pauses { next: PAUSE_MIN, random: SipHasher13::new_with_key(key), count: 0 }
    }

    /// A time between half of the next pause and all of it.
    fn draw(&mut self) -> Duration {
        self.count += 1;
        self.random.write_u64(self.count);
        let part = (self.random.finish() >> 32) as f64 / f64::from(u32::MAX);
        let pause = self.next / 2 + self.next.mul_f64(part) / 2;
        self.next = (2 * self.next).min(PAUSE_MAX);
        pause
    }
}

impl Client {
    /// Serves the session's links, one after the other, until the session is over.
    /// `attempt` is the number of the last request for the session.
    pub(in crate::drive) async fn keep_link(self: Arc<Self>, first: LogLink, attempt: u64) {
        let LogLink { grant, mut reader, mut writer } = first;
        let mut ticket = Ticket { attempt, ..Ticket::new(&grant) };
        let mut pauses = Pauses::new(&self.jitter);
        self.note_ticket(&ticket).await;
        loop {
            let since = Instant::now();
            match self.serve_link(reader, writer).await {
                Served::Over(ending) => return ending.into_iter().for_each(|end| self.end(end)),
                Served::Lost(loss) => self.lose_link(loss),
            }
            if self.sleeps_through().await || since.elapsed() >= GOOD_LINK {
                pauses.next = PAUSE_MIN;
            } else if self.rest(pauses.draw()).await.is_none() {
                return;
            }
            match self.dial_again(&mut ticket, &mut pauses).await {
                Some(halves) => (reader, writer) = halves,
                None => return,
            }
        }
    }

    /// Notes that the link was lost. Nothing is asked over the read links any more, since what broke
    /// one has broken the others too, even if they don't show it.
    fn lose_link(self: &Arc<Self>, loss: LinkLoss) {
        let mut core = self.lock();
        let pending = core.pending().0;
        if core.lose_link(loss.clone()) {
            tracing::warn!(pending, "the connection to the server is lost: {loss}; trying again");
        }
        drop(core);
        self.is_up.send_replace(false);
        self.unkept.notify_one();
        self.links.close();
        self.tick();
    }

    /// Dials until the session goes on. `None` if it is over.
    async fn dial_again(
        self: &Arc<Self>,
        ticket: &mut Ticket,
        pauses: &mut Pauses,
    ) -> Option<(Reader, Writer)> {
        let (since, mut said) = (Instant::now(), None);
        loop {
            self.sleeps_through().await;
            ticket.durable = self.lock().durable();
            ticket.attempt += 1;
            let dialled = self.dial.log_link(Begin::Resume(ticket.clone()));
            let dialled = tokio::select! {
                biased;
                () = self.wait_over() => return None,
                () = self.asleep() => continue,
                dialled = timeout(TRY_MAX, dialled) => dialled,
            };
            let error = match dialled {
                Ok(Ok(link)) => {
                    self.note_ticket(&ticket.after(&link.grant)).await;
                    return self.go_on(ticket, link, since);
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => EndpointError::TimedOut(Phase::Resume),
            };
            if let Some(refusal) = error.ends_session() {
                self.end(Ending::Refused(refusal));
                return None;
            }
            let why = error.to_string();
            if said.as_ref() != Some(&why) {
                tracing::info!("the server can't be reached: {why}");
                said = Some(why.clone());
            }
            let pause = pauses.draw();
            let next = self.lock().now_after(pause);
            self.lock().note_try(Some(why), Some(next));
            self.rest(pause).await?;
        }
    }

    /// Waits out a pause, or until a program waits or the network changes. `None` if the session is over.
    async fn rest(&self, pause: Duration) -> Option<()> {
        let hastened = async {
            sleep(HASTE).await;
            if self.has_waiting_operations() {
                return;
            }
            tokio::select! {
                () = self.attention.0.notified() => {}
                () = self.dial.network_change() => {}
            }
        };
        tokio::select! {
            biased;
            () = self.wait_over() => None,
            () = sleep(pause) => Some(()),
            () = hastened => Some(()),
            () = self.asleep() => {
                self.sleeps_through().await;
                Some(())
            }
        }
    }

    /// Waits until this machine is awake, or the session is over. Returns whether it slept.
    async fn sleeps_through(&self) -> bool {
        let slept = self.is_asleep.get();
        tokio::select! {
            biased;
            () = self.wait_over() => {}
            () = self.awake() => {}
        }
        slept
    }

    /// Goes on over a new link. `None` if the session can't.
    fn go_on(
        self: &Arc<Self>,
        ticket: &mut Ticket,
        link: LogLink,
        since: Instant,
    ) -> Option<(Reader, Writer)> {
        let LogLink { grant, reader, writer } = link;
        let mut core = self.lock();
        if let Err(ending) = core.resume(&grant) {
            drop(core);
            self.end(ending);
            return None;
        }
        let (seconds, pending) = (since.elapsed().as_secs(), core.pending().0);
        tracing::info!(seconds, pending, "the connection to the server is back");
        let (effects, undecided) = (core.take_effects(), core.undecided());
        drop(core);
        *ticket = ticket.after(&grant);
        self.links.renew(Credentials::new(&grant));
        self.is_up.send_replace(true);
        self.perform(effects);
        self.tick();
        self.outgoing.notify_one();
        self.unkept.notify_one();
        self.ask_again(undecided);
        Some((reader, writer))
    }

    /// Asks for the states of deliveries of which news may have been lost.
    fn ask_again(self: &Arc<Self>, undecided: Vec<DeliveryId>) {
        let client = self.clone();
        self.operations.spawn(async move {
            // Those whose sends are not applied again yet are not known before.
            let after = client.lock().last_change();
            for id in undecided {
                // If the link is lost again, they are asked for again.
                let Ok((Answer::State(state), _)) = client.ask(after, Ask::State(id)).await else {
                    return;
                };
                let then = client.lock().conclude(id, state);
                client.follow_up(then);
            }
            client.tick();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_are_spread() {
        let mut pauses = Pauses::new(&[1; 16]);
        let mut other = Pauses::new(&[2; 16]);
        let mut expected = PAUSE_MIN;
        let mut apart = 0;
        for _ in 0..12 {
            let drawn = pauses.draw();
            assert!((expected / 2..=expected).contains(&drawn), "{drawn:?} of {expected:?}");
            apart += usize::from(drawn.abs_diff(other.draw()) > expected / 50);
            expected = (2 * expected).min(PAUSE_MAX);
        }
        assert!(apart > 6, "{apart}");
    }
}

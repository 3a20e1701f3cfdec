//! Keeping the session's log link: it is served until it is lost, and then the server is dialled
//! until the session goes on over another one.
//!
//! The first try is at once. The pauses then double from half a second to half a minute; the shorter
//! ones are spread at random, so that the clients of a server that was restarted don't all come
//! together. Those that wait longer are spread by then, and must not wake the machine more often.
//! While a program waits, there is a try each second, and one at once when the network changes, in the
//! place of one that hangs.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use xfer_protocol::message::{Answer, Ask, DeliveryState, Grant, Return, Wish};
use xfer_protocol::{DeliveryId, Seq};

use super::log_link::Served;
use crate::connect::{Begin, Bid, EndpointError, LogLink, Missed, Phase, Reader, Ticket, Writer};
use crate::core::{Core, Ending, Holder, LinkLoss};
use crate::drive::Client;

/// The pause after the first try, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The shortest time between two tries while programs wait.
pub(in crate::drive) const HASTE: Duration = Duration::from_secs(1);

/// A link that was served for less time than this is not a reason to dial again at once: each
/// might break as soon as it carries something.
pub(in crate::drive) const GOOD_LINK: Duration = Duration::from_secs(10);

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

    /// The longest pause, or a time between half of the next one and all of it.
    fn draw(&mut self) -> Duration {
        if self.next == PAUSE_MAX {
            return PAUSE_MAX;
        }
        self.count += 1;
        self.random.write_u64(self.count);
        let part = (self.random.finish() >> 32) as f64 / f64::from(u32::MAX);
        let pause = self.next / 2 + self.next.mul_f64(part) / 2;
        self.next = (2 * self.next).min(PAUSE_MAX);
        pause
    }
}

/// What comes after a new link was opened.
enum Next {
    /// The session goes on over it.
    Link(Reader, Writer),
    /// It came to nothing, and another one is to be opened.
    Dial,
    /// The session is over.
    Nothing,
}

impl Client {
    /// Serves the session's links, one after the other, until the session is over.
    /// `attempt` is the number of the last request for the session.
    pub(in crate::drive) async fn keep_link(self: Arc<Self>, first: LogLink, attempt: u64) {
        let LogLink { grant, missed: _, mut reader, mut writer } = first;
        let mut ticket = Ticket { attempt, ..Ticket::new(&grant) };
        let mut pauses = Pauses::new(&self.jitter);
        self.note_ticket(&ticket).await;
        loop {
            let since = Instant::now();
            match self.serve_link(reader, writer).await {
                Served::Over(ending) => return ending.into_iter().for_each(|end| self.end(end)),
                Served::Lost(loss) => self.lose_link(loss),
            }
            self.outdate_lost().await;
            if !self.lock().has_seat() {
                pauses.next = PAUSE_MIN;
                if self.rest(PAUSE_MAX).await.is_none() {
                    return;
                }
            } else if self.sleeps_through().await || since.elapsed() >= GOOD_LINK {
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
            match core.has_seat() {
                true => tracing::warn!(
                    pending,
                    "the connection to the server is lost: {loss}; trying again"
                ),
                false => tracing::warn!(pending, "{loss}; programs wait until that one ends"),
            }
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
        let (since, mut said, mut grace) = (Instant::now(), BTreeSet::new(), HASTE);
        loop {
            self.sleeps_through().await;
            ticket.durable = self.lock().durable();
            ticket.attempt += 1;
            let dialled = self.dial.log_link(Begin::Resume(ticket.clone(), self.bid()));
            let dialled = tokio::select! {
                biased;
                () = self.wait_over() => return None,
                () = self.asleep() => continue,
                dialled = timeout(TRY_MAX, dialled) => dialled,
                () = self.network_change_after(grace) => {
                    // Some networks announce something all the time.
                    grace *= 2;
                    continue;
                }
            };
            let error = match dialled {
                Ok(Ok(link)) => match self.go_on(ticket, link, since).await {
                    Next::Link(reader, writer) => return Some((reader, writer)),
                    Next::Dial => continue,
                    Next::Nothing => return None,
                },
                Ok(Err(error)) => error,
                Err(_elapsed) => EndpointError::TimedOut(Phase::Resume),
            };
            if let Some(refusal) = error.ends_session() {
                let ending = self.lock().ending_by(refusal);
                self.end(ending);
                return None;
            }
            if let Some(holder) = error.holder() {
                self.find_seat_taken(holder).await;
            }
            let why = error.to_string();
            // Tries may fail in several ways by turns.
            if said.insert(why.clone()) {
                tracing::info!("the tree cannot be reached: {why}");
            }
            let pause = pauses.draw();
            let next = self.lock().now_after(pause);
            self.lock().note_try(Some(why), Some(next));
            self.rest(pause).await?;
        }
    }

    /// Waits until the network has changed, and a try has had this time. One that began over another network may
    /// hang.
    async fn network_change_after(&self, grace: Duration) {
        sleep(grace).await;
        self.dial.network_change().await;
    }

    /// How much the seat is wanted, if another client has it.
    fn bid(&self) -> Bid {
        let wish = match self.lock().gives_seat_up_for_good() {
            true => Wish::Never,
            false if self.has_waiting_programs() => Wish::Now,
            false => Wish::IfFree,
        };
        Bid { wish, terms: self.options.terms() }
    }

    /// Notes that another client has the seat.
    async fn find_seat_taken(&self, holder: Holder) {
        self.lock().note_holder(holder);
        self.lose_seat().await;
    }

    /// Waits out a pause, or until a program waits or the network changes. `None` if the session is over.
    async fn rest(&self, pause: Duration) -> Option<()> {
        let hastened = async {
            sleep(HASTE).await;
            if self.has_waiting_programs() {
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

    /// Goes on over a new link.
    async fn go_on(self: &Arc<Self>, ticket: &mut Ticket, link: LogLink, since: Instant) -> Next {
        let LogLink { grant, missed, reader, writer } = link;
        let has_missed = missed.is_some();
        let resumed = match missed {
            None => {
                self.note_ticket(&ticket.after(&grant)).await;
                self.lock().resume(&grant).map(|()| true)
            }
            Some(missed) => self.come_back(ticket, &grant, missed).await,
        };
        match resumed {
            Ok(true) => {}
            Ok(false) => return Next::Dial,
            Err(ending) => {
                self.end(ending);
                return Next::Nothing;
            }
        }
        let (effects, undecided) = {
            let mut core = self.lock();
            let (seconds, pending) = (since.elapsed().as_secs(), core.pending().0);
            match has_missed {
                false => tracing::info!(seconds, pending, "the connection to the server is back"),
                true => tracing::info!(seconds, "this mount has the tree again"),
            }
            (core.take_effects(), core.undecided())
        };
        *ticket = ticket.after(&grant);
        self.traffic.note_reconnect();
        self.links.renew(&grant);
        self.is_up.send_replace(true);
        self.perform(effects);
        self.tick();
        self.outgoing.notify_one();
        self.unkept.notify_one();
        self.learn_states_again(undecided);
        self.drop_forgotten();
        Next::Link(reader, writer)
    }

    /// Goes on after other clients have changed the tree. Nothing of before is shown any more by then.
    /// False if the grant is too old: nothing is said over the link while the changes of before are
    /// rescued, and the server gives a seat whose client is silent to others.
    ///
    /// Until the client shows the secret of this grant, the server takes it for one that does not know
    /// of the changes. So that is noted only once nothing of before is left, in the journal neither.
    async fn come_back(
        self: &Arc<Self>,
        ticket: &Ticket,
        grant: &Grant,
        missed: Missed,
    ) -> Result<bool, Ending> {
        let (Missed { base, changed }, granted) = (missed, Instant::now());
        self.lose_seat().await;
        self.give_up(base).await?;
        let back = Return { grant: grant.clone(), base, changed };
        let _is_clear = self.clear_journal().await?;
        if granted.elapsed() >= grant.silence.time() {
            return Ok(false);
        }
        self.note_ticket(&ticket.after(grant)).await;
        self.lock().come_back(&back)?;
        self.load_root();
        Ok(true)
    }

    /// Has the root loaded, so that it is there when the link is down. A client that works offline has its
    /// names loaded too: without them, nothing could be made there.
    pub(in crate::drive) fn load_root(self: &Arc<Self>) {
        let (client, with_names) = (self.clone(), self.options.offline_bytes.is_some());
        self.operations.spawn(async move {
            // If the link is lost meanwhile, it is not there.
            let _ = client.tend(move |core: &mut Core| core.look_at_root(with_names)).await;
        });
    }

    /// Removes the nodes that the kernel forgot while another client had the seat.
    fn drop_forgotten(self: &Arc<Self>) {
        let client = self.clone();
        self.operations.spawn(async move {
            // If the seat is lost again, it is done after that.
            let _ = client.tend(Core::drop_forgotten).await;
        });
    }

    /// Learns the states of deliveries of which news may have been lost. If the link is lost again, that
    /// is done over the next one.
    fn learn_states_again(self: &Arc<Self>, undecided: Vec<DeliveryId>) {
        let client = self.clone();
        self.operations.spawn(async move {
            tokio::select! {
                biased;
                () = client.wait_down() => {}
                () = client.learn_states(undecided) => {}
            }
        });
    }

    async fn learn_states(self: &Arc<Self>, undecided: Vec<DeliveryId>) {
        if undecided.is_empty() {
            return;
        }
        // Those whose sends are made again over this link are not known before.
        let sent = self.lock().position();
        if self.tend(move |core: &mut Core| core.reach(sent)).await.is_err() {
            return;
        }
        for id in undecided {
            let asked = self.ask(Seq::default(), Ask::State(id)).await;
            let Ok((Answer::State(state), _)) = asked else { return };
            // Its send was given up meanwhile. So no news of it was lost, and `Unknown` would be taken for
            // what it is from then on.
            if state == DeliveryState::Unknown {
                continue;
            }
            let then = self.lock().conclude(id, state);
            self.follow_up(then);
        }
        self.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_the_shorter_ones_are_spread() {
        let mut pauses = Pauses::new(&[1; 16]);
        let mut other = Pauses::new(&[2; 16]);
        let mut expected = PAUSE_MIN;
        let mut apart = 0;
        while expected < PAUSE_MAX {
            let drawn = pauses.draw();
            assert!((expected / 2..=expected).contains(&drawn), "{drawn:?} of {expected:?}");
            apart += usize::from(drawn.abs_diff(other.draw()) > expected / 50);
            expected *= 2;
        }
        assert!(apart > 3, "{apart}");
        assert_eq!(
            [pauses.draw(), pauses.draw()],
            [PAUSE_MAX; 2],
            "twice a minute, not more often"
        );
    }
}

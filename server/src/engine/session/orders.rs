//! Orders to a session from other parts of the engine: to have its client log out, or to end.
//!
//! **Invariant:** a weaker order never replaces a stronger one; of two deadlines the earlier holds.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use xfer_link::watch;
use xfer_protocol::message::EndReason;

#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// Ask the client to send the rest of its log and to log out, and end by this moment.
    Drain { reason: EndReason, deadline: Instant },
    /// End now, with all applied ops made durable.
    End { reason: EndReason },
}

/// The order that holds for a session, and whether the session is over.
pub(crate) struct Orders {
    order: watch::Sender<Order>,
    /// The first reason that was given to end the session for good.
    for_good: Mutex<Option<EndReason>>,
    /// Whether the session was given another reason to end when it was to end already.
    again: watch::Sender<bool>,
    over: watch::Sender<bool>,
}

impl Orders {
    pub(crate) fn new() -> Orders {
        let (order, over) = (watch::Sender::new(Order::Run), watch::Sender::new(false));
        Orders { order, for_good: Mutex::default(), again: watch::Sender::new(false), over }
    }

    /// Asks the client to send the rest of its log and to log out, and ends the session after
    /// `patience`.
    pub(crate) fn drain(&self, reason: EndReason, patience: Duration) {
        self.note(&reason);
        self.give(Order::Drain { reason, deadline: Instant::now() + patience });
    }

    /// Ends the session at once.
    pub(crate) fn end(&self, reason: EndReason) {
        self.note(&reason);
        self.give(Order::End { reason });
    }

    /// Returns the reason for which the session is to leave its seat, if it is: even if its link is
    /// lost first, or its client comes back over another.
    pub(crate) fn for_good(&self) -> Option<EndReason> {
        self.for_good.lock().clone()
    }

    fn note(&self, reason: &EndReason) {
        if !reason.is_passing() || matches!(reason, EndReason::TakenOver { .. }) {
            self.for_good.lock().get_or_insert_with(|| reason.clone());
        }
    }

    /// Returns the reason that the order gives, whether or not it is due.
    pub(crate) fn given(&self) -> Option<EndReason> {
        self.order.get().reason().cloned()
    }

    /// Waits until the session must end.
    pub(crate) async fn wait_due(&self) {
        let mut orders = self.subscribe();
        orders.mark_changed();
        while self.due().is_none() {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                // The sender is part of `self`, so this can't fail.
                _ = orders.changed() => {}
                () = async { sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => {}
            }
        }
    }

    /// Waits until the session must end, and must not even finish an op that takes long. A client
    /// that comes back, or may do so, does want that: it would have to begin the op again.
    pub(crate) async fn wait_urgent(&self) {
        let mut again = self.again.subscribe();
        self.wait_due().await;
        if self.due().is_some_and(|reason| leaves_time(&reason)) {
            // The sender is part of `self`, so this can't fail.
            let _ = again.wait_for(|again| *again).await;
        }
    }

    /// Subscribes to orders, including the one that holds now.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }

    /// Returns the reason why the session must end now, if it must.
    pub(crate) fn due(&self) -> Option<EndReason> {
        match self.order.get() {
            Order::Run => None,
            Order::Drain { reason, deadline } => (deadline <= Instant::now()).then_some(reason),
            Order::End { reason } => Some(reason),
        }
    }

    /// The time by which a client that is drained must have logged out.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.order.get() {
            Order::Drain { deadline, .. } => Some(deadline),
            Order::Run | Order::End { .. } => None,
        }
    }

    /// Waits until the session is over.
    pub(crate) async fn wait_over(&self) {
        let mut over = self.over.subscribe();
        // The sender is part of `self`, so this can't fail.
        let _ = over.wait_for(|over| *over).await;
    }

    /// Notes that the session is over: it will not change any row or content again.
    pub(crate) fn set_over(&self) {
        self.over.send_replace(true);
    }

    fn give(&self, new: Order) {
        let is_urgent = new.reason().is_some_and(|reason| !leaves_time(reason));
        let is_ending = self.due().is_some();
        self.order.send_if_modified(|order| {
            let stronger = new.is_stronger(order);
            if stronger {
                *order = new;
            }
            stronger
        });
        if is_urgent && is_ending {
            self.again.send_replace(true);
        }
    }
}

/// Whether a session that must end for this reason finishes an op that takes long.
fn leaves_time(reason: &EndReason) -> bool {
    matches!(reason, EndReason::Continued | EndReason::Silent { .. })
}

impl Order {
    fn reason(&self) -> Option<&EndReason> {
        match self {
            Order::Run => None,
            Order::Drain { reason, .. } | Order::End { reason } => Some(reason),
        }
    }

    fn is_stronger(&self, other: &Order) -> bool {
        match (self, other) {
            (Order::Drain { deadline, .. }, Order::Drain { deadline: held, .. }) => deadline < held,
            (
                Order::Run | Order::Drain { .. } | Order::End { .. },
                Order::Run | Order::Drain { .. } | Order::End { .. },
            ) => self.rank() > other.rank(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Order::Run => 0,
            Order::Drain { .. } => 1,
            Order::End { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn taken_over() -> EndReason {
        EndReason::TakenOver { host: "host".to_owned(), address: "address".to_owned() }
    }

    /// How long a long op goes on, if it does not go on for ever.
    async fn goes_on(orders: &Orders) -> Option<Duration> {
        let start = Instant::now();
        tokio::time::timeout(PATIENCE * 10, orders.wait_urgent()).await.ok()?;
        Some(start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_op_ends_when_the_seat_must_be_left() {
        let orders = Orders::new();
        assert_eq!(goes_on(&orders).await, None);
        orders.drain(taken_over(), PATIENCE);
        assert_eq!(goes_on(&orders).await, Some(PATIENCE));
        let orders = Orders::new();
        orders.end(EndReason::Stopping);
        assert_eq!(goes_on(&orders).await, Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_has_a_long_op_finished_unless_others_want_the_seat() {
        let orders = Orders::new();
        orders.end(EndReason::Continued);
        assert_eq!(goes_on(&orders).await, None);
        for reason in [taken_over(), EndReason::Stopping] {
            let orders = Orders::new();
            orders.end(EndReason::Continued);
            let wanted = async {
                sleep_until(Instant::now() + PATIENCE).await;
                orders.drain(reason, PATIENCE);
            };
            assert_eq!(tokio::join!(goes_on(&orders), wanted).0, Some(PATIENCE));
        }
    }
}

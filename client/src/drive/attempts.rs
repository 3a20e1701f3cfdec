//! How an operation runs: it is attempted under the lock, and made again after each pause.
//!
//! **Invariant:** an operation is answered once.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use xfer_protocol::Errno;

use super::Client;
use super::away::{Answer, Patience};
use crate::core::{Core, Effects, Pause, Stop};

/// After so many loads for one operation, everything that is loaded is kept until it is done. An
/// operation that needs more at once than fits the memory limits, beside what other operations need
/// and what is not durable, would otherwise load the same rows or bytes for ever.
const LOADS_BEFORE_HOLD: usize = 16;

/// What began an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A program. While another client has the seat, the operation waits and has it asked for; while the
    /// link is down, it has the server dialled at once.
    Program,
    /// The client itself. While another client has the seat, the operation fails with `EBUSY`. Nothing
    /// is asked for or hastened because of it.
    Housekeeping,
}

/// Keeps everything that is loaded until it is dropped.
struct Hold<'a>(&'a Client);

impl<'a> Hold<'a> {
    fn new(client: &'a Client) -> Hold<'a> {
        client.lock().hold_loaded();
        Hold(client)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().release_loaded();
    }
}

impl Client {
    /// Runs an operation and passes its result to `reply`: at once if nothing has to be waited for,
    /// or later from a task.
    pub fn run<T, A, R>(self: &Arc<Self>, attempt: A, reply: R)
    where
        T: Send + 'static,
        A: FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        R: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        self.run_until(Origin::Program, attempt, std::future::pending, reply);
    }

    /// Like [`Client::run`], for an operation of any origin that can be interrupted. If
    /// `interrupted` resolves while it waits, it is given up with `EINTR`. Changes that its attempts made before they
    /// paused stay: what they prepared, and the change itself if they waited until it was durable.
    pub fn run_until<T, A, I, F, R>(
        self: &Arc<Self>,
        origin: Origin,
        mut attempt: A,
        interrupted: I,
        reply: R,
    ) where
        T: Send + 'static,
        A: FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        I: FnOnce() -> F,
        F: Future<Output = ()> + Send + 'static,
        R: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        match self.attempt(&mut attempt) {
            Ok((done, answer)) => {
                reply(Ok(done));
                answer.given();
            }
            Err(Stop::Refused(errno)) => reply(Err(errno)),
            Err(Stop::Pause(pause)) => {
                let (client, interrupted) = (self.clone(), interrupted());
                // Before the task is polled: from now on the operation waits.
                let waits = self.note_waits(origin);
                self.operations.spawn(async move {
                    // Polled first: an attempt that has made its change is answered in the same
                    // poll, and never given up.
                    let result = tokio::select! {
                        biased;
                        result = client.persist(attempt, pause, origin) => result,
                        () = interrupted => Err(Errno::EINTR),
                    };
                    match result {
                        Ok((done, answer)) => {
                            reply(Ok(done));
                            answer.given();
                        }
                        Err(errno) => reply(Err(errno)),
                    }
                    drop(waits);
                });
            }
        }
    }

    /// Runs an operation and waits for its result.
    ///
    /// # Errors
    /// The errno that refuses the operation; `ETIMEDOUT` if the server does not answer.
    pub async fn call<T, A>(self: &Arc<Self>, mut attempt: A) -> Result<T, Errno>
    where
        A: FnMut(&mut Core) -> Result<T, Stop> + Send,
    {
        self.carry_out(&mut attempt, Origin::Program).await
    }

    /// Like [`Client::call`], for the client's own work. `EBUSY` while another client has the seat.
    pub(super) async fn tend<T, A>(self: &Arc<Self>, mut attempt: A) -> Result<T, Errno>
    where
        A: FnMut(&mut Core) -> Result<T, Stop> + Send,
    {
        self.carry_out(&mut attempt, Origin::Housekeeping).await
    }

    async fn carry_out<T, A>(self: &Arc<Self>, attempt: &mut A, origin: Origin) -> Result<T, Errno>
    where
        A: FnMut(&mut Core) -> Result<T, Stop> + Send,
    {
        match self.attempt(attempt) {
            Ok((done, _)) => Ok(done),
            Err(Stop::Refused(errno)) => Err(errno),
            Err(Stop::Pause(pause)) => {
                let _waits = self.note_waits(origin);
                self.persist(attempt, pause, origin).await.map(|(done, _)| done)
            }
        }
    }

    /// Makes an attempt. Its result counts as being given until the [`Answer`] is dropped.
    fn attempt<T, A>(self: &Arc<Self>, attempt: &mut A) -> Result<(T, Answer), Stop>
    where
        A: FnMut(&mut Core) -> Result<T, Stop>,
    {
        let mut core = self.lock();
        let result = match catch_unwind(AssertUnwindSafe(|| attempt(&mut core))) {
            Ok(result) => result,
            Err(_) => {
                core.fault();
                Err(Errno::EIO.into())
            }
        };
        let result = match result {
            // Whatever it waits for can happen only once the client has the seat.
            Err(Stop::Pause(pause)) if core.has_lost_seat() => {
                core.must_have_seat().and(Err(pause.into()))
            }
            result => result.map(|done| (done, self.answers.note())),
        };
        let effects = core.take_effects();
        drop(core);
        self.perform(effects);
        result
    }

    /// Does the work that an attempt or a message left.
    pub(super) fn perform(self: &Arc<Self>, effects: Effects) {
        let Effects { fetches, notices, has_outgoing, look_again } = effects;
        for (ino, order) in fetches {
            self.begin_fetch(ino, order);
        }
        self.pass_on(notices);
        if has_outgoing {
            self.outgoing.notify_one();
            self.unkept.notify_one();
        }
        if look_again {
            self.tick();
        }
    }

    /// Waits out an attempt's pause and makes it again, until it is answered.
    async fn persist<T, A>(
        self: &Arc<Self>,
        mut attempt: A,
        mut pause: Pause,
        origin: Origin,
    ) -> Result<(T, Answer), Errno>
    where
        A: FnMut(&mut Core) -> Result<T, Stop> + Send,
    {
        let mut progress = self.progress.subscribe();
        // The event that the first attempt waits for may have happened before this subscription.
        progress.mark_changed();
        let (mut loads, mut patience) = (0, Patience::default());
        let mut _hold = None;
        loop {
            let mut is_last = false;
            if matches!(pause, Pause::Rows(_) | Pause::Data(_)) {
                loads += 1;
                if loads == LOADS_BEFORE_HOLD {
                    _hold = Some(Hold::new(self));
                }
            }
            match pause {
                Pause::Rows(needs) => {
                    self.patiently(&mut patience, origin, self.load(needs)).await?;
                }
                Pause::Data(waits) => {
                    self.patiently(&mut patience, origin, self.fetched(waits)).await?
                }
                // While the link is up there is no deadline: a silent server loses it, and that is
                // progress too.
                Pause::Progress => tokio::select! {
                    biased;
                    _ = progress.changed() => {}
                    () = self.worn_out_unless_kept(&mut patience) => is_last = true,
                },
                Pause::Seat => match origin {
                    Origin::Housekeeping => return Err(Errno::EBUSY),
                    Origin::Program => tokio::select! {
                        biased;
                        _ = progress.changed() => {}
                        () = self.worn_out(&mut patience) => return Err(Errno::EBUSY),
                    },
                },
                Pause::Reservation(reservation) => {
                    self.patiently(&mut patience, origin, self.reserve(reservation)).await?;
                }
                Pause::Delivery(id) => {
                    self.patiently(&mut patience, origin, self.ask_state(id)).await?
                }
            }
            match self.attempt(&mut attempt) {
                Ok(done) => return Ok(done),
                Err(Stop::Refused(errno)) => return Err(errno),
                Err(Stop::Pause(_)) if is_last => return Err(Errno::ETIMEDOUT),
                Err(Stop::Pause(next)) => pause = next,
            }
        }
    }

    /// Waits for work that others may have begun. If their patience with a link that is down ended
    /// before this operation's, it tries again.
    async fn patiently(
        &self,
        patience: &mut Patience,
        origin: Origin,
        work: impl Future<Output = Result<(), Errno>>,
    ) -> Result<(), Errno> {
        tokio::select! {
            biased;
            // The attempt, when it is made again, waits for the seat or is refused.
            () = self.seat_lost(), if origin == Origin::Program => Ok(()),
            () = self.without_seat(), if origin == Origin::Housekeeping => Ok(()),
            done = work => match done {
                // While the link is up, the answer itself was late.
                Err(Errno::ETIMEDOUT) if !self.is_up.get() && patience.lasts() => {
                    self.wait_up(patience).await
                }
                done => done,
            },
            () = self.worn_out(patience) => Err(Errno::ETIMEDOUT),
        }
    }
}

//! Applying the ops of a frame in order, in turns with the session's questions.
//!
//! A frame is applied in parts: the ops of a part are planned one by one, then their effects on
//! contents are performed in one call.
//!
//! **Invariant:** the driver holds the tree's turn from before the first op of a part is planned
//! until the effects of the part are performed. Between two parts it gives the turn up if another
//! task waits for it.

use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::limits::{FRAME_OPS_MAX, WRITE_BYTES_MAX};
use xfer_protocol::tree::{Action, Need, Op, Room};
use xfer_protocol::{Seq, size};
use xfer_store::{Effect, Stop, StoreError, Undone};

use crate::engine::driver::over::{Over, no_tree, ordered};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::session::counters::add;
use crate::engine::session::turn::NoTree;
use crate::engine::stores::Stores;
use crate::engine::tree::halt::Halt;
use crate::engine::tree::holding::{Unmade, load, make_room};
use crate::engine::tree::{Tree, Unplanned};

/// The most ops in a part.
const PART_OPS_MAX: usize = 64;

/// The size of a part's data, in bytes, at which the part is full.
const PART_BYTES_MAX: usize = 1 << 20;

/// The ops of a frame, some of which are planned.
pub(crate) struct Frame {
    ops: Vec<Op>,
    payload: Bytes,
    planned: usize,
    /// The place in the payload where the next op's data begins.
    at: usize,
    /// Whether the next op can be planned only once all earlier ones are durable.
    unsettled: bool,
}

/// How far a frame was applied.
pub(crate) enum Applied {
    /// To its end.
    All {
        /// Whether the batch is so large that it should be committed at once.
        large: bool,
    },
    /// Up to an op before which everything must be made durable.
    UpToUnsettled,
}

/// Why planning stops.
enum Pause {
    /// The part is large enough, or the last of the frame, or another task waits for the tree.
    Full,
    /// These rows must be loaded first.
    Missing(Vec<Need>),
    /// The ops take up this much room, more than the session's limit.
    Crowded(Room),
    /// All earlier ops must be durable before the next one is planned.
    Unsettled,
    /// The next op can never be applied.
    Halted(Halt),
}

impl Frame {
    /// A frame whose first op has the seq `first`. It is checked as a whole before any op is
    /// applied.
    pub(crate) fn new(
        applied: Seq,
        first: Seq,
        ops: Vec<Op>,
        payload: Bytes,
    ) -> Result<Frame, Over> {
        check(applied, first, &ops, payload.len()).map_err(Over::Protocol)?;
        Ok(Frame { ops, payload, planned: 0, at: 0, unsettled: false })
    }

    /// Applies all ops, or those up to one that must wait for a commit. Then it goes on from there
    /// when it is called again.
    pub(crate) async fn apply(
        &mut self,
        session: &Arc<Session>,
        stores: &Stores,
    ) -> Result<Applied, Over> {
        let mut turn = session.tree.turn().await.map_err(no_tree)?;
        let mut large = false;
        while self.planned < self.ops.len() {
            // A frame may take long, and orders to the session must not wait for its end.
            if let Some(over) = ordered(session) {
                return Err(over);
            }
            if session.tree.is_awaited() {
                drop(turn);
                turn = session.tree.turn().await.map_err(no_tree)?;
            }
            large = self.apply_some(session, stores).await?;
            if std::mem::take(&mut self.unsettled) {
                return Ok(Applied::UpToUnsettled);
            }
        }
        Ok(Applied::All { large })
    }

    /// Applies one part: of at least one op, if not all earlier ones must be durable first. Returns
    /// whether the batch is so large that it should be committed at once.
    #[tracing::instrument(level = "trace", skip_all, fields(user = %session.user()))]
    async fn apply_some(&mut self, session: &Session, stores: &Stores) -> Result<bool, Over> {
        let (first, before) = (self.planned, self.at);
        let halt = self.plan_part(session, stores).await?;
        let effects = session.tree.with(Tree::take_effects).map_err(no_tree)?;
        let written: u64 = effects.iter().map(written_bytes).sum();
        if effects.is_empty() {
            // Planning alone never awaits, so this lets the thread run its other tasks.
            tokio::task::yield_now().await;
        } else if let Err(undone) = perform(session, stores, effects).await {
            let is_stopped = matches!(undone.error, StoreError::Stopped);
            let halt = session.tree.with(|tree| tree.take_back(undone)).map_err(no_tree)?;
            let over = ordered(session).filter(|_| is_stopped);
            return Err(over.unwrap_or_else(|| halted(session, halt)));
        }
        let applied = session.tree.with(|tree| {
            tree.apply();
            (tree.applied(), tree.is_large())
        });
        let (applied, large) = applied.map_err(no_tree)?;
        session.position.set_applied(applied);
        add(&session.counters().ops, (self.planned - first) as u64);
        add(&session.counters().bytes_in, (self.at - before) as u64);
        add(&session.counters().bytes_written, written);
        halt.map_or(Ok(large), |halt| Err(halted(session, halt)))
    }

    /// Plans a part. Returns the reason to end the session after that part, if there is one.
    async fn plan_part(
        &mut self,
        session: &Session,
        stores: &Stores,
    ) -> Result<Option<Halt>, Over> {
        let (first, from) = (self.planned, self.at);
        // The need that was loaded, and the op that room was made for. If an op needs either a
        // second time, the session ends.
        let (mut loaded, mut extended) = (None, None);
        loop {
            let paused = session.tree.with(|tree| self.plan(tree, session, (first, from)));
            match paused.map_err(no_tree)? {
                Pause::Full => return Ok(None),
                Pause::Unsettled => {
                    self.unsettled = true;
                    return Ok(None);
                }
                Pause::Halted(halt) => return Ok(Some(halt)),
                Pause::Missing(needs) => {
                    let need = needs.first().cloned().map(|need| (self.planned, need));
                    if need == loaded {
                        return Err(Over::Failed(Trouble::of_server("a row cannot be loaded")));
                    }
                    loaded = need;
                    load(&stores.store, &session.tree, needs)
                        .await
                        .map_err(|error| over(session, error))?;
                }
                Pause::Crowded(wanted) => {
                    let room = make_room(stores, &session.tree, wanted).await;
                    let has_room = room.map_err(|error| over(session, error))?;
                    if !has_room || extended.replace(self.planned) == Some(self.planned) {
                        return Ok(Some(
                            session.tree.with(|tree| tree.no_room()).map_err(no_tree)?,
                        ));
                    }
                }
            }
        }
    }

    /// Plans ops of the part that begins at `first` until the part is full or an op can't be
    /// planned.
    fn plan(&mut self, tree: &mut Tree, session: &Session, (first, from): (usize, usize)) -> Pause {
        loop {
            let count = self.planned - first;
            let is_full = count >= PART_OPS_MAX || self.at - from >= PART_BYTES_MAX;
            let Some(op) = self.ops.get(self.planned).filter(|_| !is_full) else {
                return Pause::Full;
            };
            if count > 0 && session.tree.is_awaited() {
                return Pause::Full;
            }
            let end = self.at + data_len(op);
            match tree.plan(op, &self.payload.slice(self.at..end)) {
                Ok(()) => (self.planned, self.at) = (self.planned + 1, end),
                Err(Unplanned::Unsettled) => return Pause::Unsettled,
                Err(Unplanned::Missing(needs)) => {
                    return Pause::Missing(tree.foresee(&self.ops[self.planned + 1..], needs));
                }
                Err(Unplanned::Crowded(wanted)) => return Pause::Crowded(wanted),
                Err(Unplanned::Halted(halt)) => return Pause::Halted(halt),
            }
        }
    }
}

/// Performs effects on contents, unless the session must leave its seat meanwhile: copying a large
/// file must not keep others out.
async fn perform(session: &Session, stores: &Stores, effects: Vec<Effect>) -> Result<(), Undone> {
    let stop = Stop::default();
    let mut performed = stores.store.contents.perform_until(effects, stop.clone());
    tokio::select! {
        biased;
        done = &mut performed => return done,
        () = session.seat.orders.wait_urgent() => stop.order(),
    }
    performed.await
}

fn over(session: &Session, error: Unmade) -> Over {
    match error {
        Unmade::NoTree => no_tree(NoTree),
        Unmade::Storage(error) => halted(session, Halt::Storage(error)),
    }
}

fn halted(session: &Session, halt: Halt) -> Over {
    match halt {
        Halt::Refused { seq, errno } => Over::Diverged(seq, errno),
        Halt::Full { seq } => Over::NoRoom(seq),
        Halt::Protocol(what) => Over::Protocol(what.to_owned()),
        Halt::Storage(error) => {
            tracing::error!(user = %session.user(), %error, "an op cannot be applied");
            Over::Failed(Trouble::from(&error))
        }
    }
}

fn check(applied: Seq, first: Seq, ops: &[Op], payload_len: usize) -> Result<(), String> {
    if first != applied.next() {
        return Err(format!("op {first} after op {applied}"));
    }
    if ops.is_empty() || ops.len() > FRAME_OPS_MAX {
        return Err(format!("{} ops in a frame", ops.len()));
    }
    if let Some(len) = ops.iter().map(data_len).find(|len| *len > WRITE_BYTES_MAX) {
        return Err(format!("a write of {}", size::display(len as u64)));
    }
    if ops.iter().map(data_len).sum::<usize>() != payload_len {
        return Err("the payload is not the data of the writes".to_owned());
    }
    Ok(())
}

/// How many bytes an effect writes.
fn written_bytes(effect: &Effect) -> u64 {
    match effect {
        Effect::Write { data, .. } => data.len() as u64,
        Effect::Clone { ranges, .. } => ranges.iter().map(|range| range.end - range.start).sum(),
        Effect::Copy { len, .. } => *len,
        Effect::Create { .. }
        | Effect::Zero { .. }
        | Effect::Free { .. }
        | Effect::Remove { .. } => 0,
    }
}

/// The length of an op's data in the payload.
fn data_len(op: &Op) -> usize {
    if let Action::Write { len, .. } = &op.action { *len as usize } else { 0 }
}

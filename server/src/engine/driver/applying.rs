//! Applying the ops of a frame, one after the other, in turns with the session's questions.
//!
//! **Invariant:** a thread that applies ops never waits for the tree's turn: it holds that from before
//! it begins, and gives it up between two ops when somebody else waits for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use xfer_protocol::Seq;
use xfer_protocol::limits::{FRAME_OPS_MAX, WRITE_BYTES_MAX};
use xfer_protocol::tree::{Action, Op};

use crate::engine::driver::over::{Over, no_tree, ordered, panicked};
use crate::engine::durable::trouble::Trouble;
use crate::engine::session::Session;
use crate::engine::session::counters::add;
use crate::engine::tree::halt::Halt;

/// The ops of a frame, and how many of them are applied.
pub(crate) struct Frame {
    ops: Vec<Op>,
    payload: Bytes,
    applied: usize,
    /// Where the next op's data begins.
    at: usize,
    /// Whether so much waits that it should be committed at once.
    large: bool,
}

impl Frame {
    /// A frame that begins with the op `first`, checked as a whole before any of it is applied.
    pub(crate) fn new(
        applied: Seq,
        first: Seq,
        ops: Vec<Op>,
        payload: Bytes,
    ) -> Result<Frame, Over> {
        check(applied, first, &ops, payload.len()).map_err(Over::Protocol)?;
        Ok(Frame { ops, payload, applied: 0, at: 0, large: false })
    }

    /// Applies all ops, and says whether they should be committed at once.
    pub(crate) async fn apply(mut self, session: &Arc<Session>) -> Result<bool, Over> {
        while self.applied < self.ops.len() {
            let turn = session.tree.turn().await.map_err(no_tree)?;
            let session = session.clone();
            let part = spawn_blocking(move || {
                let done = self.apply_some(&session);
                drop(turn);
                done.map(|()| self)
            });
            self = part.await.map_err(panicked)??;
        }
        Ok(self.large)
    }

    /// Applies one op at least, and more until somebody waits for the tree.
    #[tracing::instrument(level = "trace", skip_all, fields(user = %session.user()))]
    fn apply_some(&mut self, session: &Session) -> Result<(), Over> {
        let before = self.at;
        let result = loop {
            let Some(op) = self.ops.get(self.applied) else { break Ok(()) };
            // A frame may take long: what the session is told meanwhile does not wait for its end.
            if let Some(over) = ordered(session) {
                break Err(over);
            }
            let end = self.at + data_len(op);
            let applied = session.tree.with(|tree| {
                let applied = tree.apply(op, &self.payload[self.at..end]);
                session.position.set_applied(tree.applied());
                self.large = tree.is_large();
                applied
            });
            match applied.map_err(no_tree)? {
                Ok(()) => {}
                Err(halt) => break Err(halted(session, halt)),
            }
            add(&session.counters().ops, 1);
            (self.applied, self.at) = (self.applied + 1, end);
            if session.tree.is_awaited() {
                break Ok(());
            }
        };
        add(&session.counters().bytes_in, (self.at - before) as u64);
        result
    }
}

fn halted(session: &Session, halt: Halt) -> Over {
    match halt {
        Halt::Refused { seq, errno } => Over::Diverged(seq, errno),
        Halt::Protocol(what) => Over::Protocol(what),
        Halt::Storage(error) => {
            tracing::error!(user = %session.user(), %error, "an op can't be applied");
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
        return Err(format!("a write of {len} bytes"));
    }
    if ops.iter().map(data_len).sum::<usize>() != payload_len {
        return Err("the payload is not the data of the writes".to_owned());
    }
    Ok(())
}

/// How much of the payload belongs to an op.
fn data_len(op: &Op) -> usize {
    if let Action::Write { len, .. } = &op.action { *len as usize } else { 0 }
}

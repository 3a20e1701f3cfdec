//! The disk of a client's machine: what a client that works offline keeps there. A write takes a while,
//! and a crash of the machine in it leaves all, a part, or nothing. Now and then the disk is full.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use xfer_client::connect::Ticket;
use xfer_client::core::{Change, Trace};
use xfer_client::drive::{Journal, Rescue, Writing};
use xfer_client::offline::Leftover;

use crate::Random;

/// How long a write takes until it is on the disk.
const WRITE_TIME: Duration = Duration::from_millis(3);

/// Of so many writes to a journal, one finds the disk full.
const FULL_EVERY: u64 = 7;

/// What the machine keeps of one session.
pub struct LocalDisk {
    state: Mutex<State>,
    /// A planted bug: writes are answered before they are made.
    answers_early: bool,
}

#[derive(Default)]
struct State {
    crashes: u64,
    kept: Kept,
    /// By number, in their order.
    under_way: BTreeMap<u64, Write>,
    writes: u64,
    writes_to_journals: u64,
}

/// What is there after a crash.
#[derive(Default)]
struct Kept {
    ticket: Option<Ticket>,
    trace: Vec<Trace>,
    rescues: Vec<Vec<Trace>>,
}

#[derive(Clone)]
enum Write {
    Ticket(Ticket),
    Add(Vec<Trace>),
    Replace(Vec<Trace>),
    Rescue(Vec<Trace>),
}

/// Whether a client's error says that its disk was full.
pub fn is_full(error: &str) -> bool {
    error.ends_with(&io::ErrorKind::StorageFull.to_string())
}

impl Write {
    /// Whether it needs room that a full disk does not have.
    fn is_to_journal(&self) -> bool {
        matches!(self, Write::Add(_) | Write::Replace(_))
    }
}

impl Kept {
    fn take(&mut self, write: Write) {
        match write {
            Write::Ticket(ticket) => self.ticket = Some(ticket),
            Write::Add(trace) => self.trace.extend(trace),
            Write::Replace(trace) => self.trace = trace,
            Write::Rescue(trace) => self.rescues.push(trace),
        }
    }
}

impl LocalDisk {
    /// An empty one. With a bug, it answers early.
    pub fn new(answers_early: bool) -> LocalDisk {
        LocalDisk { state: Mutex::default(), answers_early }
    }

    /// What a process that runs now writes with.
    pub fn process(self: &Arc<Self>) -> Arc<Process> {
        let crashes = self.state.lock().unwrap().crashes;
        Arc::new(Process { disk: self.clone(), crashes })
    }

    /// The machine crashes: its processes write nothing any more.
    pub fn crash(&self, random: &mut Random) {
        let mut state = self.state.lock().unwrap();
        state.crashes += 1;
        for (_, mut write) in std::mem::take(&mut state.under_way) {
            if random.below(2) == 0 {
                continue;
            }
            // All others take effect as a whole or not at all.
            if let Write::Add(trace) = &mut write {
                trace.truncate(random.below(trace.len() as u64 + 1) as usize);
            }
            state.kept.take(write);
        }
    }

    /// What can still be sent. `None` if nothing is there.
    pub fn leftover(&self) -> Option<Leftover> {
        let state = self.state.lock().unwrap();
        let Kept { ticket, trace, .. } = &state.kept;
        let ticket = ticket.clone().filter(|_| !trace.is_empty())?;
        Some(Leftover::new(ticket, trace.clone()))
    }

    /// The changes of each rescue.
    pub fn rescues(&self) -> Vec<Vec<Change>> {
        let state = self.state.lock().unwrap();
        let changes =
            |trace: &Vec<Trace>| trace.iter().filter_map(Trace::change).cloned().collect();
        state.kept.rescues.iter().map(changes).collect()
    }

    /// Whether the disk is full when this is written.
    fn is_full_for(&self, write: &Write) -> bool {
        let mut state = self.state.lock().unwrap();
        state.writes_to_journals += u64::from(write.is_to_journal());
        write.is_to_journal() && state.writes_to_journals.is_multiple_of(FULL_EVERY)
    }

    /// Begins a write of a process, unless the machine has crashed since that began.
    fn begin(&self, crashes: u64, write: Write) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        if state.crashes != crashes {
            return None;
        }
        state.writes += 1;
        let number = state.writes;
        state.under_way.insert(number, write);
        Some(number)
    }

    /// Ends a write. Returns whether the machine has not crashed meanwhile.
    fn finish(&self, number: u64) -> bool {
        let mut state = self.state.lock().unwrap();
        let written = state.under_way.remove(&number).map(|write| state.kept.take(write));
        written.is_some()
    }
}

/// A process on the machine, until that crashes.
pub struct Process {
    disk: Arc<LocalDisk>,
    crashes: u64,
}

impl Process {
    /// Writes, whether or not anybody waits for it. After a crash nothing is ever answered.
    fn write(&self, write: Write) -> Writing<'_> {
        if self.disk.is_full_for(&write) {
            return Box::pin(async { Err(io::ErrorKind::StorageFull.into()) });
        }
        let (disk, crashes) = (self.disk.clone(), self.crashes);
        let written = tokio::spawn(async move {
            let Some(number) = disk.begin(crashes, write) else { return pending().await };
            sleep(WRITE_TIME).await;
            if !disk.finish(number) {
                pending().await
            }
        });
        let answers_early = self.disk.answers_early;
        Box::pin(async move {
            if answers_early {
                return Ok(());
            }
            written.await.map_err(io::Error::other)
        })
    }
}

impl Journal for Process {
    fn note_ticket(&self, ticket: Ticket) -> Writing<'_> {
        self.write(Write::Ticket(ticket))
    }

    fn add(&self, trace: Vec<Trace>) -> Writing<'_> {
        self.write(Write::Add(trace))
    }

    fn replace(&self, trace: Vec<Trace>) -> Writing<'_> {
        self.write(Write::Replace(trace))
    }
}

impl Rescue for Process {
    fn keep(&self, why: String, changes: Vec<Trace>) -> Writing<'_> {
        println!("a rescue, since {why}");
        self.write(Write::Rescue(changes))
    }
}

//! What a client leaves that the server may not have: its machine crashed, or another client took the
//! tree while it was cut off. It is sent, if nobody changed the tree meanwhile; otherwise it is rescued.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use xfer_client::core::{Change, Trace};
use xfer_client::offline::Unsent;
use xfer_link::proof::SigningKey;
use xfer_protocol::tree::Action;
use xfer_protocol::{Name, Seq, SessionId};
use xfer_tests::Random;
use xfer_tests::cable::{Cable, Wiretap, Wiring};
use xfer_tests::local_disk::LocalDisk;
use xfer_tests::peers::{Host, roomy};

use crate::history::{Check, History, plain};
use crate::program::Program;
use crate::user::LOG_LAGS_MS;

/// The longest time, in milliseconds, after which what was left is no longer sent undisturbed.
const UNDISTURBED_MS: u64 = 120;

/// How long the server is given to notice that another client is gone.
const WAIT: Duration = Duration::from_secs(60);

/// The machine of a client, which outlives it.
#[derive(Clone)]
pub struct Machine {
    /// Its disk.
    pub disk: Arc<LocalDisk>,
    /// Proves that the session is this client's.
    pub key: Arc<SigningKey>,
}

/// What a client has left.
pub struct Left {
    /// Its session.
    pub session: SessionId,
    machine: Machine,
    /// The last op of which its programs were told that it is safe.
    safe: Seq,
    /// What its programs saw of ops that were not durable.
    seen: Vec<(Seq, Check)>,
    /// The last of its ops in the tree that another client took.
    base: Option<Seq>,
    /// Whether its machine crashed, so that what was not safe may be lost.
    has_crashed: bool,
    /// The number of rescues on its disk before.
    rescues: usize,
}

impl Left {
    /// What a client leaves, on this machine.
    pub fn by(session: SessionId, machine: &Machine, program: &Program, history: &History) -> Left {
        let (machine, safe, seen) = (machine.clone(), program.safe(), history.ahead());
        let rescues = machine.disk.rescues().len();
        Left { session, machine, safe, seen, base: None, has_crashed: false, rescues }
    }

    /// What was rescued, if anything was.
    fn rescued(&self) -> Option<Vec<Change>> {
        self.machine.disk.rescues().split_off(self.rescues).pop()
    }

    /// Its machine crashes.
    pub fn crash(&mut self, random: &mut Random) {
        self.machine.disk.crash(random);
        self.has_crashed = true;
    }

    /// Another client takes the tree, which has the ops up to this one.
    pub fn overtake(&mut self, base: Seq) {
        self.base.get_or_insert(base);
    }

    /// Sends it, although the machine crashes again, and links break. A later client may have left
    /// something too. Returns the last op of before, if it changed the tree.
    pub async fn settle(
        self,
        host: &Host,
        user: &Name,
        is_before_others: bool,
        history: &mut History,
        random: &mut Random,
    ) -> Option<Seq> {
        let Machine { disk, key } = &self.machine;
        let (name, options) = (user.to_string(), roomy("test"));
        let before = host.account(user).await.applied;
        loop {
            let tap = Wiretap::default();
            let log_lag = Duration::from_millis(*random.pick(&LOG_LAGS_MS));
            let cable = Cable::new(Wiring { tap: Some(tap.clone()), log_lag, ..Wiring::default() });
            let settled = {
                let settling = host.settle(&name, (disk, key), &options, &cable);
                disturbed(settling, &cable, random).await
            };
            let sent = tap.take();
            let is_overtaken = self.base.is_some_and(|base| base != before);
            assert!(sent.is_empty() || !is_overtaken, "{user}: {sent:?} came too late");
            if is_before_others {
                history.make_way(&sent, before);
            }
            history.note(sent, Vec::new());
            match settled {
                Some(Ok(())) => break,
                // There is room the next time, or the link does not break as it is opened.
                Some(Err(Unsent::Disk(_) | Unsent::Unreachable(_))) => {}
                // The server has not heard of the end of another client.
                Some(Err(Unsent::InUse(_))) => sleep(WAIT).await,
                Some(Err(error)) => panic!("{user}: {error:?}"),
                None => {
                    disk.crash(random);
                    history.count("crash while sending what was left", 1);
                }
            }
        }
        let now = host.account(user).await.applied;
        self.must_be_there(before, now, history);
        (now != before).then_some(before)
    }

    /// Checks that it was rescued, if others had changed the tree `before`; and else that the server
    /// has it `now`.
    pub fn must_be_there(&self, before: Seq, now: Seq, history: &mut History) {
        let rescued = self.rescued();
        if self.base.is_some_and(|base| base != before) {
            return self.must_be_among(&rescued.unwrap_or_default(), history);
        }
        assert_eq!(rescued, None, "nobody else changed the tree");
        assert!(now >= self.safe, "op {} was safe, {now} is there", self.safe);
    }

    /// Checks that a client that has ended had it still, or that it was rescued.
    pub fn must_be_kept(&self, program: &Program, history: &mut History) {
        let trace = program.client().trace();
        let changes = trace.iter().filter_map(Trace::change).cloned();
        let kept = self.rescued().unwrap_or_else(|| changes.collect());
        self.must_be_among(&kept, history);
    }

    /// Checks that all that was safe is among these changes, as programs saw it.
    fn must_be_among(&self, changes: &[Change], history: &mut History) {
        let base = self.base.expect("another client took the tree");
        let seqs = changes.iter().map(|change| change.seq);
        let gap = seqs.clone().zip(seqs.skip(1)).find(|(one, next)| one.next() != *next);
        assert_eq!(gap, None, "there is a gap");
        let last = changes.last().map_or(base, |change| change.seq).max(base);
        assert!(last >= self.safe, "op {} was safe, and {last} is the last here", self.safe);
        let first = changes.first().map_or(last.next(), |change| change.seq);
        assert!(first <= base.next(), "the rescue begins at {first}, the tree ended at {base}");
        for (seq, check) in &self.seen {
            let is_lost = *seq > last && self.has_crashed;
            assert!(is_lost || is_among(*seq, check, base, changes), "{seq}: {check:?}");
        }
        history.count("rescued op", changes.len());
    }
}

/// Whether what a program saw of an op after `base` is among these changes.
fn is_among(seq: Seq, check: &Check, base: Seq, changes: &[Change]) -> bool {
    let (action, count, data) = match check {
        Check::Made(action, count) => (action, *count as u64, None),
        Check::Written(action, data) => (action, 1, Some(data)),
        _ => return true,
    };
    let first = seq.0 + 1 - count;
    let is_it = |change: &Change| match (&change.op.action, data) {
        // What a program copied by hand.
        (Action::CopyRange { .. }, Some(_)) => true,
        (said, Some(data)) => plain(said) == plain(action) && change.payload == *data,
        (said, None) => plain(said) == plain(action),
    };
    let mut there = changes.iter().filter(|change| (first..=seq.0).contains(&change.seq.0));
    first <= base.0 || there.any(is_it)
}

/// Does something while the link breaks, perhaps. `None` if the machine crashes before it is done.
async fn disturbed<T>(
    done: impl Future<Output = T>,
    cable: &Cable,
    random: &mut Random,
) -> Option<T> {
    let undisturbed = Duration::from_millis(random.below(UNDISTURBED_MS));
    match random.below(4) {
        0 => {
            let done = timeout(undisturbed, done).await;
            cable.pull();
            done.ok()
        }
        1 => {
            let cut = async {
                sleep(undisturbed).await;
                cable.cut();
            };
            Some(tokio::join!(done, cut).0)
        }
        _ => Some(done.await),
    }
}

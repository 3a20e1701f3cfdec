//! One user's history: the ops on the wire, the observations of programs at each seq, and two trees
//! that receive the same ops without any client, server or unloading.
//!
//! **Invariant:** the trees receive only durable ops; the others may still be lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use xfer_client::core::Seek;
use xfer_protocol::tree::{
    Action, Delivery, DeliveryEffect, FallocateMode, Node, Quota, RenameMode, Xattrs,
};
use xfer_protocol::{ContentId, DeliveryId, Errno, Ino, Name, Seq};
use xfer_tests::cable::Said;

use crate::model::{Flaw, Model, Parcel};
use crate::program::{FRESH, NEW};
use crate::whole::Whole;

/// The number of ops that a failure shows.
const SHOWN: usize = 24;

/// The most characters of an observation that a failure shows.
const SHOWN_CHARS: usize = 2000;

/// An observation of a program, or an error that it got.
#[derive(Clone, Debug)]
pub enum Check {
    /// One of so many ops up to this seq equals this one, except for the numbers that the client
    /// chose.
    Made(Action, usize),
    /// The op at this seq writes the same bytes as this one would; it may be a copy of data that
    /// another file has.
    Written(Action, Bytes),
    /// This op was refused, with this quota.
    Refused(Action, Errno, Quota),
    /// A node had this row.
    Node(Ino, Arc<Node>),
    /// A name referred to this node.
    Entry(Ino, Name, Option<Ino>),
    /// A directory had these entries.
    Entries(Ino, Vec<(Name, Ino)>),
    /// A read of a file at an offset, with a length, returned these bytes.
    Bytes(Ino, u64, u64, Vec<u8>),
    /// A search for data or a hole had this result.
    Found(Ino, u64, Seek, Result<u64, Errno>),
}

/// Deliveries that are not accepted yet, by number.
#[derive(Clone, Default)]
pub struct Post(BTreeMap<DeliveryId, Posted>);

/// A delivery in the form of each of the two trees.
#[derive(Clone)]
struct Posted {
    to: Name,
    delivery: Arc<Delivery>,
    parcel: Arc<Parcel>,
}

impl Post {
    /// The deliveries that wait for a user.
    pub fn waiting(&self, to: &Name) -> Vec<DeliveryId> {
        self.0.iter().filter(|(_, posted)| posted.to == *to).map(|(id, _)| *id).collect()
    }

    /// Takes deliveries back that found no room in their inbox. Returns their number.
    pub fn take_back(&mut self, refused: &BTreeSet<DeliveryId>) -> usize {
        let before = self.0.len();
        self.0.retain(|id, _| !refused.contains(id));
        before - self.0.len()
    }

    /// The contents that deliveries refer to.
    pub fn contents(&self) -> impl Iterator<Item = ContentId> {
        use xfer_protocol::tree::ItemKind;
        let items = self.0.values().flat_map(|posted| &posted.delivery.items);
        items.filter_map(|item| match item.kind {
            ItemKind::File { content, .. } => content,
            ItemKind::Directory | ItemKind::Symlink { .. } | ItemKind::Link { .. } => None,
        })
    }
}

/// Counts of each kind of op, of refusals by errno, of sessions, and of lost ops.
pub type Tally = BTreeMap<String, usize>;

/// The two trees, after the same op.
struct Trees {
    user: Name,
    whole: Whole,
    model: Model,
    at: Seq,
    last: VecDeque<Said>,
    tally: Tally,
}

/// The history of one user.
pub struct History {
    trees: Trees,
    said: VecDeque<Said>,
    checks: VecDeque<(Seq, Check)>,
    /// Ops that made way for others.
    gone: Vec<Said>,
    /// Everything that was noted, as text, if that is kept.
    transcript: Option<String>,
}

impl History {
    /// A history that starts from a tree with only these nodes. What was made may use `quota`, the
    /// largest that the tree ever has.
    pub fn new(
        user: &Name,
        fixtures: &[(Ino, Node)],
        names: &[(Name, Ino)],
        quota: Quota,
        flaw: Flaw,
    ) -> History {
        let trees = Trees {
            user: user.clone(),
            whole: Whole::new(fixtures, names, quota),
            model: Model::new(fixtures, names, flaw),
            at: Seq::default(),
            last: VecDeque::new(),
            tally: Tally::new(),
        };
        let (said, checks, gone) = (VecDeque::new(), VecDeque::new(), Vec::new());
        History { trees, said, checks, gone, transcript: None }
    }

    /// Keeps a transcript from now on, which takes a third of the time of a run.
    pub fn keep_transcript(&mut self) {
        self.transcript = Some(String::new());
    }

    /// Adds ops from the wire, and observations.
    pub fn note(&mut self, said: Vec<Said>, checks: Vec<(Seq, Check)>) {
        if let Some(transcript) = &mut self.transcript {
            // Formatting to a string can't fail.
            let _ = writeln!(transcript, "{said:?}\n{checks:?}");
        }
        for said in said {
            self.note_said(said);
        }
        self.checks.extend(checks);
    }

    /// Forgets the ops of the last client in whose places another has sent these, while the server had
    /// those up to `applied`: they will never be applied, whether or not they were sent.
    pub fn make_way(&mut self, sent: &[Said], applied: Seq) {
        if !sent.is_empty() {
            self.trees.count("op that made way", 1);
            self.gone.extend(self.said.iter().filter(|said| said.seq > applied).cloned());
            self.said.retain(|said| said.seq <= applied);
            self.checks.retain(|(seq, _)| *seq <= applied);
        }
    }

    /// Adds an op. One that is sent again over another link must be the same as before.
    fn note_said(&mut self, said: Said) {
        let first = self.said.front().map_or(self.trees.at.next(), |first| first.seq);
        match said.seq.0.checked_sub(first.0).map(|at| self.said.get(at as usize)) {
            Some(None) => self.said.push_back(said),
            Some(Some(before)) => {
                assert!(is_same(before, &said), "{before:?} was sent again as {said:?}");
                self.trees.count("op sent again", 1);
            }
            None => self.trees.count("op sent again", 1),
        }
    }

    /// Everything that was noted since the transcript began: each op with its data, and each
    /// observation, in order.
    pub fn transcript(&self) -> &str {
        self.transcript.as_deref().expect("a transcript is kept")
    }

    /// The last op on the wire.
    pub fn said(&self) -> Seq {
        self.said.back().map_or(self.trees.at, |said| said.seq)
    }

    /// The last op that the trees have applied.
    pub fn at(&self) -> Seq {
        self.trees.at
    }

    /// Applies the ops up to `durable` to the trees, and checks the observations on the way. Stops
    /// early at an op that depends on the other user's history.
    pub fn catch_up(&mut self, durable: Seq, post: &mut Post) {
        self.trees.run(&mut self.said, &mut self.checks, durable, post);
    }

    /// Checks all observations, although some of the ops may get lost.
    pub fn check_ahead(&self, post: &Post) {
        let (mut said, mut checks) = (self.said.clone(), self.checks.clone());
        let last = self.said();
        checks.retain(|(seq, _)| *seq <= last);
        let mut trees = self.trees.copy();
        trees.run(&mut said, &mut checks, last, &mut post.clone());
        assert_eq!(trees.at, last, "{}: something was accepted that nobody sent", trees.user);
    }

    /// The ops that the trees do not have yet, and those that made way for others.
    pub fn pending(&self) -> impl Iterator<Item = &Said> {
        self.said.iter().chain(&self.gone)
    }

    /// The observations of ops that the trees do not have yet.
    pub fn ahead(&self) -> Vec<(Seq, Check)> {
        self.checks.iter().filter(|(seq, _)| *seq > self.trees.at).cloned().collect()
    }

    /// Begins a session at `applied`: later ops are lost, and open files are gone, unless another client
    /// may come back that has them open. Returns what was lost.
    pub fn begin(&mut self, applied: Seq, is_beside: bool, post: &mut Post) -> Vec<Said> {
        let user = &self.trees.user;
        assert!(applied >= self.trees.at, "{user}: op {} was durable, {applied} is", self.trees.at);
        assert!(applied <= self.said(), "{user}: op {applied} was never made");
        self.catch_up(applied, post);
        assert_eq!(self.trees.at, applied, "something was accepted that nobody sent");
        self.trees.count("session", 1);
        self.trees.count("lost op", self.said.len());
        let mut lost = std::mem::take(&mut self.gone);
        lost.extend(self.said.drain(..));
        self.checks.clear();
        if !is_beside {
            self.trees.whole.forget_orphans();
            self.trees.model.forget_orphans();
        }
        lost
    }

    /// Takes over the bytes that a file has at an offset. Each that is new `may_be` there, with its
    /// offset, or the test fails.
    pub fn take_over(
        &mut self,
        ino: Ino,
        offset: u64,
        there: &[u8],
        may_be: impl Fn(u64, u8) -> bool,
    ) {
        let user = &self.trees.user;
        let bytes = self.trees.model.bytes_mut(ino).expect("a file of the rules");
        for (at, byte) in (offset..).zip(there) {
            let known = &mut bytes[at as usize];
            if *known != *byte {
                assert!(may_be(at, *byte), "{user}: {ino} has {byte} at {at}, not {known}");
                *known = *byte;
            }
        }
    }

    /// Counts an event that the history can't see itself.
    pub fn count(&mut self, what: &str, by: usize) {
        self.trees.count(what, by);
    }

    /// The counts so far.
    pub fn tally(&self) -> &Tally {
        &self.trees.tally
    }

    /// The tree of the model.
    pub fn model(&self) -> &Model {
        &self.trees.model
    }

    /// The tree on the rules.
    pub fn whole(&self) -> &Whole {
        &self.trees.whole
    }

    /// Fails the test unless the two trees agree on all nodes and on the usage.
    pub fn audit(&self) {
        let Trees { user, whole, model, at, .. } = &self.trees;
        assert_eq!(whole.usage(), whole.recount(), "{user}, op {at}: the counters are wrong");
        assert_eq!(whole.usage().nodes, model.len(), "{user}, op {at}: nodes came or went");
        assert_eq!(
            whole.orphans(),
            model.orphans(),
            "{user}, op {at}: other nodes lost their names"
        );
    }
}

impl Trees {
    fn copy(&self) -> Trees {
        Trees {
            user: self.user.clone(),
            whole: self.whole.copy(),
            model: self.model.clone(),
            at: self.at,
            last: self.last.clone(),
            tally: Tally::new(),
        }
    }

    fn run(
        &mut self,
        said: &mut VecDeque<Said>,
        checks: &mut VecDeque<(Seq, Check)>,
        upto: Seq,
        post: &mut Post,
    ) {
        loop {
            while checks.front().is_some_and(|(seq, _)| *seq <= self.at) {
                let (seq, check) = checks.pop_front().expect("there is one");
                let wrong =
                    if seq < self.at { Some("too late".into()) } else { self.check(&check) };
                if let Some(wrong) = wrong {
                    let check: String = format!("{check:?}").chars().take(SHOWN_CHARS).collect();
                    self.fail(&format!("{check}: {wrong}"));
                }
            }
            if self.at >= upto || said.front().is_none_or(|said| !is_ready(said, post)) {
                return;
            }
            self.apply(said.pop_front().expect("there is one"), post);
        }
    }

    fn apply(&mut self, said: Said, post: &mut Post) {
        if said.seq != self.at.next() {
            self.fail(&format!("{said:?} is out of order"));
        }
        self.at = said.seq;
        self.count(kind(&said.op.action), 1);
        self.last.push_back(said.clone());
        if self.last.len() > SHOWN {
            self.last.pop_front();
        }
        let posted = accepted(&said).and_then(|id| Some((id, post.0.remove(&id)?)));
        let parcel = posted.as_ref().map(|(_, posted)| posted.parcel.clone());
        let delivery = posted.map(|(id, posted)| (id, posted.delivery));
        let changes = self.whole.apply(said.seq, &said.op, delivery);
        let changes = changes.unwrap_or_else(|errno| self.fail(&format!("the rules say {errno}")));
        let sent = self.model.apply(&said.op, &said.data, parcel.as_deref());
        let sent = sent.unwrap_or_else(|errno| self.fail(&format!("the model says {errno}")));
        for effect in changes.deliveries {
            if let (DeliveryEffect::Sent { to, delivery, .. }, Some(parcel)) = (effect, &sent) {
                let posted = Posted { to, delivery, parcel: parcel.clone() };
                post.0.insert(posted.delivery.id, posted);
            }
        }
    }

    /// Describes what is wrong with an observation, if anything.
    fn check(&mut self, check: &Check) -> Option<String> {
        match check {
            Check::Made(action, count) => {
                let last = self.last.iter().rev().take(*count).map(|said| plain(&said.op.action));
                let last: Vec<_> = last.collect();
                let is_there = last.contains(&plain(action));
                (!is_there).then(|| format!("the log has {last:?}"))
            }
            Check::Written(action, data) => self.check_written(action, data),
            Check::Refused(action, errno, quota) => self.check_refusal(action, *errno, *quota),
            Check::Node(ino, node) => match self.whole.node(*ino) {
                Some(same) if same == *node || is_listed(node, &same) => {
                    self.model.differs(*ino, &same)
                }
                other => Some(format!("the rules have {other:?}")),
            },
            Check::Entry(parent, name, ino) => {
                let both = [self.whole.entry(*parent, name), self.model.entry(*parent, name)];
                (both != [*ino; 2]).then(|| format!("rules and model have {both:?}"))
            }
            Check::Entries(directory, entries) => {
                let whole = self.whole.entries(*directory);
                let model = self.model.entries(*directory).into_iter().flatten();
                let same =
                    whole == *entries && model.eq(entries.iter().map(|(name, ino)| (name, ino)));
                (!same).then(|| format!("the rules have {whole:?}"))
            }
            Check::Bytes(ino, offset, len, bytes) => {
                let whole = self.model.bytes(*ino).unwrap_or(&[]);
                let size = whole.len() as u64;
                let there = &whole[(*offset).min(size) as usize..(offset + len).min(size) as usize];
                let at = there.iter().zip(bytes).position(|(one, other)| one != other);
                (there != bytes).then(|| format!("differs at {at:?}; {} bytes", there.len()))
            }
            Check::Found(ino, offset, seek, found) => {
                let right = self.find(*ino, *offset, *seek);
                (right != *found).then(|| format!("should be {right:?}"))
            }
        }
    }

    /// The op at this seq, without the numbers that the client chose.
    fn last_said(&self) -> Option<Action> {
        self.last.back().map(|said| plain(&said.op.action))
    }

    fn check_written(&mut self, action: &Action, data: &Bytes) -> Option<String> {
        let &Action::Write { ino, offset, .. } = action else {
            panic!("{action:?} writes nothing")
        };
        let said = self.last_said();
        let range = offset..offset + data.len() as u64;
        let is_copy = matches!(said, Some(Action::CopyRange { to, to_offset, len, .. })
            if to == ino && to_offset <= range.start && to_offset + len == range.end);
        if !is_copy && said.as_ref() != Some(&plain(action)) {
            return Some(format!("the log has {said:?}"));
        }
        self.count("write that was a copy", usize::from(is_copy));
        let written = self.model.bytes(ino).unwrap_or(&[]);
        let written = written.get(range.start as usize..range.end as usize);
        (!data.is_empty() && written != Some(data)).then(|| "other bytes were written".to_owned())
    }

    fn check_refusal(&mut self, action: &Action, errno: Errno, quota: Quota) -> Option<String> {
        self.count(&format!("{} {errno:?}", kind(action)), 1);
        let whole = self.whole.refusal(action, quota);
        if whole != Some(errno) {
            return Some(format!("the rules say {whole:?}"));
        }
        // The model does not know the usage of a tree.
        if errno == Errno::EDQUOT {
            return None;
        }
        let op = xfer_protocol::tree::Op { time: Default::default(), action: action.clone() };
        let len = if let Action::Write { len, .. } = action { *len as usize } else { 0 };
        match self.model.apply(&op, &vec![0; len], None) {
            Err(same) if same == errno => None,
            other => Some(format!("the model says {:?}", other.map(drop))),
        }
    }

    fn count(&mut self, what: &str, by: usize) {
        *self.tally.entry(what.to_owned()).or_default() += by;
    }

    fn find(&self, ino: Ino, offset: u64, seek: Seek) -> Result<u64, Errno> {
        let node = self.whole.node(ino).ok_or(Errno::ENOENT)?;
        let data = node.file().ok_or(Errno::EINVAL)?;
        match seek {
            _ if offset >= data.size => Err(Errno::ENXIO),
            Seek::Data => data.extents.next_data(data.size, offset).ok_or(Errno::ENXIO),
            Seek::Hole => Ok(data.extents.next_hole(data.size, offset).min(data.size)),
        }
    }

    fn fail(&self, wrong: &str) -> ! {
        let last: Vec<String> =
            self.last.iter().map(|s| format!("  {}: {:?}", s.seq, s.op)).collect();
        let (user, last) = (&self.user, last.join("\n"));
        panic!("{user}, after these ops:\n{last}\n{wrong}")
    }
}

/// Whether an op was sent again.
fn is_same(one: &Said, other: &Said) -> bool {
    (&one.op, &one.data) == (&other.op, &other.data)
}

/// Whether a node was shown correctly, with its attributes left out as in a listing.
pub fn is_listed(shown: &Node, node: &Node) -> bool {
    let xattrs = Xattrs::LeftOut { bytes: node.xattrs.bytes() };
    *shown == Node { xattrs, ..node.clone() }
}

/// Whether an op can be applied: the delivery that it accepts must have been sent.
fn is_ready(said: &Said, post: &Post) -> bool {
    accepted(said).is_none_or(|id| post.0.contains_key(&id))
}

fn accepted(said: &Said) -> Option<DeliveryId> {
    if let Action::Accept { delivery, .. } = said.op.action { Some(delivery) } else { None }
}

/// The name of an op's kind.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Create { .. } => "create",
        Action::Mkdir { .. } => "mkdir",
        Action::Symlink { .. } => "symlink",
        Action::Mknod { .. } => "mknod",
        Action::Link { .. } => "link",
        Action::Unlink { .. } => "unlink",
        Action::Rmdir { .. } => "rmdir",
        Action::Rename { mode: RenameMode::Replace, .. } => "rename",
        Action::Rename { mode: RenameMode::NoReplace, .. } => "rename to nothing",
        Action::Rename { mode: RenameMode::Exchange, .. } => "exchange",
        Action::SetAttr { size: Some(_), .. } => "truncate",
        Action::SetAttr { size: None, .. } => "set attributes",
        Action::SetXattr { .. } => "set xattr",
        Action::RemoveXattr { .. } => "remove xattr",
        Action::Write { .. } => "write",
        Action::Fallocate { mode: FallocateMode::PunchHole, .. } => "punch",
        Action::Fallocate { mode: FallocateMode::Zero | FallocateMode::ZeroKeepSize, .. } => "zero",
        Action::Fallocate { .. } => "allocate",
        Action::CopyRange { .. } => "copy",
        Action::ForgetOrphan { .. } => "forget orphan",
        Action::Mailbox { .. } => "mailbox",
        Action::Send { .. } => "send",
        Action::Accept { .. } => "accept",
        Action::Revise { .. } => "revise",
        Action::Decline { .. } => "decline",
    }
}

/// The op without the numbers that the client chose.
pub fn plain(action: &Action) -> Action {
    let mut plain = action.clone();
    match &mut plain {
        Action::Create { ino, .. }
        | Action::Mkdir { ino, .. }
        | Action::Symlink { ino, .. }
        | Action::Mknod { ino, .. }
        | Action::Mailbox { ino, .. } => *ino = NEW,
        Action::SetAttr { fresh, .. }
        | Action::Write { fresh, .. }
        | Action::Fallocate { fresh, .. }
        | Action::CopyRange { fresh, .. } => *fresh = FRESH,
        Action::Send { delivery, .. } => *delivery = DeliveryId(NEW.0),
        Action::Accept { first, .. } => *first = NEW,
        Action::Link { .. }
        | Action::Unlink { .. }
        | Action::Rmdir { .. }
        | Action::Rename { .. }
        | Action::SetXattr { .. }
        | Action::RemoveXattr { .. }
        | Action::ForgetOrphan { .. }
        | Action::Revise { .. }
        | Action::Decline { .. } => {}
    }
    plain
}

//! Sessions in memory: those that their clients may resume, and what dormant ones have missed.

use std::collections::BTreeMap;

use xfer_protocol::message::PublicKey;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Epoch, IdRange, Ino, Seq, SessionId};

use super::tables::Tables;
use crate::granted;
use crate::{
    Account, AccountId, Batch, Beginner, Begun, CHANGES_MAX, Changed, DORMANT_MAX, Missed,
    Resumable, Resumed, Resumption, StoreError,
};

/// The sessions of one account.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) present: Option<Standing>,
    /// Those that lost the seat to another one, the oldest first.
    dormant: Vec<Dormant>,
    /// Nodes that dormant sessions may have missed a change of, each with the last op that changed
    /// it.
    changes: BTreeMap<Ino, Seq>,
}

/// A session that its client may resume.
pub(super) struct Standing {
    pub(super) known: Resumable,
    pub(super) granted: Vec<IdRange>,
    /// All smaller numbers are used or skipped.
    pub(super) next_id: u64,
    /// The highest quota that the account has had meanwhile.
    quota: Quota,
    /// What it missed while it was dormant. Its client may not have heard of that unless more ops
    /// were applied.
    missed: Option<Range>,
}

struct Dormant {
    standing: Standing,
    /// The last op of the account that it knows of.
    base: Seq,
    /// The last op of the account when it lost the seat.
    lost: Seq,
    /// Whether the list lacks changes since then.
    is_outdated: bool,
}

/// Ops that a session missed.
#[derive(Clone, Copy)]
struct Range {
    from: Seq,
    to: Seq,
    is_outdated: bool,
}

impl Sessions {
    pub(super) fn has_dormant(&self) -> bool {
        !self.dormant.is_empty()
    }

    /// The session with this name, present or dormant.
    pub(super) fn named(&self, session: SessionId) -> Option<&Resumable> {
        self.all().map(|standing| &standing.known).find(|known| known.session == session)
    }

    fn all(&self) -> impl Iterator<Item = &Standing> {
        self.present.iter().chain(self.dormant.iter().map(|dormant| &dormant.standing))
    }

    /// Raises the quota that each session has had.
    pub(super) fn raise_quota(&mut self, quota: Quota) {
        let dormant = self.dormant.iter_mut().map(|dormant| &mut dormant.standing);
        for standing in self.present.iter_mut().chain(dormant) {
            let held = standing.quota;
            let (bytes, nodes) = (held.bytes.max(quota.bytes), held.nodes.max(quota.nodes));
            standing.quota = Quota { bytes, nodes };
        }
    }

    /// Notes what a batch changes, if a dormant session is to learn of it.
    pub(super) fn note(&mut self, batch: &Batch) {
        if let Some(standing) = &mut self.present {
            standing.next_id = standing.next_id.max(batch.next_id);
        }
        if self.dormant.iter().all(|dormant| dormant.is_outdated) {
            return;
        }
        let nodes = batch.nodes.iter().map(|(ino, _)| *ino);
        let changed = nodes.chain(batch.entries.iter().map(|(parent, ..)| *parent));
        self.changes.extend(changed.map(|ino| (ino, batch.applied)));
        if self.changes.len() > CHANGES_MAX {
            self.changes.clear();
            self.dormant.iter_mut().for_each(|dormant| dormant.is_outdated = true);
        }
    }

    fn remove(&mut self, session: SessionId) {
        self.retain(|known| known.session != session);
    }

    fn retain(&mut self, is_kept: impl Fn(&Resumable) -> bool) {
        self.present = self.present.take().filter(|standing| is_kept(&standing.known));
        self.dormant.retain(|dormant| is_kept(&dormant.standing.known));
    }

    /// Forgets a session, if it is dormant.
    pub(super) fn give_up(&mut self, session: SessionId, applied: Seq) {
        self.dormant.retain(|dormant| dormant.standing.known.session != session);
        self.drop_surplus(applied);
    }

    /// Forgets all dormant sessions, and returns their number.
    pub(super) fn forget_dormant(&mut self, applied: Seq) -> usize {
        let count = self.dormant.drain(..).count();
        self.drop_surplus(applied);
        count
    }

    /// Makes the present session dormant. [`Sessions::drop_surplus`] must follow.
    fn displace(&mut self, applied: Seq) {
        let Some(mut standing) = self.present.take() else { return };
        standing.granted = granted::left(standing.granted, standing.next_id);
        standing.next_id = 0;
        let unheard = standing.missed.take().filter(|missed| missed.to == applied);
        let base = unheard.map_or(applied, |missed| missed.from);
        let is_outdated = unheard.is_some_and(|missed| missed.is_outdated);
        self.dormant.push(Dormant { standing, base, lost: applied, is_outdated });
    }

    /// Notes that the client of a session has heard of what it had missed when it took the seat
    /// last.
    fn note_heard(&mut self, session: SessionId) {
        let is_it = |standing: &Standing| standing.known.session == session;
        for standing in self.present.iter_mut().filter(|standing| is_it(standing)) {
            standing.missed = None;
        }
        for dormant in self.dormant.iter_mut().filter(|dormant| is_it(&dormant.standing)) {
            dormant.base = dormant.lost;
        }
    }

    /// Lets a dormant session take the seat.
    fn wake(&mut self, session: SessionId, applied: Seq) {
        self.displace(applied);
        let is_it = |dormant: &Dormant| dormant.standing.known.session == session;
        if let Some(at) = self.dormant.iter().position(is_it) {
            let Dormant { mut standing, base, lost: _, is_outdated } = self.dormant.remove(at);
            if base != applied {
                standing.granted.clear();
                standing.missed = Some(Range { from: base, to: applied, is_outdated });
            }
            self.present = Some(standing);
        }
        self.drop_surplus(applied);
    }

    /// Forgets the oldest dormant sessions if there are too many, and changes that none has missed.
    fn drop_surplus(&mut self, applied: Seq) {
        self.dormant.sort_by_key(|dormant| {
            let known = &dormant.standing.known;
            (dormant.lost, known.since, known.session.0)
        });
        let surplus = self.dormant.len().saturating_sub(DORMANT_MAX);
        self.dormant.drain(..surplus);
        let missed = self.present.iter().filter_map(|standing| standing.missed);
        let missed = missed.filter(|missed| missed.to == applied && !missed.is_outdated);
        let dormant = self.dormant.iter().filter(|dormant| !dormant.is_outdated);
        let bases = dormant.map(|dormant| dormant.base).chain(missed.map(|missed| missed.from));
        match bases.min() {
            Some(base) => self.changes.retain(|_, at| *at > base),
            None => self.changes.clear(),
        }
    }

    /// What the present session missed, of which its client may not have heard.
    fn missed(&self, applied: Seq) -> Option<Missed> {
        let missed = self.present.as_ref()?.missed.filter(|missed| missed.to == applied)?;
        let base = missed.from;
        let nodes = || self.changes.iter().filter(|(_, at)| **at > base).map(|(ino, _)| *ino);
        let changed = match missed.is_outdated {
            true => Changed::All,
            false => Changed::Nodes(nodes().collect()),
        };
        Some(Missed { base, changed })
    }
}

impl Tables {
    pub(super) fn begin(&mut self, id: AccountId, by: Beginner) -> Result<Begun, StoreError> {
        let client = match by {
            Beginner::Client { .. } if self.is_claimed(id) => return Err(StoreError::Claimed),
            Beginner::Client { session, replaces } => Some((session, replaces)),
            Beginner::Claimant => None,
        };
        let account = self.raise_epoch(id)?;
        let sessions = self.sessions.entry(id).or_default();
        if let Some((session, replaces)) = &client {
            replaces.iter().for_each(|replaced| sessions.remove(*replaced));
            // Names are random. If one comes twice all the same, the later session has it.
            sessions.remove(session.session);
        }
        sessions.displace(account.applied);
        sessions.drop_surplus(account.applied);
        sessions.present = client.map(|(known, _)| {
            let quota = account.quota;
            Standing { known, granted: Vec::new(), next_id: 0, quota, missed: None }
        });
        let may_be_open = sessions.has_dormant();
        if let Some(known) = sessions.present.as_ref().map(|standing| standing.known.clone())
            && let Some(key) = known.device.and_then(|device| self.key(id, device))
        {
            key.used = Some(known.since);
        }
        let orphans = self.tree(id).filter(|(_, node)| node.nlink == 0 && !may_be_open);
        Ok(Begun { orphans: orphans.map(|(ino, _)| ino).collect(), account })
    }

    pub(super) fn resume(
        &mut self,
        id: AccountId,
        with: Resumption,
    ) -> Result<Option<Resumed>, StoreError> {
        if self.is_claimed(id) {
            return Err(StoreError::Claimed);
        }
        let Some(account) = self.accounts.get(&id) else { return Ok(None) };
        let (applied, sessions) = (account.applied, self.sessions.entry(id).or_default());
        let known = sessions.named(with.session).filter(|known| known.grants(&with));
        let Some(known) = known else { return Ok(None) };
        // It was given that secret with the last answer.
        if known.secret == with.shown {
            sessions.note_heard(with.session);
        }
        match &sessions.present {
            Some(standing) if standing.known.session == with.session => {
                sessions.drop_surplus(applied);
            }
            Some(_) | None => sessions.wake(with.session, applied),
        }
        let missed = sessions.missed(applied);
        let Some(standing) = &mut sessions.present else { return Ok(None) };
        let Resumption { session: _, shown, next, address, attempt } = with;
        let known = standing.known.clone();
        standing.known = Resumable { secret: next, shown, address, attempt, ..known };
        let (quota, next_id) = (standing.quota, standing.next_id);
        let granted = granted::left(standing.granted.clone(), next_id);
        Ok(Some(Resumed { account: self.raise_epoch(id)?, quota, granted, next_id, missed }))
    }

    /// Makes the session of this epoch dormant.
    pub(super) fn yield_seat(&mut self, account: AccountId, epoch: Epoch) {
        if let Some((sessions, applied)) = self.sessions_at(account, epoch) {
            sessions.displace(applied);
            sessions.drop_surplus(applied);
        }
    }

    /// Forgets the session of this epoch.
    pub(super) fn forget(&mut self, account: AccountId, epoch: Epoch) {
        if let Some((sessions, applied)) = self.sessions_at(account, epoch) {
            sessions.present = None;
            sessions.drop_surplus(applied);
        }
    }

    /// Forgets those of an account's sessions that were begun with certain devices, or with none.
    pub(super) fn forget_sessions(
        &mut self,
        id: AccountId,
        is_forgotten: impl Fn(Option<PublicKey>) -> bool,
    ) {
        let applied = self.accounts.get(&id).map(|account| account.applied).unwrap_or_default();
        if let Some(sessions) = self.sessions.get_mut(&id) {
            sessions.retain(|known| !is_forgotten(known.device));
            sessions.drop_surplus(applied);
        }
    }

    /// The account's sessions, and its last op, if it still has this epoch.
    fn sessions_at(&mut self, id: AccountId, epoch: Epoch) -> Option<(&mut Sessions, Seq)> {
        let account = self.accounts.get(&id).filter(|account| account.epoch == epoch)?;
        Some((self.sessions.get_mut(&id)?, account.applied))
    }

    fn raise_epoch(&mut self, id: AccountId) -> Result<Account, StoreError> {
        let account = self.account(id)?;
        account.epoch.0 += 1;
        Ok(account.clone())
    }

    fn is_claimed(&self, id: AccountId) -> bool {
        let claims = self.claims.get(&id);
        claims.is_some_and(|claims| claims.is_changed() || claims.is_read())
    }

    pub(super) fn grant_ids(
        &mut self,
        account: AccountId,
        count: u64,
    ) -> Result<IdRange, StoreError> {
        let first = self.next_id;
        let end = first.checked_add(count).filter(|end| i64::try_from(*end).is_ok());
        let used_up = || StoreError::Database("all numbers are used up".into());
        let range = IdRange { first, end: end.ok_or_else(used_up)? };
        self.next_id = range.end;
        let sessions = self.sessions.get_mut(&account);
        if let Some(standing) = sessions.and_then(|sessions| sessions.present.as_mut()) {
            let before = std::mem::take(&mut standing.granted);
            standing.granted = granted::with(before, standing.next_id, range);
        }
        Ok(range)
    }
}

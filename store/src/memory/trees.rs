//! Trees in memory.

use std::ops::Bound;
use std::sync::Arc;

use xfer_protocol::tree::{Need, Node};
use xfer_protocol::{Epoch, IdRange, Ino, Name};

use super::tables::{Standing, Tables};
use super::{Memory, answer};
use crate::granted;
use crate::trees::weight;
use crate::{
    Account, AccountId, Answer, Batch, Beginner, Begun, Committed, Fate, Found, Left, Listing,
    Part, Resumable, Resumed, Resumption, StoreError, Trees,
};

/// The most steps that are followed on the way to the root.
const DEPTH_MAX: usize = 4096;

impl Trees for Memory {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        answer(self.lock().begin(account, by))
    }

    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>> {
        answer(Ok(self.lock().sessions.get(&account).map(|standing| standing.known.clone())))
    }

    fn resume(&self, account: AccountId, with: Resumption) -> Answer<'_, Option<Resumed>> {
        answer(self.lock().resume(account, with))
    }

    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found> {
        answer(self.lock().load(account, &needs))
    }

    fn list(&self, account: AccountId, parts: Vec<Part>) -> Answer<'_, Vec<Listing>> {
        let state = self.lock();
        answer(parts.iter().map(|part| state.list(account, part)).collect())
    }

    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>> {
        answer(Ok(self.lock().path(account, ino)))
    }

    fn grant_ids(&self, account: AccountId, count: u64) -> Answer<'_, IdRange> {
        answer(self.lock().grant_ids(account, count))
    }

    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>> {
        let mut state = self.lock();
        let committed = batches.iter().map(|batch| state.commit(batch)).collect();
        state.garbage.clear();
        answer(Ok(committed))
    }

    fn end(&self, account: AccountId, epoch: Epoch, left: Left, fate: Fate) -> Answer<'_, ()> {
        let mut state = self.lock();
        if fate == Fate::Over {
            state.forget(account, epoch);
        }
        let is_beyond = state.accounts.get(&account).is_some_and(|held| held.epoch > epoch);
        // A session that goes on in a later epoch may have created them again.
        for content in left.created.into_iter().filter(|_| !is_beyond) {
            if !state.references.contains_key(&content) {
                state.contents.remove(&content);
            }
        }
        if let Some(account) = state.accounts.get_mut(&account).filter(|held| held.epoch == epoch) {
            account.tidied = epoch;
        }
        answer(Ok(()))
    }

    fn forget(&self, account: AccountId, epoch: Epoch) -> Answer<'_, ()> {
        self.lock().forget(account, epoch);
        answer(Ok(()))
    }
}

impl Tables {
    fn forget(&mut self, account: AccountId, epoch: Epoch) {
        let is_last = self.accounts.get(&account).is_some_and(|held| held.epoch == epoch);
        if is_last {
            self.sessions.remove(&account);
        }
    }

    fn begin(&mut self, id: AccountId, by: Beginner) -> Result<Begun, StoreError> {
        let known = match by {
            Beginner::Client(_) if self.is_claimed(id) => return Err(StoreError::Claimed),
            Beginner::Client(known) => Some(known),
            Beginner::Claimant => None,
        };
        let account = self.raise_epoch(id)?;
        self.sessions.remove(&id);
        if let Some(known) = known {
            let (granted, next_id, quota) = (Vec::new(), 0, account.quota);
            self.sessions.insert(id, Standing { known, granted, next_id, quota });
        }
        let orphans = self.tree(id).filter(|(_, node)| node.nlink == 0);
        Ok(Begun { orphans: orphans.map(|(ino, _)| ino).collect(), account })
    }

    fn resume(&mut self, id: AccountId, with: Resumption) -> Result<Option<Resumed>, StoreError> {
        if self.is_claimed(id) {
            return Err(StoreError::Claimed);
        }
        let standing = self.sessions.get_mut(&id);
        let Some(standing) = standing.filter(|standing| standing.known.grants(&with)) else {
            return Ok(None);
        };
        let Resumption { session: _, shown, next, address, attempt } = with;
        let known = standing.known.clone();
        standing.known = Resumable { secret: next, shown, address, attempt, ..known };
        let next_id = standing.next_id;
        let granted = granted::left(standing.granted.clone(), next_id);
        let quota = standing.quota;
        Ok(Some(Resumed { account: self.raise_epoch(id)?, quota, granted, next_id }))
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

    fn grant_ids(&mut self, account: AccountId, count: u64) -> Result<IdRange, StoreError> {
        let first = self.next_id;
        let end = first.checked_add(count).filter(|end| i64::try_from(*end).is_ok());
        let used_up = || StoreError::Database("all numbers are used up".into());
        let range = IdRange { first, end: end.ok_or_else(used_up)? };
        self.next_id = range.end;
        if let Some(standing) = self.sessions.get_mut(&account) {
            let before = std::mem::take(&mut standing.granted);
            standing.granted = granted::with(before, standing.next_id, range);
        }
        Ok(range)
    }

    fn node(&self, account: AccountId, ino: Ino) -> Option<Node> {
        self.nodes.get(&(account, ino)).map(|node| Node::clone(node))
    }

    fn load(&self, account: AccountId, needs: &[Need]) -> Result<Found, StoreError> {
        let mut found = Found::default();
        for need in needs {
            match need {
                Need::Node(ino) | Need::Attributes(ino) => {
                    found.nodes.push((*ino, self.node(account, *ino)));
                }
                Need::Entry(parent, name) => {
                    let directory = self.entries.get(&(account, *parent));
                    let ino = directory.and_then(|entries| entries.get(name)).copied();
                    found.entries.push((*parent, name.clone(), ino));
                    found.nodes.extend(ino.map(|ino| (ino, self.node(account, ino))));
                }
                Need::Children(directory) => {
                    for (name, ino) in self.children(account, *directory, None) {
                        let node = self.entry_node(account, ino)?;
                        found.entries.push((*directory, name.clone(), Some(ino)));
                        found.nodes.push((ino, Some(node)));
                    }
                    found.whole.push(*directory);
                }
                Need::Delivery(id) => {
                    let sent = self.deliveries.get(id);
                    let sent = sent.filter(|sent| sent.to == Some(account));
                    found.deliveries.push((*id, sent.map(|sent| Arc::clone(&sent.delivery))));
                }
            }
        }
        Ok(found)
    }

    fn list(&self, account: AccountId, part: &Part) -> Result<Listing, StoreError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (name, ino) in self.children(account, part.directory, part.after.as_ref()) {
            if rows.len() == part.max.count || bytes > part.max.bytes {
                return Ok(Listing { rows, last: false });
            }
            let mut node = self.entry_node(account, ino)?;
            node.xattrs = node.xattrs.listed();
            bytes += weight(name, &node);
            rows.push((name.clone(), ino, node));
        }
        Ok(Listing { rows, last: true })
    }

    fn children<'a>(
        &'a self,
        account: AccountId,
        directory: Ino,
        after: Option<&Name>,
    ) -> impl Iterator<Item = (&'a Name, Ino)> + use<'a> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let entries = self.entries.get(&(account, directory)).into_iter();
        entries
            .flat_map(move |entries| entries.range((start.clone(), Bound::Unbounded)))
            .map(|(name, ino)| (name, *ino))
    }

    fn entry_node(&self, account: AccountId, ino: Ino) -> Result<Node, StoreError> {
        let missing = || StoreError::Database(format!("node {ino} of an entry is missing"));
        self.node(account, ino).ok_or_else(missing)
    }

    fn path(&self, account: AccountId, ino: Ino) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT && names.len() < DEPTH_MAX {
            let directories = self.entries.iter().filter(|((of, _), _)| *of == account);
            let mut entries = directories
                .flat_map(|((_, parent), entries)| entries.iter().map(|entry| (*parent, entry)));
            let (parent, (name, _)) = entries.find(|(_, (_, there))| **there == at)?;
            names.push(name.clone());
            at = parent;
        }
        names.reverse();
        (at == Ino::ROOT).then_some(names)
    }
}

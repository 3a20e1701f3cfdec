//! Trees in memory.

use std::ops::Bound;
use std::sync::Arc;

use xfer_protocol::tree::{Need, Node};
use xfer_protocol::{Epoch, IdRange, Ino, Name, SessionId};

use super::tables::Tables;
use super::{Memory, answer};
use crate::waists::trees::weight;
use crate::{
    AccountId, Answer, Batch, Beginner, Begun, Committed, Fate, Found, Left, Listing, Part,
    Resumable, Resumed, Resumption, StoreError, Trees,
};

/// The most steps that are followed on the way to the root.
const DEPTH_MAX: usize = 4096;

impl Trees for Memory {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        answer(self.lock().begin(account, by))
    }

    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>> {
        let state = self.lock();
        let present = state.sessions.get(&account).and_then(|sessions| sessions.present.as_ref());
        answer(Ok(present.map(|standing| standing.known.clone())))
    }

    fn session_of(&self, account: AccountId, session: SessionId) -> Answer<'_, Option<Resumable>> {
        let state = self.lock();
        let named = state.sessions.get(&account).and_then(|sessions| sessions.named(session));
        answer(Ok(named.cloned()))
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
        match fate {
            Fate::Over => state.forget(account, epoch),
            Fate::Resumable => {}
            Fate::Yielded => state.yield_seat(account, epoch),
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

    fn give_up(&self, account: AccountId, session: SessionId) -> Answer<'_, ()> {
        let mut state = self.lock();
        let applied = state.accounts.get(&account).map(|held| held.applied).unwrap_or_default();
        if let Some(sessions) = state.sessions.get_mut(&account) {
            sessions.give_up(session, applied);
        }
        answer(Ok(()))
    }

    fn forget_dormant(&self, account: AccountId) -> Answer<'_, usize> {
        let mut state = self.lock();
        let applied = state.accounts.get(&account).map(|held| held.applied).unwrap_or_default();
        let sessions = state.sessions.get_mut(&account);
        answer(Ok(sessions.map_or(0, |sessions| sessions.forget_dormant(applied))))
    }
}

impl Tables {
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

//! Trees in memory.

use std::ops::Bound;
use std::sync::Arc;

use xfer_protocol::tree::{Need, Node};
use xfer_protocol::{Epoch, IdRange, Ino, Name};

use super::tables::Tables;
use super::{Memory, answer};
use crate::trees::weight;
use crate::{
    AccountId, Answer, Batch, Beginner, Begun, Committed, Found, Left, Listing, Part, StoreError,
    Trees,
};

/// The most steps that are followed on the way to the root.
const DEPTH_MAX: usize = 4096;

impl Trees for Memory {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        answer(self.lock().begin(account, by))
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

    fn grant_ids(&self, count: u64) -> Answer<'_, IdRange> {
        let mut state = self.lock();
        let first = state.next_id;
        let end = first.checked_add(count).filter(|end| i64::try_from(*end).is_ok());
        answer(match end {
            Some(end) => {
                state.next_id = end;
                Ok(IdRange { first, end })
            }
            None => Err(StoreError::Database("all numbers are used up".into())),
        })
    }

    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>> {
        let mut state = self.lock();
        let committed = batches.iter().map(|batch| state.commit(batch)).collect();
        state.garbage.clear();
        answer(Ok(committed))
    }

    fn end(&self, account: AccountId, epoch: Epoch, left: Left) -> Answer<'_, ()> {
        let mut state = self.lock();
        for content in left.created {
            if !state.references.contains_key(&content) {
                state.contents.remove(&content);
            }
        }
        if let Some(account) = state.accounts.get_mut(&account).filter(|held| held.epoch == epoch) {
            account.tidied = epoch;
        }
        answer(Ok(()))
    }
}

impl Tables {
    fn begin(&mut self, id: AccountId, by: Beginner) -> Result<Begun, StoreError> {
        let claims = self.claims.get(&id);
        let is_claimed = claims.is_some_and(|claims| claims.is_changed() || claims.is_read());
        if by == Beginner::Client && is_claimed {
            return Err(StoreError::Claimed);
        }
        let account = self.account(id)?;
        account.epoch.0 += 1;
        let account = account.clone();
        let orphans = self.tree(id).filter(|(_, node)| node.nlink == 0);
        Ok(Begun { orphans: orphans.map(|(ino, _)| ino).collect(), account })
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

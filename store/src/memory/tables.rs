//! The whole state of the engine in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use xfer_protocol::message::{DeliveryState, DeviceKey, PublicKey};
use xfer_protocol::tree::{Delivery, Item, ItemKind, Node};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Name, Timestamp};

use super::bytes::Sparse;
use super::sessions::Sessions;
use crate::inbox::Inboxes;
use crate::waists::accounts::{DAYS_KEPT, days_later};
use crate::{Account, AccountId, Invitation, Pair, StoreError, WrongPasswords};

/// Rows, bytes, claims and reservations.
pub(super) struct Tables {
    pub(super) next_id: u64,
    pub(super) next_account: u64,
    pub(super) next_arrival: u64,
    pub(super) accounts: BTreeMap<AccountId, Account>,
    /// The sessions that their clients may resume.
    pub(super) sessions: BTreeMap<AccountId, Sessions>,
    pub(super) nodes: BTreeMap<(AccountId, Ino), Arc<Node>>,
    /// Keyed by directory.
    pub(super) entries: BTreeMap<(AccountId, Ino), BTreeMap<Name, Ino>>,
    /// The number of nodes and deliveries that refer to a content.
    pub(super) references: BTreeMap<ContentId, i64>,
    /// Contents that became garbage in the present call. The rest of the call must not refer to
    /// them again.
    pub(super) garbage: BTreeSet<ContentId>,
    pub(super) contents: BTreeMap<ContentId, Sparse>,
    pub(super) deliveries: BTreeMap<DeliveryId, Sent>,
    pub(super) inboxes: Inboxes,
    pub(super) claims: BTreeMap<AccountId, Claims>,
    pub(super) failures: BTreeMap<Pair, WrongPasswords>,
    pub(super) keys: BTreeMap<AccountId, Vec<DeviceKey>>,
    /// Each with the key that was enrolled with it.
    pub(super) invitations: BTreeMap<AccountId, (Invitation, Option<PublicKey>)>,
    /// Removed accounts that are kept, each with the time of its removal.
    pub(super) removed: BTreeMap<AccountId, (Account, Timestamp)>,
    pub(super) days_kept: u16,
    /// Accounts that were given up and whose data is not cleared yet.
    pub(super) deleted: BTreeSet<AccountId>,
}

/// A delivery, from its send until its sender has removed the record.
pub(super) struct Sent {
    pub(super) arrival: u64,
    /// `None` if the sender's account is gone.
    pub(super) from: Option<AccountId>,
    /// The recipient, while the delivery waits.
    pub(super) to: Option<AccountId>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) state: DeliveryState,
}

/// The commands that have claimed an account.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) change: Weak<()>,
    pub(super) read: Vec<Weak<()>>,
}

impl Claims {
    pub(super) fn is_changed(&self) -> bool {
        self.change.strong_count() > 0
    }

    pub(super) fn is_read(&self) -> bool {
        self.read.iter().any(|claim| claim.strong_count() > 0)
    }
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            next_id: Ino::FIRST_GRANTED,
            next_account: 1,
            next_arrival: 1,
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            entries: BTreeMap::new(),
            references: BTreeMap::new(),
            garbage: BTreeSet::new(),
            contents: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            inboxes: Inboxes::default(),
            claims: BTreeMap::new(),
            failures: BTreeMap::new(),
            keys: BTreeMap::new(),
            invitations: BTreeMap::new(),
            removed: BTreeMap::new(),
            days_kept: DAYS_KEPT,
            deleted: BTreeSet::new(),
        }
    }
}

impl Tables {
    pub(super) fn account(&mut self, account: AccountId) -> Result<&mut Account, StoreError> {
        self.accounts.get_mut(&account).ok_or(StoreError::NoAccount)
    }

    pub(super) fn named(&self, name: &Name) -> Option<&Account> {
        self.accounts.values().find(|account| account.name == *name)
    }

    /// Whether the account's session of this epoch is still running.
    pub(super) fn runs(&self, account: AccountId, epoch: Epoch) -> bool {
        let found = self.accounts.get(&account);
        found.is_some_and(|found| found.epoch == epoch && found.tidied < epoch)
    }

    /// Adds `by` to the number of references to a content. At 0 the content becomes garbage.
    pub(super) fn refer(&mut self, content: ContentId, by: i64) {
        let count = self.references.entry(content).or_default();
        *count += by;
        if *count == 0 {
            self.references.remove(&content);
            self.contents.remove(&content);
            self.garbage.insert(content);
        }
    }

    /// Ends a delivery's wait. The batch that does so has already taken over or given back the
    /// references to its contents.
    pub(super) fn decide(&mut self, id: DeliveryId, state: DeliveryState) {
        let Some(sent) = self.deliveries.get_mut(&id) else { return };
        sent.state = state;
        let size = (sent.delivery.bytes(), sent.delivery.items.len() as u64);
        let (to, from) = (sent.to.take(), sent.from);
        if let Some(to) = to.and_then(|to| self.accounts.get_mut(&to)) {
            to.waiting.bytes -= size.0;
            to.waiting.nodes -= size.1;
        }
        match from {
            Some(from) => self.forget_unrecorded(from, id),
            // No sender is left to ask about it.
            None => drop(self.deliveries.remove(&id)),
        }
    }

    /// Forgets a delivery that no longer waits, if its sender's record is gone.
    pub(super) fn forget_unrecorded(&mut self, from: AccountId, id: DeliveryId) {
        let is_decided = self
            .deliveries
            .get(&id)
            .is_some_and(|sent| sent.to.is_none() && sent.from == Some(from));
        if is_decided && !self.has_record(from, id) {
            self.deliveries.remove(&id);
        }
    }

    fn has_record(&self, from: AccountId, id: DeliveryId) -> bool {
        self.tree(from).any(|(_, node)| node.sent == Some(id))
    }

    /// All nodes of a tree.
    pub(super) fn tree(&self, account: AccountId) -> impl Iterator<Item = (Ino, &Arc<Node>)> {
        let all = self.nodes.range((account, Ino(0))..=(account, Ino(u64::MAX)));
        all.map(|((_, ino), node)| (*ino, node))
    }

    /// Deletes the data of accounts that were given up, and of removed ones whose days are over, and
    /// refuses the deliveries to them.
    pub(super) fn clear_deleted(&mut self, now: Timestamp) {
        let last_due = days_later(now, -i64::from(self.days_kept));
        let due = self.removed.iter().filter(|(_, (_, at))| *at <= last_due);
        self.deleted.extend(due.map(|(account, _)| *account));
        self.removed.retain(|account, _| !self.deleted.contains(account));
        for account in std::mem::take(&mut self.deleted) {
            let mut waiting: Vec<_> = self.deliveries.iter().collect();
            waiting.retain(|(_, sent)| sent.to == Some(account));
            waiting.sort_by_key(|(_, sent)| sent.arrival);
            let waiting: Vec<_> =
                waiting.into_iter().map(|(id, sent)| (*id, sent.delivery.clone())).collect();
            for (id, delivery) in waiting {
                delivery.items.iter().filter_map(content).for_each(|id| self.refer(id, -1));
                self.decide(id, DeliveryState::Refused(now));
            }
            self.deliveries.retain(|_, sent| sent.to.is_some() || sent.from != Some(account));
            let sent = self.deliveries.values_mut().filter(|sent| sent.from == Some(account));
            sent.for_each(|sent| sent.from = None);
            let nodes: Vec<_> =
                self.tree(account).map(|(ino, node)| (ino, node.content())).collect();
            for (ino, content) in nodes {
                self.nodes.remove(&(account, ino));
                content.into_iter().for_each(|content| self.refer(content, -1));
            }
            self.entries.retain(|(of, _), _| *of != account);
            self.claims.remove(&account);
        }
    }
}

/// The content of an item.
pub(super) fn content(item: &Item) -> Option<ContentId> {
    match &item.kind {
        ItemKind::File { content, .. } => *content,
        ItemKind::Directory | ItemKind::Symlink { .. } | ItemKind::Link { .. } => None,
    }
}

//! Filling the replica with rows from the server's answers. The drive asks the questions.
//!
//! **Invariant:** the client trusts no answer. Nodes that can't exist are left out, and a listing
//! that does not end or does not advance is refused.

use std::sync::Arc;

use xfer_protocol::limits::{FILE_BYTES_MAX, SYMLINK_BYTES_MAX, XATTRS_BYTES_MAX};
use xfer_protocol::message::{Answer, DeliveryHead, Page};
use xfer_protocol::tree::{Delivery, Item, Kind, Node};
use xfer_protocol::{DeliveryId, Ino, Name, Seq};

use crate::core::data::FetchOrder;
use crate::core::state::Core;

/// A directory with up to this many entries is listed whole when one of them is looked up. That
/// costs one question, as a single look-up does, and later look-ups cost none.
const LISTED_WHOLE_MAX: u64 = 1000;

/// The most names that a node from the server may have. No tree comes near it, so the rules can
/// count on from it without an overflow.
const NLINK_MAX: u32 = u32::MAX / 2;

/// The most entries, and bytes of their names, that a directory from the server may have.
const ENTRIES_MAX: u64 = u64::MAX / 4;

/// The server's answer does not fit the question. Holds a description of the expected answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unexpected(pub(crate) &'static str);

/// The most entries that a listing may have, so that a server can't keep the client listing for
/// ever.
#[derive(Debug)]
pub(crate) struct ListingLimit {
    /// The entries that the directory has by its node.
    entries: u64,
    /// The last durable change when the listing began. Each later one may have removed an entry
    /// that the server still shows.
    after: Seq,
    /// The entries that have arrived.
    count: u64,
}

impl Core {
    /// How often rows were unloaded. An answer to a question from before the last time must not be
    /// filled in: it may be older than a row that was known then.
    pub(crate) fn unloadings(&self) -> u64 {
        self.replica.table.unloadings()
    }

    /// Unloads rows if all take more memory than they may.
    pub(crate) fn trim_rows(&mut self) {
        self.replica.trim();
    }

    /// Keeps a node and its known entries loaded until [`Core::unpin`].
    pub(crate) fn pin(&mut self, ino: Ino) {
        self.replica.table.pin(ino);
    }

    /// Ends one [`Core::pin`].
    pub(crate) fn unpin(&mut self, ino: Ino) {
        self.replica.table.unpin(ino);
    }

    /// Whether a directory is too large to be listed for one look-up. One that is not loaded counts
    /// as large.
    pub(crate) fn is_large(&self, directory: Ino) -> bool {
        self.known_node(directory).is_none_or(|node| node.entries() > LISTED_WHOLE_MAX)
    }

    /// Whether a node is a directory, as far as is known.
    pub(crate) fn is_directory(&self, ino: Ino) -> bool {
        self.known_node(ino).is_some_and(|node| node.is_directory())
    }

    /// Whether all entries of a directory are known.
    pub(crate) fn is_listed(&self, directory: Ino) -> bool {
        self.replica.table.is_complete(directory)
    }

    /// Fills in a node. One that can't exist is taken for absent.
    pub(crate) fn fill_node(&mut self, ino: Ino, answer: Answer) -> Result<(), Unexpected> {
        let Answer::Node(node) = answer else { return Err(Unexpected("a node")) };
        self.fill(ino, node.filter(is_sound));
        Ok(())
    }

    /// Fills in extended attributes that a listing left out.
    pub(crate) fn fill_attributes(&mut self, ino: Ino, answer: Answer) -> Result<(), Unexpected> {
        let Answer::Node(node) = answer else { return Err(Unexpected("a node")) };
        if let Some(node) = node.filter(is_sound) {
            self.replica.table.fill_xattrs(ino, node.xattrs);
        }
        match self.known_node(ino) {
            Some(node) if node.xattrs.all().is_none() => Err(Unexpected("a node's attributes")),
            Some(_) | None => Ok(()),
        }
    }

    /// Fills in an entry together with its node.
    pub(crate) fn fill_entry(
        &mut self,
        parent: Ino,
        name: &Name,
        answer: Answer,
    ) -> Result<(), Unexpected> {
        let Answer::Entry(entry) = answer else { return Err(Unexpected("an entry")) };
        let entry = entry.filter(|(_, node)| is_sound(node));
        let ino = entry.as_ref().map(|(ino, _)| *ino);
        self.replica.table.fill_entry(parent, name.clone(), ino);
        if let Some((ino, node)) = entry {
            self.fill(ino, Some(node));
        }
        Ok(())
    }

    /// The limit for a listing of a directory that begins now.
    pub(crate) fn listing_limit(&self, directory: Ino) -> ListingLimit {
        let entries = self.known_node(directory).map_or(ENTRIES_MAX, |node| node.entries());
        // The server may still show entries that changes in flight have removed.
        ListingLimit { entries, after: self.uplink.log.durable(), count: 0 }
    }

    /// Fills in the answer to a listing from `after` on. Returns the name after which the next page
    /// begins.
    pub(crate) fn fill_listing(
        &mut self,
        directory: Ino,
        after: Option<&Name>,
        limit: &mut ListingLimit,
        answer: Answer,
    ) -> Result<Option<Name>, Unexpected> {
        let Answer::Pages(pages) = answer else { return Err(Unexpected("a listing")) };
        let first = pages.first().filter(|page| page.directory == directory);
        let first = first.ok_or(Unexpected("a listing without a page"))?;
        let end = first.entries.last().map(|entry| entry.name.clone());
        // A server that repeats entries would keep the client here for ever.
        if !first.last && (end.is_none() || end.as_ref() <= after) {
            return Err(Unexpected("a listing that does not advance"));
        }
        limit.count += first.entries.len() as u64;
        pages.into_iter().for_each(|page| self.fill_page(page));
        let changes = self.uplink.log.last().0 - limit.after.0;
        match limit.count > limit.entries + changes {
            true => Err(Unexpected("a listing that ends")),
            false => Ok(end),
        }
    }

    fn fill_page(&mut self, page: Page) {
        for entry in page.entries {
            if is_sound(&entry.node) {
                self.replica.table.fill_entry(page.directory, entry.name, Some(entry.ino));
                self.fill(entry.ino, Some(entry.node));
            }
        }
        // Pages that the server adds unasked begin at the start of their directory. The pages of
        // the directory that was asked for came one after another from its start. So after a last
        // page, either has all its entries.
        if page.last {
            self.replica.table.fill_complete(page.directory);
        }
    }

    /// Fills in a node, unless it is known.
    fn fill(&mut self, ino: Ino, node: Option<Node>) {
        #[cfg(feature = "planted-bugs")]
        if self.has(crate::core::Bug::FollowsOldRows) {
            self.replica.table.forget(ino);
        }
        self.replica.table.fill_node(ino, node);
    }

    /// The head of a delivery, if it waits to be placed.
    pub(crate) fn waiting_delivery(&self, id: DeliveryId) -> Option<DeliveryHead> {
        self.inbox.waiting.iter().find(|head| head.id == id).cloned()
    }

    /// Fills in a delivery with all its items. One without items no longer exists.
    pub(crate) fn fill_delivery(&mut self, head: DeliveryHead, items: Vec<Item>) {
        let DeliveryHead { id, from, sent, .. } = head;
        let there = !items.is_empty();
        let delivery = Delivery { id, from, sent, items };
        self.replica.table.fill_delivery(id, there.then(|| Arc::new(delivery)));
    }

    /// Whether a file still has the ordered content, with data in the whole range. The server judges
    /// a question alike.
    pub(crate) fn has_data(&self, ino: Ino, order: &FetchOrder) -> bool {
        let Some(node) = self.known_node(ino) else { return false };
        node.file()
            .is_some_and(|data| data.content == Some(order.content) && data.is_data(&order.range))
    }

    /// The seq of the last op that changed a node.
    pub(crate) fn changed(&self, ino: Ino) -> Seq {
        self.replica.table.changed(ino)
    }

    /// Ends a fetch with its data, or without any if it failed.
    pub(crate) fn fill_data(&mut self, order: &FetchOrder, data: Option<&bytes::Bytes>) {
        self.data.cache.arrived(order, data);
    }
}

/// Whether a node from the server can exist. The rest of the client relies on these bounds.
fn is_sound(node: &Node) -> bool {
    if node.xattrs.bytes() > XATTRS_BYTES_MAX as u64 || node.nlink > NLINK_MAX {
        return false;
    }
    match &node.kind {
        Kind::Symlink { target } => !target.is_empty() && target.len() <= SYMLINK_BYTES_MAX,
        Kind::File(data) => data.size <= FILE_BYTES_MAX,
        Kind::Directory { entries, name_bytes, .. } => (*entries).max(*name_bytes) <= ENTRIES_MAX,
        Kind::Special(_) => true,
    }
}

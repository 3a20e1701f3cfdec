//! Filling in rows that the server answered with.
//!
//! **Invariant:** the client trusts no answer. Nodes that can't exist are left out, and a listing that
//! does not end or does not advance is refused.

use std::sync::Arc;

use xfer_protocol::limits::{FILE_BYTES_MAX, SYMLINK_BYTES_MAX, XATTRS_BYTES_MAX};
use xfer_protocol::message::{Answer, DeliveryHead, Page};
use xfer_protocol::tree::{Delivery, Item, Kind, Node};
use xfer_protocol::{DeliveryId, Ino, Name, Seq};

use crate::core::data::FetchOrder;
use crate::core::state::Core;

/// A directory up to this size is listed whole when one of its entries is looked up. That costs one
/// question too, and later look-ups cost none.
const LISTED_WHOLE_MAX: u64 = 1000;

/// More names of a node than any tree can have, so that the rules need not count so far.
const NLINK_MAX: u32 = u32::MAX / 2;

/// The same for the entries of a directory, and for the bytes of their names.
const ENTRIES_MAX: u64 = u64::MAX / 4;

/// The server's answer is not what was asked for. Says what it should have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unexpected(pub(crate) &'static str);

/// How many entries a listing may come to, so that a server that goes on for ever is not followed.
#[derive(Debug)]
pub(crate) struct ListingLimit {
    /// How many the directory has.
    entries: u64,
    /// The last change that the server had for sure. Each change since may have removed an entry that
    /// the server still shows.
    after: Seq,
    /// How many came.
    count: u64,
}

impl Core {
    /// How often rows were unloaded. An answer to a question from before the last time may be older
    /// than a row that was known then, and must not be filled in.
    pub(crate) fn unloadings(&self) -> u64 {
        self.replica.table.unloadings()
    }

    /// Unloads rows if there are too many.
    pub(crate) fn trim_rows(&mut self) {
        self.replica.trim();
    }

    /// Keeps a node loaded, and what is known of its entries, until [`Core::unpin`].
    pub(crate) fn pin(&mut self, ino: Ino) {
        self.replica.table.pin(ino);
    }

    /// Takes one [`Core::pin`] back.
    pub(crate) fn unpin(&mut self, ino: Ino) {
        self.replica.table.unpin(ino);
    }

    /// Whether a directory is too large to be listed for one look-up.
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

    /// Fills in a node.
    pub(crate) fn fill_node(&mut self, ino: Ino, answer: Answer) -> Result<(), Unexpected> {
        let Answer::Node(node) = answer else { return Err(Unexpected("a node")) };
        self.replica.table.fill_node(ino, node.filter(is_sound));
        Ok(())
    }

    /// Fills in attributes that a listing left out.
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

    /// Fills in an entry with its node.
    pub(crate) fn fill_entry(
        &mut self,
        parent: Ino,
        name: &Name,
        answer: Answer,
    ) -> Result<(), Unexpected> {
        let Answer::Entry(entry) = answer else { return Err(Unexpected("an entry")) };
        let entry = entry.filter(|(_, node)| is_sound(node));
        let table = &mut self.replica.table;
        table.fill_entry(parent, name.clone(), entry.as_ref().map(|(ino, _)| *ino));
        if let Some((ino, node)) = entry {
            table.fill_node(ino, Some(node));
        }
        Ok(())
    }

    /// What a listing of a directory may come to.
    pub(crate) fn listing_limit(&self, directory: Ino) -> ListingLimit {
        let entries = self.known_node(directory).map_or(ENTRIES_MAX, |node| node.entries());
        // The server may show entries that are removed by changes it does not have yet.
        ListingLimit { entries, after: self.uplink.log.durable(), count: 0 }
    }

    /// Fills in pages of a listing that was asked for from `after` on. Gives the name that the next
    /// page follows.
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
        // A server that names the same entries again would keep the client here for ever.
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
        let table = &mut self.replica.table;
        for entry in page.entries {
            if is_sound(&entry.node) {
                table.fill_entry(page.directory, entry.name, Some(entry.ino));
                table.fill_node(entry.ino, Some(entry.node));
            }
        }
        // Pages that the server adds begin at the start of their directory, as the first did if this
        // is its last: either way all entries have come.
        if page.last {
            table.fill_complete(page.directory);
        }
    }

    /// The head of a delivery that waits to be placed.
    pub(crate) fn waiting_delivery(&self, id: DeliveryId) -> Option<DeliveryHead> {
        self.inbox.waiting.iter().find(|head| head.id == id).cloned()
    }

    /// Fills in a delivery with all its items. One without items is gone.
    pub(crate) fn fill_delivery(&mut self, head: DeliveryHead, items: Vec<Item>) {
        let DeliveryHead { id, from, sent, .. } = head;
        let there = !items.is_empty();
        let delivery = Delivery { id, from, sent, items };
        self.replica.table.fill_delivery(id, there.then(|| Arc::new(delivery)));
    }

    /// Whether a file still has the content, with data in all of the range.
    pub(crate) fn has_data(&self, ino: Ino, order: &FetchOrder) -> bool {
        let Some(node) = self.known_node(ino) else { return false };
        node.file().filter(|data| data.content == Some(order.content)).is_some_and(|data| {
            data.extents.data_in(data.size, order.range.clone()).first() == Some(&order.range)
        })
    }

    /// The last op that changed a node.
    pub(crate) fn changed(&self, ino: Ino) -> Seq {
        self.replica.table.changed(ino)
    }

    /// Fills in what a fetch brought, or nothing if it failed.
    pub(crate) fn fill_data(&mut self, order: &FetchOrder, data: Option<&bytes::Bytes>) {
        self.data.cache.arrived(order, data);
    }
}

/// Whether a node that the server sent can be one: the rest of the client relies on it.
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

//! Listings: pages of the store with the tree's own changes laid over them.
//!
//! **Invariant:** a page shows the directory as of the last op applied. If the table knows a name,
//! present or absent, the store's row does not count. A task that lists has the tree's turn, so no
//! row can be marked durable and unloaded after the store was read and before the table is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use xfer_protocol::limits::PAGE_BYTES;
use xfer_protocol::message::{Page, PageEntry, ReadError};
use xfer_protocol::tree::{Kind, Loaded, Need, Node, Rows};
use xfer_protocol::{Ino, Name};
use xfer_store::{ListMax, Listing, Part, Store};

use crate::engine::session::Session;
use crate::engine::tree::Tree;
use crate::engine::tree::batch::own_size;
use crate::engine::tree::holding::Unmade;
use crate::engine::tree::refusing::unmade;

/// The part of a directory that is loaded from the store at a time.
const LOADED_AT_ONCE: ListMax = ListMax { count: 1_000, bytes: PAGE_BYTES };

/// The most pages in one answer, each of one directory.
const PAGES_MAX: usize = 256;

/// The size of an entry's numbers and times in a page, in bytes. Names and large attributes are
/// counted.
const ENTRY_BYTES: usize = 96;

/// The size of an empty page, in bytes.
const PAGE_HEAD_BYTES: usize = 32;

/// Lists the entries of `directory` after the name `after`. If room is left, whole directories
/// below it follow.
pub(crate) async fn list(
    store: &Store,
    session: &Session,
    directory: Ino,
    after: Option<Name>,
) -> Result<Vec<Page>, ReadError> {
    let mut pages = Pages { store, session, room: PAGE_BYTES, waiting: VecDeque::new() };
    pages.list(directory, after).await.map_err(unmade)
}

/// An answer that is being put together.
struct Pages<'a> {
    store: &'a Store,
    session: &'a Session,
    /// The bytes that are left for further entries.
    room: usize,
    /// Directories that were listed as entries and may follow.
    waiting: VecDeque<Seen>,
}

/// A directory that was listed as an entry, and the least size of its page in bytes.
#[derive(Clone, Copy)]
struct Seen {
    directory: Ino,
    least: usize,
}

impl Pages<'_> {
    async fn list(&mut self, directory: Ino, after: Option<Name>) -> Result<Vec<Page>, Unmade> {
        let first = self.parts(vec![(directory, after.clone())]).await?.pop().flatten();
        let page = self.page(directory, after, first).await?;
        self.note_directories(&page);
        let mut pages = vec![page];
        if !pages[0].last {
            return Ok(pages);
        }
        loop {
            let next = self.next(PAGES_MAX - pages.len());
            if next.is_empty() {
                return Ok(pages);
            }
            let parts = next.iter().map(|seen| (seen.directory, None)).collect();
            let parts = self.parts(parts).await?;
            for (seen, part) in next.into_iter().zip(parts) {
                if seen.least > self.room {
                    return Ok(pages);
                }
                let page = self.page(seen.directory, None, part).await?;
                if !page.last {
                    return Ok(pages);
                }
                self.note_directories(&page);
                pages.push(page);
            }
        }
    }

    /// Takes the directories that come next, as many as may fit, so that the store is asked for all
    /// of them in one call.
    fn next(&mut self, count: usize) -> Vec<Seen> {
        let mut next = Vec::new();
        let mut room = self.room;
        while let Some(seen) = self.waiting.front().copied() {
            if next.len() >= count || seen.least > room {
                break;
            }
            room -= seen.least;
            self.waiting.pop_front();
            next.push(seen);
        }
        next
    }

    /// Loads the store's entries of some directories, each after a name. Skips directories that the
    /// table knows completely.
    async fn parts(&self, of: Vec<(Ino, Option<Name>)>) -> Result<Vec<Option<Listing>>, Unmade> {
        let is_complete = self.session.tree.with(|tree| {
            of.iter().map(|(directory, _)| tree.table().is_complete(*directory)).collect::<Vec<_>>()
        })?;
        let unknown = of.into_iter().zip(&is_complete).filter(|(_, is_complete)| !**is_complete);
        let wanted: Vec<Part> = unknown
            .map(|((directory, after), _)| Part { directory, after, max: LOADED_AT_ONCE })
            .collect();
        let mut listed = Vec::new();
        if !wanted.is_empty() {
            listed = self.store.trees.list(self.session.account(), wanted).await?;
        }
        let mut listed = listed.into_iter();
        Ok(is_complete
            .iter()
            .map(|is_complete| if *is_complete { None } else { listed.next() })
            .collect())
    }

    /// Makes one page and subtracts its size from the room. The page has at least one entry, if
    /// there is one. The caller has loaded its first part already.
    async fn page(
        &mut self,
        directory: Ino,
        mut after: Option<Name>,
        mut stored: Option<Listing>,
    ) -> Result<Page, Unmade> {
        let mut entries = Vec::new();
        self.room = self.room.saturating_sub(PAGE_HEAD_BYTES);
        loop {
            let merged = self
                .session
                .tree
                .with(|tree| merge(tree, directory, after.as_ref(), stored.take()))?;
            let unknown = self.nodes(&merged.unknown).await?;
            for (name, (ino, node)) in merged.rows {
                let Some(mut node) = node.or_else(|| unknown.get(&ino).cloned()) else { continue };
                node.xattrs = node.xattrs.listed();
                let bytes = size(&name, &node);
                if bytes > self.room && !entries.is_empty() {
                    return Ok(Page { directory, entries, last: false });
                }
                self.room = self.room.saturating_sub(bytes);
                entries.push(PageEntry { name, ino, node });
            }
            let Some(end) = merged.end else { return Ok(Page { directory, entries, last: true }) };
            stored = self.parts(vec![(directory, Some(end.clone()))]).await?.pop().flatten();
            after = Some(end);
        }
    }

    /// Loads nodes that the table does not know, of entries that it does. They are not filled into
    /// the table, because a page may have more of them than a table should keep.
    async fn nodes(&self, unknown: &[Ino]) -> Result<BTreeMap<Ino, Node>, Unmade> {
        if unknown.is_empty() {
            return Ok(BTreeMap::new());
        }
        let needs = unknown.iter().map(|ino| Need::Node(*ino)).collect();
        let found = self.store.trees.load(self.session.account(), needs).await?;
        Ok(found.nodes.into_iter().filter_map(|(ino, node)| Some((ino, node?))).collect())
    }

    fn note_directories(&mut self, page: &Page) {
        let directories = page.entries.iter().filter_map(|entry| match entry.node.kind {
            Kind::Directory { entries, name_bytes, .. } => Some(Seen {
                directory: entry.ino,
                least: (entries as usize)
                    .saturating_mul(ENTRY_BYTES)
                    .saturating_add(name_bytes as usize)
                    .saturating_add(PAGE_HEAD_BYTES),
            }),
            Kind::File(_) | Kind::Symlink { .. } | Kind::Special(_) => None,
        });
        self.waiting.extend(directories.take(PAGES_MAX.saturating_sub(self.waiting.len())));
    }
}

/// Consecutive entries of a directory.
struct Merged {
    /// The entries, with their nodes except those in `unknown`.
    rows: BTreeMap<Name, (Ino, Option<Node>)>,
    /// Nodes that neither the table nor the store's part has.
    unknown: Vec<Ino>,
    /// The name up to which the entries are complete; `None` if they are complete to the end.
    end: Option<Name>,
}

/// Merges the store's entries after `after` with those that the table knows, which take precedence.
fn merge(tree: &Tree, directory: Ino, after: Option<&Name>, stored: Option<Listing>) -> Merged {
    let mut rows = BTreeMap::new();
    let mut end = None;
    if let Some(Listing { rows: stored, last }) = stored {
        if !last {
            end = stored.last().map(|(name, _, _)| name.clone());
        }
        rows.extend(stored.into_iter().map(|(name, ino, node)| (name, (ino, Some(node)))));
    }
    for (name, ino) in tree.table().known_entries(directory, after) {
        if rows.len() > 2 * LOADED_AT_ONCE.count && end.is_none() {
            end = rows.keys().next_back().cloned();
        }
        if end.as_ref().is_some_and(|end| name > end) {
            break;
        }
        match ino {
            Some(ino) => drop(rows.insert(name.clone(), (ino, None))),
            None => drop(rows.remove(name)),
        }
    }
    let mut unknown = Vec::new();
    rows.retain(|_, (ino, node)| match tree.table().node(*ino) {
        // The table's node is at least as new as the store's.
        Loaded::Present(known) => {
            *node = Some(Arc::unwrap_or_clone(known));
            true
        }
        Loaded::Absent => false,
        Loaded::Unknown => {
            if node.is_none() {
                unknown.push(*ino);
            }
            true
        }
    });
    Merged { rows, unknown, end }
}

fn size(name: &Name, node: &Node) -> usize {
    ENTRY_BYTES + name.as_bytes().len() + own_size(node)
}

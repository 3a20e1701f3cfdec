//! Listings: pages of the store with the tree's own changes laid over them.
//!
//! **Invariant:** a page shows the directory as of the last op applied: of a name that the table
//! knows, present or absent, the store is not believed. The tree stays locked while a page is made,
//! so that no row can be settled and unloaded between the two looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use xfer_protocol::limits::PAGE_BYTES;
use xfer_protocol::message::{Page, PageEntry, ReadError};
use xfer_protocol::tree::{Kind, Node};
use xfer_protocol::{Ino, Name};
use xfer_store::{Listing, StoreError};

use crate::engine::tree::batch::own_size;
use crate::engine::tree::{LOADED_AT_ONCE, Tree};

/// The most directories that one answer holds pages of.
const PAGES_MAX: usize = 256;

/// What an entry takes up beside what is counted, in bytes: numbers and times.
const ENTRY_BYTES: usize = 96;

/// What an empty page takes up, in bytes.
const PAGE_HEAD_BYTES: usize = 32;

/// Entries of `directory` after `after`; then, if room is left, directories within it, whole.
pub(crate) fn list(
    tree: &mut Tree,
    directory: Ino,
    after: Option<&Name>,
) -> Result<Vec<Page>, ReadError> {
    let node = tree.node(directory).map_err(storage)?;
    if !node.is_some_and(|node| node.is_directory()) {
        return Err(ReadError::NoDirectory);
    }
    let mut room = PAGE_BYTES;
    let mut waiting = VecDeque::new();
    let page = page(tree, directory, after, &mut room).map_err(storage)?;
    let last = page.last;
    note_directories(&page, &mut waiting);
    let mut pages = vec![page];
    while let Some((directory, entries)) = waiting.pop_front().filter(|_| last) {
        let least = (entries as usize).saturating_mul(ENTRY_BYTES);
        if pages.len() >= PAGES_MAX || least.saturating_add(PAGE_HEAD_BYTES) > room {
            break;
        }
        let page = self::page(tree, directory, None, &mut room).map_err(storage)?;
        if !page.last {
            break;
        }
        note_directories(&page, &mut waiting);
        pages.push(page);
    }
    Ok(pages)
}

pub(crate) fn storage(error: StoreError) -> ReadError {
    tracing::error!(%error, "a question can't be answered");
    ReadError::Storage
}

fn note_directories(page: &Page, waiting: &mut VecDeque<(Ino, u64)>) {
    let directories = page.entries.iter().filter_map(|entry| match entry.node.kind {
        Kind::Directory { entries, .. } => Some((entry.ino, entries)),
        Kind::File(_)
        | Kind::Symlink { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharDevice { .. }
        | Kind::BlockDevice { .. } => None,
    });
    waiting.extend(directories.take(PAGES_MAX.saturating_sub(waiting.len())));
}

/// One page, of at least one entry if there is one, which takes its size off `room`.
fn page(
    tree: &mut Tree,
    directory: Ino,
    after: Option<&Name>,
    room: &mut usize,
) -> Result<Page, StoreError> {
    let mut entries = Vec::new();
    let mut after = after.cloned();
    *room = room.saturating_sub(PAGE_HEAD_BYTES);
    loop {
        let part = merged(tree, directory, after.as_ref())?;
        for (name, (ino, node)) in part.rows {
            let Some(mut node) = current(tree, ino, node)? else { continue };
            node.xattrs = node.xattrs.listed();
            let bytes = size(&name, &node);
            if bytes > *room && !entries.is_empty() {
                return Ok(Page { directory, entries, last: false });
            }
            *room = room.saturating_sub(bytes);
            entries.push(PageEntry { name, ino, node });
        }
        match part.end {
            Some(end) => after = Some(end),
            None => return Ok(Page { directory, entries, last: true }),
        }
    }
}

/// A run of a directory's entries.
struct Part {
    rows: BTreeMap<Name, (Ino, Option<Node>)>,
    /// The name up to which nothing is missing; `None` for all names.
    end: Option<Name>,
}

/// The entries after `after`: so many of the store's, with what the table knows laid over them.
fn merged(tree: &Tree, directory: Ino, after: Option<&Name>) -> Result<Part, StoreError> {
    let mut rows = BTreeMap::new();
    let mut end = None;
    if !tree.table().is_complete(directory) {
        let meta = &tree.stores().meta;
        let Listing { rows: stored, last } =
            meta.list(tree.account(), directory, after, LOADED_AT_ONCE)?;
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
    Ok(Part { rows, end })
}

/// The node as of the last op applied, which the table knows better than the store. It is not
/// loaded for it: a page may have more of them than a table should keep.
fn current(tree: &Tree, ino: Ino, stored: Option<Node>) -> Result<Option<Node>, StoreError> {
    use xfer_protocol::tree::{Loaded, Rows};
    match (tree.table().node(ino), stored) {
        (Loaded::Present(node), _) => Ok(Some(Arc::unwrap_or_clone(node))),
        (Loaded::Absent, _) => Ok(None),
        (Loaded::Unknown, Some(node)) => Ok(Some(node)),
        (Loaded::Unknown, None) => tree.stores().meta.node(tree.account(), ino),
    }
}

fn size(name: &Name, node: &Node) -> usize {
    ENTRY_BYTES + name.as_bytes().len() + own_size(node)
}

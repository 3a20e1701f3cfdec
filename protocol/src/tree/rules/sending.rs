//! Sending between users: send, accept, decline.
//!
//! **Invariant:** no op touches two trees. Sending takes a snapshot with shared contents; accepting
//! makes new nodes from the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::staging::Staging;
use super::super::{
    ARRIVED_NOTE_XATTR, Delivery, DeliveryEffect, Extents, FileData, Item, ItemKind, Kind,
    NOTE_XATTR, Need, Node, Owner, PlanError, STATE_XATTR, XattrMap, Xattrs, is_for_programs,
    is_note,
};
use super::create::{self, enter_new, must_be_target, new_node};
use super::{MailZone, Place, post};
use crate::limits::{DELIVERY_ITEMS_MAX, FILE_BYTES_MAX};
use crate::{ContentId, DeliveryId, Errno, Ino, Name, Timestamp};

/// The node to send, with its sender and recipient.
pub(super) struct Letter<'a> {
    pub(super) to: &'a Name,
    pub(super) name: &'a Name,
    pub(super) from: &'a Name,
    pub(super) id: DeliveryId,
}

/// A node with several names, of which some are sent.
struct Linked {
    /// The item of the first name.
    item: u32,
    /// The names that are sent.
    names: u32,
}

pub(super) fn send(d: &mut Staging<'_>, letter: Letter<'_>) -> Result<(), PlanError> {
    let time = d.time;
    let mailbox = d.entry(Ino::OUTBOX, letter.to)?.ok_or(Errno::ENOENT)?;
    let root = d.entry(mailbox, letter.name)?.ok_or(Errno::ENOENT)?;
    let mut items: Vec<Item> = Vec::new();
    // Items to visit, with the index of their directory. Parents come before children.
    let mut waiting = vec![(0u32, letter.name.clone(), root)];
    let mut linked: BTreeMap<Ino, Linked> = BTreeMap::new();
    while let Some((parent, name, ino)) = waiting.pop() {
        let node = d.node(ino)?;
        let Some(mut kind) = item_kind(&node) else {
            if ino == root {
                return Err(Errno::EPERM.into());
            }
            continue;
        };
        let place = items.len() as u32;
        // Check before asking for the entries, which may be far more than should ever be loaded.
        let count = (items.len() as u64 + 1).saturating_add(node.entries());
        if count > DELIVERY_ITEMS_MAX as u64 {
            return Err(Errno::EDQUOT.into());
        }
        let mut xattrs = travelling(&node.xattrs).ok_or(PlanError::Need(Need::Attributes(ino)))?;
        if !node.is_directory() && node.nlink > 1 {
            let linked = linked.entry(ino).or_insert(Linked { item: place, names: 0 });
            linked.names += 1;
            if linked.item != place {
                (kind, xattrs) = (ItemKind::Link { item: linked.item }, Xattrs::None);
            }
        }
        if node.is_directory() {
            waiting
                .extend(d.children(ino)?.into_iter().rev().map(|(name, ino)| (place, name, ino)));
        }
        items.push(Item { parent, name, kind, mode: node.mode & 0o777, mtime: node.mtime, xattrs });
        seal(d, ino)?;
        if ino == root || node.is_directory() || node.nlink == 1 {
            make_record(d, ino, letter.id)?;
        }
    }
    // A file in a sent directory that has names elsewhere stays writable there, and so here.
    for (ino, linked) in linked {
        if ino != root && d.node(ino)?.nlink == linked.names {
            make_record(d, ino, letter.id)?;
        }
    }
    contents(&items).for_each(|content| d.refer(content, 1));
    let delivery = Delivery { id: letter.id, from: letter.from.clone(), sent: time, items };
    let (to, delivery) = (letter.to.clone(), Arc::new(delivery));
    d.deliver(DeliveryEffect::Sent { to, root, delivery });
    Ok(())
}

/// Turns a record into an ordinary file, or into a directory with everything in it. The contents stay
/// sealed for the delivery that shares them.
pub(super) fn revise(d: &mut Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node(ino)?;
    let id = node.sent.ok_or(Errno::EINVAL)?;
    match node.parent() {
        None if node.file().is_none() => return Err(Errno::EINVAL.into()),
        // A part of a directory that was sent is not a record of its own.
        Some(parent) if post(parent, &*d.directory(parent)?) != MailZone::Mailbox => {
            return Err(Errno::EINVAL.into());
        }
        None | Some(_) => {}
    }
    let mut waiting = vec![ino];
    while let Some(ino) = waiting.pop() {
        let node = d.node(ino)?;
        if node.is_directory() {
            waiting.extend(d.children(ino)?.into_iter().map(|(_, ino)| ino));
        }
        // A file with names elsewhere was none.
        if node.sent == Some(id) {
            let node = d.node_mut(ino)?;
            node.sent = None;
            node.ctime = time;
        }
    }
    Ok(())
}

/// What an item of a delivery makes.
enum Made {
    New(Node),
    /// Another name of a node.
    Named(Ino),
}

pub(super) fn accept(
    d: &mut Staging<'_>,
    id: DeliveryId,
    place: Place<'_>,
    first: Ino,
    owner: Owner,
) -> Result<(), PlanError> {
    let time = d.time;
    let delivery = d.delivery(id)?;
    if post(place.0, &*d.directory(place.0)?) != MailZone::None {
        return Err(Errno::EPERM.into());
    }
    must_be_sound(&delivery)?;
    d.is_arrival();
    first.0.checked_add(delivery.items.len() as u64).ok_or(Errno::EINVAL)?;
    for (index, item) in delivery.items.iter().enumerate() {
        let ino = Ino(first.0 + index as u64);
        let (parent, name) = match index {
            0 => place,
            _ => (parent_of(&delivery, index, first)?, &item.name),
        };
        let mut node = match made_by(item, parent, first, owner, time) {
            Made::New(node) => node,
            Made::Named(ino) => {
                create::link(d, ino, (parent, name))?;
                continue;
            }
        };
        mark_origin(&mut node, (index == 0).then_some(&*delivery));
        let is_directory = node.is_directory();
        enter_new(d, (parent, name), ino, node)?;
        if is_directory {
            d.node_mut(parent)?.nlink += 1;
        }
    }
    // Adding children changed the times of the directories that arrived; set them again.
    for (index, item) in delivery.items.iter().enumerate() {
        if matches!(item.kind, ItemKind::Directory) {
            d.node_mut(Ino(first.0 + index as u64))?.mtime = item.mtime;
        }
    }
    contents(&delivery.items).for_each(|content| d.refer(content, -1));
    d.deliver(DeliveryEffect::Accepted(id));
    Ok(())
}

pub(super) fn decline(d: &mut Staging<'_>, id: DeliveryId) -> Result<(), PlanError> {
    let delivery = d.delivery(id)?;
    contents(&delivery.items).for_each(|content| d.refer(content, -1));
    d.deliver(DeliveryEffect::Declined(id));
    Ok(())
}

fn contents(items: &[Item]) -> impl Iterator<Item = ContentId> {
    items.iter().filter_map(|item| match &item.kind {
        ItemKind::File { content, .. } => *content,
        ItemKind::Directory | ItemKind::Symlink { .. } | ItemKind::Link { .. } => None,
    })
}

/// The form of a node in a delivery; `None` for special files, which don't travel.
fn item_kind(node: &Node) -> Option<ItemKind> {
    match &node.kind {
        Kind::File(FileData { size, content, extents, .. }) => {
            let mut extents: Extents = extents.clone();
            extents.resize(*size, *size);
            Some(ItemKind::File { size: *size, content: *content, extents })
        }
        Kind::Directory { .. } => Some(ItemKind::Directory),
        Kind::Symlink { target } => Some(ItemKind::Symlink { target: target.clone() }),
        Kind::Special(_) => None,
    }
}

/// The node that an item makes, or the number of the one that it gives another name.
fn made_by(item: &Item, parent: Ino, first: Ino, owner: Owner, time: Timestamp) -> Made {
    let kind = match &item.kind {
        ItemKind::File { size, content, extents } => Kind::File(FileData {
            size: *size,
            content: *content,
            sealed: content.is_some(),
            extents: extents.clone(),
        }),
        ItemKind::Directory => Kind::empty_directory(parent),
        ItemKind::Symlink { target } => Kind::Symlink { target: target.clone() },
        ItemKind::Link { item } => return Made::Named(Ino(first.0 + u64::from(*item))),
    };
    let mut node = new_node(kind, item.mode & 0o777, owner, time);
    node.atime = item.mtime;
    node.mtime = item.mtime;
    node.xattrs = item.xattrs.clone();
    Made::New(node)
}

/// The attributes that travel: those that programs set. `None` if they are not loaded.
fn travelling(xattrs: &Xattrs) -> Option<Xattrs> {
    let kept: XattrMap = xattrs
        .all()?
        .iter()
        .filter(|(name, _)| is_for_programs(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Some(Xattrs::of(Arc::new(kept)))
}

/// Seals the content of a file, which the delivery shares from now on.
fn seal(d: &mut Staging<'_>, ino: Ino) -> Result<(), PlanError> {
    if let Kind::File(data) = &mut d.node_mut(ino)?.kind {
        data.sealed |= data.content.is_some();
    }
    Ok(())
}

/// Turns a node into a record. The reason why it was not sent before goes.
fn make_record(d: &mut Staging<'_>, ino: Ino, id: DeliveryId) -> Result<(), PlanError> {
    let time = d.time;
    let node = d.node_mut(ino)?;
    node.sent = Some(id);
    node.ctime = time;
    let mut xattrs = node.xattrs.take().ok_or(PlanError::Need(Need::Attributes(ino)))?;
    if xattrs.contains_key(STATE_XATTR) {
        Arc::make_mut(&mut xattrs).remove(STATE_XATTR);
    }
    node.xattrs = Xattrs::of(xattrs);
    Ok(())
}

/// Refuses a delivery that no rules could have made: the server is not trusted.
fn must_be_sound(delivery: &Delivery) -> Result<(), Errno> {
    let items = &delivery.items;
    let is_each = items.iter().enumerate().all(|(index, item)| is_sound(item, &items[..index]));
    let is_sound = is_each && (1..=DELIVERY_ITEMS_MAX).contains(&items.len());
    if is_sound { Ok(()) } else { Err(Errno::EIO) }
}

fn is_sound(item: &Item, before: &[Item]) -> bool {
    let is_kind_sound = match &item.kind {
        ItemKind::File { size, content, extents } => {
            *size <= FILE_BYTES_MAX && (content.is_some() || extents.blocks(*size) == 0)
        }
        ItemKind::Directory => true,
        ItemKind::Symlink { target } => must_be_target(target).is_ok(),
        ItemKind::Link { item: other } => {
            let other = before.get(*other as usize).map(|other| &other.kind);
            item.xattrs == Xattrs::None
                && matches!(other, Some(ItemKind::File { .. } | ItemKind::Symlink { .. }))
        }
    };
    let xattrs = item.xattrs.all().unwrap_or_default();
    is_kind_sound
        && travelling(&item.xattrs).as_ref() == Some(&item.xattrs)
        && xattrs.get(NOTE_XATTR).is_none_or(|note| is_note(note))
}

fn parent_of(delivery: &Delivery, index: usize, first: Ino) -> Result<Ino, PlanError> {
    let parent = delivery.items[index].parent;
    let known = (parent as usize) < index;
    match known.then(|| &delivery.items[parent as usize].kind) {
        Some(ItemKind::Directory) => Ok(Ino(first.0 + u64::from(parent))),
        _ => Err(Errno::EIO.into()),
    }
}

/// Marks the sender's note as that, for the recipient to see, and on the first node where and when the
/// delivery came from.
fn mark_origin(node: &mut Node, delivery: Option<&Delivery>) {
    // A new node has only its item's attributes, and those were checked.
    let mut xattrs = node.xattrs.take().unwrap_or_default();
    if delivery.is_some() || xattrs.contains_key(NOTE_XATTR) {
        let map = Arc::make_mut(&mut xattrs);
        if let Some(note) = map.remove(NOTE_XATTR) {
            map.insert(Bytes::from_static(ARRIVED_NOTE_XATTR), note);
        }
        if let Some(Delivery { from, sent, .. }) = delivery {
            map.insert(Bytes::from_static(b"user.xfer.from"), from.as_bytes().to_vec().into());
            map.insert(Bytes::from_static(b"user.xfer.sent"), sent.to_rfc3339().into());
        }
    }
    node.xattrs = Xattrs::of(xattrs);
}

//! Contents in memory, for any number of trees: follows content effects byte by byte.
//!
//! It is as unkind as the effects allow: freed bytes turn to rubbish at once, an unreferenced
//! content disappears at once, and creating a content twice is a bug.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Changes, ContentEffect, Delivery, DeliveryEffect, FileData};
use xfer_protocol::{ContentId, DeliveryId, Name};

/// The value of freed bytes.
const RUBBISH: u8 = 0xAA;

/// State shared by several trees: contents, reference counts, deliveries in transit, numbers.
#[derive(Default)]
pub struct Storage {
    pub contents: BTreeMap<ContentId, Vec<u8>>,
    pub references: BTreeMap<ContentId, i64>,
    pub posted: BTreeMap<DeliveryId, (Name, Arc<Delivery>)>,
    /// A planted bug: ranges that should be zeroed stay as they are.
    pub forgets_zeros: bool,
    granted: u64,
}

pub type Shared = Rc<RefCell<Storage>>;

impl Storage {
    pub fn shared() -> Shared {
        Rc::new(RefCell::new(Storage { granted: 1024, ..Storage::default() }))
    }

    /// The first of `count` new numbers.
    pub fn grant(&mut self, count: u64) -> u64 {
        self.granted += count;
        self.granted - count
    }

    /// Applies the changes' effects outside the tree.
    pub fn follow(&mut self, changes: &Changes, payload: &[u8]) {
        for effect in &changes.contents {
            self.follow_effect(effect, payload);
        }
        for (content, by) in &changes.references {
            *self.references.entry(*content).or_default() += by;
        }
        self.references.retain(|_, count| *count != 0);
        let references = &self.references;
        self.contents.retain(|content, _| references.contains_key(content));
        for effect in &changes.deliveries {
            match effect {
                DeliveryEffect::Sent { to, delivery, .. } => {
                    let posted = (to.clone(), delivery.clone());
                    assert!(self.posted.insert(delivery.id, posted).is_none(), "sent twice");
                }
                DeliveryEffect::Accepted(id) | DeliveryEffect::Declined(id) => {
                    assert!(self.posted.remove(id).is_some(), "{id:?} is not there");
                }
            }
        }
    }

    fn follow_effect(&mut self, effect: &ContentEffect, payload: &[u8]) {
        match effect.clone() {
            ContentEffect::Create { content } => self.begin(content, Vec::new()),
            ContentEffect::Write { content, offset, len } => {
                assert_eq!(len, payload.len() as u64, "a write without its bytes");
                self.put(content, offset, payload);
            }
            ContentEffect::Zero { content, offset, len } => {
                if !self.forgets_zeros {
                    self.put(content, offset, &vec![0; len as usize]);
                }
            }
            ContentEffect::Clone { from, to, ranges } => {
                self.begin(to, Vec::new());
                for range in ranges {
                    let bytes = self.bytes(from, range.start, range.end - range.start);
                    self.put(to, range.start, &bytes);
                }
            }
            ContentEffect::Copy { from, from_offset, to, to_offset, len } => {
                let bytes = self.bytes(from, from_offset, len);
                self.put(to, to_offset, &bytes);
            }
            // Other nodes may still reach the range in a shared content.
            ContentEffect::Free { content, offset, len } => {
                if self.references.get(&content) == Some(&1) {
                    self.put(content, offset, &vec![RUBBISH; len as usize]);
                }
            }
        }
    }

    fn begin(&mut self, content: ContentId, bytes: Vec<u8>) {
        assert!(self.contents.insert(content, bytes).is_none(), "{content:?} comes twice");
    }

    fn put(&mut self, content: ContentId, offset: u64, bytes: &[u8]) {
        let whole = self.contents.get_mut(&content).expect("effects name contents that exist");
        let range = offset as usize..offset as usize + bytes.len();
        if whole.len() < range.end {
            whole.resize(range.end, 0);
        }
        whole[range].copy_from_slice(bytes);
    }

    /// Bytes of a content; those never written are zeros.
    pub fn bytes(&self, content: ContentId, offset: u64, len: u64) -> Vec<u8> {
        let whole = &self.contents[&content];
        (offset..offset + len).map(|at| whole.get(at as usize).copied().unwrap_or(0)).collect()
    }

    /// A file's bytes as a program reads them.
    pub fn read(&self, data: &FileData) -> Vec<u8> {
        let mut bytes = vec![0; data.size as usize];
        for run in data.extents.data_in(data.size, 0..data.size) {
            let content = data.content.expect("data is in a content");
            let part = self.bytes(content, run.start, run.end - run.start);
            bytes[run.start as usize..run.end as usize].copy_from_slice(&part);
        }
        bytes
    }

    /// The allocated bytes past a file's end, which a growing file would expose.
    pub fn beyond(&self, data: &FileData) -> Vec<u8> {
        let (size, end) = (data.size, data.size.next_multiple_of(BLOCK_BYTES));
        let runs = data.extents.data_in(size, end..end.max(data.extents.end(size))).into_iter();
        runs.flat_map(|run| self.bytes(data.content.unwrap(), run.start, run.end - run.start))
            .collect()
    }
}

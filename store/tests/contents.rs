//! The promises of the store of bytes, and random operations compared with a plain model of it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use xfer_protocol::ContentId;
use xfer_store::embedded::{FileStore, Files};
use xfer_store::{Stop, StoreError};

const A: ContentId = ContentId(0x1234);
const B: ContentId = ContentId(0x1235);

fn open() -> (FileStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (FileStore::open(dir.path()).unwrap(), dir)
}

fn never() -> Stop {
    Stop::default()
}

/// The path of content [`A`].
fn path_of_a(dir: &TempDir) -> PathBuf {
    dir.path().join("contents/00/12/0000000000001234")
}

fn read(store: &FileStore, content: ContentId, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xee; len];
    let count = store.read(content, offset, &mut data).unwrap();
    data.truncate(count);
    data
}

fn found(store: &FileStore) -> Vec<ContentId> {
    let mut found = Vec::new();
    store.each(&mut |content| found.push(content)).unwrap();
    found.sort();
    found
}

fn check_missing(result: Result<(), StoreError>) {
    let Err(StoreError::Damaged(what)) = result else { panic!("{result:?}") };
    assert!(what.ends_with("is missing"), "{what}");
}

#[test]
fn files_are_found_by_their_numbers_and_are_for_their_owner_only() {
    let (store, dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, b"hello").unwrap();
    assert_eq!(std::fs::read(path_of_a(&dir)).unwrap(), b"hello");
    let mut path = path_of_a(&dir);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    while path.pop() && path != dir.path() {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn a_content_is_as_long_as_what_it_was_given_and_damaged_if_it_is_not() {
    let (store, dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, b"hello").unwrap();
    store.zero(A, 3, 200_000, &never()).unwrap();
    assert_eq!(path_of_a(&dir).metadata().unwrap().len(), 200_003);
    std::fs::OpenOptions::new().write(true).open(path_of_a(&dir)).unwrap().set_len(9).unwrap();
    let mut data = [0; 20];
    // A content from an older version may end here.
    assert_eq!(store.read(A, 0, &mut data).unwrap(), 9);
    let store = store.whole_from(A);
    store.create(B).unwrap();
    let results = [
        store.read(A, 0, &mut data).map(drop),
        store.copy((A, 5), (B, 0), 9, &never()),
        store.duplicate(A, ContentId(0x1236), from_ref(&(0..11)), &never()),
    ];
    for result in results {
        let Err(StoreError::Damaged(what)) = result else { panic!("{result:?}") };
        assert!(what.contains("ends at byte 9"), "{what}");
    }
    assert_eq!(store.read(A, 0, &mut data[..9]).unwrap(), 9);
    assert_eq!(found(&store), [A, B]);
}

#[test]
fn what_was_written_is_read_also_by_a_store_opened_later() {
    let (store, dir) = open();
    store.create(A).unwrap();
    store.write(A, 3, b"hello").unwrap();
    for store in [store, FileStore::open(dir.path()).unwrap()] {
        assert_eq!(read(&store, A, 0, 100), b"\0\0\0hello");
        assert_eq!(read(&store, A, 5, 2), b"ll");
        assert_eq!(read(&store, A, 8, 10), b"");
        assert_eq!(read(&store, A, 1 << 40, 10), b"");
    }
}

#[test]
fn a_content_is_made_once() {
    let (store, _dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, b"hello").unwrap();
    store.create(A).unwrap_err();
    store.create(B).unwrap();
    store.duplicate(A, B, from_ref(&(0..5)), &never()).unwrap_err();
    assert_eq!(read(&store, A, 0, 100), b"hello");
    assert_eq!(found(&store), [A, B]);
}

#[test]
fn what_copies_or_clears_much_ends_when_it_is_told_to_stop() {
    let (store, _dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, b"hello").unwrap();
    let stop = never();
    stop.order();
    let results = [
        store.duplicate(A, B, from_ref(&(0..5)), &stop),
        store.copy((A, 0), (A, 3), 5, &stop),
        store.copy((A, 0), (A, 10), 5, &stop),
        store.zero(A, 0, 5, &stop),
    ];
    for result in results {
        assert!(matches!(result, Err(StoreError::Stopped)), "{result:?}");
    }
    assert_eq!(read(&store, A, 0, 100), b"hello");
    // What was not copied whole is not there.
    assert_eq!(found(&store), [A]);
}

#[test]
fn what_is_missing_is_an_error_but_for_its_removal() {
    let (store, _dir) = open();
    check_missing(store.read(A, 0, &mut [0]).map(drop));
    check_missing(store.write(A, 0, b"x"));
    check_missing(store.zero(A, 0, 1, &never()));
    check_missing(store.free(A, 0, 1));
    check_missing(store.duplicate(A, B, from_ref(&(0..1)), &never()));
    check_missing(store.copy((A, 0), (B, 0), 1, &never()));
    check_missing(store.make_durable(&[A]));
    store.remove(A).unwrap();
    assert_eq!(found(&store), []);
}

#[test]
fn a_removed_content_is_gone_and_its_number_can_come_back() {
    let (store, _dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, b"hello").unwrap();
    store.remove(A).unwrap();
    check_missing(store.read(A, 0, &mut [0]).map(drop));
    store.create(A).unwrap();
    assert_eq!(read(&store, A, 0, 100), b"");
}

#[test]
fn every_content_is_found_and_may_be_removed_meanwhile() {
    let (store, dir) = open();
    let all: Vec<_> = [1, 2, 255, 256, 65_535, 1 << 24, (1 << 62) - 1].map(ContentId).into();
    for content in &all {
        store.create(*content).unwrap();
    }
    std::fs::write(dir.path().join("contents/00/00/notes"), "").unwrap();
    std::fs::write(dir.path().join("contents/00/00/0000000001234567"), "").unwrap();
    std::fs::write(dir.path().join("contents/00/00/+000000000000001"), "").unwrap();
    std::fs::create_dir(dir.path().join("contents/ff")).unwrap_or_default();
    std::fs::create_dir(dir.path().join("contents/ff/ff")).unwrap_or_default();
    std::fs::write(dir.path().join("contents/ff/ff/ffffffffffffffff"), "no store's").unwrap();
    assert_eq!(found(&store), all);
    store.each(&mut |content| store.remove(content).unwrap()).unwrap();
    assert_eq!(found(&store), []);
}

#[test]
fn a_link_in_place_of_a_content_is_not_followed() {
    let (store, dir) = open();
    store.create(B).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "secret").unwrap();
    std::os::unix::fs::symlink(&elsewhere, path_of_a(&dir)).unwrap();
    store.read(A, 0, &mut [0]).unwrap_err();
    store.write(A, 0, b"x").unwrap_err();
    store.create(A).unwrap_err();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"secret");
    assert_eq!(found(&store), [B]);
}

#[test]
fn holes_take_no_space_and_stay_holes_in_a_duplicate() {
    let (store, dir) = open();
    store.create(B).unwrap();
    store.write(B, 1 << 40, b"far").unwrap();
    store.write(B, 1 << 30, &[7; 4096]).unwrap();
    store.duplicate(B, A, from_ref(&(0..(1 << 40) + 2)), &never()).unwrap();
    let stat = path_of_a(&dir).metadata().unwrap();
    assert_eq!(stat.len(), (1 << 40) + 2);
    assert!(stat.blocks() <= 64, "{} blocks", stat.blocks());
    assert_eq!(read(&store, A, (1 << 40) - 1, 10), b"\0fa");
    assert_eq!(read(&store, A, (1 << 30) - 1, 4098)[1..4097], [7; 4096]);
}

#[test]
fn a_range_that_is_freed_gives_its_space_back_and_one_that_is_cleared_keeps_it() {
    let (store, dir) = open();
    store.create(A).unwrap();
    store.write(A, 0, &vec![1; 4 << 20]).unwrap();
    store.make_durable(&[A]).unwrap();
    let blocks = || path_of_a(&dir).metadata().unwrap().blocks();
    let full = blocks();
    store.free(A, 0, 1 << 20).unwrap();
    assert_eq!(blocks(), full - 2048);
    store.zero(A, 1 << 20, 1 << 20, &never()).unwrap();
    assert_eq!(blocks(), full - 2048);
    // Past the end, too, where it is only allocated.
    store.zero(A, 4 << 20, 1 << 20, &never()).unwrap();
    assert_eq!(blocks(), full);
    assert_eq!(read(&store, A, 1 << 20, 1 << 20), vec![0; 1 << 20]);
    let end = [vec![1; 2 << 20], vec![0; 1 << 20]].concat();
    assert_eq!(read(&store, A, 2 << 20, 4 << 20), end);
    assert_eq!(path_of_a(&dir).metadata().unwrap().len(), 5 << 20);
}

/// Copies within a content of 1 MiB, which does not fit the copy buffer.
fn check_overlap(from: usize, to: usize, len: usize) {
    let (store, _dir) = open();
    let mut data: Vec<u8> = (0..1u32 << 20).map(|place| (place % 251) as u8).collect();
    store.create(A).unwrap();
    store.write(A, 0, &data).unwrap();
    store.copy((A, from as u64), (A, to as u64), len as u64, &never()).unwrap();
    data.resize(data.len().max(to + len), 0);
    data.copy_within(from..from + len, to);
    assert!(read(&store, A, 0, 2 << 20) == data, "{from} {to} {len}");
}

#[test]
fn ranges_that_overlap_are_copied_as_if_through_a_buffer() {
    check_overlap(0, 1000, 1_000_000);
    check_overlap(1000, 0, 1_000_000);
    check_overlap(0, 300_000, 1 << 20);
    check_overlap(300_001, 7, 700_000);
    check_overlap(5, 5, 700_000);
}

#[test]
fn any_number_of_contents_is_made_durable() {
    let (store, _dir) = open();
    let all: Vec<_> = (0..600).map(|number| ContentId(number * 50)).collect();
    for content in &all {
        store.create(*content).unwrap();
        store.write(*content, 0, &content.0.to_le_bytes()).unwrap();
    }
    store.make_durable(&[]).unwrap();
    store.make_durable(&all[..1]).unwrap();
    store.make_durable(&all[..16]).unwrap();
    store.make_durable(&all).unwrap();
    for content in &all {
        assert_eq!(read(&store, *content, 0, 100), content.0.to_le_bytes());
    }
    assert_eq!(found(&store), all);
}

#[test]
fn threads_change_contents_and_make_them_durable_beside_each_other() {
    let (store, _dir) = open();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                let own: Vec<_> = (0..20).map(|n| ContentId(n * 4 + thread)).collect();
                for content in &own {
                    store.create(*content).unwrap();
                    store.write(*content, 0, &[thread as u8; 1000]).unwrap();
                    store.make_durable(&[*content]).unwrap();
                }
                store.make_durable(&own).unwrap();
                for content in &own {
                    assert_eq!(read(store, *content, 0, 2000), [thread as u8; 1000]);
                }
            });
        }
    });
}

#[test]
fn the_disk_has_some_room() {
    let (store, _dir) = open();
    assert!(store.disk().unwrap().free.bytes > 0);
}

// Random operations.

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, Vec<u8>),
    Zero(u64, u64, u64),
    Free(u64, u64, u64),
    Duplicate(u64, u64, u64),
    Copy((u64, u64), (u64, u64), u64),
    Remove(u64),
    Sync(u64),
    Reopen,
}

/// Contents by number. `None` is a freed byte, which may read as anything.
type Model = BTreeMap<u64, Vec<Option<u8>>>;

const CONTENTS: u64 = 4;

/// Offsets around the bounds of blocks, and past the longest range that is zeroed by writing.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000u64, 0..400_000u64, (0..80u64).prop_map(|block| block * 4096)]
}

fn step() -> impl Strategy<Value = Step> {
    let data = (any::<u8>(), 0..30_000usize).prop_map(|(first, len)| {
        (0..len).map(|place| first.wrapping_add((place % 251) as u8)).collect()
    });
    let id = || 0..CONTENTS;
    prop_oneof![
        6 => (id(), offset(), data).prop_map(|(id, at, data)| Step::Write(id, at, data)),
        3 => (id(), offset(), offset()).prop_map(|(id, at, len)| Step::Zero(id, at, len)),
        1 => (id(), offset(), offset()).prop_map(|(id, at, len)| Step::Free(id, at, len)),
        2 => (id(), id(), offset()).prop_map(|(from, to, len)| Step::Duplicate(from, to, len)),
        4 => ((id(), offset()), (id(), offset()), offset())
            .prop_map(|(from, to, len)| Step::Copy(from, to, len)),
        1 => id().prop_map(Step::Remove),
        1 => id().prop_map(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn fill(data: &mut [Option<u8>], offset: u64, len: u64, with: Option<u8>) {
    let end = data.len().min((offset + len) as usize);
    data[end.min(offset as usize)..end].fill(with);
}

fn model_write(data: &mut Vec<Option<u8>>, offset: usize, bytes: &[Option<u8>]) {
    if !bytes.is_empty() {
        data.resize(data.len().max(offset + bytes.len()), Some(0));
        data[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Applies a step to the model. Returns false for steps that make no sense there.
fn model_step(model: &mut Model, step: &Step) -> bool {
    match step {
        Step::Write(id, offset, bytes) => {
            let bytes: Vec<_> = bytes.iter().copied().map(Some).collect();
            model_write(model.entry(*id).or_default(), *offset as usize, &bytes);
        }
        Step::Zero(id, offset, len) => {
            let Some(data) = model.get_mut(id) else { return false };
            model_write(data, *offset as usize, &vec![Some(0); *len as usize]);
        }
        Step::Free(id, offset, len) => {
            let Some(data) = model.get_mut(id) else { return false };
            // Freeing past the end can make the content longer.
            if offset + len > (data.len() as u64).next_multiple_of(4096) {
                data.resize((offset + len) as usize, Some(0));
            }
            fill(data, *offset, *len, None);
        }
        Step::Duplicate(from, to, len) => {
            let Some(data) = model.get(from).filter(|_| !model.contains_key(to)) else {
                return false;
            };
            let end = data.len().min(*len as usize);
            model.insert(*to, data[..end].to_vec());
        }
        Step::Copy((from, from_offset), (to, to_offset), len) => {
            let Some(data) = model.get(from).filter(|_| model.contains_key(to)) else {
                return false;
            };
            let end = data.len().min((*from_offset + *len) as usize);
            let bytes = data[end.min(*from_offset as usize)..end].to_vec();
            let rest = *len - bytes.len() as u64;
            let target = model.get_mut(to).unwrap();
            model_write(target, *to_offset as usize, &bytes);
            let end = *to_offset as usize + bytes.len();
            model_write(target, end, &vec![Some(0); rest as usize]);
        }
        Step::Remove(id) => drop(model.remove(id)),
        Step::Sync(id) => return model.contains_key(id),
        Step::Reopen => {}
    }
    true
}

fn store_step(store: &FileStore, step: &Step, is_new: bool) {
    let id = |number: &u64| ContentId(number * 200);
    match step {
        Step::Write(content, offset, bytes) => {
            if is_new {
                store.create(id(content)).unwrap();
            }
            store.write(id(content), *offset, bytes).unwrap();
        }
        Step::Zero(content, offset, len) => {
            store.zero(id(content), *offset, *len, &never()).unwrap()
        }
        Step::Free(content, offset, len) => store.free(id(content), *offset, *len).unwrap(),
        Step::Duplicate(from, to, len) => {
            store.duplicate(id(from), id(to), from_ref(&(0..*len)), &never()).unwrap()
        }
        Step::Copy(from, to, len) => {
            store.copy((id(&from.0), from.1), (id(&to.0), to.1), *len, &never()).unwrap();
        }
        Step::Remove(content) => store.remove(id(content)).unwrap(),
        Step::Sync(content) => store.make_durable(&[id(content)]).unwrap(),
        Step::Reopen => {}
    }
}

fn check_equal(store: &FileStore, model: &Model) {
    let ids: Vec<_> = model.keys().map(|number| ContentId(number * 200)).collect();
    assert_eq!(found(store), ids);
    for (number, expected) in model {
        let data = read(store, ContentId(number * 200), 0, expected.len() + 10);
        assert_eq!(data.len(), expected.len());
        let differs = |(byte, expected): (&u8, &Option<u8>)| expected.is_some_and(|e| e != *byte);
        let place = data.iter().zip(expected).position(differs);
        assert_eq!(place, None, "content {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_operations_do_what_they_do_to_a_plain_model(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut store, dir) = open();
        let mut model = Model::new();
        for step in steps {
            let is_new = matches!(&step, Step::Write(id, ..) if !model.contains_key(id));
            if model_step(&mut model, &step) {
                store_step(&store, &step, is_new);
            }
            if let Step::Reopen = step {
                store = FileStore::open(dir.path()).unwrap();
            }
            check_equal(&store, &model);
        }
    }
}

#[test]
fn a_content_that_is_read_while_it_is_removed_keeps_no_space() {
    let (store, dir) = open();
    let place = dir.path().canonicalize().unwrap();
    let (contents, done) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Either result is right: the content may be removed already.
                let _ = store.read(ContentId(contents.load(Ordering::Relaxed)), 0, &mut [0]);
            }
        });
        for number in 1..=400 {
            store.create(ContentId(number)).unwrap();
            store.write(ContentId(number), 0, b"x").unwrap();
            contents.store(number, Ordering::Relaxed);
            store.remove(ContentId(number)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    let gone =
        |file: &PathBuf| file.starts_with(&place) && file.to_string_lossy().ends_with(" (deleted)");
    assert_eq!(open.filter(gone).count(), 0);
}

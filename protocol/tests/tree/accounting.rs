//! What a tree takes up, recounted after every sequence; and its quota, enforced at every op.

use proptest::prelude::*;
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{Action, Changes, FallocateMode, Quota, Rows, Usage};
use xfer_protocol::{ContentId, Errno, Ino};

use crate::audit::audit;
use crate::contents::Storage;
use crate::steps::{File, OWNER, Step, name, step, steps};
use crate::world::World;

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn usage_links_and_references_agree_with_a_walk(steps in steps(80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert_eq!(audit(&[&world]), Ok(()), "after {:?}", step);
        }
    }

    #[test]
    fn a_quota_refuses_just_what_would_exceed_it(
        steps in prop::collection::vec(step(), 1..80),
        nodes in 4..8u64,
        blocks in 0..8u64,
    ) {
        let quota = Quota { bytes: blocks * BLOCK_BYTES, nodes };
        let mut world = World::with(Storage::shared(), quota);
        for step in &steps {
            prop_assert_eq!(within(&mut world, step, quota), Ok(()), "{:?}", step);
        }
        prop_assert_eq!(audit(&[&world]), Ok(()));
    }
}

/// Does the step within the quota and compares it with the same step without one.
fn within(world: &mut World, step: &Step, quota: Quota) -> Result<(), String> {
    let before = world.snapshot(Ino::ROOT);
    let outcome = world.step(step);
    let usage = world.table.usage();
    if usage.bytes > quota.bytes || usage.nodes > quota.nodes {
        return Err(format!("{usage:?} is more than {quota:?}"));
    }
    if outcome != Some(Err(Errno::EDQUOT)) {
        return Ok(());
    }
    if world.snapshot(Ino::ROOT) != before {
        return Err("refused, and done all the same".into());
    }
    // A refused step must have needed more than the quota.
    world.table.set_quota(Quota::UNLIMITED);
    let meaning = step.meaning(&world.table, &world.slots, world.id());
    let Ok(crate::steps::Meaning::Op(action, _)) = meaning else {
        return Err("refused, though it is no op".into());
    };
    let op = crate::world::op(world.seq.next(), action);
    let changes =
        xfer_protocol::tree::plan(&world.table, &op).map_err(|stop| format!("{stop:?}"))?;
    world.table.set_quota(quota);
    let (after, exceeds) = (changes.usage, |a: u64, q: u64| a > q);
    if exceeds(after.bytes, quota.bytes) || exceeds(after.nodes, quota.nodes) {
        Ok(())
    } else {
        Err(format!("refused, though {after:?} is within {quota:?}"))
    }
}

fn world_with_a_file(quota: Quota) -> World {
    let mut world = World::with(Storage::shared(), quota);
    world.step(&Step::Create(b"a".to_vec(), 0o644)).unwrap().unwrap();
    world
}

fn write(world: &mut World, offset: u64, len: u32) -> Result<(), Errno> {
    world.step(&Step::Write(File::At(b"a".to_vec()), offset, len, 1)).unwrap()
}

#[test]
fn the_last_block_of_a_quota_can_be_used_and_no_more() {
    let mut world = world_with_a_file(Quota { bytes: 2 * BLOCK_BYTES, nodes: 4 });
    assert_eq!(write(&mut world, 0, 8192), Ok(()));
    assert_eq!(write(&mut world, 8191, 2), Err(Errno::EDQUOT));
    assert_eq!(write(&mut world, 0, 8192), Ok(()), "what is there can be written again");
    let create = Step::Create(b"b".to_vec(), 0o644);
    assert_eq!(world.step(&create), Some(Err(Errno::EDQUOT)));
    assert_eq!(world.table.usage(), Usage { bytes: 8192, nodes: 4 });
}

#[test]
fn a_tree_beyond_its_quota_can_still_shrink_and_be_renamed() {
    let mut world = world_with_a_file(Quota::UNLIMITED);
    assert_eq!(write(&mut world, 0, 8192), Ok(()));
    world.table.set_quota(Quota { bytes: 0, nodes: 0 });
    let mode = xfer_protocol::tree::RenameMode::Replace;
    assert_eq!(world.step(&Step::Rename(b"a".to_vec(), b"b".to_vec(), mode)), Some(Ok(())));
    assert_eq!(world.step(&Step::Truncate(File::At(b"b".to_vec()), 4096)), Some(Ok(())));
    assert_eq!(world.step(&Step::Unlink(b"b".to_vec())), Some(Ok(())));
    assert_eq!(world.table.usage(), Usage { bytes: 0, nodes: 3 });
}

#[test]
fn extended_attributes_count() {
    let mut world = world_with_a_file(Quota { bytes: 12, nodes: 9 });
    let set = |value: &'static [u8]| Action::SetXattr {
        ino: Ino::ROOT,
        name: "user.x".into(),
        value: value.into(),
        mode: xfer_protocol::tree::XattrMode::Either,
    };
    world.must(set(b"123456"));
    assert_eq!(world.table.usage().bytes, 12);
    assert_eq!(world.apply(set(b"1234567"), &[]), Err(Errno::EDQUOT));
}

/// Names of 255 bytes.
fn long_name(number: u32) -> xfer_protocol::Name {
    name(&format!("{number:0255}"))
}

fn charge(world: &World, ino: Ino) -> (u64, u64) {
    let node = world.node(ino);
    (node.sectors() * 512, node.charge())
}

#[test]
fn names_count_for_the_directory_that_they_are_in() {
    let mut world = world_with_a_file(Quota { bytes: 3 * 512, nodes: 9 });
    let (parent, ino, a) =
        (Ino::ROOT, Ino(world.id()), world.entry(Ino::ROOT, &name("a")).unwrap());
    world.must(Action::Mkdir { parent, name: name("d"), ino, mode: 0o755, owner: OWNER });
    let link = |number| Action::Link { ino: a, parent: ino, name: long_name(number) };
    for number in 0..6u32 {
        world.must(link(number));
        let bytes = (u64::from(number) + 1) * (64 + 255) / 512 * 512;
        assert_eq!(charge(&world, ino), (bytes, bytes));
        assert_eq!(world.table.usage().bytes, bytes);
        assert_eq!(audit(&[&world]), Ok(()));
    }
    assert_eq!(world.apply(link(6), &[]), Err(Errno::EDQUOT));
    let to = (ino, name("short"));
    let mode = xfer_protocol::tree::RenameMode::Replace;
    world.must(Action::Rename { from: (ino, long_name(5)), to, mode });
    world.must(link(6));
    world.table.set_quota(Quota { bytes: 0, nodes: 0 });
    for number in [0, 1, 2, 3, 4, 6] {
        world.must(Action::Unlink { parent: ino, name: long_name(number) });
    }
    assert_eq!(world.table.usage().bytes, 0);
    assert_eq!(audit(&[&world]), Ok(()));
}

#[test]
fn targets_of_links_count() {
    let mut world = World::with(Storage::shared(), Quota { bytes: 7 * 512, nodes: 9 });
    for (number, (len, bytes)) in [(511, 0), (512, 512), (4095, 7 * 512)].into_iter().enumerate() {
        let (parent, ino, name) = (Ino::ROOT, Ino(world.id()), name(&number.to_string()));
        let target = vec![b'x'; len].into();
        let link = Action::Symlink { parent, name: name.clone(), ino, target, owner: OWNER };
        world.must(link);
        assert_eq!((charge(&world, ino), world.table.usage().bytes), ((bytes, bytes), bytes));
        world.must(Action::Unlink { parent, name });
        world.must(Action::ForgetOrphan { ino });
    }
    assert_eq!(world.table.usage().bytes, 0);
    let (parent, owner) = (Ino::ROOT, OWNER);
    let long = |ino, text: &str, len| Action::Symlink {
        parent,
        name: name(text),
        ino: Ino(ino),
        target: vec![b'x'; len].into(),
        owner,
    };
    let (one, two) = (world.id(), world.id());
    world.must(long(one, "one", 4095));
    assert_eq!(world.apply(long(two, "two", 512), &[]), Err(Errno::EDQUOT));
    world.must(long(two, "two", 511));
}

#[test]
fn a_copy_that_shares_its_content_counts_in_full() {
    let mut world = world_with_a_file(Quota { bytes: 3 * BLOCK_BYTES, nodes: 9 });
    write(&mut world, 0, 8192).unwrap();
    let to = Ino(world.id());
    let (parent, owner) = (Ino::ROOT, OWNER);
    world.must(Action::Create { parent, name: name("b"), ino: to, mode: 0o644, owner });
    let copy = Step::Copy(File::At(b"a".to_vec()), 0, File::At(b"b".to_vec()), 0, 8192);
    assert_eq!(world.step(&copy), Some(Err(Errno::EDQUOT)));
    world.table.set_quota(Quota { bytes: 4 * BLOCK_BYTES, nodes: 9 });
    assert_eq!(world.step(&copy), Some(Ok(())));
    assert_eq!(audit(&[&world]), Ok(()));
}

#[test]
fn a_usage_that_is_wrong_is_seen() {
    let mut world = world_with_a_file(Quota::UNLIMITED);
    let usage = Usage { bytes: 1, nodes: 4 };
    world.table.apply(&Changes { usage, ..Changes::default() }, world.seq.next());
    assert!(audit(&[&world]).unwrap_err().contains("takes up"));
}

#[test]
fn a_reference_that_is_lost_is_seen() {
    let mut world = world_with_a_file(Quota::UNLIMITED);
    write(&mut world, 0, 1).unwrap();
    assert_eq!(audit(&[&world]), Ok(()));
    let content: ContentId = *world.storage.borrow().contents.keys().next().unwrap();
    world.storage.borrow_mut().references.insert(content, 2);
    assert!(audit(&[&world]).is_err());
}

#[test]
fn a_link_that_is_not_counted_is_seen() {
    let mut world = world_with_a_file(Quota::UNLIMITED);
    let ino = world.entry(Ino::ROOT, &name("a")).unwrap();
    let mut node = (*world.node(ino)).clone();
    node.nlink = 2;
    let nodes = vec![(ino, Some(node.into()))];
    let usage = world.table.usage();
    world.table.apply(&Changes { nodes, usage, ..Changes::default() }, world.seq.next());
    assert!(audit(&[&world]).unwrap_err().contains("of 1 names"));
}

#[test]
fn rubbish_past_the_end_is_seen() {
    let mut world = world_with_a_file(Quota::UNLIMITED);
    write(&mut world, 0, 8192).unwrap();
    let file = || File::At(b"a".to_vec());
    world.step(&Step::Truncate(file(), 100)).unwrap().unwrap();
    world.storage.borrow_mut().forgets_zeros = true;
    let mode = FallocateMode::AllocateKeepSize;
    world.step(&Step::Fallocate(file(), 0, 8192, mode)).unwrap().unwrap();
    assert!(audit(&[&world]).unwrap_err().contains("rubbish"));
}

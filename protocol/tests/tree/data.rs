//! The rules about bytes, one claim each.

use xfer_protocol::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use xfer_protocol::tree::{Action, ContentEffect, Extents, FallocateMode, FileData, Kind};
use xfer_protocol::{ContentId, Errno, Ino};

use crate::audit::audit;
use crate::steps::{File, OWNER, Step, name};
use crate::world::{World, data};

fn at(text: &str) -> File {
    File::At(text.bytes().collect())
}

/// A world with empty files `a` and `b`, after these steps.
fn world_after(steps: &[Step]) -> World {
    let mut world = World::new();
    let made = [b'a', b'b'].map(|byte| Step::Create(vec![byte], 0o644));
    for step in made.iter().chain(steps) {
        world.step(step).unwrap().unwrap_or_else(|errno| panic!("{step:?}: {errno}"));
        assert_eq!(audit(&[&world]), Ok(()), "after {step:?}");
    }
    world
}

fn ino(world: &World, text: &str) -> Ino {
    world.entry(Ino::ROOT, &name(text)).unwrap()
}

fn read(world: &World, text: &str) -> Vec<u8> {
    world.read(ino(world, text))
}

fn blocks(world: &World, text: &str) -> u64 {
    world.node(ino(world, text)).sectors() / 8
}

#[test]
fn what_a_file_grows_over_reads_as_zeros() {
    let grown = [
        Step::Write(at("a"), 0, 5000, 1),
        Step::Truncate(at("a"), 100),
        Step::Truncate(at("a"), 9000),
    ];
    let world = world_after(&grown);
    let bytes = read(&world, "a");
    assert!(bytes[..100].iter().all(|byte| *byte != 0));
    assert_eq!(bytes[100..], [0; 8900]);
    assert_eq!(blocks(&world, "a"), 1);
}

#[test]
fn truncation_leaves_the_bytes_it_cuts_off_for_a_crash_to_find() {
    let mut world = world_after(&[Step::Write(at("a"), 0, 9000, 1)]);
    for size in [5000, 100] {
        let truncate = Step::Truncate(at("a"), size);
        let meaning = truncate.meaning(&world.table, &world.slots, world.id());
        let Ok(crate::steps::Meaning::Op(action, _)) = meaning else { unreachable!() };
        let changes = world.apply(action, &[]).unwrap();
        let only_frees = |effect: &ContentEffect| matches!(effect, ContentEffect::Free { .. });
        assert!(changes.contents.iter().all(only_frees), "{:?}", changes.contents);
    }
}

#[test]
fn what_is_set_aside_past_the_end_is_set_aside_in_a_content_of_its_own_too() {
    let reserve = Step::Fallocate(at("a"), 0, 16384, FallocateMode::AllocateKeepSize);
    let mut world = world_after(&[
        Step::Write(at("a"), 0, 100, 1),
        reserve,
        Step::Copy(at("a"), 0, at("b"), 0, 100),
        Step::Write(at("a"), 0, 1, 9),
    ]);
    assert_eq!(blocks(&world, "a"), 4);
    let content = world.node(ino(&world, "a")).content().unwrap();
    assert_eq!(world.storage.borrow().contents[&content].len(), 16384);
    world.step(&Step::Truncate(at("a"), 16384)).unwrap().unwrap();
    assert_eq!(read(&world, "a")[100..], vec![0; 16284]);
}

#[test]
fn a_file_that_grows_over_reserved_blocks_shows_nothing_that_was_left_in_them() {
    let growing = [
        Step::Truncate(at("a"), 20000),
        Step::Write(at("a"), 20000, 1, 9),
        Step::Fallocate(at("a"), 0, 20000, FallocateMode::Allocate),
        Step::Fallocate(at("a"), 18000, 2000, FallocateMode::Zero),
    ];
    for grows in growing {
        let reserve = Step::Fallocate(at("a"), 0, 16384, FallocateMode::AllocateKeepSize);
        let mut world = world_after(&[Step::Write(at("a"), 0, 100, 1), reserve]);
        let content = world.node(ino(&world, "a")).content().unwrap();
        // Of a write that was never committed.
        world.storage.borrow_mut().contents.get_mut(&content).unwrap()[100..].fill(7);
        world.step(&grows).unwrap().unwrap();
        assert_eq!(read(&world, "a")[100..20000], vec![0; 19900], "{grows:?}");
    }
}

#[test]
fn a_write_far_past_the_end_leaves_a_hole() {
    let far = 40 * BLOCK_BYTES;
    let world = world_after(&[Step::Write(at("a"), far, 1, 1)]);
    assert_eq!((read(&world, "a").len() as u64, blocks(&world, "a")), (far + 1, 1));
    let node = world.node(ino(&world, "a"));
    let FileData { size, extents, .. } = data(&node);
    assert_eq!((extents.next_data(*size, 0), extents.next_hole(*size, 0)), (Some(far), 0));
    assert_eq!(extents.next_hole(*size, far), far + 1, "the end counts as a hole");
    assert_eq!(extents.next_data(*size, far + 1), None);
}

#[test]
fn a_hole_that_becomes_data_in_part_is_zeros_elsewhere() {
    let world = world_after(&[
        Step::Write(at("a"), 0, 12288, 1),
        Step::Fallocate(at("a"), 4096, 4096, FallocateMode::PunchHole),
        Step::Write(at("a"), 5000, 10, 1),
    ]);
    let bytes = read(&world, "a");
    let data: Vec<usize> = (4096..8192).filter(|at| bytes[*at] != 0).collect();
    assert_eq!(data, (5000..5010).collect::<Vec<_>>());
}

#[test]
fn blocks_past_the_end_are_kept_until_the_file_is_truncated_even_to_its_own_size() {
    let reserve = Step::Fallocate(at("a"), 0, 16384, FallocateMode::AllocateKeepSize);
    let mut world = world_after(&[Step::Write(at("a"), 0, 100, 1), reserve]);
    assert_eq!((read(&world, "a").len(), blocks(&world, "a")), (100, 4));
    world.step(&Step::Truncate(at("a"), 100)).unwrap().unwrap();
    assert_eq!((read(&world, "a").len(), blocks(&world, "a")), (100, 1));
}

#[test]
fn an_empty_file_with_blocks_past_its_end_gives_them_up_with_its_content() {
    let reserve = Step::Fallocate(at("a"), 0, 8192, FallocateMode::AllocateKeepSize);
    let grow = Step::Truncate(at("a"), 8192);
    let world = world_after(&[
        reserve,
        Step::Truncate(at("a"), 0),
        grow,
        Step::Write(at("b"), 0, 8192, 1),
        Step::Copy(at("a"), 0, at("b"), 0, 8192),
    ]);
    assert_eq!((blocks(&world, "a"), read(&world, "b")), (0, vec![0; 8192]));
}

#[test]
fn truncation_to_nothing_and_replacement_give_a_new_content() {
    let mut world = world_after(&[Step::Write(at("a"), 0, 100, 1)]);
    let before = world.node(ino(&world, "a")).content();
    world.step(&Step::Truncate(at("a"), 0)).unwrap().unwrap();
    assert_eq!(world.node(ino(&world, "a")).content(), None);
    world.step(&Step::Write(at("a"), 0, 100, 1)).unwrap().unwrap();
    assert_ne!(world.node(ino(&world, "a")).content(), before);
}

#[test]
fn zeroing_keeps_blocks_and_punching_frees_them() {
    let write = Step::Write(at("a"), 0, 12288, 1);
    for (mode, size, kept) in [
        (FallocateMode::Zero, 16384, 4),
        (FallocateMode::ZeroKeepSize, 12288, 4),
        (FallocateMode::PunchHole, 12288, 1),
    ] {
        let world = world_after(&[write.clone(), Step::Fallocate(at("a"), 4096, 12288, mode)]);
        let bytes = read(&world, "a");
        assert_eq!((bytes.len(), blocks(&world, "a")), (size, kept), "{mode:?}");
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_range_of_no_bytes_can_be_written_but_not_allocated() {
    let mut world = world_after(&[Step::Write(at("a"), 7, 0, 1)]);
    assert_eq!(read(&world, "a"), b"");
    for mode in [FallocateMode::Allocate, FallocateMode::PunchHole, FallocateMode::Zero] {
        let step = Step::Fallocate(at("a"), 0, 0, mode);
        assert_eq!(world.step(&step), Some(Err(Errno::EINVAL)));
    }
}

#[test]
fn nothing_goes_past_the_largest_file() {
    let mut world = world_after(&[Step::Truncate(at("a"), 0)]);
    let mode = FallocateMode::AllocateKeepSize;
    for step in [
        Step::Write(at("a"), FILE_BYTES_MAX, 1, 1),
        Step::Write(at("a"), u64::MAX, 2, 1),
        Step::Truncate(at("a"), FILE_BYTES_MAX + 1),
        Step::Fallocate(at("a"), 1, FILE_BYTES_MAX, mode),
        Step::Fallocate(at("a"), u64::MAX, u64::MAX, mode),
    ] {
        assert_eq!(world.step(&step), Some(Err(Errno::EFBIG)), "{step:?}");
    }
    assert_eq!(world.step(&Step::Truncate(at("a"), FILE_BYTES_MAX)), Some(Ok(())));
    assert_eq!(blocks(&world, "a"), 0);
}

#[test]
fn only_regular_files_have_bytes() {
    let mut world = World::new();
    let (parent, ino, owner) = (Ino::ROOT, Ino(world.id()), OWNER);
    world.must(Action::Symlink { parent, name: name("a"), ino, target: "b".into(), owner });
    for (ino, errno) in [(ino, Errno::EINVAL), (Ino::ROOT, Errno::EISDIR)] {
        let fresh = ContentId(world.id());
        let write = Action::Write { ino, offset: 0, len: 1, clear_set_id: false, fresh };
        assert_eq!(world.apply(write, b"x"), Err(errno));
    }
}

#[test]
fn a_copy_of_a_whole_file_moves_no_bytes() {
    let mut world = world_after(&[Step::Write(at("a"), 0, 5000, 1)]);
    let (from, to, fresh) = (ino(&world, "a"), ino(&world, "b"), ContentId(world.id()));
    let copy = Action::CopyRange { from, from_offset: 0, to, to_offset: 0, len: 9999, fresh };
    assert_eq!(world.apply(copy, &[]).unwrap().contents, []);
    assert_eq!(read(&world, "b"), read(&world, "a"));
}

#[test]
fn a_write_to_a_copy_leaves_the_other_as_it_was() {
    for text in ["a", "b"] {
        let mut world = world_after(&[
            Step::Write(at("a"), 0, 5000, 1),
            Step::Copy(at("a"), 0, at("b"), 0, 5000),
        ]);
        let other = if text == "a" { "b" } else { "a" };
        let before = read(&world, other);
        world.step(&Step::Write(at(text), 100, 100, 99)).unwrap().unwrap();
        assert_eq!(read(&world, other), before);
        assert_ne!(read(&world, text), before);
        assert_eq!(audit(&[&world]), Ok(()));
    }
}

#[test]
fn a_copy_that_became_shorter_does_not_show_its_old_bytes_when_it_grows() {
    let world = world_after(&[
        Step::Write(at("a"), 0, 8192, 1),
        Step::Copy(at("a"), 0, at("b"), 0, 8192),
        Step::Truncate(at("b"), 100),
        Step::Truncate(at("b"), 5000),
    ]);
    assert_eq!(read(&world, "b")[100..], [0; 4900]);
    assert!(read(&world, "a").iter().all(|byte| *byte != 0));
}

#[test]
fn a_copy_continues_its_source_only_where_both_read_the_same() {
    let world = world_after(&[
        Step::Write(at("a"), 0, 8192, 1),
        Step::Copy(at("a"), 0, at("b"), 0, 8192),
        // The source keeps its content, but now has a hole where the copy has data.
        Step::Truncate(at("a"), 4096),
        Step::Truncate(at("a"), 12288),
        Step::Copy(at("a"), 8192, at("b"), 8192, 4096),
    ]);
    let bytes = read(&world, "b");
    assert!(bytes[..8192].iter().all(|byte| *byte != 0));
    assert_eq!(bytes[8192..], [0; 4096]);
}

#[test]
fn a_copy_that_replaces_all_that_a_file_has_shares_the_content() {
    let shares = |steps: &[Step]| {
        let first = [Step::Write(at("a"), 0, 9000, 1), Step::Write(at("b"), 0, 9000, 2)];
        let copy = [Step::Copy(at("a"), 0, at("b"), 0, 9000)];
        let world = world_after(&[&first, steps, &copy].concat());
        assert_eq!(read(&world, "b")[..9000], read(&world, "a"));
        assert_eq!(audit(&[&world]), Ok(()));
        let content = |text| world.node(ino(&world, text)).content();
        content("a") == content("b")
    };
    assert!(shares(&[]));
    assert!(shares(&[Step::Truncate(at("b"), 100)]));
    // Bytes and reserved blocks past the copy must stay, so nothing is shared.
    assert!(!shares(&[Step::Write(at("b"), 9000, 1, 3)]));
    let keep = FallocateMode::AllocateKeepSize;
    assert!(!shares(&[Step::Fallocate(at("b"), 12288, 1, keep)]));
    assert!(shares(&[Step::Fallocate(at("b"), 9000, 1, keep)]));
}

#[test]
fn a_small_part_of_a_file_is_copied_by_bytes() {
    let world =
        world_after(&[Step::Write(at("a"), 0, 8192, 1), Step::Copy(at("a"), 0, at("b"), 0, 4096)]);
    let content = |text| world.node(ino(&world, text)).content();
    assert_ne!(content("a"), content("b"));
    assert_eq!(read(&world, "b"), read(&world, "a")[..4096]);
}

#[test]
fn a_copy_onto_its_own_source_is_refused_and_beside_it_is_not() {
    let mut world = world_after(&[Step::Write(at("a"), 0, 8192, 1)]);
    let before = read(&world, "a");
    let overlapping = Step::Copy(at("a"), 0, at("a"), 4095, 4096);
    assert_eq!(world.step(&overlapping), Some(Err(Errno::EINVAL)));
    assert_eq!(world.step(&Step::Copy(at("a"), 0, at("a"), 4096, 4096)), Some(Ok(())));
    assert_eq!(read(&world, "a")[4096..], before[..4096]);
    assert_eq!(world.step(&Step::Copy(at("a"), 8192, at("a"), 0, 10)), Some(Ok(())), "nothing");
}

#[test]
fn a_copy_makes_holes_where_its_source_has_them() {
    let world = world_after(&[
        Step::Write(at("a"), 8192, 4096, 1),
        Step::Write(at("b"), 0, 16384, 2),
        Step::Copy(at("a"), 0, at("b"), 0, 12288),
    ]);
    assert_eq!(read(&world, "b")[..12288], read(&world, "a"));
    assert_eq!(blocks(&world, "b"), 2);
}

#[test]
fn a_content_that_is_shared_is_never_written_to() {
    let mut world =
        world_after(&[Step::Write(at("a"), 0, 5000, 1), Step::Copy(at("a"), 0, at("b"), 0, 5000)]);
    let shared = world.node(ino(&world, "a")).content().unwrap();
    for (id, change) in [
        Step::Write(at("b"), 0, 1, 1),
        Step::Truncate(at("b"), 100),
        Step::Truncate(at("b"), 6000),
        Step::Fallocate(at("b"), 0, 100, FallocateMode::PunchHole),
        Step::Fallocate(at("b"), 0, 9000, FallocateMode::AllocateKeepSize),
        Step::Fallocate(at("b"), 0, 9000, FallocateMode::Zero),
    ]
    .into_iter()
    .enumerate()
    {
        let meaning = change.meaning(&world.table, &world.slots, 90_000 + id as u64);
        let Ok(crate::steps::Meaning::Op(action, _)) = meaning else { unreachable!() };
        let op = crate::world::op(world.seq.next(), action);
        let changes = xfer_protocol::tree::plan(&world.table, &op).unwrap();
        for effect in changes.contents {
            let written = match effect {
                ContentEffect::Create { content } => content,
                ContentEffect::Write { content, .. } => content,
                ContentEffect::Zero { content, .. } => content,
                ContentEffect::Clone { to, .. } => to,
                ContentEffect::Copy { to, .. } => to,
                // Only reports that this node no longer reaches a range.
                ContentEffect::Free { .. } => continue,
            };
            assert_ne!(written, shared, "{change:?}");
        }
    }
    world.step(&Step::Unlink(b"a".to_vec())).unwrap().unwrap();
    assert_eq!(audit(&[&world]), Ok(()));
}

#[test]
fn a_file_without_holes_needs_no_map() {
    let world = world_after(&[
        Step::Write(at("a"), 0, 100, 1),
        Step::Write(at("a"), 100, 9000, 1),
        Step::Fallocate(at("a"), 4096, 4096, FallocateMode::PunchHole),
        Step::Write(at("a"), 4000, 5000, 1),
    ]);
    let node = world.node(ino(&world, "a"));
    assert!(matches!(&node.kind, Kind::File(data) if data.extents == Extents::Dense));
    assert_eq!(node.sectors() * 512, 3 * BLOCK_BYTES);
}

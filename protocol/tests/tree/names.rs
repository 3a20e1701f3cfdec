//! The rules about names, one claim each: making, linking, removing, renaming.

use xfer_protocol::tree::{
    Action, Kind, Node, Op, PlanError, Quota, RenameMode, Table, Usage, plan,
};
use xfer_protocol::{Errno, Ino, Seq, Timestamp};

use crate::audit::audit;
use crate::steps::{File, OWNER, Step, name};
use crate::world::World;

fn path(text: &str) -> Vec<u8> {
    text.bytes().collect()
}

fn file(text: &str) -> Step {
    Step::Create(path(text), 0o644)
}

fn directory(text: &str) -> Step {
    Step::Mkdir(path(text), 0o755)
}

fn rename(from: &str, to: &str, mode: RenameMode) -> Step {
    Step::Rename(path(from), path(to), mode)
}

/// Makes `before`, does `step`, expects `outcome`, and audits the tree afterwards.
fn check(before: &[Step], step: Step, outcome: Result<(), Errno>) -> World {
    let mut world = World::new();
    before.iter().for_each(|step| world.step(step).unwrap().unwrap());
    let unchanged = world.snapshot(Ino::ROOT);
    assert_eq!(world.step(&step), Some(outcome), "{step:?}");
    if outcome.is_err() {
        assert_eq!(world.snapshot(Ino::ROOT), unchanged);
    }
    assert_eq!(audit(&[&world]), Ok(()));
    world
}

fn paths(world: &World) -> Vec<String> {
    world.snapshot(Ino::ROOT).into_keys().collect()
}

#[test]
fn a_name_that_is_taken_is_refused_to_every_kind() {
    for step in [
        file("a"),
        directory("a"),
        Step::Symlink(path("a"), 0),
        Step::Fifo(path("a"), 0o644),
        Step::Link(path("b"), path("a")),
    ] {
        check(&[file("a"), file("b")], step, Err(Errno::EEXIST));
    }
}

#[test]
fn nothing_is_made_in_a_file_or_in_nothing() {
    check(&[file("a")], file("ab"), Err(Errno::ENOTDIR));
    check(&[], file("ab"), Err(Errno::ENOENT));
}

#[test]
fn a_directory_that_was_removed_takes_no_new_names() {
    let mut world = check(&[directory("a")], directory("b"), Ok(()));
    let ino = world.entry(Ino::ROOT, &name("a")).unwrap();
    world.slots[0] = Some(ino);
    world.step(&Step::Rmdir(path("a"))).unwrap().unwrap();
    let (fresh, owner) = (Ino(world.id()), OWNER);
    let create = Action::Create { parent: ino, name: name("x"), ino: fresh, mode: 0o644, owner };
    assert_eq!(world.apply(create, &[]), Err(Errno::ENOENT));
    let (from, to) = ((Ino::ROOT, name("b")), (ino, name("b")));
    let moved = Action::Rename { from, to, mode: RenameMode::Replace };
    assert_eq!(world.apply(moved, &[]), Err(Errno::ENOENT));
}

#[test]
fn a_directory_with_set_group_id_hands_it_and_its_group_down() {
    let mut world = check(&[directory("a")], Step::Chmod(path("a"), 0o2755), Ok(()));
    world.step(&directory("ab")).unwrap().unwrap();
    world.step(&Step::Create(path("ac"), 0o644)).unwrap().unwrap();
    let seen = world.snapshot(Ino::ROOT);
    assert_eq!((seen["/a/b"].mode, seen["/a/c"].mode), (0o2755, 0o644));
}

#[test]
fn mkdir_ignores_set_id_bits_and_keeps_the_sticky_bit() {
    let world = check(&[], Step::Mkdir(path("a"), 0o7777), Ok(()));
    assert_eq!(world.snapshot(Ino::ROOT)["/a"].mode, 0o1777);
}

#[test]
fn a_number_in_use_is_not_given_to_another_node() {
    let mut world = check(&[], file("a"), Ok(()));
    let ino = world.entry(Ino::ROOT, &name("a")).unwrap();
    for ino in [ino, Ino::ROOT, Ino(77)] {
        let (parent, owner) = (Ino::ROOT, OWNER);
        let create = Action::Create { parent, name: name("b"), ino, mode: 0o644, owner };
        assert_eq!(world.apply(create, &[]), Err(Errno::EINVAL), "{ino:?}");
    }
}

#[test]
fn hard_links_are_one_node_until_the_last_name_goes() {
    let world = check(
        &[file("a"), Step::Write(File::At(path("a")), 0, 3, 1)],
        Step::Link(path("a"), path("b")),
        Ok(()),
    );
    let seen = world.snapshot(Ino::ROOT);
    assert_eq!((seen["/b"].nlink, seen["/b"].same_as.as_str()), (2, "/a"));
}

#[test]
fn directories_and_nameless_nodes_take_no_links() {
    check(&[directory("a")], Step::Link(path("a"), path("b")), Err(Errno::EPERM));
    let mut world = check(&[file("a")], Step::Open(0, path("a")), Ok(()));
    world.step(&Step::Unlink(path("a"))).unwrap().unwrap();
    let (ino, parent) = (world.slots[0].unwrap(), Ino::ROOT);
    let link = Action::Link { ino, parent, name: name("b") };
    assert_eq!(world.apply(link, &[]), Err(Errno::ENOENT));
}

#[test]
fn a_removed_file_that_is_open_can_be_read_and_written_until_it_is_forgotten() {
    let mut world = check(&[file("a")], Step::Open(0, path("a")), Ok(()));
    let ino = world.slots[0].unwrap();
    assert_eq!(world.apply(Action::ForgetOrphan { ino }, &[]), Err(Errno::EBUSY));
    world.step(&Step::Unlink(path("a"))).unwrap().unwrap();
    world.step(&Step::Write(File::Open(0), 0, 3, 1)).unwrap().unwrap();
    assert_eq!((world.node(ino).nlink, world.read(ino).len()), (0, 3));
    assert_eq!(audit(&[&world]), Ok(()));
    world.step(&Step::Close(0)).unwrap().unwrap();
    assert!(world.storage.borrow().contents.is_empty());
    assert_eq!(world.apply(Action::ForgetOrphan { ino }, &[]), Err(Errno::ENOENT));
}

#[test]
fn unlink_and_rmdir_each_refuse_the_others_kind() {
    check(&[directory("a")], Step::Unlink(path("a")), Err(Errno::EISDIR));
    check(&[file("a")], Step::Rmdir(path("a")), Err(Errno::ENOTDIR));
    check(&[], Step::Unlink(path("a")), Err(Errno::ENOENT));
    check(&[], Step::Rmdir(path("a")), Err(Errno::ENOENT));
}

#[test]
fn a_directory_with_something_in_it_is_not_removed() {
    check(&[directory("a"), file("ab")], Step::Rmdir(path("a")), Err(Errno::ENOTEMPTY));
}

#[test]
fn rename_over_an_open_file_keeps_the_old_one_readable() {
    let before = [file("a"), file("b"), Step::Write(File::At(path("b")), 0, 3, 1)];
    let mut world = check(&before, Step::Open(0, path("b")), Ok(()));
    world.step(&rename("a", "b", RenameMode::Replace)).unwrap().unwrap();
    assert_eq!(paths(&world), ["/b"]);
    assert_eq!(world.read(world.slots[0].unwrap()).len(), 3);
    assert_eq!(audit(&[&world]), Ok(()));
}

#[test]
fn rename_onto_itself_or_another_name_of_the_same_node_does_nothing() {
    check(&[file("a")], rename("a", "a", RenameMode::Replace), Ok(()));
    let linked = [file("a"), Step::Link(path("a"), path("b"))];
    for mode in [RenameMode::Replace, RenameMode::Exchange] {
        let world = check(&linked, rename("a", "b", mode), Ok(()));
        assert_eq!(paths(&world), ["/a", "/b"]);
    }
    check(&linked, rename("a", "b", RenameMode::NoReplace), Err(Errno::EEXIST));
}

#[test]
fn a_directory_can_not_be_moved_into_itself() {
    let before = [directory("a"), directory("ab")];
    check(&before, rename("a", "ac", RenameMode::Replace), Err(Errno::EINVAL));
    check(&before, rename("a", "abc", RenameMode::NoReplace), Err(Errno::EINVAL));
    check(&before, rename("a", "ab", RenameMode::Exchange), Err(Errno::EINVAL));
    check(&before, rename("ab", "a", RenameMode::Exchange), Err(Errno::EINVAL));
}

#[test]
fn a_name_that_is_taken_is_refused_before_the_place_is_looked_at() {
    let before = [directory("a"), directory("ab")];
    check(&before, rename("a", "ab", RenameMode::NoReplace), Err(Errno::EEXIST));
    check(&before, rename("a", "ac", RenameMode::Exchange), Err(Errno::ENOENT));
}

#[test]
fn nothing_replaces_a_directory_that_it_is_in() {
    let before = [directory("a"), file("ab"), directory("ac")];
    check(&before, rename("ab", "a", RenameMode::Replace), Err(Errno::ENOTEMPTY));
    check(&before, rename("ac", "a", RenameMode::Replace), Err(Errno::ENOTEMPTY));
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let before = [file("a"), directory("b"), directory("c"), file("cb")];
    check(&before, rename("a", "b", RenameMode::Replace), Err(Errno::EISDIR));
    check(&before, rename("b", "a", RenameMode::Replace), Err(Errno::ENOTDIR));
    check(&before, rename("b", "c", RenameMode::Replace), Err(Errno::ENOTEMPTY));
    check(&before, rename("c", "b", RenameMode::Replace), Ok(()));
}

#[test]
fn exchange_swaps_a_file_and_a_directory_across_directories() {
    let before = [directory("a"), directory("ab"), file("abc"), file("b")];
    let world = check(&before, rename("ab", "b", RenameMode::Exchange), Ok(()));
    assert_eq!(paths(&world), ["/a", "/a/b", "/b", "/b/c"]);
    let moved = world.entry(Ino::ROOT, &name("b")).unwrap();
    assert!(matches!(
        world.node(moved).kind,
        Kind::Directory { parent: Ino::ROOT, entries: 1, name_bytes: 1 }
    ));
}

#[test]
fn links_that_point_nowhere_or_too_far_are_refused() {
    let mut world = World::new();
    let mut link = |target: Vec<u8>| {
        let (parent, ino, owner) = (Ino::ROOT, Ino(world.id()), OWNER);
        let target = target.into();
        world.apply(Action::Symlink { parent, name: name("a"), ino, target, owner }, &[]).map(drop)
    };
    assert_eq!(link(vec![]), Err(Errno::ENOENT));
    assert_eq!(link(vec![b'x'; 4096]), Err(Errno::ENAMETOOLONG));
    assert_eq!(link(vec![b'x', 0]), Err(Errno::EINVAL));
    assert_eq!(link(vec![b'x'; 4095]), Ok(()));
}

#[test]
fn directories_that_are_said_to_be_in_each_other_are_an_error_and_no_endless_walk() {
    let mut table = Table::new(Usage { bytes: 0, nodes: 9 }, Quota::UNLIMITED, Seq(0));
    let inside = |parent: u64, entries| Node {
        kind: Kind::Directory { parent: Ino(parent), entries, name_bytes: 5 },
        ..crate::world::fixtures()[0].1.clone()
    };
    // 2001 leads into a ring of three; 2009 is the directory to be moved there.
    for (ino, parent) in [(1, 1), (2001, 2002), (2002, 2003), (2003, 2004), (2004, 2002), (2009, 1)]
    {
        table.fill_node(Ino(ino), Some(inside(parent, 1)));
    }
    table.fill_entry(Ino::ROOT, name("moved"), Some(Ino(2009)));
    table.fill_entry(Ino(2001), name("there"), None);
    let (from, to) = ((Ino::ROOT, name("moved")), (Ino(2001), name("there")));
    let action = Action::Rename { from, to, mode: RenameMode::Replace };
    let refused = plan(&table, &Op { time: Timestamp::default(), action });
    assert_eq!(refused, Err(PlanError::Refused(Errno::EIO)));
}

//! The rules about attributes and extended attributes, one claim each.

use bytes::Bytes;
use xfer_protocol::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use xfer_protocol::tree::{Action, Node, XattrMode, Xattrs};
use xfer_protocol::{ContentId, Errno, Ino, Timestamp};

use crate::steps::{OWNER, name};
use crate::world::World;

/// A world with a file `a` of this mode.
fn world_with(mode: u16) -> (World, Ino) {
    let mut world = World::new();
    let (parent, ino) = (Ino::ROOT, Ino(world.id()));
    world.must(Action::Create { parent, name: name("a"), ino, mode, owner: OWNER });
    (world, ino)
}

/// A `SetAttr` that changes nothing yet; the tests fill fields in.
fn nothing(ino: Ino) -> Action {
    Action::SetAttr {
        ino,
        mode: None,
        uid: None,
        gid: None,
        size: None,
        atime: None,
        mtime: None,
        clear_set_id: false,
        fresh: ContentId(9999),
    }
}

fn changed(mode_before: u16, change: impl Fn(&mut Action)) -> Node {
    let (mut world, ino) = world_with(mode_before);
    let mut action = nothing(ino);
    change(&mut action);
    world.must(action);
    (*world.node(ino)).clone()
}

fn set(ino: Ino, text: &[u8], value: &[u8], mode: XattrMode) -> Action {
    let (name, value) = (Bytes::copy_from_slice(text), Bytes::copy_from_slice(value));
    Action::SetXattr { ino, name, value, mode }
}

#[test]
fn a_new_owner_takes_the_set_id_bits_away() {
    let give = |action: &mut Action| {
        let Action::SetAttr { uid, .. } = action else { unreachable!() };
        *uid = Some(7);
    };
    assert_eq!(changed(0o6755, give).mode, 0o755);
    // Set-group-id without group-execute marks mandatory locking, so it is not a set-id bit.
    assert_eq!(changed(0o6745, give).mode, 0o2745);
    assert_eq!(changed(0o6755, give).uid, 7);
}

#[test]
fn a_mode_that_is_given_with_an_owner_wins() {
    let node = changed(0o6755, |action| {
        let Action::SetAttr { uid, mode, .. } = action else { unreachable!() };
        (*uid, *mode) = (Some(7), Some(0o4700));
    });
    assert_eq!(node.mode, 0o4700);
}

#[test]
fn a_write_by_an_unprivileged_program_clears_the_set_id_bits() {
    for (clear_set_id, mode) in [(false, 0o6755), (true, 0o755)] {
        let (mut world, ino) = world_with(0o6755);
        let fresh = ContentId(world.id());
        world.apply(Action::Write { ino, offset: 0, len: 1, clear_set_id, fresh }, b"x").unwrap();
        assert_eq!(world.node(ino).mode, mode);
    }
}

#[test]
fn a_directory_keeps_its_set_group_id_bit_when_it_is_given_away() {
    let mut world = World::new();
    let (parent, ino) = (Ino::ROOT, Ino(world.id()));
    world.must(Action::Mkdir { parent, name: name("a"), ino, mode: 0o755, owner: OWNER });
    for change in [(Some(0o2755), None), (None, Some(7))] {
        let mut action = nothing(ino);
        let Action::SetAttr { uid, mode, .. } = &mut action else { unreachable!() };
        (*mode, *uid) = change;
        world.must(action);
    }
    assert_eq!(world.node(ino).mode, 0o2755);
}

#[test]
fn times_that_are_given_win_over_those_that_a_change_of_size_sets() {
    let long_ago = Timestamp::new(-5, 7).unwrap();
    let node = changed(0o644, |action| {
        let Action::SetAttr { size, mtime, .. } = action else { unreachable!() };
        (*size, *mtime) = (Some(10), Some(long_ago));
    });
    assert_eq!(node.mtime, long_ago);
    assert!(node.ctime > node.mtime && node.atime > node.mtime, "others stay as they are");
}

#[test]
fn an_attribute_is_created_or_replaced_only_as_asked() {
    let (mut world, ino) = world_with(0o644);
    let mut set = |value: &[u8], mode| world.apply(set(ino, b"user.a", value, mode), &[]).map(drop);
    assert_eq!(set(b"1", XattrMode::Replace), Err(Errno::ENODATA));
    assert_eq!(set(b"1", XattrMode::Create), Ok(()));
    assert_eq!(set(b"2", XattrMode::Create), Err(Errno::EEXIST));
    assert_eq!(set(b"3", XattrMode::Replace), Ok(()));
    assert_eq!(set(b"", XattrMode::Either), Ok(()), "an empty value is a value");
    let xattrs = world.node(ino).xattrs.all().unwrap();
    assert_eq!(xattrs.get(&b"user.a"[..]), Some(&Bytes::new()));
}

#[test]
fn an_attribute_is_removed_once_and_none_are_no_map() {
    let (mut world, ino) = world_with(0o644);
    world.must(set(ino, b"user.a", b"1", XattrMode::Either));
    let remove = Action::RemoveXattr { ino, name: "user.a".into() };
    world.must(remove.clone());
    assert_eq!(world.node(ino).xattrs, Xattrs::None, "one value for one state");
    assert_eq!(world.apply(remove, &[]), Err(Errno::ENODATA));
}

#[test]
fn names_and_values_of_attributes_have_their_limits() {
    let (mut world, ino) = world_with(0o644);
    let mut set = |name: &[u8], value: &[u8]| {
        world.apply(set(ino, name, value, XattrMode::Either), &[]).map(drop)
    };
    assert_eq!(set(b"", b"1"), Err(Errno::EINVAL));
    assert_eq!(set(b"user.\0", b"1"), Err(Errno::EINVAL));
    assert_eq!(set(&[b'n'; XATTR_NAME_BYTES_MAX + 1], b"1"), Err(Errno::ERANGE));
    assert_eq!(set(&[b'n'; XATTR_NAME_BYTES_MAX], b"1"), Ok(()));
    assert_eq!(set(b"user.a", &vec![1; XATTR_VALUE_BYTES_MAX + 1]), Err(Errno::ENOSPC));
    assert_eq!(set(b"user.a", &vec![1; XATTR_VALUE_BYTES_MAX]), Ok(()));
    assert_eq!(set(b"user.b", &vec![1; XATTR_VALUE_BYTES_MAX]), Err(Errno::ENOSPC), "together");
}

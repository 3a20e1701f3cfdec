//! The rules at their limits: the most links, the most runs of data, and invalid maps.

use std::sync::Arc;

use xfer_protocol::codec::{decode, encode};
use xfer_protocol::limits::{BLOCK_BYTES, EXTENT_RUNS_MAX, FILE_BYTES_MAX, LINKS_MAX};
use xfer_protocol::tree::{
    Action, Changes, ContentEffect, Extents, FallocateMode, FileData, Kind, Rows, Usage,
};
use xfer_protocol::{ContentId, Errno, Ino};

use crate::steps::{OWNER, name};
use crate::world::{World, data, op};

/// A world with a file `a` that `change` has edited by hand.
fn world_with(change: impl FnOnce(&mut xfer_protocol::tree::Node)) -> (World, Ino) {
    let mut world = World::new();
    let (parent, ino) = (Ino::ROOT, Ino(world.id()));
    world.must(Action::Create { parent, name: name("a"), ino, mode: 0o644, owner: OWNER });
    let mut node = (*world.node(ino)).clone();
    change(&mut node);
    let usage = Usage { bytes: node.charge(), nodes: 4 };
    let nodes = vec![(ino, Some(Arc::new(node)))];
    world.table.apply(&Changes { nodes, usage, ..Changes::default() }, world.seq);
    (world, ino)
}

/// A file with the most runs of data that a map may have: two data blocks, two of hole, and so on.
fn world_with_all_runs() -> (World, Ino, u64) {
    let runs = (0..EXTENT_RUNS_MAX as u64).map(|run| 4 * run..4 * run + 2);
    let extents = Extents::Mapped(Arc::new(runs.collect()));
    let size = 4 * EXTENT_RUNS_MAX as u64 * BLOCK_BYTES;
    let content = Some(ContentId(7));
    let data = FileData { size, content, sealed: false, extents };
    let (world, ino) = world_with(|node| node.kind = Kind::File(data));
    (world, ino, size)
}

fn planned(world: &World, action: Action) -> Changes {
    xfer_protocol::tree::plan(&world.table, &op(world.seq.next(), action)).unwrap()
}

fn extents(changes: &Changes) -> Extents {
    data(changes.nodes[0].1.as_ref().unwrap()).extents.clone()
}

#[test]
fn a_node_has_so_many_links_and_no_more() {
    for (nlink, outcome) in [(LINKS_MAX - 1, Ok(())), (LINKS_MAX, Err(Errno::EMLINK))] {
        let (mut world, ino) = world_with(|node| node.nlink = nlink);
        let link = Action::Link { ino, parent: Ino::ROOT, name: name("b") };
        assert_eq!(world.apply(link, &[]).map(drop), outcome);
    }
}

#[test]
fn the_hole_before_one_run_too_many_becomes_zeros() {
    let (world, ino, size) = world_with_all_runs();
    let offset = size + 8 * BLOCK_BYTES;
    let (len, fresh) = (BLOCK_BYTES as u32, ContentId(8));
    let changes = planned(&world, Action::Write { ino, offset, len, clear_set_id: false, fresh });
    let hole = size - 2 * BLOCK_BYTES;
    let zeros = ContentEffect::Zero { content: ContentId(7), offset: hole, len: 10 * BLOCK_BYTES };
    assert!(changes.contents.contains(&zeros), "{:?}", changes.contents);
    let run = 4 * EXTENT_RUNS_MAX as u64 - 4..4 * EXTENT_RUNS_MAX as u64 + 9;
    let Extents::Mapped(map) = extents(&changes) else { unreachable!() };
    assert_eq!((map.len(), map.last()), (EXTENT_RUNS_MAX, Some(&run)));
    let charged = changes.usage.bytes - world.table.usage().bytes;
    assert_eq!(charged, 11 * BLOCK_BYTES, "the hole is charged");
}

#[test]
fn one_hole_too_many_becomes_zeros_that_are_data() {
    let (mut world, ino, _) = world_with_all_runs();
    let (len, fresh, mode) = (BLOCK_BYTES, ContentId(8), FallocateMode::PunchHole);
    // A run of three blocks, so that it has a middle one.
    let grow =
        Action::Write { ino, offset: 2 * BLOCK_BYTES, len: 4096, clear_set_id: false, fresh };
    let changes = planned(&world, grow);
    world.table.apply(&changes, world.seq.next());
    let before = data(&world.node(ino)).extents.clone();
    let changes = planned(&world, Action::Fallocate { ino, offset: 4096, len, mode, fresh });
    assert_eq!(extents(&changes), before);
    let zeros = ContentEffect::Zero { content: ContentId(7), offset: 4096, len };
    assert_eq!(changes.contents, [zeros]);
}

#[test]
fn a_hole_at_the_edge_of_a_run_is_always_made() {
    let (world, ino, _) = world_with_all_runs();
    let (len, fresh, mode) = (BLOCK_BYTES, ContentId(8), FallocateMode::PunchHole);
    let changes = planned(&world, Action::Fallocate { ino, offset: 0, len, mode, fresh });
    assert!(!extents(&changes).contains(u64::MAX, 0));
    let freed = ContentEffect::Free { content: ContentId(7), offset: 0, len };
    assert_eq!(changes.contents, [freed]);
}

#[test]
fn a_map_survives_the_way_there_and_back() {
    let extents = Extents::Mapped(Arc::new([0..1, 5..9].into_iter().collect()));
    let bytes = encode(&extents).unwrap();
    assert_eq!(decode::<Extents>(&bytes).unwrap(), extents);
    assert_eq!(bytes, [1, 2, 0, 1, 5, 9], "the bytes stay what they are");
}

#[test]
fn a_map_that_no_rules_made_is_refused() {
    let last = FILE_BYTES_MAX / BLOCK_BYTES;
    for runs in [
        vec![(5, 5)],
        vec![(5, 4)],
        vec![(0, 2), (1, 3)],
        vec![(0, 2), (2, 3)],
        vec![(4, 5), (0, 1)],
        vec![(0, last + 1)],
        vec![(0, u64::MAX)],
    ] {
        let bytes = encode(&(1u32, &runs)).unwrap();
        assert!(decode::<Extents>(&bytes).is_err(), "{runs:?}");
    }
    let whole = encode(&(1u32, vec![(0, last)])).unwrap();
    assert!(decode::<Extents>(&whole).is_ok());
}

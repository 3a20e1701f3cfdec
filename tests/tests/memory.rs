//! Both processes stay within the memory that they are given, whatever is done through them.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use xfer_tests::files::{read_write, set_xattr, xattr};
use xfer_tests::memory::{Allowed, MIB};
use xfer_tests::{Mount, Random, Server, World, scale};

/// The least that may be asked for, of everything.
const LITTLE: Allowed =
    Allowed { cache: 16 * MIB, log: 16 * MIB, tree: 16 * MIB, server_tree: 16 * MIB };

/// How many files there are, unless `XFER_MEMORY_FILES` says otherwise: with their attributes they are
/// more than either process may take up.
const FILES: usize = 4_000;

/// How many bytes the attribute of a file has.
const ATTRIBUTE_BYTES: usize = 60_000;

/// How many files stand in one directory: a directory that is being listed is known whole.
const IN_DIRECTORY: usize = 100;

/// The size of the large file, in bytes.
const LARGE: u64 = 200 * MIB;

const PART: u64 = 64 << 10;

fn world() -> World {
    let tree_size = LITTLE.server_tree.to_string();
    World::with_server(&["alice"], |store| {
        Server::start_with(store, "127.0.0.1:0", &["--tree-size", &tree_size])
    })
}

fn mount(world: &World) -> Mount {
    let sizes =
        [("--cache-size", LITTLE.cache), ("--log-size", LITTLE.log), ("--tree-size", LITTLE.tree)];
    let mut mounting = world.mounting("alice");
    for (option, size) in sizes {
        mounting = mounting.arg(option).arg(&size.to_string());
    }
    mounting.start()
}

/// Where a file stands, under a name of 200 bytes.
fn place(mount: &Mount, index: usize) -> PathBuf {
    mount.path(&format!("directory-{}/{index:0>200}", index / IN_DIRECTORY))
}

fn text(index: usize) -> String {
    format!("file {index}\n").repeat(1 + index % 300)
}

/// The attribute of a file.
fn attribute(index: usize) -> Vec<u8> {
    Random::new(index as u64).bytes(ATTRIBUTE_BYTES)
}

/// Walks over all of the tree as programs do, and looks at everything in every tenth file.
fn check_tree(mount: &Mount, files: usize) {
    assert_eq!(mount.shell("find . -type f -name '0*' -size +0 | wc -l"), files.to_string());
    for index in (0..files).step_by(10) {
        let path = place(mount, index);
        assert_eq!(fs::read_to_string(&path).unwrap(), text(index));
        assert!(xattr(&path, "user.attribute").unwrap() == attribute(index), "of file {index}");
    }
}

#[test]
fn a_mount_with_little_memory_works_on_a_tree_far_larger_and_stays_within_it() {
    let files = scale::count("XFER_MEMORY_FILES", FILES);
    let world = world();
    let first = mount(&world);
    for index in 0..files {
        let path = place(&first, index);
        if index % IN_DIRECTORY == 0 {
            fs::create_dir(path.parent().unwrap()).unwrap();
        }
        fs::write(&path, text(index)).unwrap();
        set_xattr(&path, "user.attribute", &attribute(index)).unwrap();
    }
    LITTLE.check(&world, &first);
    first.unmount();

    let second = mount(&world);
    check_tree(&second, files);
    LITTLE.check(&world, &second);
    for directory in 0..files.div_ceil(IN_DIRECTORY) {
        fs::remove_dir_all(second.path(&format!("directory-{directory}"))).unwrap();
    }
    LITTLE.check(&world, &second);
    second.unmount();
}

#[test]
fn a_mount_with_little_memory_reads_and_writes_a_file_far_larger_and_stays_within_it() {
    let mut random = Random::new(Random::seed());
    let world = world();
    let first = mount(&world);
    let parts = LARGE / PART;
    // What each part of the file was last made from.
    let mut seeds: Vec<u64> = (0..parts).map(|_| random.number()).collect();
    let bytes = |seed: u64| Random::new(seed).bytes(PART as usize);
    let file = read_write(&first.path("large"));
    for (at, seed) in (0..).zip(&seeds) {
        file.write_all_at(&bytes(*seed), at * PART).unwrap();
    }
    for _ in 0..parts / 2 {
        let at = random.below(parts);
        seeds[at as usize] = random.number();
        file.write_all_at(&bytes(seeds[at as usize]), at * PART).unwrap();
        let other = random.below(parts);
        let mut found = vec![0; PART as usize];
        file.read_exact_at(&mut found, other * PART).unwrap();
        assert!(found == bytes(seeds[other as usize]), "part {other} is another");
    }
    drop(file);
    LITTLE.check(&world, &first);
    first.unmount();

    let second = mount(&world);
    let file = File::open(second.path("large")).unwrap();
    let mut found = vec![0; PART as usize];
    for (at, seed) in (0..).zip(&seeds) {
        file.read_exact_at(&mut found, at * PART).unwrap();
        assert!(found == bytes(*seed), "part {at} is another");
    }
    drop(file);
    LITTLE.check(&world, &second);
    second.unmount();
}

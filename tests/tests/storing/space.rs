//! Space: the usage is exact, bounds hold to the last byte and node, and freed space can be used
//! again.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs as sys;
use rustix::fs::FallocateFlags;
use rustix::process::Signal;
use xfer_tests::files::{errno, read_write, set_xattr};
use xfer_tests::space::{
    BLOCK, Space, check_exact, contents, data_bytes, said, shown, stored, walked,
};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, Random, World, scale, wait_until};

/// How long to watch for something that must not happen: longer than a commit waits.
const A_WHILE: Duration = Duration::from_millis(1500);

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// The number of operations in the random run, and between two complete counts.
const OPERATIONS: usize = 1_200;
const OPERATIONS_OF_A_STRETCH: usize = 60;

/// The most files that the random run holds open at once.
const SLOTS: usize = 3;

/// Fails the test unless each file's reported blocks are exactly those with data.
fn check_blocks(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            check_blocks(&path);
        } else if meta.is_file() {
            assert_eq!(meta.blocks() * 512, data_bytes(&path), "{}", path.display());
        }
    }
}

/// Two users who do everything that changes the usage; one of them often meets her bounds.
struct Users<'a> {
    world: &'a World,
    random: Random,
    alice: Mount,
    bob: Mount,
    open: [Option<File>; SLOTS],
}

impl Users<'_> {
    fn path(&mut self) -> PathBuf {
        let directory = *self.random.pick(&["", "", "d", "e", "d/f"]);
        self.alice.path(directory).join(self.random.pick(&["a", "b", "c", "d"]))
    }

    fn offset(&mut self) -> u64 {
        let far = if self.random.below(8) == 0 { 1 << 40 } else { 0 };
        far + self.random.below(200_000)
    }

    fn open_files(&self) -> Vec<&File> {
        self.open.iter().flatten().collect()
    }

    /// Does one random step. Errors are fine: the usage must be right after every outcome.
    fn step(&mut self) {
        let (path, other) = (self.path(), self.path());
        match self.random.below(22) {
            0..=3 => {
                let (at, len) = (self.offset(), self.random.below(60_000) as usize);
                let data = self.random.bytes(len);
                drop(write_at(&path, at, &data));
            }
            4..=6 => {
                let (at, len) = (self.offset(), 1 + self.random.below(60_000));
                let modes = [FallocateFlags::empty(), PUNCH, PUNCH, FallocateFlags::ZERO_RANGE];
                let mode = *self.random.pick(&modes);
                drop(open(&path).and_then(|f| Ok(sys::fallocate(f, mode, at, len)?)));
            }
            7 => {
                let len = self.offset();
                drop(open(&path).and_then(|file| file.set_len(len)));
            }
            8 => drop(fs::copy(&path, &other)),
            9 | 10 => {
                let places = (self.offset(), self.offset(), self.random.below(100_000) as usize);
                drop(copy_part(&path, &other, places));
            }
            11 => drop(fs::hard_link(&path, &other)),
            12 => {
                // In the root, since the kernel keeps the directory of an open file, even a removed one.
                let name = *self.random.pick(&["a", "b", "c", "d"]);
                let path = self.alice.path(name);
                let slot = self.random.below(SLOTS as u64) as usize;
                self.open[slot] = open(&path).ok();
                let _ = fs::remove_file(&path);
            }
            13 => {
                let slot = self.random.below(SLOTS as u64) as usize;
                let (at, data) = (self.offset(), self.random.bytes(9_000));
                if let Some(file) = &self.open[slot] {
                    drop(file.write_all_at(&data, at));
                }
            }
            14 | 15 => {
                let name = *self.random.pick(&["user.a", "user.longer"]);
                let len = self.random.below(3_000) as usize;
                let value = self.random.bytes(len);
                match self.random.below(4) {
                    0 => drop(sys::removexattr(&path, name)),
                    _ => drop(set_xattr(&path, name, &value)),
                }
            }
            16 => drop(fs::create_dir(&path)),
            17 => drop(fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path))),
            18 => drop(fs::rename(&path, &other)),
            19 => drop(symlink("anywhere", &path)),
            20 => self.send(&path),
            _ => self.receive(),
        }
    }

    /// Moves something into the outbox, or removes a record there.
    fn send(&mut self, path: &Path) {
        let record = self.alice.path("outbox/bob").join(self.random.pick(&["a", "b", "c"]));
        match self.random.below(3) {
            0 => drop(fs::remove_dir_all(&record).or_else(|_| fs::remove_file(&record))),
            1 => drop(fs::copy(path, &record)),
            _ => drop(fs::rename(path, &record)),
        }
    }

    /// The other user sends something with an attribute, and tidies his own tree.
    fn receive(&mut self) {
        let name = *self.random.pick(&["x", "y", "z"]);
        let (record, data) = (self.bob.path("outbox/alice").join(name), self.random.bytes(7_000));
        let _ = fs::remove_file(&record);
        let draft = self.bob.path(name);
        fs::write(&draft, data).unwrap();
        set_xattr(&draft, "user.note", b"from bob").unwrap();
        // Refused if she has too much waiting.
        let _ = fs::rename(&draft, &record);
        if self.random.below(3) > 0 {
            empty(&self.alice.path("inbox/bob"));
        }
    }

    /// Fills the quota, with bytes and then with nodes: the usage is exact at both bounds, too.
    fn meet_the_bounds(&self) {
        let bytes = self.alice.path("bytes");
        until_full(|number| write_at(&bytes, number * BLOCK, b"x"));
        self.check();
        let _ = fs::remove_file(&bytes);
        let node = |number: u64| self.alice.path(&format!("node {number}"));
        let nodes = until_full(|number| symlink("anywhere", node(number)));
        self.check();
        (0..nodes).for_each(|number| fs::remove_file(node(number)).unwrap());
    }

    /// Closes everything and mounts the tree again.
    fn remount(self) -> Self {
        let Users { world, random, alice, bob, open } = self;
        drop(open);
        alice.unmount();
        let alice = world.mount("alice");
        Users { world, random, alice, bob, open: Default::default() }
    }

    fn check(&self) {
        check_exact(self.world, &self.alice, "alice", &self.open_files());
        check_exact(self.world, &self.bob, "bob", &[]);
        check_blocks(self.alice.root());
    }
}

/// How often a step succeeds before there is no room for it.
fn until_full(step: impl Fn(u64) -> std::io::Result<()>) -> u64 {
    let refused = |number: &u64| match errno(step(*number)) {
        0 => false,
        errno => {
            assert_eq!(errno, FULL);
            true
        }
    };
    (0..).find(refused).expect("a quota has an end")
}

/// Empties a directory, if it exists. Something may arrive meanwhile.
fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).open(path)
}

fn write_at(path: &Path, at: u64, data: &[u8]) -> std::io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(data, at)
}

fn copy_part(from: &Path, to: &Path, places: (u64, u64, usize)) -> std::io::Result<()> {
    let (from, to) = (open(from)?, open(to)?);
    let (mut at, mut into, len) = places;
    sys::copy_file_range(&from, Some(&mut at), &to, Some(&mut into), len)?;
    Ok(())
}

#[test]
fn the_walk_counts_blocks_attributes_and_nodes_and_a_file_once() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| directory.path().join(name);
    let directories = fs::metadata(directory.path()).unwrap().blocks() * 512;
    fs::write(path("file"), vec![1; 5000]).unwrap();
    fs::hard_link(path("file"), path("link")).unwrap();
    write_at(&path("sparse"), 1 << 30, b"x").unwrap();
    set_xattr(&path("sparse"), "user.a", b"1234").unwrap();
    symlink("anywhere", path("symlink")).unwrap();
    let gone = File::create(path("gone")).unwrap();
    gone.write_all_at(&[1; 4096], 0).unwrap();
    for name in ["file", "sparse"] {
        File::open(path(name)).unwrap().sync_all().unwrap();
    }
    gone.sync_all().unwrap();
    let space = |bytes, nodes| Space { bytes: bytes + directories, nodes };
    assert_eq!(walked(directory.path(), &[&gone]), space(4 * BLOCK + 10, 5));
    fs::remove_file(path("gone")).unwrap();
    assert_eq!(walked(directory.path(), &[&gone]), space(4 * BLOCK + 10, 5));
    assert_eq!(walked(directory.path(), &[]), space(3 * BLOCK + 10, 4));
    assert_eq!((data_bytes(&path("file")), data_bytes(&path("sparse"))), (2 * BLOCK, BLOCK));
}

#[test]
fn what_is_used_is_exact_to_the_byte_and_node_after_any_sequence() {
    let seed = Random::seed();
    let world = World::new(&["alice --quota 500KB", "bob"]);
    world.server.command(&["user", "quota", "alice", "--nodes", "18"]).succeeded();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let (random, open) = (Random::new(seed), Default::default());
    let mut users = Users { world: &world, random, alice, bob, open };
    users.check();
    for done in 1..=scale::count("XFER_SPACE_OPERATIONS", OPERATIONS) {
        users.step();
        if done % OPERATIONS_OF_A_STRETCH == 0 {
            users.check();
        }
        if done % (4 * OPERATIONS_OF_A_STRETCH) == 0 {
            users.meet_the_bounds();
            users = users.remount();
            users.check();
        }
    }
    check_nothing_is_left(users);
}

/// Removes everything; then the trees must be as at first, and the server's disk without contents.
fn check_nothing_is_left(users: Users<'_>) {
    let Users { world, alice, bob, open, .. } = users;
    drop(open);
    for mount in [&alice, &bob] {
        mount.shell("rm -rf outbox/*/* && find . -mindepth 1 -maxdepth 1 ! -name '??*box' -exec rm -rf {} +");
    }
    wait_until("what was sent to arrive, and all to be gone", PATIENCE, || {
        for inbox in [alice.path("inbox/bob"), bob.path("inbox/alice")] {
            empty(&inbox);
            // This fails if something has just arrived.
            let _ = fs::remove_dir(inbox);
        }
        alice.sync();
        bob.sync();
        contents(&world.server).is_empty()
    });
    for (mount, user) in [(&alice, "alice"), (&bob, "bob")] {
        check_exact(world, mount, user, &[]);
        // The root, the inbox, the outbox and the other user's mailbox in it.
        assert_eq!(said(mount), Space { bytes: 0, nodes: 4 }, "{user}");
    }
    alice.unmount();
    bob.unmount();
}

/// Mounts a new account whose quota leaves exactly this much room.
fn with_room_for(bytes: u64, nodes: u64, check: impl FnOnce(&Mount)) {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let used = said(&mount);
    let (bytes, nodes) = (used.bytes + bytes, used.nodes + nodes);
    let limits = ["--quota", &format!("{bytes}B"), "--nodes", &nodes.to_string()];
    world.server.command(&[&["user", "quota", "alice"], &limits[..]].concat()).succeeded();
    wait_until("the limits to arrive", PATIENCE, || {
        let stat = sys::statvfs(mount.root()).unwrap();
        stat.f_files == nodes && stat.f_blocks == bytes / BLOCK
    });
    check(&mount);
    check_exact(&world, &mount, "alice", &[]);
    mount.unmount();
}

const FULL: i32 = libc::EDQUOT;

fn allocate(file: &File, mode: FallocateFlags, at: u64, len: u64) -> i32 {
    errno(sys::fallocate(file, mode, at, len).map_err(Into::into))
}

#[test]
fn the_last_block_of_a_quota_can_be_written_and_allocated_and_no_byte_beyond() {
    with_room_for(5 * BLOCK, 9, |mount| {
        let file = read_write(&mount.path("file"));
        let write = |at, len: u64| errno(file.write_all_at(&vec![1; len as usize], at));
        assert_eq!(write(0, 5 * BLOCK), 0);
        assert_eq!(write(5 * BLOCK, 1), FULL);
        assert_eq!(errno(fs::write(mount.path("other"), "x")), FULL);
        // Existing blocks can be rewritten, and a hole costs nothing.
        assert_eq!(write(0, 5 * BLOCK), 0);
        assert_eq!(errno(file.set_len(1 << 40)), 0);
        assert_eq!(write(1 << 30, 1), FULL);
        assert_eq!(shown(mount).bytes, 5 * BLOCK);

        assert_eq!(allocate(&file, PUNCH, BLOCK, 2 * BLOCK), 0);
        assert_eq!(shown(mount).bytes, 3 * BLOCK);
        assert_eq!(allocate(&file, FallocateFlags::empty(), 1 << 20, 2 * BLOCK + 1), FULL);
        assert_eq!(allocate(&file, FallocateFlags::empty(), 1 << 20, 2 * BLOCK), 0);
        assert_eq!(allocate(&file, FallocateFlags::KEEP_SIZE, 1 << 21, 1), FULL);
        assert_eq!(allocate(&file, FallocateFlags::ZERO_RANGE, BLOCK, 1), FULL);
        assert_eq!(errno(file.set_len(0)), 0);
        assert_eq!(shown(mount).bytes, 0);
        assert_eq!(allocate(&file, FallocateFlags::KEEP_SIZE, 0, 5 * BLOCK), 0);
        assert_eq!(allocate(&file, FallocateFlags::KEEP_SIZE, 5 * BLOCK, 1), FULL);
    });
}

#[test]
fn the_last_byte_of_a_quota_can_hold_an_attribute_and_no_byte_beyond() {
    with_room_for(BLOCK + 26, 9, |mount| {
        let path = mount.path("file");
        fs::write(&path, "x").unwrap();
        let set = |path: &Path, name, len: usize| {
            errno(set_xattr(path, name, &vec![b'v'; len]).map_err(Into::into))
        };
        // Six bytes for the name, and twenty for the value.
        assert_eq!(set(&path, "user.a", 21), FULL);
        assert_eq!(set(&path, "user.a", 20), 0);
        assert_eq!(set(&path, "user.b", 0), FULL);
        assert_eq!(set(&path, "user.a", 20), 0);
        assert_eq!(set(mount.root(), "user.b", 0), FULL);
        assert_eq!(set(&path, "user.a", 14), 0);
        assert_eq!(set(mount.root(), "user.b", 0), 0);
        assert_eq!(said(mount).bytes, BLOCK + 26);
    });
}

#[test]
fn the_last_node_of_a_quota_can_be_made_and_none_beyond() {
    with_room_for(BLOCK, 2, |mount| {
        let path = |name: &str| mount.path(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "").unwrap();
        let full = |name: &str| {
            assert_eq!(errno(File::create(path(name))), FULL);
            assert_eq!(errno(fs::create_dir(path(name))), FULL);
            assert_eq!(errno(symlink("x", path(name))), FULL);
            let fifo = sys::mknodat(sys::CWD, path(name), sys::FileType::Fifo, 0o600.into(), 0);
            assert_eq!(errno(fifo.map_err(Into::into)), FULL);
        };
        full("directory/new");
        // Another name is not another node.
        fs::hard_link(path("file"), path("link")).unwrap();
        fs::rename(path("file"), path("directory/file")).unwrap();
        fs::remove_file(path("link")).unwrap();
        full("new");
        fs::remove_file(path("directory/file")).unwrap();
        wait_until("the node to be gone", PATIENCE, || shown(mount).nodes == said(mount).nodes);
        wait_until("room for a node", PATIENCE, || symlink("x", path("new")).is_ok());
        full("more");
    });
}

#[test]
fn names_and_targets_of_links_count_to_the_last_sector_and_du_shows_them() {
    with_room_for(8 * BLOCK, 100, |mount| {
        let path = |name: &str| mount.path(name);
        let blocks = |name: &str| path(name).symlink_metadata().unwrap().blocks();
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "").unwrap();
        let sectors = 8 * BLOCK / 512;
        // Fill all but seven sectors with names, each of which is charged 64 bytes extra.
        let name = |number: u64| format!("directory/{number:0255}");
        let link = |number: u64| fs::hard_link(path("file"), path(&name(number)));
        let fit = ((sectors - 6) * 512 - 1) / (255 + 64);
        for number in 0..fit {
            link(number).unwrap();
        }
        assert_eq!(blocks("directory"), sectors - 7);
        symlink("x".repeat(4095), path("link")).unwrap();
        assert_eq!(blocks("link"), 7);
        assert_eq!(errno(symlink("x".repeat(512), path("more"))), FULL);
        symlink("x".repeat(511), path("short")).unwrap();
        assert_eq!(errno((fit..fit + 3).try_for_each(link)), FULL);
        assert_eq!(mount.shell("du -s -B1 . | cut -f1"), said(mount).bytes.to_string());
        fs::remove_file(path("link")).unwrap();
        wait_until("room for the names", PATIENCE, || link(fit + 3).is_ok());
        fs::remove_dir_all(path("directory")).unwrap();
    });
}

#[test]
fn a_copy_counts_in_full_whether_or_not_it_shares() {
    with_room_for(6 * BLOCK, 9, |mount| {
        let from = read_write(&mount.path("from"));
        from.write_all_at(&vec![1; 3 * BLOCK as usize], 0).unwrap();
        let to = read_write(&mount.path("to"));
        let copy = |from: &File, mut at: u64, mut into: u64, len: u64| {
            let len = len as usize;
            errno(
                sys::copy_file_range(from, Some(&mut at), &to, Some(&mut into), len)
                    .map_err(Into::into),
            )
        };
        let spare = read_write(&mount.path("spare"));
        spare.write_all_at(b"x", 0).unwrap();
        assert_eq!(copy(&from, 0, 0, 3 * BLOCK), FULL, "shared");
        assert_eq!(to.metadata().unwrap().len(), 0);
        spare.set_len(0).unwrap();
        assert_eq!(copy(&from, 0, 0, 3 * BLOCK), 0, "shared");
        // Changing one of two files that share a content needs no space that was not charged.
        to.write_all_at(b"changed", 5).unwrap();
        from.write_all_at(b"changed", 7).unwrap();
        assert_eq!(copy(&from, 100, 3 * BLOCK, 1), FULL, "bytes");
        assert_eq!(copy(&from, 100, 2 * BLOCK + 3, 50), 0, "over what is there");
        assert_eq!(copy(&to, 0, 5 * BLOCK, 1), FULL, "within one file");
        assert_eq!(shown(mount).bytes, 6 * BLOCK);
    });
}

#[test]
fn a_sparse_file_of_a_tebibyte_and_a_copy_of_it_cost_what_is_in_them() {
    let world = World::new(&["alice --quota 1MiB"]);
    let mount = world.mount("alice");
    const TIB: u64 = 1 << 40;
    let file = read_write(&mount.path("sparse"));
    file.set_len(TIB).unwrap();
    for at in [0, TIB / 2 + 5, TIB - 1] {
        file.write_all_at(b"x", at).unwrap();
    }
    assert_eq!(shown(&mount).bytes, 3 * BLOCK);
    assert_eq!(mount.shell("du -B1 sparse | cut -f1"), (3 * BLOCK).to_string());
    mount.shell("cp sparse copy && cmp <(head -c 5000 sparse) <(head -c 5000 copy)");
    assert_eq!(mount.shell("stat -c '%s %b' copy"), format!("{TIB} 24"));
    assert_eq!(shown(&mount).bytes, 6 * BLOCK);
    mount.sync();
    let on_disk: u64 = contents(&world.server).values().sum();
    // A filesystem needs some blocks for the map of a sparse file.
    assert!(on_disk < 64 * BLOCK, "{on_disk} bytes on the server's disk");
    file.set_len(0).unwrap();
    assert_eq!(shown(&mount).bytes, 3 * BLOCK, "freed at once");
    File::create(mount.path("copy")).unwrap();
    assert_eq!(shown(&mount).bytes, 0, "freed at once");
    check_exact(&world, &mount, "alice", &[&file]);
    drop(file);
    mount.unmount();
}

#[test]
fn what_is_freed_can_be_used_at_once() {
    with_room_for(64 * BLOCK, 200, |mount| {
        let all = vec![1; 64 * BLOCK as usize];
        for name in ["one", "two", "three"] {
            fs::write(mount.path(name), &all).unwrap();
            assert_eq!(errno(fs::write(mount.path("more"), "x")), FULL);
            File::create(mount.path(name)).unwrap();
            assert_eq!(shown(mount).bytes, 0, "truncated");
        }
        for round in 0..20 {
            let path = mount.path(&format!("removed {round}"));
            fs::write(&path, &all).unwrap();
            fs::remove_file(&path).unwrap();
            // The kernel reports a moment later that no program has it open.
            wait_until("the space to be free", PATIENCE, || shown(mount).bytes == 0);
        }
        mount.shell("mkdir d && for i in $(seq 60); do echo $i > d/$i; done && rm -r d");
        wait_until("the space to be free", PATIENCE, || shown(mount).bytes == 0);
    });
}

#[test]
fn limits_that_change_show_at_the_mount() {
    let world = World::new(&["alice --quota 1MiB"]);
    let mount = world.mount("alice");
    for (bytes, nodes) in [(10 * BLOCK, 100), (3 * BLOCK, 50), (1 << 30, 1000)] {
        let limits = ["--quota", &format!("{bytes}B"), "--nodes", &nodes.to_string()];
        world.server.command(&[&["user", "quota", "alice"], &limits[..]].concat()).succeeded();
        wait_until("the limits to show", PATIENCE, || {
            let stat = sys::statvfs(mount.root()).unwrap();
            (stat.f_blocks * stat.f_frsize, stat.f_files) == (bytes, nodes)
        });
    }
    mount.unmount();
}

#[test]
fn an_inbox_takes_what_its_limits_say_to_the_last_block_and_item() {
    let world = World::new(&["alice", "bob", "carol"]);
    // Three blocks, and some bytes for the names.
    let limits = ["--inbox", "13KiB", "--inbox-items", "3"];
    world.server.command(&[&["user", "quota", "bob"], &limits[..]].concat()).succeeded();
    let alice = world.mount("alice");
    let send = |name: &str, len: u64| {
        let draft = alice.path("draft");
        fs::write(&draft, vec![1; len as usize]).unwrap();
        errno(fs::rename(&draft, alice.path("outbox/bob").join(name)))
    };
    assert_eq!(send("large", 3 * BLOCK + 1), FULL);
    assert_eq!(send("two blocks", 2 * BLOCK), 0);
    assert_eq!(send("two more", BLOCK + 1), FULL);
    assert_eq!(send("one more", 1), 0);
    assert_eq!(send("no data", 0), 0);
    assert_eq!(send("no item", 0), FULL);
    // Another user's inbox is not affected.
    assert_eq!(errno(fs::rename(alice.path("draft"), alice.path("outbox/carol/large"))), 0);
    let bob = world.mount("bob");
    wait_until("all to arrive", PATIENCE, || bob.path("inbox/alice/no data").exists());
    assert_eq!(bob.shell("ls inbox/alice"), "no data\none more\ntwo blocks");
    // An arrival frees its room in the inbox once it is durable.
    bob.sync();
    assert_eq!(send("again", 3 * BLOCK), 0);
    wait_until("it to arrive", PATIENCE, || bob.path("inbox/alice/again").exists());
    check_exact(&world, &bob, "bob", &[]);
    check_exact(&world, &alice, "alice", &[]);
    bob.unmount();
    alice.unmount();
}

#[test]
fn contents_are_on_the_servers_disk_as_long_as_anything_has_them_and_no_longer() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    let data = Random::new(3).bytes(100_000);
    fs::write(alice.path("file"), &data).unwrap();
    alice.sync();
    let here = || contents(&world.server).into_keys().collect::<Vec<_>>();
    let content = here();
    assert_eq!(content.len(), 1, "{content:?}");
    let stays = |why: &str| {
        alice.sync();
        assert!(holds_for(A_WHILE, || here() == content), "{why}: {:?}", here());
        // Its last block is complete.
        assert!(fs::read(&content[0]).unwrap().starts_with(&data), "{why}");
    };
    alice.shell("cp file copy && cp file outbox/bob/sent && rm file");
    stays("a copy has it");
    let open = File::open(alice.path("copy")).unwrap();
    alice.shell("rm copy && rm outbox/bob/sent");
    stays("a program has it open");
    drop(open);
    stays("it waits to be delivered");
    let bob = world.mount("bob");
    wait_until("it to arrive", PATIENCE, || bob.path("inbox/alice/sent").exists());
    bob.sync();
    stays("it was delivered");
    assert!(fs::read(bob.path("inbox/alice/sent")).unwrap() == data);
    fs::remove_file(bob.path("inbox/alice/sent")).unwrap();
    bob.sync();
    wait_until("the content to go", PATIENCE, || here().is_empty());
    bob.unmount();
    alice.unmount();
}

/// Waits until the server's disk holds no more than the users are charged for.
fn check_charged(world: &World, users: &[&Mount]) {
    users.iter().for_each(|mount| mount.sync());
    wait_until("the disk to hold no more than is charged", PATIENCE, || {
        let charged: u64 =
            ["alice", "bob"].map(|user| stored(&world.server, user).bytes).iter().sum();
        contents(&world.server).values().sum::<u64>() <= charged
    });
}

#[test]
fn what_nothing_reaches_of_a_shared_content_leaves_the_servers_disk() {
    let mut world = World::new(&["alice", "bob"]);
    let data = Random::new(5).bytes(2 << 20);
    for round in 0..3 {
        let (alice, bob) = (world.mount("alice"), world.mount("bob"));
        let full = || fs::write(alice.path("full"), &data).unwrap();
        full();
        alice.shell(&format!("cp full cut{round} && truncate -s 4096 cut{round} && rm full"));
        check_charged(&world, &[&alice, &bob]);
        full();
        alice.shell(&format!("cp full cut && truncate -s 5000 cut && cp cut again{round}"));
        alice.sync();
        alice.shell("rm cut full");
        check_charged(&world, &[&alice, &bob]);
        full();
        alice.shell("truncate -s 100000 full && fallocate -n -l 1M full && truncate -s 4096 full");
        alice.shell(&format!("mv full set-aside{round}"));
        check_charged(&world, &[&alice, &bob]);
        full();
        alice.shell(&format!("cp full outbox/bob/sent{round} && truncate -s 8192 full"));
        let arrived = bob.path(&format!("inbox/alice/sent{round}"));
        wait_until("it to arrive", PATIENCE, || arrived.exists());
        alice.shell(&format!("mv full rest{round} && rm outbox/bob/sent{round}"));
        File::options().write(true).open(&arrived).unwrap().set_len(12_000).unwrap();
        check_charged(&world, &[&alice, &bob]);
        assert!(fs::read(&arrived).unwrap() == data[..12_000]);
        for (name, len) in [("cut", 4096), ("again", 5000), ("set-aside", 4096), ("rest", 8192)] {
            let bytes = fs::read(alice.path(&format!("{name}{round}"))).unwrap();
            assert!(bytes == data[..len], "{name}{round}");
        }
        bob.unmount();
        alice.unmount();
        world.server.kill();
        world.server.restart();
    }
}

#[test]
fn what_was_written_and_never_committed_leaves_the_servers_disk() {
    let mut world = World::new(&["alice", "bob"]);
    let on_disk = |world: &World| contents(&world.server).values().sum::<u64>();
    let is_charged = |world: &World| {
        let charged = ["alice", "bob"].map(|user| stored(&world.server, user).bytes);
        // A file's map may take a block besides its data.
        on_disk(world) <= charged.iter().sum::<u64>() + BLOCK
    };
    for round in 0..3 {
        let mut alice = world.mount("alice");
        alice.shell("printf x > file");
        alice.sync();
        let before = on_disk(&world);
        alice.shell("head -c 8M /dev/urandom >> file");
        wait_until("the server to write", PATIENCE, || on_disk(&world) > before);
        world.server.kill();
        // It is not to send anything again.
        alice.signal(Signal::KILL);
        alice.ended();
        drop(alice);
        world.server.restart();
        // The same for a user who logs in at once and truncates data that may have been committed.
        if round > 0 {
            let alice = world.mount("alice");
            alice.shell("truncate -s 1 file");
            alice.sync();
            assert_eq!(fs::read(alice.path("file")).unwrap(), b"x");
            wait_until("the rest to go", PATIENCE, || on_disk(&world) <= 2 * BLOCK);
            alice.unmount();
        }
        wait_until("the disk to hold no more than is charged", PATIENCE, || is_charged(&world));
    }
}

#[test]
fn contents_go_once_the_change_that_drops_them_is_on_the_servers_disk() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let gone = |script: &str| {
        mount.shell("head -c 50000 /dev/urandom > file && cp file kept && echo x >> kept");
        mount.sync();
        let before = contents(&world.server).len();
        mount.shell(script);
        wait_until(script, PATIENCE, || {
            mount.sync();
            contents(&world.server).len() == before - 1
        });
        mount.shell("rm -f file kept");
        wait_until("both to go", PATIENCE, || {
            mount.sync();
            contents(&world.server).is_empty()
        });
    };
    gone("rm file");
    gone(": > file");
    gone("mv kept file");
    gone("rm -f file; mkdir file; rmdir file");
    let punched = read_write(&mount.path("punched"));
    punched.write_all_at(&vec![1; 64 * BLOCK as usize], 0).unwrap();
    mount.sync();
    let on_disk = || contents(&world.server).values().sum::<u64>();
    assert!(on_disk() >= 64 * BLOCK);
    assert_eq!(allocate(&punched, PUNCH, 0, 60 * BLOCK), 0);
    assert_eq!(punched.metadata().unwrap().blocks() * 512, 4 * BLOCK);
    wait_until("the hole to be one on the server's disk", PATIENCE, || {
        mount.sync();
        on_disk() < 8 * BLOCK
    });
    drop(punched);
    mount.unmount();
}

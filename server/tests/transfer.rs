//! Importing whole trees into an account and exporting them, with the real binary.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod running;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;
use xfer_protocol::Name;
use xfer_server::engine::Counts;
use xfer_server::program::control::{Answer, Session};

use running::{Ended, Server, xfer_server};
use xfer_store::Account;
use xfer_store::Purpose;
use xfer_store::embedded::{FileStore, Files, SqliteStore};

/// A store with the user alice, and a directory for other files beside it.
struct World {
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let store = world.path("store");
        let arguments =
            ["user", "add", "alice", "--password-stdin", "--store", store.to_str().unwrap()];
        assert_eq!(xfer_server(&arguments, "secret\n").code, 0);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn arguments(&self, command: &str) -> Vec<String> {
        let base = self.dir.path().to_str().unwrap();
        let words = command.split_whitespace().map(|word| word.replace('@', &format!("{base}/")));
        words.chain(["--store".to_owned(), format!("{base}/store")]).collect()
    }

    /// Runs a command, in which `@x` is the path of `x`.
    fn run(&self, command: &str) -> Ended {
        let arguments = self.arguments(command);
        xfer_server(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
    }

    fn done(&self, command: &str) -> String {
        let ended = self.run(command);
        assert_eq!(ended.code, 0, "{command}: {}", ended.err);
        assert!(!ended.err.contains("xfer-server: "), "{command}: {}", ended.err);
        ended.out
    }

    #[track_caller]
    fn refused(&self, command: &str, code: i32, line: &str) {
        let ended = self.run(command);
        assert_eq!(ended.code, code, "{command}: {}", ended.err);
        assert!(ended.err.contains(line), "{command}: {}", ended.err);
        let last = ended.err.lines().last().unwrap();
        assert!(last.starts_with("xfer-server: ") && last.contains("; "), "{last}");
    }

    /// Starts a command and lets it run.
    fn begin(&self, command: &str) -> Child {
        let mut binary = Command::new(env!("CARGO_BIN_EXE_xfer-server"));
        binary.args(self.arguments(command)).stdout(Stdio::piped()).stderr(Stdio::piped());
        binary.spawn().unwrap()
    }

    fn meta(&self) -> SqliteStore {
        SqliteStore::open(&self.path("store")).unwrap()
    }

    fn alice(&self) -> Account {
        self.meta().account(&Name::new(b"alice").unwrap()).unwrap().unwrap()
    }

    /// Waits until alice's tree takes up at least `bytes`.
    fn wait_for_bytes(&self, bytes: u64) {
        let meta = self.meta();
        let alice = Name::new(b"alice").unwrap();
        for _ in 0..6_000 {
            if meta.account(&alice).unwrap().unwrap().usage.bytes >= bytes {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("nothing was committed");
    }
}

/// All properties of an entry, except those that no copy can keep.
#[derive(PartialEq, Eq, Debug)]
struct Picture {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// The first of the file's names, in sorted order.
    first_name: PathBuf,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    data: Vec<u8>,
    target: PathBuf,
    is_sparse: bool,
}

fn pictures(root: &Path) -> BTreeMap<PathBuf, Picture> {
    let mut found = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let first_name =
            firsts.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone());
        let picture = picture(&path, &metadata, first_name.clone());
        found.insert(name, picture);
    }
    found
}

fn picture(path: &Path, metadata: &fs::Metadata, first_name: PathBuf) -> Picture {
    let kind = metadata.file_type();
    Picture {
        kind: format!("{kind:?}"),
        mode: if kind.is_symlink() { 0 } else { metadata.mode() & 0o1777 },
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        first_name,
        xattrs: xattrs(path),
        data: if kind.is_file() { fs::read(path).unwrap() } else { Vec::new() },
        target: if kind.is_symlink() { fs::read_link(path).unwrap() } else { PathBuf::new() },
        is_sparse: kind.is_file() && metadata.blocks() * 512 < metadata.size(),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let count = llistxattr(path, buffer.as_mut_slice()).unwrap_or(0);
    let list = buffer[..count].to_vec();
    let names = list.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    names
        .map(|name| {
            let count = lgetxattr(path, name, buffer.as_mut_slice()).unwrap();
            (name.to_vec(), buffer[..count].to_vec())
        })
        .collect()
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (mut a, b) = (pictures(a), pictures(b));
    a.remove(Path::new("inbox"));
    for (name, picture) in &a {
        let other = b.get(name).unwrap_or_else(|| panic!("{name:?} is missing"));
        assert!(picture == other, "{name:?} is not the same: {picture:?} {other:?}");
    }
    let fixtures = ["inbox", "outbox"];
    let more: Vec<_> = b.keys().filter(|name| !a.contains_key(*name)).collect();
    assert!(more.iter().all(|name| fixtures.contains(&name.to_str().unwrap())), "{more:?}");
}

fn set_times(path: &Path, secs: i64, nanos: i64) {
    let at = |secs| Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: at(secs - 1_000), last_modification: at(secs) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree with one node of each kind.
fn furnish(root: &Path) {
    let at = |name: &[u8]| root.join(OsStr::from_bytes(name));
    fs::write(at(b"empty"), "").unwrap();
    fs::write(at(b"text"), "some text\n").unwrap();
    fs::write(at(b"large"), noise(3 << 20)).unwrap();
    fs::create_dir_all(at(b"deep/er")).unwrap();
    fs::write(at(b"deep/er/file"), noise(5_000)).unwrap();
    fs::hard_link(at(b"text"), at(b"deep/er/text")).unwrap();
    fs::hard_link(at(b"text"), at(b"a second name")).unwrap();
    for name in [&b"\xff\xfe"[..], b"\n\x1b[31m", b"...", b"-rf *", b"a\\b", &[b'n'; 255]] {
        fs::write(at(name), name).unwrap();
    }
    symlink("text", at(b"link")).unwrap();
    symlink("/nowhere/\u{1b}", at(b"broken")).unwrap();
    symlink("..", at(b"deep/up")).unwrap();
    mknodat(CWD, at(b"pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    drop(UnixListener::bind(at(b"socket")).unwrap());
    let sparse = File::create(at(b"sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    sparse.write_all_at(b"in the middle", (4 << 20) + 7).unwrap();
    File::create(at(b"only a hole")).unwrap().set_len(1 << 20).unwrap();
    lsetxattr(at(b"text"), "user.tag", b"a value", XattrFlags::empty()).unwrap();
    lsetxattr(at(b"deep"), "user.empty", b"", XattrFlags::empty()).unwrap();
    for (name, mode) in [(&b"text"[..], 0o640), (b"empty", 0o000), (b"large", 0o755)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(at(b"deep/er"), fs::Permissions::from_mode(0o1555)).unwrap();
    if geteuid().is_root() {
        lchown(at(b"text"), Some(1234), Some(5678)).unwrap();
        lchown(at(b"link"), Some(1), Some(2)).unwrap();
        lchown(at(b"deep"), Some(3), Some(4)).unwrap();
    }
    for (place, name) in ["text", "link", "pipe", "sparse", "deep/er", "deep"].iter().enumerate() {
        set_times(&root.join(name), 1_000_000_000 + place as i64, 123_456_789);
    }
}

/// Bytes with varying values.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn a_tree_goes_in_and_comes_out_as_it_was() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    world.done("import alice @tree");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
    let atime = |path: PathBuf| {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.atime(), metadata.atime_nsec())
    };
    assert_eq!(atime(world.path("out/pipe")), atime(tree.join("pipe")));
}

#[test]
fn what_root_imports_is_the_store_owners() {
    let world = World::new();
    furnish(&world.make("tree"));
    let store = world.path("store");
    if geteuid().is_root() {
        for (path, _) in pictures(&store) {
            lchown(store.join(path), Some(4_242), Some(4_243)).unwrap();
        }
        lchown(&store, Some(4_242), Some(4_243)).unwrap();
    }
    world.done("import alice @tree");
    let owner = (store.metadata().unwrap().uid(), store.metadata().unwrap().gid());
    let owners: Vec<_> = pictures(&store).into_iter().map(|(path, is)| (path, is.owner)).collect();
    assert!(owners.len() > 10, "{owners:?}");
    owners.iter().for_each(|(path, is)| assert_eq!(*is, owner, "{}", path.display()));
}

#[test]
fn what_is_planted_in_a_store_leads_root_nowhere() {
    if !geteuid().is_root() {
        return;
    }
    for planted in ["contents/00/04", "contents/00"] {
        let world = World::new();
        fs::write(world.make("tree").join("file"), "text").unwrap();
        world.done("import alice @tree");
        let (store, outside) = (world.path("store"), world.make("outside"));
        let place = store.join(planted);
        fs::rename(&place, world.path("was there")).unwrap();
        symlink(&outside, &place).unwrap();
        for (path, _) in pictures(&store) {
            lchown(store.join(path), Some(4_242), Some(4_243)).unwrap();
        }
        lchown(&store, Some(4_242), Some(4_243)).unwrap();
        fs::write(world.path("tree/other"), "text").unwrap();
        let before = outside.metadata().unwrap();
        // The next content's number may or may not lead to the planted entry, so the exit code is
        // not checked.
        world.run("import alice @tree");
        assert!(pictures(&outside).is_empty(), "{planted}: {:?}", pictures(&outside));
        let after = outside.metadata().unwrap();
        assert_eq!((before.uid(), before.mtime()), (after.uid(), after.mtime()), "{planted}");
    }
}

#[test]
fn an_export_is_roots_where_the_store_is_not() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    world.done("import alice @tree");
    let store = world.path("store");
    if geteuid().is_root() {
        for (path, _) in pictures(&store) {
            lchown(store.join(path), Some(4_242), Some(4_243)).unwrap();
        }
        lchown(&store, Some(4_242), Some(4_243)).unwrap();
    }
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
    let again = world.done("export alice @out --force");
    assert!(again.starts_with("exported 0 (0 B)"), "{again}");
    let owner = (store.metadata().unwrap().uid(), store.metadata().unwrap().gid());
    pictures(&store).into_iter().for_each(|(path, is)| assert_eq!(is.owner, owner, "{path:?}"));
}

#[test]
fn a_time_that_the_filesystem_cannot_keep_is_told() {
    let world = World::new();
    let tree = world.make("tree");
    fs::write(tree.join("file"), "x").unwrap();
    fs::write(tree.join("fine"), "x").unwrap();
    set_times(&tree.join("file"), 30_000_000_000, 0);
    if tree.join("file").metadata().unwrap().mtime() != 30_000_000_000 || !geteuid().is_root() {
        return;
    }
    world.done("import alice @tree");
    // The small inodes of this filesystem hold times only up to 2038.
    let disk = SmallDisk::mount(&world, "mkfs.ext4 -q -I 128");
    let ended = world.run("export alice @disk/out");
    assert_eq!(ended.code, 15, "{}", ended.err);
    assert!(ended.err.contains("warning: file: its time of change, 2920-"), "{}", ended.err);
    assert!(ended.out.contains("failed 1"), "{}", ended.out);
    assert_eq!(fs::read(world.path("disk/out/file")).unwrap(), b"x");
    drop(disk);
}

/// A filesystem in a file, mounted at `disk`.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(world: &World, make: &str) -> SmallDisk {
        let (image, place) = (world.path("image"), world.make("disk"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let (image, at) = (image.display(), place.display());
        let script = format!("{make} '{image}' 2>&1 && mount -o loop '{image}' '{at}'");
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(status.success(), "{script}");
        SmallDisk(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn an_account_is_worked_on_by_one_command_at_a_time_but_for_those_that_read() {
    let world = World::new();
    world.make("tree");
    let (meta, alice) = (world.meta(), world.alice().id);
    let epoch = world.alice().epoch;
    let import = meta.claim(alice, Purpose::Change).unwrap().unwrap();
    for command in ["import alice @tree", "export alice @out", "user remove alice --yes"] {
        world.refused(command, 12, "another command is working on alice");
    }
    assert_eq!(world.alice().epoch, epoch);
    drop(import);
    let export = meta.claim(alice, Purpose::Read).unwrap().unwrap();
    world.done("export alice @out");
    world.refused("import alice @tree", 12, "another command is working on alice");
    drop(export);
    world.done("import alice @tree");
    world.done("user remove alice --yes --now");
}

#[test]
fn an_import_that_was_killed_leaves_no_claim() {
    let world = World::new();
    let tree = world.make("tree");
    fs::write(tree.join("big"), noise(BIG_BYTES)).unwrap();
    let mut import = world.begin("import alice @tree");
    world.wait_for_bytes(BATCH_BYTES);
    let (meta, alice) = (world.meta(), world.alice().id);
    assert!(meta.is_claimed(alice).unwrap());
    import.kill().unwrap();
    import.wait().unwrap();
    assert!(!meta.is_claimed(alice).unwrap());
}

#[test]
fn an_account_is_claimed_before_it_is_asked_whether_it_is_mounted() {
    let world = World::new();
    world.make("tree");
    let (store, alice) = (world.path("store"), world.alice().id);
    let listener = UnixListener::bind(store.join("control.sock")).unwrap();
    let server = std::thread::spawn(move || {
        let meta = SqliteStore::open(&store).unwrap();
        listener
            .incoming()
            .take(2)
            .map(|socket| {
                let claimed = meta.is_claimed(alice).unwrap();
                answer(socket.unwrap());
                claimed
            })
            .collect::<Vec<bool>>()
    });
    world.refused("import alice @tree", 12, "alice is in use on ");
    world.refused("export alice @out", 12, "alice is in use on ");
    assert_eq!(server.join().unwrap(), [true, true]);
}

#[test]
fn all_of_it_works_beside_a_running_server_which_keeps_it_over_a_restart() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    let server = Server::start(&world.path("store"));
    world.done("import alice @tree");
    world.done("export alice @first");
    assert_eq!(server.end(Signal::TERM), 0);
    let server = Server::start(&world.path("store"));
    world.done("export alice @second");
    assert_eq!(server.end(Signal::TERM), 0);
    assert_same(&tree, &world.path("first"));
    assert_same(&tree, &world.path("second"));
}

#[test]
fn a_tree_deeper_than_directories_may_be_open_goes_both_ways() {
    let world = World::new();
    let tree = world.make("tree");
    let mut path = tree.clone();
    for _ in 0..300 {
        path.push("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "x").unwrap();
    }
    fs::hard_link(tree.join("d/f"), path.join("first")).unwrap();
    world.done("import alice @tree --into a/b");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out/a/b"));
}

#[test]
fn what_is_there_is_kept_and_what_differs_is_replaced() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    world.done("import alice @tree");
    let again = world.done("import alice @tree");
    assert!(again.starts_with("imported 0 (0 B)"), "{again}");
    fs::write(tree.join("large"), "small now").unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    fs::create_dir(tree.join("link")).unwrap();
    fs::remove_file(tree.join("a second name")).unwrap();
    fs::write(tree.join("a second name"), "of its own").unwrap();
    lsetxattr(tree.join("deep"), "user.more", b"1", XattrFlags::empty()).unwrap();
    fs::set_permissions(tree.join("text"), fs::Permissions::from_mode(0o600)).unwrap();
    let third = world.done("import alice @tree");
    assert!(third.starts_with("imported 3 "), "{third}");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
    let again = world.done("export alice @out --force");
    assert!(again.starts_with("exported 0 (0 B)"), "{again}");
}

const BIG_BYTES: usize = 256 << 20;

/// The approximate size of one batch.
const BATCH_BYTES: u64 = 60 << 20;

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    fs::write(tree.join("big"), noise(BIG_BYTES)).unwrap();
    let mut import = world.begin("import alice @tree");
    world.wait_for_bytes(BATCH_BYTES);
    import.kill().unwrap();
    import.wait().unwrap();
    let kept = world.alice().usage.bytes;
    assert!(kept < BIG_BYTES as u64, "it was over before it was killed");
    let rest = world.done("import alice @tree");
    let (_, size) = rest.split_once('(').unwrap();
    let (size, _) = size.split_once(" MiB)").unwrap();
    let size: f64 = size.parse().unwrap();
    assert!(size < (BIG_BYTES >> 20) as f64, "all of it was copied again: {rest}");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
}

#[test]
fn a_session_that_begins_meanwhile_ends_an_import() {
    let world = World::new();
    let tree = world.make("tree");
    fs::write(tree.join("big"), noise(BIG_BYTES)).unwrap();
    let import = world.begin("import alice @tree");
    world.wait_for_bytes(BATCH_BYTES);
    let begun = world.meta().begin_session(world.alice().id).unwrap();
    let ended = import.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(12));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("was mounted"));
    assert_eq!(world.alice().applied, begun.applied, "the later session's tree was changed");
    world.done("import alice @tree");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
}

#[test]
fn an_export_that_was_killed_goes_on() {
    let world = World::new();
    let tree = world.make("tree");
    furnish(&tree);
    fs::write(tree.join("zz"), noise(64 << 20)).unwrap();
    world.done("import alice @tree");
    let mut export = world.begin("export alice @out");
    while !world.path("out/zz").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    export.kill().unwrap();
    export.wait().unwrap();
    world.refused("export alice @out", 14, "is not empty");
    world.done("export alice @out --force");
    assert_same(&tree, &world.path("out"));
}

#[test]
fn a_quota_ends_an_import_and_what_fits_is_kept() {
    let world = World::new();
    let tree = world.make("tree");
    for file in 0..20 {
        fs::write(tree.join(format!("{file:02}")), noise(100_000)).unwrap();
    }
    world.done("user quota alice --quota 1MiB");
    world.refused("import alice @tree", 13, "the quota of alice is used up; raise it");
    let usage = world.alice().usage;
    assert!(usage.bytes > 900_000 && usage.bytes <= 1 << 20, "{usage:?}");
    world.done("user quota alice --quota none");
    world.done("import alice @tree");
    world.done("export alice @out");
    assert_same(&tree, &world.path("out"));
}

#[test]
fn nothing_is_written_outside_the_directory_whatever_is_planted_in_it() {
    let world = World::new();
    let tree = world.make("tree");
    fs::create_dir_all(tree.join("d/e")).unwrap();
    for file in ["f", "d/f", "d/e/f", "g"] {
        fs::write(tree.join(file), "exported").unwrap();
    }
    fs::hard_link(tree.join("d/f"), tree.join("h")).unwrap();
    world.done("import alice @tree");
    let (out, outside) = (world.make("out"), world.make("outside"));
    fs::create_dir(outside.join("e")).unwrap();
    fs::write(outside.join("f"), "outside").unwrap();
    symlink(&outside, out.join("d")).unwrap();
    symlink(outside.join("f"), out.join("f")).unwrap();
    fs::hard_link(outside.join("f"), out.join("g")).unwrap();
    symlink(outside.join("new"), out.join("h")).unwrap();
    let before = pictures(&outside);
    world.done("export alice @out --force");
    assert_eq!(pictures(&outside), before);
    assert_same(&tree, &out);
}

#[test]
fn links_of_the_account_itself_lead_nowhere() {
    let world = World::new();
    let (tree, outside) = (world.make("tree"), world.make("outside"));
    symlink(&outside, tree.join("d")).unwrap();
    world.done("import alice @tree");
    world.done("export alice @out");
    // The name is now a directory. The export must not follow the link that was exported before.
    fs::remove_file(tree.join("d")).unwrap();
    fs::create_dir(tree.join("d")).unwrap();
    fs::write(tree.join("d/f"), "x").unwrap();
    world.done("import alice @tree");
    world.done("export alice @out --force");
    assert_same(&tree, &world.path("out"));
    assert!(pictures(&outside).is_empty());
}

#[test]
fn set_id_bits_are_kept_in_the_account_and_dropped_outside() {
    let world = World::new();
    let tree = world.make("tree");
    fs::write(tree.join("program"), "x").unwrap();
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o6755)).unwrap();
    world.done("import alice @tree");
    world.done("export alice @out");
    let alice = world.alice();
    let root = world.meta().page(alice.id, xfer_protocol::Ino::ROOT, None, 10).unwrap();
    let program = root.iter().find(|(name, _, _)| name.as_bytes() == b"program").unwrap();
    assert_eq!(program.2.mode, 0o6755);
    let mode = world.path("out/program").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn devices_and_the_outbox_stay_behind_with_a_warning_that_is_safe_to_print() {
    if !geteuid().is_root() {
        return;
    }
    let world = World::new();
    let tree = world.make("tree");
    let null = rustix::fs::makedev(1, 3);
    let name = tree.join("nu\u{1b}ll");
    if mknodat(CWD, &name, FileType::CharacterDevice, Mode::RUSR, null).is_err() {
        return;
    }
    fs::create_dir_all(tree.join("outbox/bob")).unwrap();
    fs::write(tree.join("f"), "x").unwrap();
    let ended = world.run("import alice @tree");
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("warning: nu\\u{1b}ll: a device; skipped"), "{}", ended.err);
    assert!(ended.err.contains("warning: outbox: "), "{}", ended.err);
    assert!(ended.out.contains("skipped 2, failed 0"), "{}", ended.out);
    world.done("export alice @out");
    assert!(world.path("out/f").exists() && !world.path("out/outbox/bob").exists());
}

#[test]
fn a_directory_of_the_account_that_is_not_empty_is_not_replaced() {
    let world = World::new();
    let tree = world.make("tree");
    fs::create_dir(tree.join("x")).unwrap();
    fs::write(tree.join("x/f"), "kept").unwrap();
    world.done("import alice @tree");
    fs::remove_dir_all(tree.join("x")).unwrap();
    fs::write(tree.join("x"), "a file").unwrap();
    fs::write(tree.join("y"), "another").unwrap();
    world.refused("import alice @tree", 15, "warning: x: ");
    world.done("export alice @out");
    assert_eq!(fs::read(world.path("out/x/f")).unwrap(), b"kept");
    assert_eq!(fs::read(world.path("out/y")).unwrap(), b"another");
}

#[test]
fn what_can_not_be_done_is_refused_in_a_line() {
    let world = World::new();
    world.make("tree");
    fs::write(world.path("file"), "").unwrap();
    world.refused("import eve @tree", 7, "'eve'");
    world.refused("import alice @missing", 14, "check the directory");
    world.refused("import alice @file", 14, "check the directory");
    world.refused("import alice @tree --into outbox/bob", 2, "would be sent");
    world.refused("import alice @tree --into a/../b", 2, "'..' is not a name");
    world.refused("export alice @file", 14, "check the directory");
    world.refused("export alice @missing/deeper", 14, "check the directory");
    world.refused("export alice @store", 14, "is not empty");
}

#[test]
fn an_account_that_is_mounted_is_left_alone() {
    let world = World::new();
    world.make("tree");
    let listener = UnixListener::bind(world.path("store/control.sock")).unwrap();
    let server = std::thread::spawn(move || {
        for socket in listener.incoming().take(2) {
            answer(socket.unwrap());
        }
    });
    let epoch = world.alice().epoch;
    world.refused("import alice @tree", 12, "alice is in use on laptop, since");
    world.refused("export alice @out", 12, "alice is in use on laptop, since");
    server.join().unwrap();
    assert_eq!(world.alice().epoch, epoch);
}

/// Answers like a server on which alice has a session.
fn answer(mut socket: UnixStream) {
    BufReader::new(&socket).read_line(&mut String::new()).unwrap();
    let session = Session {
        away_secs: None,
        user: "alice".to_owned(),
        host: "laptop".to_owned(),
        address: "192.0.2.1:5".to_owned(),
        since_secs: 0,
        epoch: 1,
        applied: 0,
        durable: 0,
        counts: Counts::default(),
    };
    let mut line = serde_json::to_vec(&Answer::Sessions { sessions: vec![session] }).unwrap();
    line.push(b'\n');
    socket.write_all(&line).unwrap();
}

#[test]
fn a_server_that_starts_during_an_import_does_not_take_its_contents_for_lost_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (importing, serving) =
        (FileStore::open(dir.path()).unwrap(), FileStore::open(dir.path()).unwrap());
    importing.make_beside_server().unwrap();
    serving.each(&mut |_| panic!("visited")).unwrap_err();
    drop(importing);
    // A process that another test is just starting may still hold the lock through an inherited
    // descriptor.
    let free = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        serving.each(&mut |_| {}).is_ok()
    });
    assert!(free, "the contents stay locked");
}

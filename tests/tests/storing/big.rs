//! Directories of any size and depth, and names, links and attributes of the largest size that
//! Linux allows.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs as sys;
use rustix::fs::{Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use xfer_protocol::limits::{NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use xfer_tests::files::{errno, set_xattr, xattr, xattrs};
use xfer_tests::load::raise_descriptor_limit;
use xfer_tests::memory::Allowed;
use xfer_tests::world::before_and_after_a_remount;
use xfer_tests::{Mount, Random, World, scale};

/// The number of entries in the large directory, unless `XFER_BIG_ENTRIES` sets another.
const ENTRIES: usize = 100_000;

/// The depth of the deep tree: far beyond the reach of a path (`PATH_MAX`).
const DEPTH: usize = 1_000;

/// The number of entries with the longest names, for each kind of name.
const LONG_NAMES: usize = 1_500;

fn listed(directory: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(directory).unwrap();
    let names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    let set: BTreeSet<OsString> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "a name was listed twice");
    set
}

/// Prints the time of a step, for runs at full size.
fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let result = step();
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    result
}

#[test]
fn a_directory_of_very_many_entries_is_made_listed_and_removed() {
    let count = scale::count("XFER_BIG_ENTRIES", ENTRIES);
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let directory = mount.path("many");
    fs::create_dir(&directory).unwrap();
    let name = |index: usize| OsString::from(format!("file-{index:07}"));
    let expected: BTreeSet<OsString> = (0..count).map(name).collect();
    timed("create", || {
        for name in &expected {
            File::create(directory.join(name)).unwrap();
        }
    });
    let right = timed("list", || listed(&directory) == expected);
    assert!(right, "the listing is not what was made");
    Allowed::BY_DEFAULT.check(&world, &mount);
    timed("unmount", || mount.unmount());

    let mount = world.mount("alice");
    let directory = mount.path("many");
    // An entry of a directory that was not listed yet, and an absent one.
    assert!(directory.join(name(count / 3)).exists());
    assert!(!directory.join(name(count)).exists());
    let right = timed("list after a remount", || listed(&directory) == expected);
    assert!(right, "the listing is not what was made");
    timed("remove", || fs::remove_dir_all(&directory).unwrap());
    Allowed::BY_DEFAULT.check(&world, &mount);
    timed("unmount", || mount.unmount());

    let mount = world.mount("alice");
    assert!(!mount.path("many").exists());
    mount.unmount();
}

/// Opens a directory relative to another.
fn descend(from: &OwnedFd, name: &str) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    sys::openat(from, name, flags, Mode::empty()).unwrap()
}

fn top(mount: &Mount) -> OwnedFd {
    File::open(mount.root()).unwrap().into()
}

fn level(depth: usize) -> String {
    format!("level-{depth:04}")
}

/// Makes nested directories, each with a file, one step at a time: no path reaches the lowest.
fn make_deep(mount: &Mount) {
    let mut at = top(mount);
    sys::mkdirat(&at, "deep", Mode::RWXU).unwrap();
    at = descend(&at, "deep");
    for depth in 0..DEPTH {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&at, "file", flags, Mode::RUSR).unwrap());
        file.write_all_at(depth.to_string().as_bytes(), 0).unwrap();
        sys::mkdirat(&at, level(depth), Mode::RWXU).unwrap();
        at = descend(&at, &level(depth));
    }
}

/// Walks down the deep tree and looks at the file on each level; returns all directories.
fn walk_down(mount: &Mount) -> Vec<OwnedFd> {
    let mut levels = vec![descend(&top(mount), "deep")];
    for depth in 0..DEPTH {
        let at = &levels[depth];
        let file = File::from(sys::openat(at, "file", OFlags::CLOEXEC, Mode::empty()).unwrap());
        let mut text = [0; 16];
        let len = file.read_at(&mut text, 0).unwrap();
        assert_eq!(&text[..len], depth.to_string().as_bytes());
        let next = descend(at, &level(depth));
        levels.push(next);
    }
    levels
}

/// Checks the deep tree with `find`, `du` and `tar`.
fn check_by_programs(mount: &Mount) {
    let (directories, all) = ((DEPTH + 1).to_string(), (2 * DEPTH + 1).to_string());
    let digits: usize = (0..DEPTH).map(|depth| depth.to_string().len()).sum();
    assert_eq!(mount.shell("find deep -type d | wc -l"), directories);
    assert_eq!(mount.shell("find deep -depth -name file -size -20c | wc -l"), DEPTH.to_string());
    assert_eq!(mount.shell("du -a deep | wc -l"), all);
    assert_eq!(mount.shell("tar cf - deep | tar tf - | wc -l"), all);
    assert_eq!(mount.shell("tar cf - deep | tar xOf - | wc -c"), digits.to_string());
}

#[test]
fn a_tree_a_thousand_deep_is_walked_moved_and_removed() {
    // Each level takes a descriptor.
    raise_descriptor_limit();
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    make_deep(&mount);
    check_by_programs(&mount);
    mount.unmount();

    let mount = world.mount("alice");
    let levels = walk_down(&mount);
    check_by_programs(&mount);
    let (root, lowest) = (top(&mount), &levels[DEPTH]);
    let rename = |from, name: &str, to, into: &str| {
        sys::renameat_with(from, name, to, into, RenameFlags::NOREPLACE)
    };
    assert_eq!(rename(&root, "deep", lowest, "below"), Err(Errno::INVAL));
    let (middle, name) = (&levels[DEPTH / 2], level(DEPTH / 2));
    rename(middle, &name, &root, "half").unwrap();
    assert_eq!(mount.shell("find half -type d | wc -l"), (DEPTH / 2).to_string());
    rename(&root, "half", middle, &name).unwrap();
    drop((levels, root));
    mount.unmount();

    let mount = world.mount("alice");
    check_by_programs(&mount);
    mount.shell("rm -r deep");
    mount.unmount();

    let mount = world.mount("alice");
    assert!(!mount.path("deep").exists());
    mount.unmount();
}

/// Names of the greatest length: of ASCII letters, of letters of three bytes each, and of any bytes
/// but the two that are not allowed.
fn long_names(random: &mut Random) -> Vec<OsString> {
    let letters = |index| format!("{index:0>0$}", NAME_BYTES_MAX).into();
    let wide = |index: usize| {
        let digits = index.to_string().into_bytes().into_iter();
        let first: String =
            digits.map(|digit| char::from_u32(0x3000 + u32::from(digit)).unwrap()).collect();
        let len = NAME_BYTES_MAX / 3 - first.chars().count();
        (first + &"漢".repeat(len)).into()
    };
    let mut any = |_| {
        let mut bytes = random.bytes(NAME_BYTES_MAX);
        bytes.iter_mut().filter(|byte| matches!(byte, 0 | b'/')).for_each(|byte| *byte = 0xff);
        OsString::from_vec(bytes)
    };
    let mut names: Vec<OsString> = (0..LONG_NAMES).map(letters).collect();
    names.extend((0..LONG_NAMES).map(wide));
    names.extend((0..LONG_NAMES).map(&mut any));
    assert!(names.iter().all(|name| name.len() == NAME_BYTES_MAX));
    names
}

#[test]
fn thousands_of_names_of_255_bytes_stand_in_one_directory() {
    let names = long_names(&mut Random::new(Random::seed()));
    let expected: BTreeSet<OsString> = names.iter().cloned().collect();
    assert_eq!(expected.len(), names.len());
    before_and_after_a_remount(
        |mount| {
            let directory = mount.path("long");
            fs::create_dir(&directory).unwrap();
            for (index, name) in names.iter().enumerate() {
                fs::write(directory.join(name), index.to_string()).unwrap();
            }
            assert!(listed(&directory) == expected);
            let longer = OsStr::new(&"漢".repeat(NAME_BYTES_MAX)).to_owned();
            assert_eq!(errno(File::create(directory.join(&longer))), libc::ENAMETOOLONG);
            let renamed = fs::rename(directory.join(&names[0]), directory.join(&longer));
            assert_eq!(errno(renamed), libc::ENAMETOOLONG);
        },
        |mount| {
            let directory = mount.path("long");
            // By name first, then by the listing: two ways to find the entries.
            let named = |index: usize| fs::read_to_string(directory.join(&names[index])).unwrap();
            for index in (0..names.len()).step_by(10) {
                assert_eq!(named(index), index.to_string());
            }
            assert!(listed(&directory) == expected);
            for index in 0..names.len() {
                assert_eq!(named(index), index.to_string());
            }
            let backwards = |name: &OsString| {
                OsString::from_vec(name.as_bytes().iter().rev().copied().collect())
            };
            for name in &names {
                fs::rename(directory.join(name), directory.join(backwards(name))).unwrap();
            }
            assert!(listed(&directory) == names.iter().map(backwards).collect());
            fs::remove_dir_all(&directory).unwrap();
        },
    );
}

#[test]
fn symbolic_links_of_4095_bytes_are_kept_and_longer_ones_refused() {
    let mut random = Random::new(Random::seed());
    let mut target = || {
        let mut bytes = random.bytes(SYMLINK_BYTES_MAX);
        bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'/');
        OsString::from_vec(bytes)
    };
    let targets: Vec<OsString> = (0..500).map(|_| target()).collect();
    let check = |mount: &Mount| {
        assert_eq!(fs::read_dir(mount.path("links")).unwrap().count(), targets.len());
        for (index, target) in targets.iter().enumerate() {
            let link = mount.path(&format!("links/{index}"));
            assert_eq!(link.symlink_metadata().unwrap().len(), SYMLINK_BYTES_MAX as u64);
            assert!(fs::read_link(&link).unwrap().as_os_str() == target, "link {index}");
        }
        assert_eq!(fs::read_to_string(mount.path("roundabout")).unwrap(), "there");
    };
    before_and_after_a_remount(
        |mount| {
            fs::create_dir(mount.path("links")).unwrap();
            for (index, target) in targets.iter().enumerate() {
                symlink(target, mount.path(&format!("links/{index}"))).unwrap();
            }
            let longer = "x".repeat(SYMLINK_BYTES_MAX + 1);
            assert_eq!(errno(symlink(longer, mount.path("longer"))), libc::ENAMETOOLONG);
            // A link with an existing target.
            fs::write(mount.path("there!"), "there").unwrap();
            let roundabout = format!("{}.//there!", "./".repeat((SYMLINK_BYTES_MAX - 9) / 2));
            assert_eq!(roundabout.len(), SYMLINK_BYTES_MAX);
            symlink(roundabout, mount.path("roundabout")).unwrap();
            check(mount);
        },
        check,
    );
}

/// The name of an attribute, of the greatest length.
fn attribute(index: usize) -> String {
    format!("user.{index:0>250}")
}

#[test]
fn an_attribute_may_have_64_kib_and_no_more() {
    let mut random = Random::new(Random::seed());
    let values: Vec<Vec<u8>> = (0..60).map(|_| random.bytes(XATTR_VALUE_BYTES_MAX)).collect();
    before_and_after_a_remount(
        |mount| {
            for (index, value) in values.iter().enumerate() {
                let path = mount.path(&format!("file-{index}"));
                fs::write(&path, "").unwrap();
                set_xattr(&path, "user.big", &[1; 10]).unwrap();
                set_xattr(&path, "user.big", value).unwrap();
            }
            let path = mount.path("file-0");
            let longer = vec![0; XATTR_VALUE_BYTES_MAX + 1];
            assert_eq!(set_xattr(&path, "user.longer", &longer), Err(Errno::TOOBIG));
            assert_eq!(set_xattr(&path, &(attribute(0) + "x"), b""), Err(Errno::RANGE));
            // A node has room for two such values, but then for no name beside them.
            assert_eq!(set_xattr(&path, "user.more", &values[1]), Err(Errno::NOSPC));
            set_xattr(&path, "user.more", &values[1][..65_000]).unwrap();
            set_xattr(&path, "user.more", &values[2][..65_001]).unwrap();
            sys::removexattr(&path, "user.big").unwrap();
            assert_eq!(set_xattr(&path, "user.more", &longer), Err(Errno::TOOBIG));
            set_xattr(&path, "user.big", &values[0]).unwrap();
        },
        |mount| {
            assert_eq!(mount.shell("find . -name 'file-*' | wc -l"), values.len().to_string());
            for (index, value) in values.iter().enumerate() {
                let found = xattr(&mount.path(&format!("file-{index}")), "user.big").unwrap();
                assert!(found == *value, "the value of file {index}");
            }
            let path = mount.path("file-0");
            assert!(xattr(&path, "user.more").unwrap() == values[2][..65_001]);
            let small: &mut [u8] = &mut [0; 65_535];
            assert_eq!(sys::getxattr_query(&path, "user.big"), Ok(XATTR_VALUE_BYTES_MAX));
            assert_eq!(sys::getxattr(&path, "user.big", small), Err(Errno::RANGE));
        },
    );
}

#[test]
fn attributes_fill_what_can_be_listed_and_no_more() {
    const COUNT: usize = (64 << 10) / (NAME_BYTES_MAX + 1);
    let value = |index: usize| format!("value {index}").into_bytes();
    let expected: BTreeMap<String, Vec<u8>> =
        (1..=COUNT).map(|index| (attribute(index), value(index))).collect();
    before_and_after_a_remount(
        |mount| {
            let path = mount.path("file");
            fs::write(&path, "").unwrap();
            for index in 0..COUNT {
                set_xattr(&path, &attribute(index), &value(index)).unwrap();
            }
            assert_eq!(set_xattr(&path, &attribute(COUNT), b""), Err(Errno::NOSPC));
            assert_eq!(set_xattr(&path, "user.a", b""), Err(Errno::NOSPC));
            sys::removexattr(&path, attribute(0)).unwrap();
            set_xattr(&path, &attribute(COUNT), &value(COUNT)).unwrap();
            set_xattr(&path, &attribute(1), b"another").unwrap();
            let set = |flags| sys::setxattr(&path, attribute(1), &value(1), flags);
            assert_eq!(set(XattrFlags::CREATE), Err(Errno::EXIST));
            set(XattrFlags::REPLACE).unwrap();
            assert!(xattrs(&path) == expected);
        },
        |mount| {
            let path = mount.path("file");
            assert!(xattrs(&path) == expected);
            let small: &mut [u8] = &mut [0; 65_535];
            assert_eq!(sys::listxattr_query(&path), Ok(64 << 10));
            assert_eq!(sys::listxattr(&path, small), Err(Errno::RANGE));
            assert_eq!(mount.shell("getfattr file 2>/dev/null | grep -c user."), COUNT.to_string());
        },
    );
}

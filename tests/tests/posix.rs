//! What POSIX and Linux promise of a local filesystem, one claim a test, on a real mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs as sys;
use rustix::fs::{CWD, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, XattrFlags};
use rustix::io::Errno;
use xfer_tests::files::{Mapped, errno, set_xattr, xattr, xattrs};
use xfer_tests::{Mount, Random, World};

/// Mounts a new account, lets `check` have the mount, and unmounts.
fn on_a_mount(check: impl FnOnce(&Mount)) {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    check(&mount);
    mount.unmount();
}

/// As [`on_a_mount`], and then `again` on a mount of the same account that starts from nothing.
fn before_and_after_a_remount(before: impl FnOnce(&Mount), after: impl FnOnce(&Mount)) {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    before(&mount);
    mount.unmount();
    let mount = world.mount("alice");
    after(&mount);
    mount.unmount();
}

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    sys::renameat_with(CWD, from, CWD, to, flags)
}

#[test]
fn an_unlinked_file_stays_usable_until_it_is_closed() {
    on_a_mount(|mount| {
        let path = mount.path("file");
        let mut file = read_write(&path);
        file.write_all(b"before").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
        file.write_all(b" and after").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before and after");
        file.set_len(3).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
    });
}

#[test]
fn the_space_of_an_unlinked_file_comes_back_when_it_is_closed() {
    on_a_mount(|mount| {
        let used = || {
            let stat = sys::statvfs(mount.root()).unwrap();
            (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        };
        let before = used();
        let path = mount.path("file");
        let mut file = read_write(&path);
        file.write_all(&[1; 4 << 20]).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(used() >= before + (4 << 20));
        drop(file);
        let limit = std::time::Duration::from_secs(20);
        xfer_tests::wait_until("the space to come back", limit, || used() <= before + 4096);
    });
}

#[test]
fn rename_over_an_open_file_keeps_the_old_one_readable() {
    on_a_mount(|mount| {
        let (old, new) = (mount.path("old"), mount.path("new"));
        fs::write(&old, "old").unwrap();
        fs::write(&new, "new").unwrap();
        let mut open = File::open(&old).unwrap();
        fs::rename(&new, &old).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        assert!(!new.exists());
    });
}

#[test]
fn renames_that_make_no_sense_are_refused_as_posix_says() {
    on_a_mount(|mount| {
        for directory in ["a/b/c", "full/child", "empty"] {
            fs::create_dir_all(mount.path(directory)).unwrap();
        }
        fs::write(mount.path("file"), "").unwrap();
        let check = |from: &str, to: &str, expected: i32| {
            let got = errno(fs::rename(mount.path(from), mount.path(to)));
            assert_eq!(got, expected, "rename {from} to {to}");
        };
        check("a", "a/b/c/d", libc::EINVAL);
        check("empty", "full", libc::ENOTEMPTY);
        check("file", "empty", libc::EISDIR);
        check("empty", "file", libc::ENOTDIR);
        check("missing", "x", libc::ENOENT);
        check("file", "missing/x", libc::ENOENT);
        check("file", "file", 0);
        check("full", "empty", 0);
        assert!(mount.path("empty/child").is_dir());
    });
}

#[test]
fn rename_can_refuse_to_replace_and_can_exchange() {
    on_a_mount(|mount| {
        let (one, two) = (mount.path("one"), mount.path("two"));
        fs::write(&one, "1").unwrap();
        fs::create_dir_all(two.join("child")).unwrap();
        let refused = rename_with(&one, &two, RenameFlags::NOREPLACE);
        assert_eq!(refused, Err(Errno::EXIST));
        rename_with(&one, &two, RenameFlags::EXCHANGE).unwrap();
        assert!(one.join("child").is_dir());
        assert_eq!(fs::read_to_string(&two).unwrap(), "1");
        let missing = mount.path("missing");
        assert_eq!(rename_with(&two, &missing, RenameFlags::EXCHANGE), Err(Errno::NOENT));
        rename_with(&two, &missing, RenameFlags::NOREPLACE).unwrap();
        assert_eq!(fs::read_to_string(&missing).unwrap(), "1");
    });
}

#[test]
fn moving_directories_keeps_link_counts_right() {
    before_and_after_a_remount(
        |mount| {
            fs::create_dir_all(mount.path("a/x")).unwrap();
            fs::create_dir_all(mount.path("b")).unwrap();
            fs::rename(mount.path("a/x"), mount.path("b/x")).unwrap();
            assert_eq!(fs::metadata(mount.path("a")).unwrap().nlink(), 2);
            assert_eq!(fs::metadata(mount.path("b")).unwrap().nlink(), 3);
            assert!(mount.path("b/x/../../a").is_dir());
        },
        |mount| {
            assert_eq!(fs::metadata(mount.path("a")).unwrap().nlink(), 2);
            assert_eq!(fs::metadata(mount.path("b")).unwrap().nlink(), 3);
        },
    );
}

#[test]
fn hard_links_are_one_file_with_several_names() {
    before_and_after_a_remount(
        |mount| {
            let (one, two) = (mount.path("one"), mount.path("two"));
            fs::write(&one, "text").unwrap();
            fs::hard_link(&one, &two).unwrap();
            fs::write(&two, "changed").unwrap();
            assert_eq!(fs::read_to_string(&one).unwrap(), "changed");
            fs::create_dir(mount.path("dir")).unwrap();
            let refused = fs::hard_link(mount.path("dir"), mount.path("dir2"));
            assert_eq!(errno(refused), libc::EPERM);
            assert_eq!(errno(fs::hard_link(&one, &two)), libc::EEXIST);
        },
        |mount| {
            let one = fs::metadata(mount.path("one")).unwrap();
            let two = fs::metadata(mount.path("two")).unwrap();
            assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
            fs::remove_file(mount.path("one")).unwrap();
            assert_eq!(fs::metadata(mount.path("two")).unwrap().nlink(), 1);
        },
    );
}

#[test]
fn inode_numbers_stay_the_same_across_a_remount() {
    let ino = std::cell::Cell::new(0);
    before_and_after_a_remount(
        |mount| {
            fs::write(mount.path("file"), "").unwrap();
            ino.set(fs::metadata(mount.path("file")).unwrap().ino());
        },
        |mount| assert_eq!(fs::metadata(mount.path("file")).unwrap().ino(), ino.get()),
    );
}

#[test]
fn extended_attributes_are_created_replaced_listed_and_removed() {
    before_and_after_a_remount(
        |mount| {
            let path = mount.path("file");
            fs::write(&path, "").unwrap();
            let set = |value: &[u8], flags| sys::setxattr(&path, "user.a", value, flags);
            assert_eq!(set(b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
            set(b"1", XattrFlags::CREATE).unwrap();
            assert_eq!(set(b"2", XattrFlags::CREATE), Err(Errno::EXIST));
            set(b"2", XattrFlags::REPLACE).unwrap();
            set_xattr(&path, "user.empty", b"").unwrap();
            set_xattr(&path, "user.big", &[7; 40_000]).unwrap();
            set_xattr(&path, "user.gone", b"x").unwrap();
            sys::removexattr(&path, "user.gone").unwrap();
            assert_eq!(sys::removexattr(&path, "user.gone"), Err(Errno::NODATA));
            let small: &mut [u8] = &mut [0; 1];
            assert_eq!(sys::getxattr(&path, "user.big", small), Err(Errno::RANGE));
        },
        |mount| {
            let found = xattrs(&mount.path("file"));
            let expected = [("user.a", 1), ("user.big", 40_000), ("user.empty", 0)];
            let lens: Vec<_> = found.iter().map(|(name, value)| (&name[..], value.len())).collect();
            assert_eq!(lens, expected);
            assert_eq!(xattr(&mount.path("file"), "user.a").unwrap(), b"2");
        },
    );
}

#[test]
fn times_are_kept_to_the_nanosecond_and_omitted_ones_stay() {
    before_and_after_a_remount(
        |mount| {
            let path = mount.path("file");
            fs::write(&path, "").unwrap();
            let at = |tv_sec, tv_nsec| sys::Timespec { tv_sec, tv_nsec };
            let times = |last_access, last_modification| {
                let times = sys::Timestamps { last_access, last_modification };
                sys::utimensat(CWD, &path, &times, sys::AtFlags::empty()).unwrap();
            };
            times(at(-5, 250_000_000), at(4_000_000_000, 123_456_789));
            times(at(1, 1), at(0, sys::UTIME_OMIT));
            times(at(0, sys::UTIME_OMIT), at(0, sys::UTIME_OMIT));
            let before = fs::metadata(&path).unwrap();
            times(at(0, sys::UTIME_OMIT), at(0, sys::UTIME_NOW));
            let after = fs::metadata(&path).unwrap();
            assert_eq!((before.mtime(), before.mtime_nsec()), (4_000_000_000, 123_456_789));
            assert!(after.mtime() < 4_000_000_000 && after.mtime() > 1_700_000_000);
            times(at(-5, 250_000_000), at(4_000_000_000, 123_456_789));
        },
        |mount| {
            let meta = fs::metadata(mount.path("file")).unwrap();
            assert_eq!((meta.atime(), meta.atime_nsec()), (-5, 250_000_000));
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (4_000_000_000, 123_456_789));
        },
    );
}

#[test]
fn writing_moves_the_times_of_the_file_and_making_those_of_the_directory() {
    on_a_mount(|mount| {
        let directory = mount.path("dir");
        fs::create_dir(&directory).unwrap();
        let old = |path: &Path| {
            let past = sys::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
            let times = sys::Timestamps { last_access: past, last_modification: past };
            sys::utimensat(CWD, path, &times, sys::AtFlags::empty()).unwrap();
        };
        old(&directory);
        fs::write(directory.join("file"), "x").unwrap();
        assert!(fs::metadata(&directory).unwrap().mtime() > 1_000_000);
        old(&directory.join("file"));
        let before = fs::metadata(directory.join("file")).unwrap();
        OpenOptions::new()
            .append(true)
            .open(directory.join("file"))
            .unwrap()
            .write_all(b"y")
            .unwrap();
        let after = fs::metadata(directory.join("file")).unwrap();
        assert!(after.mtime() > before.mtime());
        assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    });
}

const TIB: u64 = 1 << 40;

#[test]
fn a_sparse_file_of_a_tebibyte_takes_up_only_what_was_written() {
    before_and_after_a_remount(
        |mount| {
            let file = read_write(&mount.path("sparse"));
            file.set_len(TIB).unwrap();
            file.write_all_at(b"middle", TIB / 2).unwrap();
            file.write_all_at(b"end", TIB - 3).unwrap();
            file.sync_all().unwrap();
        },
        |mount| {
            let file = File::open(mount.path("sparse")).unwrap();
            let meta = file.metadata().unwrap();
            assert_eq!((meta.len(), meta.blocks()), (TIB, 2 * 8));
            let mut bytes = [1; 6];
            file.read_exact_at(&mut bytes, TIB / 2).unwrap();
            assert_eq!(&bytes, b"middle");
            file.read_exact_at(&mut bytes, TIB / 4).unwrap();
            assert_eq!(bytes, [0; 6]);
            file.read_exact_at(&mut bytes[..3], TIB - 3).unwrap();
            assert_eq!(&bytes[..3], b"end");
        },
    );
}

#[test]
fn seek_hole_and_seek_data_find_what_was_written() {
    before_and_after_a_remount(
        |mount| {
            let file = read_write(&mount.path("sparse"));
            file.set_len(10 << 20).unwrap();
            file.write_all_at(&[1; 4096], 1 << 20).unwrap();
            file.write_all_at(&[2; 8192], 5 << 20).unwrap();
        },
        |mount| {
            let file = File::open(mount.path("sparse")).unwrap();
            let data = |at| sys::seek(&file, sys::SeekFrom::Data(at));
            let hole = |at| sys::seek(&file, sys::SeekFrom::Hole(at));
            assert_eq!(data(0), Ok(1 << 20));
            assert_eq!(hole(1 << 20), Ok((1 << 20) + 4096));
            assert_eq!(data((1 << 20) + 4096), Ok(5 << 20));
            assert_eq!(hole(5 << 20), Ok((5 << 20) + 8192));
            assert_eq!(data(6 << 20), Err(Errno::NXIO));
            assert_eq!(hole(9 << 20), Ok(9 << 20));
            assert_eq!(hole(10 << 20), Err(Errno::NXIO));
        },
    );
}

#[test]
fn fallocate_allocates_keeps_the_size_punches_and_zeroes() {
    on_a_mount(|mount| {
        let file = read_write(&mount.path("file"));
        let allocate = |flags, offset, len| sys::fallocate(&file, flags, offset, len);
        allocate(FallocateFlags::empty(), 0, 8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        allocate(FallocateFlags::KEEP_SIZE, 8192, 8192).unwrap();
        assert_eq!((file.metadata().unwrap().len(), file.metadata().unwrap().blocks()), (8192, 32));
        file.write_all_at(&[9; 16384], 0).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        allocate(punch, 4096, 4096).unwrap();
        allocate(FallocateFlags::ZERO_RANGE, 8200, 100).unwrap();
        let mut bytes = vec![0; 16384];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let expected =
            |at: usize| u8::from(!(4096..8192).contains(&at) && !(8200..8300).contains(&at));
        let right = bytes.iter().enumerate().all(|(at, byte)| *byte == 9 * expected(at));
        assert!(right, "zeros are not where they were asked for");
        assert_eq!(file.metadata().unwrap().blocks(), 3 * 8);
        assert_eq!(allocate(FallocateFlags::COLLAPSE_RANGE, 0, 4096), Err(Errno::OPNOTSUPP));
    });
}

#[test]
fn copy_file_range_copies_within_and_between_files() {
    on_a_mount(|mount| {
        let data = Random::new(5).bytes(300_000);
        fs::write(mount.path("from"), &data).unwrap();
        let (from, to) = (File::open(mount.path("from")).unwrap(), read_write(&mount.path("to")));
        let copy = |from: &File, mut at: u64, to: &File, mut into: u64, len: usize| {
            sys::copy_file_range(from, Some(&mut at), to, Some(&mut into), len).unwrap()
        };
        assert_eq!(copy(&from, 0, &to, 0, 1 << 20), 300_000);
        assert_eq!(copy(&from, 100, &to, 200_001, 70_000), 70_000);
        assert_eq!(copy(&to, 0, &to, 400_000, 1000), 1000);
        let mut expected = data.clone();
        expected[200_001..270_001].copy_from_slice(&data[100..70_100]);
        expected.resize(400_000, 0);
        expected.extend_from_slice(&data[..1000]);
        assert!(fs::read(mount.path("to")).unwrap() == expected);
        assert!(fs::read(mount.path("from")).unwrap() == data, "the source changed");
        // What was shared is not shared any more once it is written to.
        to.write_all_at(b"changed", 0).unwrap();
        assert!(fs::read(mount.path("from")).unwrap() == data, "the source changed");
    });
}

#[test]
fn names_of_all_bytes_are_kept_exactly() {
    let names: Vec<Vec<u8>> = (1..=255u8)
        .filter(|byte| *byte != b'/')
        .map(|byte| if byte == b'.' { b"..x".to_vec() } else { vec![byte, b'x', byte] })
        .chain([vec![0xff; 255], b"\xc3\x28 not utf-8".to_vec(), "ärger 🦀".into()])
        .collect();
    let all_there = |mount: &Mount| {
        let entries = fs::read_dir(mount.path("names")).unwrap();
        let mut found: Vec<Vec<u8>> =
            entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
        let mut expected = names.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        for name in &names {
            let path = mount.path("names").join(std::ffi::OsStr::from_bytes(name));
            assert_eq!(&fs::read(path).unwrap(), name);
        }
    };
    before_and_after_a_remount(
        |mount| {
            fs::create_dir(mount.path("names")).unwrap();
            for name in &names {
                let path = mount.path("names").join(std::ffi::OsStr::from_bytes(name));
                fs::write(path, name).unwrap();
            }
            all_there(mount);
        },
        all_there,
    );
}

#[test]
fn a_name_may_have_255_bytes_and_no_more() {
    on_a_mount(|mount| {
        fs::write(mount.path(&"x".repeat(255)), "").unwrap();
        let longer = mount.path(&"x".repeat(256));
        assert_eq!(errno(fs::write(&longer, "")), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::create_dir(&longer)), libc::ENAMETOOLONG);
        assert_eq!(errno(symlink("x", &longer)), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::metadata(&longer)), libc::ENAMETOOLONG);
    });
}

#[test]
fn symbolic_links_keep_their_targets_exactly() {
    let longest = format!("{}x", "./".repeat(2047));
    before_and_after_a_remount(
        |mount| {
            fs::write(mount.path("file"), "text").unwrap();
            symlink("file", mount.path("good")).unwrap();
            symlink("/no/where at\nall", mount.path("dangling")).unwrap();
            symlink(&longest, mount.path("long")).unwrap();
            symlink("loop", mount.path("loop")).unwrap();
        },
        |mount| {
            assert_eq!(fs::read_to_string(mount.path("good")).unwrap(), "text");
            let target = |name: &str| fs::read_link(mount.path(name)).unwrap();
            assert_eq!(target("dangling"), Path::new("/no/where at\nall"));
            assert_eq!(target("long").as_os_str().len(), 4095);
            assert_eq!(errno(fs::read(mount.path("loop"))), libc::ELOOP);
        },
    );
}

#[test]
fn pipes_and_sockets_work_between_programs() {
    before_and_after_a_remount(
        |mount| {
            let pipe = mount.path("pipe");
            sys::mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o600), 0).unwrap();
            let text = mount.shell("timeout 20 cat pipe & echo through > pipe; wait");
            assert_eq!(text, "through");
            let listener = std::os::unix::net::UnixListener::bind(mount.path("socket")).unwrap();
            std::os::unix::net::UnixStream::connect(mount.path("socket")).unwrap();
            drop(listener);
        },
        |mount| {
            assert!(fs::metadata(mount.path("pipe")).unwrap().file_type().is_fifo());
            assert!(fs::metadata(mount.path("socket")).unwrap().file_type().is_socket());
        },
    );
}

#[test]
fn locks_exclude_other_programs() {
    on_a_mount(|mount| {
        let file = read_write(&mount.path("file"));
        sys::flock(&file, FlockOperation::LockExclusive).unwrap();
        let try_flock = "flock -n file true && echo free || echo taken";
        assert_eq!(mount.shell(try_flock), "taken");
        sys::flock(&file, FlockOperation::Unlock).unwrap();
        assert_eq!(mount.shell(try_flock), "free");

        let try_fcntl = "python3 -c 'import fcntl
f = open(\"file\", \"r+\")
try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print(\"free\")
except BlockingIOError: print(\"taken\")'";
        sys::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
        assert_eq!(mount.shell(try_fcntl), "taken");
        sys::fcntl_lock(&file, FlockOperation::Unlock).unwrap();
        assert_eq!(mount.shell(try_fcntl), "free");
    });
}

#[test]
fn mapped_memory_and_the_file_are_one() {
    before_and_after_a_remount(
        |mount| {
            let path = mount.path("file");
            fs::write(&path, [b'a'; 20_000]).unwrap();
            let file = read_write(&path);
            let mut mapped = Mapped::new(&file, 20_000);
            mapped.write(9_999, b"through memory");
            mapped.sync();
            let mut bytes = [0; 14];
            file.read_exact_at(&mut bytes, 9_999).unwrap();
            assert_eq!(&bytes, b"through memory");
            file.write_all_at(b"through write", 100).unwrap();
            assert_eq!(mapped.read(100, 13), b"through write");
        },
        |mount| {
            let bytes = fs::read(mount.path("file")).unwrap();
            assert_eq!(bytes.len(), 20_000);
            assert_eq!(&bytes[9_999..10_013], b"through memory");
            assert_eq!(&bytes[100..113], b"through write");
            assert_eq!(bytes[10_013], b'a');
        },
    );
}

#[test]
fn appending_writers_do_not_overwrite_each_other() {
    before_and_after_a_remount(
        |mount| {
            fs::write(mount.path("log"), "").unwrap();
            mount.shell(
                "for w in 1 2 3 4; do
                     (for i in $(seq 250); do echo \"writer $w line $i\" >> log; done) &
                 done; wait",
            );
        },
        |mount| assert_eq!(mount.shell("sort -u log | wc -l"), "1000"),
    );
}

#[test]
fn truncating_and_growing_again_shows_zeros_not_old_bytes() {
    before_and_after_a_remount(
        |mount| {
            let file = read_write(&mount.path("file"));
            file.write_all_at(&[7; 10_000], 0).unwrap();
            file.set_len(100).unwrap();
            file.set_len(10_000).unwrap();
        },
        |mount| {
            let bytes = fs::read(mount.path("file")).unwrap();
            assert_eq!(bytes.len(), 10_000);
            assert!(bytes[..100].iter().all(|byte| *byte == 7));
            assert!(bytes[100..].iter().all(|byte| *byte == 0));
        },
    );
}

#[test]
fn modes_are_kept_and_asked() {
    before_and_after_a_remount(
        |mount| {
            fs::write(mount.path("file"), "").unwrap();
            fs::set_permissions(mount.path("file"), fs::Permissions::from_mode(0o4751)).unwrap();
            fs::create_dir(mount.path("sticky")).unwrap();
            fs::set_permissions(mount.path("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
        },
        |mount| {
            let mode = |name| fs::metadata(mount.path(name)).unwrap().mode() & 0o7777;
            assert_eq!((mode("file"), mode("sticky")), (0o4751, 0o1777));
        },
    );
}

#[test]
fn the_mount_honours_no_set_id_bits_and_no_devices() {
    on_a_mount(|mount| {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mount.root().to_str().unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some(root)).unwrap();
        let options: Vec<&str> = line.split(' ').nth(5).unwrap().split(',').collect();
        assert!(options.contains(&"nosuid") && options.contains(&"nodev"), "{line}");
    });
}

#[test]
fn nodes_belong_to_whoever_mounted() {
    on_a_mount(|mount| {
        fs::write(mount.path("file"), "").unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for path in ["", "file", "inbox", "outbox"] {
            let meta = fs::metadata(mount.path(path)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{path}");
        }
    });
}

#[test]
fn a_full_quota_is_told_at_the_system_call_and_room_comes_back() {
    let world = World::new(&["alice --quota 8MiB"]);
    let mount = world.mount("alice");
    let stat = sys::statvfs(mount.root()).unwrap();
    assert_eq!(stat.f_blocks * stat.f_frsize, 8 << 20);
    let file = File::create(mount.path("big")).unwrap();
    let written = (0..).find(|at| file.write_all_at(&[1; 65536], at * 65536).is_err()).unwrap();
    assert!((100..=128).contains(&written), "{written} of 128 blocks of 64 KiB");
    let refused = file.write_all_at(&[1; 65536], 100 << 20);
    assert_eq!(errno(refused), libc::EDQUOT);
    assert_eq!(
        errno(sys::fallocate(&file, FallocateFlags::empty(), 0, 64 << 20).map_err(Into::into)),
        libc::EDQUOT
    );
    let left = sys::statvfs(mount.root()).unwrap();
    assert!(left.f_bavail * left.f_frsize < 65536 + 4096);
    fs::remove_file(mount.path("big")).unwrap();
    drop(file);
    let limit = std::time::Duration::from_secs(20);
    xfer_tests::wait_until("room to come back", limit, || {
        fs::write(mount.path("small"), vec![1; 1 << 20]).is_ok()
    });
    mount.unmount();
}

#[test]
fn directories_list_what_is_there_while_they_change() {
    on_a_mount(|mount| {
        for index in 0..500 {
            fs::write(mount.path(&format!("f{index}")), "").unwrap();
        }
        for entry in fs::read_dir(mount.root()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        assert_eq!(mount.shell("ls -A"), "inbox\noutbox");
    });
}

#[test]
fn a_directory_that_was_removed_while_open_is_empty_and_takes_nothing() {
    on_a_mount(|mount| {
        fs::create_dir(mount.path("dir")).unwrap();
        let directory = File::open(mount.path("dir")).unwrap();
        fs::remove_dir(mount.path("dir")).unwrap();
        let flags = sys::OFlags::CREATE | sys::OFlags::WRONLY;
        let made = sys::openat(&directory, "file", flags, Mode::from(0o600));
        assert_eq!(made.map(drop), Err(Errno::NOENT));
        assert_eq!(directory.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn exclusive_creation_has_one_winner() {
    on_a_mount(|mount| {
        let create = || OpenOptions::new().write(true).create_new(true).open(mount.path("lock"));
        create().unwrap();
        assert_eq!(create().unwrap_err().kind(), ErrorKind::AlreadyExists);
    });
}

#[test]
fn the_wrong_kind_of_thing_is_refused_as_posix_says() {
    on_a_mount(|mount| {
        fs::create_dir_all(mount.path("dir/child")).unwrap();
        fs::write(mount.path("file"), "").unwrap();
        assert_eq!(errno(fs::remove_dir(mount.path("dir"))), libc::ENOTEMPTY);
        assert_eq!(errno(fs::remove_dir(mount.path("file"))), libc::ENOTDIR);
        assert_eq!(errno(fs::remove_file(mount.path("dir"))), libc::EISDIR);
        assert_eq!(errno(fs::metadata(mount.path("file/x"))), libc::ENOTDIR);
        assert_eq!(errno(fs::create_dir(mount.path("file"))), libc::EEXIST);
        assert_eq!(errno(File::create(mount.path("dir"))), libc::EISDIR);
        assert_eq!(errno(fs::remove_dir(mount.path("inbox"))), libc::EPERM);
        assert_eq!(errno(fs::rename(mount.path("outbox"), mount.path("x"))), libc::EPERM);
    });
}

//! The promises of POSIX and Linux about names and directories, one claim for each test, on a real mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs as sys;
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;
use xfer_tests::Mount;
use xfer_tests::files::errno;
use xfer_tests::world::{before_and_after_a_remount, on_a_mount};

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    sys::renameat_with(CWD, from, CWD, to, flags)
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
fn a_listing_misses_nothing_while_entries_go_and_others_list() {
    on_a_mount(|mount| {
        let directory = mount.path("many");
        fs::create_dir(&directory).unwrap();
        (0..3000).for_each(|index| drop(File::create(directory.join(format!("{index}")))));
        let count = || fs::read_dir(&directory).unwrap().count();
        assert_eq!(count(), 3000);
        // A small buffer, so that the listing takes many calls.
        let mut buffer = [std::mem::MaybeUninit::uninit(); 2048];
        let open = File::open(&directory).unwrap();
        let mut listing = sys::RawDir::new(&open, &mut buffer);
        let mut removed = 0;
        while let Some(entry) = listing.next() {
            let name = entry.unwrap().file_name().to_owned();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            fs::remove_file(directory.join(std::ffi::OsStr::from_bytes(name.to_bytes()))).unwrap();
            removed += 1;
            if removed % 500 == 0 {
                assert_eq!(count(), 3000 - removed);
            }
        }
        assert_eq!((removed, count()), (3000, 0));
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

#[test]
fn files_without_a_name_and_whiteouts_are_refused() {
    on_a_mount(|mount| {
        let flags = sys::OFlags::TMPFILE | sys::OFlags::RDWR;
        let unnamed = sys::open(mount.root(), flags, Mode::RUSR).map(|_| ());
        assert_eq!(unnamed, Err(Errno::OPNOTSUPP));
        fs::write(mount.path("file"), "").unwrap();
        let (from, to) = (mount.path("file"), mount.path("moved"));
        assert_eq!(rename_with(&from, &to, RenameFlags::WHITEOUT), Err(Errno::INVAL));
        assert!(from.exists() && !to.exists());
    });
}

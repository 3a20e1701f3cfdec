//! The promises of POSIX and Linux about attributes, one claim for each test, on a real mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs as sys;
use rustix::fs::{CWD, XattrFlags};
use rustix::io::Errno;
use xfer_tests::files::{errno, set_xattr, xattr, xattrs};
use xfer_tests::world::{before_and_after_a_remount, on_a_mount};
use xfer_tests::{PATIENCE, World, run_within};

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
fn extended_attributes_of_no_namespace_or_without_a_name_are_refused() {
    on_a_mount(|mount| {
        let path = mount.path("file");
        fs::write(&path, "").unwrap();
        for (name, error) in [("user.", Errno::INVAL), ("nobodys.a", Errno::OPNOTSUPP)] {
            let set = sys::setxattr(&path, name, b"1", XattrFlags::empty());
            let get = sys::getxattr(&path, name, &mut [0; 10][..]).map(|_| ());
            let remove = sys::removexattr(&path, name);
            assert_eq!([set, get, remove], [Err(error); 3], "{name}");
        }
    });
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
fn giving_a_file_the_owner_that_it_has_takes_its_set_id_bits_and_a_directorys_stay() {
    on_a_mount(|mount| {
        let (file, directory) = (mount.path("file"), mount.path("directory"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&directory).unwrap();
        let mode_after = |path: &Path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o6775)).unwrap();
            std::os::unix::fs::chown(path, None, None).unwrap();
            fs::metadata(path).unwrap().mode() & 0o7777
        };
        assert_eq!((mode_after(&file), mode_after(&directory)), (0o775, 0o6775));
    });
}

#[test]
fn a_change_of_data_by_another_user_takes_the_set_id_bits_and_setting_no_owner_does_not() {
    let world = World::new(&["alice"]);
    world.let_others_in();
    let mount = world.mounting("alice").arg("-o").arg("ids=stored,allow_other").start();
    let path = mount.path("file");
    fs::write(mount.path("other"), "more").unwrap();
    let copy = "python3 -c 'import os
to = os.open(\"file\", os.O_WRONLY)
os.copy_file_range(os.open(\"other\", os.O_RDONLY), to, 4)'";
    for change in ["echo more >> file", "truncate -s 1 file", "fallocate -l 9000 file", copy] {
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        for (script, mode) in
            [("python3 -c 'import os; os.chown(\"file\", -1, -1)'", 0o6777), (change, 0o777)]
        {
            let mut as_other = Command::new("setpriv");
            as_other.args([
                "--reuid=20001",
                "--regid=20001",
                "--clear-groups",
                "bash",
                "-c",
                script,
            ]);
            run_within(as_other.current_dir(mount.root()), PATIENCE).succeeded();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{script}");
        }
    }
    mount.unmount();
}

#[test]
fn the_mode_without_the_set_id_bits_shows_at_once_to_who_asks_for_nothing_else() {
    let world = World::new(&["alice"]);
    world.let_others_in();
    let mount = world.mounting("alice").arg("-o").arg("ids=stored,allow_other").start();
    fs::write(mount.path("other"), "more").unwrap();
    // `stat -c %a` asks only for the mode, which the kernel answers from its cache.
    let script = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def mode():
    buffer = ctypes.create_string_buffer(256)
    STATX_MODE = 2
    assert libc.statx(-100, b"file", 0, STATX_MODE, buffer) == 0
    return int.from_bytes(buffer.raw[28:30], "little") & 0o7777
def allocate(flags):
    return lambda to: libc.fallocate(to, flags, ctypes.c_long(0), ctypes.c_long(4096))
other = os.open("other", os.O_RDONLY)
changes = [lambda to: os.write(to, b"text"), lambda to: os.pwrite(to, b"text", 5000),
           lambda to: os.copy_file_range(other, to, 4, 0), lambda to: os.ftruncate(to, 1),
           allocate(0), allocate(1), allocate(3), allocate(16), allocate(17)]
for change in changes * 20:
    os.setresuid(-1, 0, -1)
    os.chmod("file", 0o6777)
    before = mode()
    os.setresuid(-1, 20001, -1)
    to = os.open("file", os.O_WRONLY)
    change(to)
    after = mode()
    os.close(to)
    assert (before, after) == (0o6777, 0o777), (changes.index(change), oct(before), oct(after))
"#;
    fs::write(mount.path("file"), "").unwrap();
    let mut python = Command::new("python3");
    let python = python.args(["-c", script]).current_dir(mount.root());
    run_within(python, PATIENCE).succeeded();
    mount.unmount();
}

/// A file's handle for open_by_handle_at(2).
fn handle(path: &std::path::Path) -> Vec<u8> {
    const ROOM: u32 = 128;
    let mut handle = vec![0u8; size_of::<libc::file_handle>() + ROOM as usize];
    handle[..4].copy_from_slice(&ROOM.to_ne_bytes());
    let (path, mut mount) = (std::ffi::CString::new(path.to_str().unwrap()).unwrap(), 0);
    let to = handle.as_mut_ptr().cast::<libc::file_handle>();
    // SAFETY: all pointers are valid, and the handle has the size given in its first field.
    let got = unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), to, &mut mount, 0) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    handle
}

/// Opens the file of a handle within the mount of `root`.
fn open_by_handle(root: &fs::File, handle: &mut [u8]) -> std::io::Result<fs::File> {
    use std::os::fd::{AsRawFd, FromRawFd};
    let from = handle.as_mut_ptr().cast::<libc::file_handle>();
    // SAFETY: the handle comes from name_to_handle_at(2) and lives longer than the call.
    let descriptor = unsafe { libc::open_by_handle_at(root.as_raw_fd(), from, libc::O_RDONLY) };
    match descriptor {
        // SAFETY: the descriptor is new, so nothing else owns it.
        0.. => Ok(unsafe { fs::File::from_raw_fd(descriptor) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn a_file_handle_opens_its_file_for_ever_and_none_once_it_is_removed() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir -p d/e && echo text > d/e/file && echo gone > d/e/gone");
    let mut handles = ["d/e/file", "d/e", "d/e/gone"].map(|name| handle(&mount.path(name)));
    mount.shell("rm d/e/gone");
    mount.unmount();
    // The kernel's inodes of the first mount are gone.
    let mount = world.mount("alice");
    let root = fs::File::open(mount.root()).unwrap();
    let [file, directory, gone] = &mut handles;
    let mut text = String::new();
    let mut file = open_by_handle(&root, file).unwrap();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!(text, "text\n");
    let directory = open_by_handle(&root, directory).unwrap();
    let inos = |path: &str| fs::metadata(mount.path(path)).unwrap().ino();
    assert_eq!(directory.metadata().unwrap().ino(), inos("d/e"));
    let parent = rustix::fs::statat(&directory, "..", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(parent.st_ino, inos("d"));
    assert_eq!(errno(open_by_handle(&root, gone)), libc::ESTALE);
    drop((root, file, directory));
    mount.unmount();
}

#[test]
fn creation_times_flags_and_maps_of_extents_are_refused() {
    on_a_mount(|mount| {
        fs::write(mount.path("file"), "text").unwrap();
        assert_eq!(mount.shell("stat -c %W file"), "0");
        let file = fs::File::open(mount.path("file")).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file);
        assert_eq!(flags.unwrap_err(), rustix::io::Errno::NOTTY);
        let mut map = [0u64; 64];
        // struct fiemap: the range starts at 0 and covers the whole file, with room for one extent.
        (map[1], map[3]) = (u64::MAX, 1);
        const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
        // SAFETY: the buffer is larger than a struct fiemap with room for one extent.
        let got = unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), FS_IOC_FIEMAP, map.as_mut_ptr())
        };
        let error = std::io::Error::last_os_error().raw_os_error();
        assert_eq!((got, error), (-1, Some(libc::EOPNOTSUPP)));
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

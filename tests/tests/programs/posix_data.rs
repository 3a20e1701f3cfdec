//! The promises of POSIX and Linux about a file's data, one claim for each test, on a real mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs as sys;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use xfer_tests::files::{Mapped, errno, read_write};
use xfer_tests::world::{before_and_after_a_remount, on_a_mount};
use xfer_tests::{PATIENCE, Random, World};

const TIB: u64 = 1 << 40;

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
        xfer_tests::wait_until("the space to come back", PATIENCE, || used() <= before + 4096);
    });
}

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
        // A write ends the sharing.
        to.write_all_at(b"changed", 0).unwrap();
        assert!(fs::read(mount.path("from")).unwrap() == data, "the source changed");
    });
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
fn what_was_written_through_memory_moves_the_time_and_is_data_when_it_is_synced() {
    on_a_mount(|mount| {
        let file = read_write(&mount.path("file"));
        file.set_len(5000).unwrap();
        let mut mapped = Mapped::new(&file, 5000);
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        file.set_modified(past).unwrap();
        mapped.write(10, b"through memory");
        mapped.sync();
        assert!(file.metadata().unwrap().modified().unwrap() > past);
        assert_eq!(sys::seek(&file, sys::SeekFrom::Data(0)), Ok(0));
    });
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
    xfer_tests::wait_until("room to come back", PATIENCE, || {
        fs::write(mount.path("small"), vec![1; 1 << 20]).is_ok()
    });
    mount.unmount();
}

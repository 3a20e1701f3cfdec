//! Troubles of the server's machine: a disk that fills up, a clock that is wrong.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use xfer_tests::files::errno;
use xfer_tests::programs::program;
use xfer_tests::server::Server;
use xfer_tests::{World, shell};

/// A small file system for a store, unmounted with it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: &Path, size: &str) -> SmallDisk {
        let options = format!("mount -t tmpfs -o size={size},mode=700 tmpfs '{}'", path.display());
        shell(Path::new("/"), &options);
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until it is refused, and says with what.
fn fill(path: &Path) -> i32 {
    let mut file = File::create(path).unwrap();
    loop {
        let written = file.write_all(&[7; 1 << 20]);
        if written.is_err() {
            return errno(written);
        }
        // As slow as a disk would be, so that what the server says of its space has been heard.
        file.sync_all().unwrap();
    }
}

/// A server whose store has a disk of its own, of 96 MiB.
fn with_a_small_disk(users: &[&str]) -> (World, SmallDisk) {
    let mut disk = None;
    let world = World::with_server(users, |store| {
        let accounts = store.join("../accounts");
        fs::rename(store, &accounts).unwrap();
        fs::create_dir(store).unwrap();
        disk = Some(SmallDisk::at(store, "96m"));
        shell(store, &format!("cp -a '{}'/. .", accounts.display()));
        Server::start(store, "127.0.0.1:0")
    });
    (world, disk.unwrap())
}

#[test]
fn a_full_disk_is_told_at_the_system_call_and_removing_files_makes_room() {
    let (world, _disk) = with_a_small_disk(&["alice"]);
    let mount = world.mount("alice");
    assert_eq!(fill(&mount.path("big")), libc::ENOSPC);
    assert!(fs::metadata(mount.path("big")).unwrap().len() > 16 << 20);
    // What is there is there, small things still work, and so does a new login.
    mount.sync();
    mount.shell("mkdir small && mv big small/ && head -c 4096 small/big | wc -c");
    mount.unmount();
    let mount = world.mount("alice");
    mount.shell("rm small/big");
    // At once, though what was removed is on the server's disk until the change is durable.
    fs::write(mount.path("again"), vec![7; 8 << 20]).unwrap();
    mount.sync();
    mount.unmount();
}

#[test]
fn what_was_allocated_can_be_written_when_the_disk_is_full() {
    const ALLOCATED: usize = 48 << 20;
    let (world, _disk) = with_a_small_disk(&["alice"]);
    let mount = world.mount("alice");
    let file = File::create(mount.path("allocated")).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ALLOCATED as u64).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fill(&mount.path("big")), libc::ENOSPC);
    file.write_all_at(&vec![7; ALLOCATED], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(mount.path("allocated")).unwrap(), vec![7; ALLOCATED]);
    drop(file);
    mount.unmount();
}

#[test]
fn a_disk_smaller_than_the_quota_bounds_what_can_be_written_and_shows_in_df() {
    let (world, _disk) = with_a_small_disk(&["alice --quota 10GiB"]);
    let mount = world.mount("alice");
    let free = || {
        let stat = statvfs(mount.root()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let on_disk = || {
        let stat = statvfs(world.server.store()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    mount.sync();
    let before = free();
    assert!(before > 16 << 20 && before < on_disk(), "{before} of {}", on_disk());
    // All at once, so that nothing has to be heard of the server in between.
    let file = File::create(mount.path("file")).unwrap();
    let allocate =
        |len| errno(fallocate(&file, FallocateFlags::empty(), 0, len).map_err(Into::into));
    assert_eq!(allocate(before + 4096), libc::ENOSPC);
    assert_eq!(errno(file.write_all_at(b"x", 1 << 40)), 0);
    drop(file);
    let most = vec![7; before as usize - (4 << 20)];
    for round in 0..5 {
        fs::write(mount.path("file"), &most).unwrap();
        mount.sync();
        assert_eq!(errno(fs::write(mount.path("more"), vec![7; 8 << 20])), libc::ENOSPC);
        assert!(free() < 8 << 20, "round {round}: {} bytes free", free());
        // What a change gives back is told with the word that it is durable.
        mount.shell(": > file; : > more");
        mount.sync();
        assert!(free() + (2 << 20) > before, "round {round}: {} of {before} bytes", free());
    }
    mount.unmount();
}

#[test]
fn a_server_whose_clock_is_far_off_is_warned_of_and_works() {
    let world = World::with_server(&["alice"], |store| {
        let mut command = Command::new("faketime");
        command.arg("-f").arg("+3h").arg(program("xfer-server"));
        Server::start_as(command, store, "127.0.0.1:0", &[])
    });
    let mount = world.mount("alice");
    fs::write(mount.path("file"), "text").unwrap();
    mount.sync();
    assert!(mount.said().contains("clock"), "{}", mount.said());
    mount.unmount();
}

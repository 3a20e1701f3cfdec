//! Mounts whose process is gone, and mounts that another one keeps.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xfer_mount::exit::Exit;
use xfer_tests::mount::is_mounted;
use xfer_tests::programs::program;
use xfer_tests::{Finished, Mount, PATIENCE, World, run_within, wait_until};

fn unmount(world: &World, path: &Path) -> Finished {
    let mut command = Command::new(program("xfer"));
    run_within(world.at_home(command.arg("unmount").arg(path)), PATIENCE)
}

/// Mounts, lets the kernel know the mount point, and kills the process that serves it.
fn stale(world: &World) -> Mount {
    let mut mount = world.mount("alice");
    mount.shell("echo kept > file && sync . && ls && stat . file");
    mount.signal(Signal::KILL);
    mount.ended();
    assert!(fs::metadata(mount.root()).is_ok(), "the kernel does not answer from its cache");
    mount
}

#[test]
fn a_mount_that_a_killed_process_left_behind_makes_way_for_a_new_one() {
    let world = World::new(&["alice"]);
    let old = stale(&world);
    let link = world.outside().join("link");
    std::os::unix::fs::symlink(old.root(), &link).unwrap();
    // The kernel has closed the killed process's connections, so its session is over.
    for place in [old.root(), &link] {
        world.mounting("alice").at(place).arg("--takeover").in_background().succeeded();
        assert_eq!(fs::read_to_string(old.path("file")).unwrap(), "kept\n");
        unmount(&world, place).succeeded();
        assert!(!is_mounted(old.root()));
    }
}

#[test]
fn xfer_unmount_removes_a_mount_that_a_killed_process_left_behind() {
    let world = World::new(&["alice"]);
    let old = stale(&world);
    let said = unmount(&world, old.root()).succeeded().stderr;
    assert!(said.contains("had been killed"), "{said}");
    assert!(!is_mounted(old.root()));
    unmount(&world, old.root()).refused(Exit::NotMounted.code());
}

#[test]
fn a_mount_that_only_does_not_answer_is_left_alone() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo kept > file && sync .");
    mount.signal(Signal::STOP);
    let refused = world.mounting("alice").in_background().refused(Exit::MountPointBusy.code());
    assert!(refused.contains("already mounted there"), "{refused}");
    assert!(mount.is_mounted());
    mount.signal(Signal::CONT);
    assert_eq!(mount.shell("cat file"), "kept");
    mount.unmount();
}

#[test]
fn a_dead_mount_of_another_user_or_of_another_kind_is_left_alone() {
    let world = World::new(&["alice"]);
    for (kind, user) in [("fuse.xfer", 12345), ("fuse.other", 0)] {
        let place = world.mount_point(kind);
        dead_mount(&place, kind, user);
        let refused = world.mounting("alice").at(&place).in_background();
        refused.refused(Exit::MountPointBusy.code());
        unmount(&world, &place).refused(Exit::NotMounted.code());
        assert!(is_mounted(&place), "{kind} of {user}");
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// A FUSE mount that nobody serves.
fn dead_mount(place: &Path, kind: &str, user: u32) {
    use std::os::fd::AsRawFd;
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id={user},group_id=0", device.as_raw_fd());
    let data = std::ffi::CString::new(data).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("someone", place, kind, flags, data.as_c_str()).unwrap();
}

#[test]
fn a_process_that_is_being_killed_is_waited_for() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("ls");
    mount.signal(Signal::KILL);
    // At once, while the system may still be ending it.
    world.mounting("alice").arg("--takeover").in_background().succeeded();
    wait_until("the new mount", PATIENCE, || fs::read_dir(mount.root()).is_ok());
    unmount(&world, mount.root()).succeeded();
}

/// A process in a mount namespace of its own, with a copy of each mount.
struct Namespace(std::process::Child);

impl Namespace {
    fn new() -> Namespace {
        let child = Command::new("unshare").args(["-m", "sleep", "600"]).spawn().unwrap();
        let namespace = Namespace(child);
        let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
        wait_until("a namespace of its own", PATIENCE, || {
            link(&namespace.0.id().to_string()).is_some_and(|own| Some(own) != link("self"))
        });
        namespace
    }

    /// Runs a script of the shell in it.
    fn shell(&self, script: &str) -> Finished {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.0.id().to_string(), "bash", "-c", script]);
        run_within(&mut command, PATIENCE)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn xfer_unmount_ends_a_mount_of_which_another_namespace_has_a_copy() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let other = Namespace::new();
    mount.shell("echo kept > file");
    unmount(&world, mount.root()).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    assert!(!mount.is_mounted());
    assert_ne!(other.shell(&format!("ls {}", mount.root().display())).code, Some(0));
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat file"), "kept");
    mount.unmount();
}

#[test]
fn xfer_unmount_in_another_namespace_takes_away_its_copy_too() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let other = Namespace::new();
    mount.shell("echo kept > file");
    let home = world.home();
    let (run, home) = (home.join("run"), home.display().to_string());
    let (xfer, place) = (program("xfer"), mount.root().display().to_string());
    let environment = format!("HOME={home} XDG_RUNTIME_DIR={}", run.display());
    other.shell(&format!("{environment} {} unmount {place}", xfer.display())).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    assert_ne!(other.shell(&format!("mountpoint -q {place}")).code, Some(0));
    assert!(!mount.is_mounted());
}

#[test]
fn a_mount_that_only_another_namespace_has_goes_on_there_until_xfer_unmount() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let other = Namespace::new();
    mount.shell("echo kept > file");
    rustix::mount::unmount(mount.root(), rustix::mount::UnmountFlags::empty()).unwrap();
    let cat = format!("cat {}", mount.path("file").display());
    assert_eq!(other.shell(&cat).succeeded().stdout, "kept\n");
    let refused = world.mounting("alice").in_background().refused(Exit::MountPointBusy.code());
    assert!(refused.contains("another mount namespace"), "{refused}");
    assert!(mount.xfer("status", &[]).succeeded().stdout.contains("not here any more"));
    unmount(&world, mount.root()).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    world.mount("alice").unmount();
}

#[test]
fn a_mount_under_another_is_not_taken_away_in_its_place() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("over", mount.root(), "tmpfs", flags, None).unwrap();
    let line = unmount(&world, mount.root()).refused(Exit::Other.code());
    assert!(line.contains("over (tmpfs) is mounted over it"), "{line}");
    rustix::mount::unmount(mount.root(), rustix::mount::UnmountFlags::empty()).unwrap();
    mount.unmount();
}

//! Mounts whose process is gone, and mounts kept by another mount namespace.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xfer_mount::process::exit::Exit;
use xfer_tests::mount::is_mounted;
use xfer_tests::programs::{program, run_by};
use xfer_tests::{Finished, Mount, PATIENCE, World, run_within, wait_until};

fn unmount(world: &World, path: &Path) -> Finished {
    let mut command = Command::new(program("xfer"));
    run_within(world.at_home(command.arg("unmount").arg(path)), PATIENCE)
}

/// Mounts, fills the kernel's caches, and kills the process that serves it.
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
    assert!(said.contains("if that was killed"), "{said}");
    assert!(!is_mounted(old.root()));
    unmount(&world, old.root()).refused(Exit::NotMounted.code());
}

#[test]
fn all_commands_say_of_a_mount_that_no_process_serves_it_any_more() {
    let world = World::new(&["alice"]);
    let old = stale(&world);
    let place = old.root().to_str().unwrap().to_owned();
    let says = format!(
        "{place}: no process serves this mount any more; mount there again, or remove it with: xfer \
         unmount {place}"
    );
    for name in ["status", "sync"] {
        for inside in ["", "/inbox"] {
            let mut command = Command::new(program("xfer"));
            let command = world.at_home(command.arg(name).arg(format!("{place}{inside}")));
            let line = run_within(command, PATIENCE).refused(Exit::NotMounted.code());
            assert!(line.contains(&says), "{line}");
        }
    }
    let line = unmount(&world, &old.path("inbox")).refused(Exit::NotMounted.code());
    assert!(line.contains(&says), "{line}");
    let all = || {
        let mut command = Command::new(program("xfer"));
        run_within(world.at_home(command.arg("status")), PATIENCE).succeeded().stderr
    };
    assert!(all().contains(&says), "{}", all());
    unmount(&world, old.root()).succeeded();
    assert!(!all().contains(&place));
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

/// A FUSE mount without a process.
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
    // At once, while the system may still be ending the process.
    world.mounting("alice").arg("--takeover").in_background().succeeded();
    wait_until("the new mount", PATIENCE, || fs::read_dir(mount.root()).is_ok());
    unmount(&world, mount.root()).succeeded();
}

/// A process in its own mount namespace, with a copy of each mount.
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

    /// Runs a shell script in the namespace.
    fn shell(&self, script: &str) -> Finished {
        let mut command = Command::new("bash");
        self.run(command.args(["-c", script]))
    }

    /// Runs a command in the namespace.
    fn run(&self, command: &Command) -> Finished {
        let mut inside = Command::new("nsenter");
        inside.args(["-m", "-t", &self.0.id().to_string()]);
        run_within(run_by(&mut inside, command), PATIENCE)
    }

    /// Runs `xfer` in the namespace.
    fn xfer(&self, world: &World, name: &str, place: &Path) -> Finished {
        let mut command = Command::new(program("xfer"));
        self.run(world.at_home(command.arg(name).arg(place)))
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
    mount_tmpfs("over", mount.root());
    let line = unmount(&world, mount.root()).refused(Exit::Other.code());
    assert!(line.contains("over (tmpfs) is mounted over it"), "{line}");
    rustix::mount::unmount(mount.root(), rustix::mount::UnmountFlags::empty()).unwrap();
    mount.unmount();
}

fn mount_tmpfs(source: &str, place: &Path) {
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(source, place, "tmpfs", flags, None).unwrap();
}

fn detach(place: &Path) {
    rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// Waits for output of a process that may have ended since.
fn said(mount: &Mount, text: &str) {
    wait_until(text, PATIENCE, || mount.said().contains(text));
}

#[test]
fn a_signal_takes_away_no_mount_that_covers_the_one_that_ends() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    mount.shell("echo kept > file");
    mount_tmpfs("theirs", mount.root());
    let used = mount.path("used");
    fs::write(&used, "x").unwrap();
    let open = fs::File::open(&used).unwrap();
    mount.signal(Signal::TERM);
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    said(&mount, "theirs (tmpfs) is mounted over it; unmount that first");
    assert_eq!(fs::read_to_string(&used).unwrap(), "x");
    drop(open);
    detach(mount.root());
    unmount(&world, mount.root()).succeeded();
    assert!(!is_mounted(mount.root()));
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat file"), "kept");
    mount.unmount();
}

#[test]
fn a_signal_that_takes_away_what_is_mounted_in_the_mount_names_it() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    mount.shell("mkdir d");
    mount_tmpfs("theirs", &mount.path("d"));
    let line = mount.xfer("unmount", &[]).refused(Exit::Other.code());
    let named = format!("theirs (tmpfs) is mounted in it: {}", mount.path("d").display());
    assert!(line.contains(&named), "{line}");
    mount.signal(Signal::TERM);
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    said(&mount, "together with theirs (tmpfs)");
    assert!(!is_mounted(mount.root()) && !is_mounted(&mount.path("d")));
    world.mount("alice").unmount();
}

#[test]
fn a_stale_mount_on_which_another_is_mounted_is_left_alone_and_that_is_named() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    mount.shell("mkdir d");
    mount_tmpfs("theirs", &mount.path("d"));
    mount.signal(Signal::KILL);
    mount.ended();
    let mounting = world.mounting("alice").arg("--takeover").in_background();
    let removing = unmount(&world, mount.root());
    for line in
        [mounting.refused(Exit::MountPointBusy.code()), removing.refused(Exit::Other.code())]
    {
        let named = format!("theirs (tmpfs) is mounted in it: {}", mount.path("d").display());
        assert!(line.contains(&named), "{line}");
    }
    assert!(is_mounted(&mount.path("d")));
    detach(&mount.path("d"));
    unmount(&world, mount.root()).succeeded();
}

#[test]
fn what_is_mounted_over_a_directory_on_the_way_is_not_taken_away_either() {
    let world = World::new(&["alice"]);
    let parent = world.outside().join("parent");
    let place = parent.join("m");
    fs::create_dir_all(&place).unwrap();
    let mut mount = world.mounting("alice").at(&place).start();
    mount_tmpfs("over", &parent);
    fs::create_dir(&place).unwrap();
    mount_tmpfs("theirs", &place);
    mount.signal(Signal::TERM);
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    said(&mount, "theirs (tmpfs) is mounted over it");
    detach(&place);
    detach(&parent);
    unmount(&world, &place).succeeded();
    assert!(!is_mounted(&place));
}

#[test]
fn namespaces_can_have_different_mounts_at_the_same_place() {
    let world = World::new(&["alice", "bob"]);
    let other = Namespace::new();
    let place = world.mount_point("place");
    other.run(&world.mounting("alice").at(&place).command()).succeeded();
    other.shell(&format!("echo hers > '{}/whose'", place.display())).succeeded();
    let mut mount = world.mounting("bob").at(&place).start();
    mount.shell("echo his > whose");
    let shown = mount.xfer("status", &[]).succeeded().stdout;
    assert!(shown.contains("bob@"), "{shown}");
    let shown = other.xfer(&world, "status", &place).succeeded().stdout;
    assert!(shown.contains("alice@"), "{shown}");
    unmount(&world, &place).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    assert_eq!(other.shell(&format!("cat '{}/whose'", place.display())).stdout, "hers\n");
    // Nothing is mounted here now, so this refers to the mount in the namespace.
    unmount(&world, &place).succeeded();
    assert_ne!(other.shell(&format!("mountpoint -q '{}'", place.display())).code, Some(0));
}

#[test]
fn a_mount_that_was_moved_is_found_where_it_is_and_its_old_place_is_free() {
    let world = World::new(&["alice", "bob"]);
    let other = Namespace::new();
    let (old, new) = (world.mount_point("old"), world.mount_point("new"));
    other.run(&world.mounting("alice").at(&old).command()).succeeded();
    other.shell(&format!("mount --move '{}' '{}'", old.display(), new.display())).succeeded();
    other.xfer(&world, "unmount", &old).refused(Exit::NotMounted.code());
    other.run(&world.mounting("bob").at(&old).command()).succeeded();
    for (place, user) in [(&old, "bob@"), (&new, "alice@")] {
        let shown = other.xfer(&world, "status", place).succeeded().stdout;
        assert!(shown.contains(user) && shown.contains(place.to_str().unwrap()), "{shown}");
    }
    for place in [&new, &old] {
        other.xfer(&world, "unmount", place).succeeded();
        assert_ne!(other.shell(&format!("mountpoint -q '{}'", place.display())).code, Some(0));
    }
}

#[test]
fn a_mount_is_found_below_a_directory_that_was_renamed() {
    let world = World::new(&["alice"]);
    let (old, new) = (world.outside().join("old"), world.outside().join("new"));
    fs::create_dir_all(old.join("m")).unwrap();
    let mut mount = world.mounting("alice").at(&old.join("m")).start();
    fs::rename(&old, &new).unwrap();
    unmount(&world, &new.join("m")).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    assert!(!is_mounted(&new.join("m")));
}

#[test]
fn a_copy_that_outlives_its_mount_is_removed_without_a_false_word_of_loss() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let copy = world.mount_point("copy");
    rustix::mount::mount_bind(mount.root(), &copy).unwrap();
    unmount(&world, &copy).refused(Exit::NotMounted.code());
    mount.xfer("unmount", &[]).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    let said = unmount(&world, &copy).succeeded().stderr;
    assert!(said.contains("if that was killed"), "{said}");
    assert!(!is_mounted(&copy));
}

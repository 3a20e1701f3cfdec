//! Changes that do not reach the server: they are kept on the user's machine, and can be applied.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use xfer_tests::programs::program;
use xfer_tests::small_disk::SmallDisk;
use xfer_tests::snapshot::{assert_same, snapshot_without_times};
use xfer_tests::world::write_secret;
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, run_within, scale, shell, wait_until};

/// How often random changes are rescued.
const ROUNDS: usize = 4;

/// The number of random changes before, and after, the server is gone.
const CHANGES: usize = 60;

/// Abandons a mount whose server does not answer.
fn abandon(mount: Mount) {
    let place = mount.root().to_owned();
    mount.xfer("unmount", &["--abandon"]).succeeded();
    wait_until("the mount to go", PATIENCE, || !xfer_tests::mount::is_mounted(&place));
}

/// Changes that each make something else of the tree that `make_tree` makes.
const SCRIPT: &str = "
    echo new > new; mkdir -p made/deep; echo deep > made/deep/file; ln -s new link; ln new other
    echo more >> grows; echo short > overwritten; truncate -s 3 cut; rm removed; rm -r tree/gone
    mv moved tree/moved; mv tree renamed; chmod 750 renamed; cp copied copy
    printf XX | dd of=big bs=1 seek=700000 conv=notrunc status=none
    echo saved > .saved.tmp; mv .saved.tmp saved; setfattr -n user.colour -v blue attributed";

fn make_tree(directory: &Path) {
    shell(
        directory,
        "echo 1 > grows; seq 1000 > overwritten; seq 1000 > cut; echo x > removed; echo m > moved
         mkdir -p tree/gone tree/sub; echo y > tree/gone/file; echo z > tree/sub/file
         seq 5000 > copied; head -c 1000000 /dev/zero > big; echo old > saved; echo > attributed
         head -c 3000000 /dev/urandom > unread; mkdir -p -m 700 inbox outbox",
    );
}

#[test]
fn the_changes_of_an_abandoned_mount_are_kept_and_can_be_applied() {
    let mut world = World::new(&["alice"]);
    let reference = world.outside();
    let mount = world.mount("alice");
    for directory in [mount.root(), &reference] {
        make_tree(directory);
    }
    shell(&reference, &format!("cp unread '{}'", mount.path("unread").display()));
    mount.unmount();
    let mount = world.mount("alice");
    // Names that were looked up are known without the server.
    mount.shell("find . > /dev/null; cat copied big grows overwritten cut > /dev/null");
    world.server.kill();
    for directory in [mount.root(), &reference] {
        shell(directory, SCRIPT);
    }
    // A program that waits for the server does not hold it up.
    let mut waits = Command::new("cat").arg(mount.path("unread")).spawn().unwrap();
    abandon(mount);
    assert!(!waits.wait().unwrap().success());
    let name = world.only_rescue();
    let shown = world.rescue(&["show", &name]).succeeded().stdout;
    for line in [
        "  new: new file; 4 B; also named other",
        "  removed: removed",
        "  renamed: moved from tree",
        "  big: only bytes 700000-700001",
        "  link: new symbolic link; to new",
        "  cut: cut to 3 B",
        "because  given up",
    ] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
    // What else lies there does not hide it.
    let rescues = world.home().join(".local/state/xfer/rescue");
    fs::create_dir(rescues.join("lost+found")).unwrap();
    let unfinished = format!(".{name}-2");
    fs::create_dir_all(rescues.join(&unfinished).join("files")).unwrap();
    let listed = world.rescue(&["list"]).succeeded().stdout;
    let lines: Vec<_> = listed.lines().collect();
    let line = format!("{unfinished}  unfinished, since its writer was killed");
    assert!(lines.len() == 2 && lines[0].starts_with(&line), "{listed}");
    assert!(lines[1].starts_with(&name), "{listed}");
    let writer = File::open(rescues.join(&unfinished)).unwrap();
    flock(&writer, FlockOperation::LockExclusive).unwrap();
    world.rescue(&["drop", &unfinished]).refused(1);
    world.rescue(&["drop", "--unapplied", &unfinished]).refused(1);
    drop(writer);
    for other in ["lost+found", ".", "..", "", "../rescue"] {
        world.rescue(&["drop", "--unapplied", other]).refused(1);
    }
    world.rescue(&["drop", "--unapplied", &unfinished]).succeeded();
    world.server.restart();
    // Without a mount there is nowhere to apply it.
    world.rescue(&["apply", &name]).refused(13);
    let mount = world.mount("alice");
    let said = mount.said();
    assert!(said.contains("kept on this machine; see: xfer rescue list"), "{said}");
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(status.contains("rescues        1; see: xfer rescue list"), "{status}");
    let applied = world.rescue(&["apply", &name]).succeeded();
    assert_eq!(applied.stderr, "", "{applied:?}");
    assert_same(&snapshot_without_times(&reference), &snapshot_without_times(mount.root()));
    // Again, it does nothing.
    fs::write(mount.path("new"), "newer").unwrap();
    world.rescue(&["apply", &name]).succeeded();
    assert_eq!(fs::read_to_string(mount.path("new")).unwrap(), "newer");
    world.rescue(&["drop", &name]).succeeded();
    assert_eq!(world.rescue(&["list"]).succeeded().stdout, "nothing was rescued\n");
    world.rescue(&["show", &name]).refused(1);
    mount.unmount();
}

#[test]
fn what_may_be_the_only_copy_is_not_dropped_unless_that_is_said() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("ls");
    world.server.kill();
    mount.shell("echo a > a; echo b > b");
    abandon(mount);
    world.server.restart();
    let name = world.only_rescue();
    let path = world.home().join(".local/state/xfer/rescue").join(&name);
    let refused = |name: &str, why: &str| {
        let line = world.rescue(&["drop", name]).refused(1);
        let how = format!("to drop it all the same: xfer rescue drop --unapplied '{name}'");
        assert!(line.contains(why) && line.contains(&how), "{line}");
        assert_eq!(world.rescue(&["list"]).succeeded().stdout.lines().count(), 1);
    };
    refused(&name, "2 of 2 items are not applied");
    let contents = fs::read(path.join("rescue.json")).unwrap();
    fs::write(path.join("rescue.json"), "{").unwrap();
    refused(&name, "cannot be read");
    let unfinished = format!(".{name}");
    fs::rename(&path, path.with_file_name(&unfinished)).unwrap();
    refused(&unfinished, "it is unfinished");
    fs::rename(path.with_file_name(&unfinished), &path).unwrap();
    fs::write(path.join("rescue.json"), contents).unwrap();
    world.rescue(&["drop", "--unapplied", &name]).succeeded();
    assert_eq!(world.rescue(&["list"]).succeeded().stdout, "nothing was rescued\n");
}

#[test]
fn a_rescue_that_is_applied_is_no_longer_pointed_to() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("ls");
    world.server.kill();
    mount.shell("echo text > file");
    abandon(mount);
    world.server.restart();
    let points = |mount: &Mount| {
        let status = mount.xfer("status", &[]).succeeded().stdout;
        (mount.said().contains("xfer rescue list"), status.contains("xfer rescue list"))
    };
    let mount = world.mount("alice");
    assert_eq!(points(&mount), (true, true));
    let name = world.only_rescue();
    world.rescue(&["apply", &name]).succeeded();
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(points(&mount), (false, false), "{}", mount.said());
    let list = world.home().join(".local/state/xfer/rescue").join(&name).join("rescue.json");
    fs::write(list, "{").unwrap();
    let status = mount.xfer("status", &[]).succeeded().stdout;
    assert!(status.contains("xfer rescue list"), "{status}");
    mount.unmount();
}

#[test]
fn thousands_of_files_and_one_that_is_too_large_for_this_disk_are_rescued() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir many; ls . many");
    mount.sync();
    world.server.kill();
    mount.shell("for i in $(seq 1500); do echo $i > many/f$i; done");
    // Beyond what most filesystems hold.
    File::create(mount.path("huge")).unwrap().set_len(15 << 40).unwrap();
    abandon(mount);
    world.server.restart();
    let mount = world.mount("alice");
    let name = world.only_rescue();
    world.rescue(&["apply", &name]).succeeded();
    assert_eq!(mount.shell("cat many/f* | sort -n | md5sum"), mount.shell("seq 1500 | md5sum"));
    mount.unmount();
}

#[test]
fn what_does_not_fit_where_rescues_are_kept_is_kept_elsewhere() {
    let mut world = World::new(&["alice"]);
    let (state, spare) = (world.home().join(".local/state"), world.outside().join("spare"));
    fs::create_dir_all(&state).unwrap();
    let at = state.display().to_string();
    shell(Path::new("/"), &format!("mount -t tmpfs -o size=128k,mode=700 tmpfs '{at}'"));
    let mount = world.mounting("alice").env("XFER_SPARE_RESCUES", spare.to_str().unwrap()).start();
    mount.shell("ls");
    world.server.kill();
    fs::write(mount.path("file"), vec![7; 1 << 20]).unwrap();
    abandon(mount);
    world.server.restart();
    let mount = world.mount("alice");
    let rescue = |arguments: &[&str]| {
        let mut command = Command::new(program("xfer"));
        let command = command.arg("rescue").args(arguments).env("XFER_SPARE_RESCUES", &spare);
        run_within(world.at_home(command), PATIENCE).succeeded().stdout
    };
    let listed = rescue(&["list"]);
    let name = listed.split("  ").next().unwrap();
    assert!(rescue(&["show", name]).contains(spare.to_str().unwrap()), "{listed}");
    rescue(&["apply", name]);
    assert!(fs::read(mount.path("file")).unwrap() == vec![7; 1 << 20]);
    rescue(&["drop", name]);
    assert_eq!(rescue(&["list"]), "nothing was rescued\n");
    mount.unmount();
    shell(Path::new("/"), &format!("umount -l '{at}'"));
}

#[test]
fn a_mount_whose_changes_can_not_be_kept_stays_and_if_it_must_go_what_fits_is_kept() {
    let mut world = World::new(&["alice"]);
    let state = world.home().join(".local/state");
    fs::create_dir_all(&state).unwrap();
    let disk = SmallDisk::at(&state, "1m");
    let spare = state.join("spare");
    let mounting = world.mounting("alice").env("XFER_SPARE_RESCUES", spare.to_str().unwrap());
    let mut mount = mounting.arg("-o").arg("wait=1").start();
    mount.shell("ls");
    world.server.kill();
    fs::write(mount.path("small"), "fits").unwrap();
    fs::write(mount.path("large"), vec![7; 4 << 20]).unwrap();
    for options in [&[][..], &["--abandon"]] {
        let line = mount.xfer("unmount", options).refused(1);
        assert!(line.contains("cannot be kept: a rescue needs 4."), "{line}");
    }
    assert_eq!(fs::read_to_string(mount.path("small")).unwrap(), "fits");
    // The kernel does not ask.
    mount.shell("cd / && umount \"$OLDPWD\"");
    assert_eq!(mount.ended(), Some(14));
    assert!(mount.said().contains("except what is lost: "), "{}", mount.said());
    world.server.restart();
    let mount = world.mount("alice");
    world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert_eq!(fs::read_to_string(mount.path("small")).unwrap(), "fits");
    mount.unmount();
    drop((world, disk));
}

#[test]
fn what_a_mount_has_whose_account_is_closed_to_it_meanwhile_is_rescued() {
    for closing in ["passwd", "remove"] {
        let mut world = World::new(&["alice", "bob"]);
        let mut mount = world.mounting("alice").arg("-o").arg("wait=1").start();
        mount.shell("ls");
        world.server.kill();
        fs::write(mount.path("file"), closing).unwrap();
        let secret = world.outside().join("secret");
        write_secret(&secret, "another one");
        let secret = secret.to_str().unwrap();
        let command = match closing {
            "passwd" => vec!["user", "passwd", "alice", "--password-file", secret],
            _ => vec!["user", "remove", "alice", "--yes"],
        };
        world.server.command(&command).succeeded();
        world.server.restart();
        mount.says("what is not on the server is kept in");
        let shown = world.rescue(&["show", &world.only_rescue()]).succeeded().stdout;
        assert!(shown.contains("  file: new file; 6 B"), "{closing}: {shown}");
        assert_eq!(mount.xfer("unmount", &[]).code, Some(14), "{closing}");
        assert_eq!(mount.ended(), Some(14), "{closing}");
    }
}

#[test]
fn a_command_that_waits_for_changes_says_where_they_are_if_another_mount_has_displaced_them() {
    for ending in ["unmount", "sync", "a signal"] {
        let world = World::new(&["alice"]);
        let relay = Relay::to(world.server.address);
        let mounting = || world.mounting("alice").arg("-o").arg("handoff");
        let mut mount = mounting().through(relay.address).start();
        mount.shell("ls");
        relay.cut();
        mount.shell("echo mine > mine");
        let elsewhere = world.outside().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let other = mounting().at(&elsewhere).arg("--takeover").start();
        other.shell("echo theirs > theirs; sync theirs");
        relay.mend();
        wait_until("it to learn that", PATIENCE, || {
            mount.xfer("status", &[]).succeeded().stdout.contains("dormant")
        });
        let line = match ending {
            "a signal" => {
                mount.signal(Signal::TERM);
                assert_eq!(mount.ended(), Some(14));
                mount.said()
            }
            command => mount.xfer(command, &[]).refused(14),
        };
        let place = world.home().join(".local/state/xfer/rescue").join(world.only_rescue());
        let kept = format!("what is not on the server is kept in {}", place.display());
        assert!(line.contains(&kept), "{ending}: {line}");
        match ending {
            // It goes on, and nothing more is missing.
            "sync" => mount.unmount(),
            _ => assert_eq!(mount.ended(), Some(14), "{ending}"),
        }
        other.unmount();
    }
}

#[test]
fn what_others_changed_since_is_not_overwritten_by_a_rescue() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo 1 > both; echo 1 > mine; head -c 1000000 /dev/zero > big; echo 1 > removed");
    mount.sync();
    mount.shell("find . > /dev/null");
    world.server.kill();
    mount.shell("echo mine > both; echo mine > mine; echo mine > new; rm removed");
    mount.shell("printf XX | dd of=big bs=1 seek=700000 conv=notrunc status=none");
    world.server.restart();
    wait_until("the session to go on", PATIENCE, || mount.xfer("sync", &[]).code == Some(0));
    // What the server has by now is the base of what follows.
    mount.shell("echo 1 > both; echo 1 > removed; rm new; printf YY > big");
    mount.sync();
    world.server.kill();
    mount.shell("echo mine > both; echo mine > mine; echo mine > new; rm removed; printf X >> big");
    let long = "n".repeat(255);
    fs::write(mount.path(&long), "mine").unwrap();
    // The session goes on by itself, unless another mount has taken the account over before. So
    // the first mount does not run meanwhile.
    mount.signal(Signal::STOP);
    world.server.restart();
    let elsewhere = world.outside().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let other = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    other.shell("echo theirs > both; echo theirs > new; echo theirs > removed; echo theirs > big");
    fs::write(other.path(&long), "theirs").unwrap();
    other.unmount();
    mount.signal(Signal::CONT);
    wait_until("the rest to be kept", PATIENCE, || mount.said().contains("kept in"));
    let name = world.only_rescue();
    let applied = world.rescue(&["apply", &name]);
    assert_eq!(applied.code, Some(1));
    for line in ["both: it has changed", "removed: it was to be removed", "big: it has changed"] {
        assert!(applied.stderr.contains(line), "{line} is not in:\n{}", applied.stderr);
    }
    let read = |name: &str| fs::read_to_string(mount.path(name)).unwrap();
    for name in ["both", "new", "removed", "big"] {
        assert_eq!(read(name), "theirs\n");
    }
    assert_eq!((read("both.rescued"), read("new.rescued")), ("mine\n".into(), "mine\n".into()));
    assert_eq!(read("mine"), "mine\n");
    assert_eq!((&*read(&long), &*read(&format!("{}.rescued", &long[8..]))), ("theirs", "mine"));
    // What was put beside is applied.
    assert_eq!(world.rescue(&["apply", &name]).code, Some(1));
    assert!(!mount.path("both.rescued-1").exists());
    mount.unmount();
}

#[test]
fn random_changes_that_are_rescued_and_applied_give_the_tree_that_they_were_made_for() {
    for _ in 0..scale::count("XFER_RESCUES", ROUNDS) {
        let seed = Random::seed();
        let mut world = World::new(&["alice"]);
        let reference = world.outside();
        shell(&reference, "mkdir -m 700 inbox outbox");
        let mount = world.mount("alice");
        let sides = [mount.root().to_owned(), reference.clone()];
        let mut random = Random::new(seed);
        (0..CHANGES).for_each(|_| change(&mut random, &sides));
        mount.sync();
        mount.shell("find . -type f -exec cat '{}' ';' > /dev/null");
        world.server.kill();
        (0..CHANGES).for_each(|_| change(&mut random, &sides));
        let before = snapshot_without_times(&reference);
        assert_same(&before, &snapshot_without_times(mount.root()));
        abandon(mount);
        world.server.restart();
        let mount = world.mount("alice");
        let name = world.only_rescue();
        let applied = world.rescue(&["apply", &name]);
        let shown = world.rescue(&["show", &name]).stdout;
        assert_eq!(applied.stderr, "", "seed {seed}: {shown}");
        assert_same(&before, &snapshot_without_times(mount.root()));
        mount.unmount();
    }
}

/// Makes a random change in both directories. It may fail, but then in both.
fn change(random: &mut Random, sides: &[PathBuf; 2]) {
    let mut path = || {
        let directory = *random.pick(&["", "", "d1/", "d2/", "d1/e/"]);
        format!("{directory}{}", random.pick(&["a", "b", "c", "f"]))
    };
    let (one, other) = (path(), path());
    let (what, at) = (random.below(12), random.below(200_000));
    let size = 1 + random.below(20_000) as usize;
    let bytes = random.bytes(size);
    let done = sides.each_ref().map(|side| {
        let (one, other) = (side.join(&one), side.join(&other));
        let result = match what {
            0 => fs::create_dir_all(side.join(["d1", "d2", "d1/e"][at as usize % 3])),
            1 => fs::write(&one, &bytes),
            2 => fs::remove_file(&one),
            3 | 4 => fs::rename(&one, &other),
            5 => symlink("a", &one),
            6 => fs::hard_link(&one, &other),
            7 => OpenOptions::new().write(true).open(&one).and_then(|file| file.set_len(at)),
            8 => fs::set_permissions(&one, fs::Permissions::from_mode(0o600 + at as u32 % 64)),
            9 => fs::copy(&one, &other).map(|_| ()),
            10 => fs::rename(side.join("d2"), side.join("d3"))
                .and_then(|()| fs::rename(side.join("d3"), side.join("d2"))),
            _ => File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&one)
                .and_then(|file| file.write_all_at(&bytes, at)),
        };
        result.map_err(|error| error.kind())
    });
    assert_eq!(done[0], done[1], "{what} {one} {other}");
}

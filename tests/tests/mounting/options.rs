//! The words of `-o`, and mount(8) with its fstab, as users know them from other filesystems.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use xfer_tests::programs::{Finished, program, run_within};
use xfer_tests::{Mount, PATIENCE, Relay, World, shell};

fn with_options(world: &World, options: &str) -> Mount {
    world.mounting("alice").arg("-o").arg(options).start()
}

/// The flags, type and source of a mount in the kernel's table.
fn mount_line(mount: &Mount) -> (Vec<String>, String, String) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mount.root().to_str().unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(root)).unwrap();
    let (front, back) = line.split_once(" - ").unwrap();
    let enforced = front.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect();
    let mut back = back.split(' ').map(str::to_owned);
    (enforced, back.next().unwrap(), back.next().unwrap())
}

#[test]
fn a_mount_is_of_type_fuse_xfer_and_its_source_is_the_account() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let (_, kind, source) = mount_line(&mount);
    assert_eq!((kind, source), ("fuse.xfer".into(), format!("alice@{}", world.server.address)));
    mount.unmount();
    let mount = with_options(&world, "fsname=archive");
    assert_eq!(mount_line(&mount).2, "archive");
    mount.unmount();
}

#[test]
fn copies_that_keep_owners_work_in_a_mount_by_root() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(source.join("file"), Some(1234), Some(2345)).unwrap();
    let mount = world.mount("alice");
    let from = source.display();
    mount.shell(&format!("cp -a '{from}' cp && cp -p '{from}/file' cp-p"));
    mount.shell(&format!("mkdir tar && tar -C '{from}' -c . | tar -C tar -xp"));
    mount.shell(&format!("rsync -a '{from}/' rsync"));
    for copy in ["cp/file", "cp-p", "tar/file", "rsync/file"] {
        let meta = fs::metadata(mount.path(copy)).unwrap();
        let shown = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        assert_eq!(shown, (1234, 2345, 0o644), "{copy}");
    }
    mount.unmount();
}

#[test]
fn owners_and_permissions_are_shown_as_the_options_say() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("file"), "x").unwrap();
    fs::set_permissions(mount.path("file"), fs::Permissions::from_mode(0o666)).unwrap();
    mount.shell("mkdir -m 777 directory");
    chown(mount.path("file"), Some(1234), Some(2345)).unwrap();
    mount.unmount();
    for (options, expected, of_directory) in [
        ("ids=stored", (1234, 2345, 0o666), 0o777),
        ("ids=mounter", (0, 0, 0o666), 0o777),
        ("uid=77", (77, 0, 0o666), 0o777),
        ("uid=77,gid=88,umask=027", (77, 88, 0o640), 0o750),
        ("umask=077,fmask=0133", (1234, 2345, 0o644), 0o700),
        ("fmask=0133,dmask=0077", (1234, 2345, 0o644), 0o700),
    ] {
        let mount = with_options(&world, options);
        let meta = fs::metadata(mount.path("file")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), expected, "{options}");
        let listed = mount.shell("ls -ln file | cut -d' ' -f3,4");
        assert_eq!(listed, format!("{} {}", expected.0, expected.1), "{options}");
        let directory = fs::metadata(mount.path("directory")).unwrap().mode() & 0o7777;
        assert_eq!(directory, of_directory, "{options}");
        mount.unmount();
    }
}

#[test]
fn what_the_kernel_enforces_is_what_the_options_say() {
    let world = World::new(&["alice"]);
    let has = |mount: &Mount, word: &str| mount_line(mount).0.iter().any(|has| has == word);
    let mount = with_options(&world, "noexec,lazytime,strictatime,defaults");
    mount.shell("printf '#!/bin/sh\n' > script && chmod +x script");
    let refused = Command::new(mount.path("script")).output().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    mount.unmount();
    let mount = with_options(&world, "suid,dev");
    assert!(!has(&mount, "nosuid") && !has(&mount, "nodev"));
    mount.unmount();
    let mount = world.mount("alice");
    assert!(has(&mount, "nosuid") && has(&mount, "nodev") && has(&mount, "rw"));
    mount.unmount();
}

#[test]
fn on_a_sync_mount_a_change_is_answered_once_it_is_durable() {
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    let mounting = world.mounting("alice").through(relay.address);
    let mount = mounting.arg("-o").arg("sync").start();
    for change in ["mkdir dir", "echo x > file", "mv file other", "chmod 600 other", "rm other"] {
        let root = mount.root().to_owned();
        relay.answers_are_waited_for(change, move || shell(&root, change));
    }
    mount.unmount();
}

/// Remounts with new options.
fn remount(world: &World, options: &str, place: &str) -> Finished {
    let mut command = Command::new(program("xfer-mount"));
    command.args(["-o", &format!("remount,{options}"), "alice@127.0.0.1", place]);
    run_within(world.at_home(&mut command), PATIENCE)
}

#[test]
fn remounting_changes_what_the_kernel_enforces_and_only_of_an_xfer_mount() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("file"), "x").unwrap();
    let root = mount.root().to_str().unwrap();
    remount(&world, "ro", root).succeeded();
    assert!(fs::write(mount.path("file"), "y").is_err());
    remount(&world, "rw,noexec", root).succeeded();
    fs::write(mount.path("file"), "y").unwrap();
    assert!(mount_line(&mount).0.iter().any(|word| word == "noexec"));
    assert!(mount_line(&mount).0.iter().any(|word| word == "nosuid"));
    assert!(remount(&world, "ro", "/proc").refused(13).contains("not an xfer mount"));
    mount.unmount();
}

#[test]
fn remounting_changes_only_what_is_asked_for() {
    let world = World::new(&["alice"]);
    let mount = with_options(&world, "noexec,suid,sync");
    let root = mount.root().to_str().unwrap();
    let kept = ["noexec", "nodev", "noatime", "sync"];
    for (asked, is_read_only) in [("ro", true), ("nodev", true), ("rw", false)] {
        remount(&world, asked, root).succeeded();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some(root)).unwrap();
        let words: Vec<_> = line.split([' ', ',']).collect();
        assert!(kept.iter().all(|word| words.contains(word)), "{asked}: {line}");
        assert!(!words.contains(&"nosuid"), "{asked}: {line}");
        assert_eq!(words.contains(&"ro"), is_read_only, "{asked}: {line}");
    }
    remount(&world, "exec,dev,nosuid", root).succeeded();
    let enforced = mount_line(&mount).0;
    let has = |word: &str| enforced.iter().any(|has| has == word);
    assert!(!has("noexec") && !has("nodev") && has("nosuid"), "{enforced:?}");
    mount.unmount();
}

#[test]
fn mount_and_fstab_find_their_helper_and_its_options() {
    let world = World::new(&["alice"]);
    let place = world.mount_point("alice");
    let place = place.display();
    let account = format!("alice@{}", world.server.address);
    let password = world.password_file("alice");
    let options = format!(
        "password_file={},fingerprint={},noexec,_netdev",
        password.display(),
        world.server.fingerprint
    );
    let use_it = format!(
        "echo by hand > '{place}/file' && findmnt -n -o FSTYPE,SOURCE '{place}' && umount '{place}'"
    );
    let by_hand = format!("mount -v -t fuse.xfer -o '{options}' '{account}' '{place}' && {use_it}");
    let finished = world.machine().run(&by_hand).succeeded();
    assert!(finished.stdout.contains(&format!("fuse.xfer {account}")), "{finished}");
    let table = world.outside().join("fstab");
    fs::write(&table, format!("{account} {place} fuse.xfer {options} 0 0\n")).unwrap();
    let remounted = format!("mount -o remount,ro '{place}' && fails touch '{place}/new'");
    let by_table = format!(
        "until mount --fstab '{}' '{place}'; do sleep 0.1; done
         cat '{place}/file' && {remounted} && umount '{place}'",
        table.display()
    );
    let finished = world.machine().run(&by_table).succeeded();
    assert!(finished.stdout.contains("by hand"), "{finished}");
}

#[test]
fn a_mount_that_fails_ends_as_mount_documents() {
    let world = World::new(&["alice"]);
    let place = world.mount_point("alice");
    let mount = |options: &str| {
        let script =
            format!("mount -t fuse.xfer -o {options} alice@127.0.0.1:1 '{}'", place.display());
        world.machine().run(&script)
    };
    let refused = mount("password_file=/dev/null");
    assert_eq!(refused.code, Some(32), "{refused}");
    assert!(refused.stderr.contains("is xfer-server running there"), "{refused}");
    let wrong = mount("shiny");
    assert_eq!(wrong.code, Some(1), "{wrong}");
    assert!(wrong.stderr.contains("unknown option 'shiny'"), "{wrong}");
}

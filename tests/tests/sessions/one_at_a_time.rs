//! Sessions and passwords: one mount for each account, takeovers, and blocks.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use xfer_mount::process::exit::Exit;
use xfer_protocol::Name;
use xfer_store::embedded::SqliteStore;
use xfer_tests::files::errno;
use xfer_tests::programs::{Running, program};
use xfer_tests::world::write_secret;
use xfer_tests::{PATIENCE, World, by_hand, wait_until};

#[test]
fn a_second_mount_is_refused_and_says_where_the_first_is() {
    let world = World::new(&["alice"]);
    let first = world.mount("alice");
    let elsewhere = world.mount_point("elsewhere");
    let refused = world.mounting("alice").at(&elsewhere).in_background();
    let line = refused.refused(Exit::InUse.code());
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap();
    assert!(line.contains(&format!("the account is in use on {host} (127.0.0.1")), "{line}");
    assert!(line.contains("since 20") && line.contains("--takeover"), "{line}");
    fs::write(first.path("still-works"), "").unwrap();
    first.unmount();
    world.mounting("alice").at(&elsewhere).start().unmount();
}

#[test]
fn a_login_whose_client_never_spoke_keeps_nobody_out() {
    let world = World::new(&["alice"]);
    let (alice, home) = (Name::new(b"alice").unwrap(), world.outside());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let password = fs::read(world.password_file("alice")).unwrap().trim_ascii().to_vec();
    for is_closed in [true, false] {
        let login = by_hand::login_with(password.clone(), &world.server, &alice, &home);
        let login = runtime.block_on(login).unwrap();
        // Its process was killed; or its network went away at that moment, of which nobody has heard.
        let kept = (!is_closed).then_some(login);
        let begin = Instant::now();
        world.mount("alice").unmount();
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        drop(kept);
    }
}

#[test]
fn a_mount_that_is_killed_while_it_begins_keeps_no_other_out() {
    let world = World::new(&["alice"]);
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        for delay_ms in (50..800).step_by(120) {
            let mut mounting = world.mounting("alice").command().arg("-f").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay_ms));
            let pid = Pid::from_child(&mounting);
            let _ = rustix::process::kill_process(pid, signal);
            mounting.wait().unwrap();
            let begin = Instant::now();
            world.mount("alice").unmount();
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(15), "{signal:?} after {delay_ms} ms: {took:?}");
        }
    }
}

#[test]
fn a_takeover_drains_the_first_mount_and_loses_nothing() {
    let world = World::new(&["alice"]);
    let mut first = world.mounting("alice").arg("-o").arg("wait=1").start();
    for index in 0..300 {
        fs::write(first.path(&format!("f{index:03}")), format!("content {index}")).unwrap();
    }
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    for index in 0..300 {
        let text = fs::read_to_string(second.path(&format!("f{index:03}"))).unwrap();
        assert_eq!(text, format!("content {index}"));
    }
    first.says("taken over by a client on");
    assert_ne!(errno(fs::write(first.path("late"), "x")), 0);
    assert_eq!(first.unmounted_by_force(), Some(0), "{}", first.said());
    second.unmount();
}

/// The errors from calls of all kinds on a path.
fn errors(path: &std::path::Path) -> Vec<i32> {
    let mut value = [0; 8];
    vec![
        errno(fs::symlink_metadata(path)),
        errno(fs::File::open(path)),
        errno(rustix::fs::statvfs(path).map_err(Into::into)),
        errno(rustix::fs::lgetxattr(path, c"user.a", &mut value).map_err(Into::into)),
    ]
}

#[test]
fn a_mount_that_was_taken_over_shows_nothing_that_another_may_have_changed() {
    let world = World::new(&["alice"]);
    let mut first = world.mounting("alice").arg("-o").arg("wait=0").start();
    first.shell(
        "mkdir -p d/e && echo old > file && echo old > d/file && ln -s target link && \
         echo open > kept && head -c 300000 /dev/zero > d/e/kept && setfattr -n user.a -v b file",
    );
    // Fill the kernel's caches: names, absent names, attributes, data, listings, link targets.
    let look =
        "cat file d/file && ls -lR && stat file d d/e && readlink link && fails ls absent d/absent";
    first.shell(&format!("{look} && {look}"));
    let mut open = fs::File::open(first.path("kept")).unwrap();
    let open_below = fs::File::open(first.path("d/e/kept")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        |path: &str| rustix::fs::open(first.path(path), flags, rustix::fs::Mode::empty());
    let (at_root, at_e) = (directory("").unwrap(), directory("d/e").unwrap());
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    second.shell("rm file && rm -r d && echo new > absent && ln -sfn other link");
    first.says("taken over by a client on");
    let names =
        ["file", "d", "d/file", "d/e", "d/e/kept", "link", "absent", "d/absent", "kept", "n"];
    for name in names {
        let path = first.path(name);
        wait_until(&format!("{name} to give errors"), PATIENCE, || {
            errors(&path).iter().all(|errno| *errno == libc::EBUSY)
        });
    }
    // It can be opened, for df(1).
    let mut listing = fs::read_dir(first.root()).unwrap();
    assert_eq!(listing.next().map(errno), Some(libc::EBUSY));
    assert_eq!(errno(fs::read_link(first.path("link"))), libc::EBUSY);
    assert_eq!(errno(fs::write(first.path("new"), "x")), libc::EBUSY);
    let stat_at = |directory, name: &str| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        errno(rustix::fs::statat(directory, name, flags).map_err(Into::into))
    };
    for name in ["file", "absent", "link"] {
        assert_eq!(stat_at(&at_root, name), libc::EBUSY, "{name}");
    }
    assert_eq!(stat_at(&at_e, "absent"), libc::EBUSY);
    // As for a program with its working directory there.
    let listed = rustix::fs::openat(&at_e, ".", flags, rustix::fs::Mode::empty());
    assert_eq!(errno(listed.map_err(Into::into)), libc::EBUSY);
    // Nor is anything shown of open files.
    let mut text = String::new();
    assert_eq!(errno(std::io::Read::read_to_string(&mut open, &mut text)), libc::EBUSY);
    assert_eq!(errno(open_below.metadata()), libc::EBUSY);
    assert_eq!(errno(open_below.sync_all()), 0);
    // The mount point itself can still be seen and unmounted.
    assert!(fs::metadata(first.root()).unwrap().is_dir());
    drop((open, open_below, at_root, at_e, listing));
    first.xfer("unmount", &[]).succeeded();
    assert_eq!(first.ended(), Some(0), "{}", first.said());
    assert_eq!(second.shell("cat absent && readlink link"), "new\nother");
    second.unmount();
}

#[test]
fn what_is_open_on_a_mount_that_was_taken_over_is_not_reached_by_any_path() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo old > file && mkdir -p dir/sub && echo old > dir/file");
    mount.unmount();
    // Everything is old to this mount.
    let mut first = world.mounting("alice").arg("-o").arg("wait=0").start();
    let names = ["file", "dir", "dir/file", "dir/sub"];
    first.shell("stat file dir dir/file dir/sub");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(first.path(path), flags, rustix::fs::Mode::empty());
    let directories = ["", "dir"].map(|path| open(path).unwrap());
    let file = fs::File::open(first.path("file")).unwrap();
    let elsewhere = world.mount_point("elsewhere");
    let second = world.mounting("alice").at(&elsewhere).arg("--takeover").start();
    second.shell("rm -r file dir");
    first.says("taken over by a client on");
    let error_of = |name: &&str| errno(fs::metadata(first.path(name)));
    for name in names {
        wait_until(&format!("{name} to give errors"), PATIENCE, || error_of(&name) == libc::EBUSY);
    }
    for directory in directories {
        let mut listed = rustix::fs::Dir::new(directory).unwrap();
        assert!(listed.next().unwrap().is_err());
        assert_eq!(names.each_ref().map(error_of), [libc::EBUSY; 4]);
    }
    assert_eq!(errno(file.metadata()), libc::EBUSY);
    drop(file);
    first.xfer("unmount", &[]).succeeded();
    assert_eq!(first.ended(), Some(0), "{}", first.said());
    second.unmount();
}

#[test]
fn a_mount_whose_session_was_ended_gives_errors_for_all_that_is_not_open() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    mount.shell("mkdir d && echo text > d/file && cat d/file && fails ls absent && ls -l d");
    mount.sync();
    world.server.command(&["session", "end", "alice"]).succeeded();
    mount.says("the session is over");
    for name in ["d", "d/file", "absent", "d/absent"] {
        let path = mount.path(name);
        wait_until(&format!("{name} to give errors"), PATIENCE, || {
            errors(&path).iter().all(|errno| *errno == libc::EIO)
        });
    }
    assert!(fs::metadata(mount.root()).unwrap().is_dir());
    mount.xfer("unmount", &[]).succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
}

#[test]
fn wrong_passwords_block_after_five_and_the_line_says_for_how_long() {
    let mut world = World::new(&["alice"]);
    let wrong = world.outside().join("wrong");
    write_secret(&wrong, "not the password");
    let try_with =
        |world: &World, file| world.mounting("alice").password_file(file).in_background();
    for _ in 0..5 {
        let line = try_with(&world, &wrong).refused(Exit::WrongPassword.code());
        assert!(line.contains("wrong user name or password"), "{line}");
    }
    let right = world.password_file("alice");
    let line = try_with(&world, &right).refused(Exit::Blocked.code());
    let (_, seconds) =
        line.split_once("blocked after too many wrong passwords; try again in ").unwrap();
    let seconds: u64 = seconds.trim_end_matches(" s").parse().unwrap();
    assert!((1..=30).contains(&seconds), "{line}");
    let listed = world.server.command(&["user", "list"]).succeeded().stdout;
    let line =
        listed.lines().find(|line| line.starts_with("alice  ") && line.contains("127.0.0.1"));
    assert!(line.is_some_and(|line| !line.contains("not blocked")), "{listed}");
    // A restart of the server does not lift the block.
    world.server.terminate();
    world.server.restart();
    try_with(&world, &right).refused(Exit::Blocked.code());
}

#[test]
fn an_unknown_user_gets_the_same_answer_as_a_wrong_password() {
    let world = World::new(&["alice"]);
    let wrong = world.outside().join("wrong");
    write_secret(&wrong, "not the password");
    let line = |user: &str| {
        let refused = world.mounting(user).password_file(&wrong).in_background();
        refused.refused(Exit::WrongPassword.code()).replace(user, "USER")
    };
    assert_eq!(line("alice"), line("nobody"));
}

#[test]
fn a_block_does_not_touch_a_mount_that_is_there() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let wrong = world.outside().join("wrong");
    write_secret(&wrong, "not the password");
    let elsewhere = world.mount_point("elsewhere");
    for _ in 0..6 {
        let tried = world.mounting("alice").at(&elsewhere).password_file(&wrong).in_background();
        assert_ne!(tried.code, Some(0));
    }
    fs::write(mount.path("file"), "x").unwrap();
    mount.sync();
    mount.unmount();
}

#[test]
fn the_admin_sees_a_session_and_can_end_it() {
    let world = World::new(&["alice", "bob"]);
    let mut mount = world.mount("alice");
    fs::write(mount.path("file"), "kept").unwrap();
    let listed = world.server.command(&["session", "list"]).succeeded().stdout;
    assert!(listed.contains("alice") && listed.contains("127.0.0.1"), "{listed}");
    assert!(!listed.contains("bob"), "{listed}");
    world.server.command(&["session", "end", "alice"]).succeeded();
    mount.says("ended by the server's administrator");
    assert_eq!(mount.unmounted_by_force(), Some(0), "{}", mount.said());
    let listed = world.server.command(&["session", "list"]).succeeded().stdout;
    assert!(!listed.contains("alice"), "{listed}");
    let mount = world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "kept");
    mount.unmount();
}

#[test]
fn a_changed_password_counts_from_the_next_login_on() {
    let world = World::new(&["alice"]);
    let new = world.outside().join("new");
    write_secret(&new, "a new password");
    let args = ["user", "passwd", "alice", "--password-file", new.to_str().unwrap()];
    world.server.command(&args).succeeded();
    world.mounting("alice").in_background().refused(Exit::WrongPassword.code());
    world.mounting("alice").password_file(&new).start().unmount();
}

#[test]
fn a_removed_account_is_gone_with_its_files() {
    let world = World::new(&["alice", "bob"]);
    let mount = world.mount("alice");
    fs::write(mount.path("file"), vec![1; 1 << 20]).unwrap();
    mount.unmount();
    world.server.command(&["user", "remove", "alice", "--yes"]).succeeded();
    world.mounting("alice").in_background().refused(Exit::WrongPassword.code());
    world.add_user("alice");
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls"), "inbox\noutbox");
    mount.unmount();
}

#[test]
fn a_smaller_quota_is_in_force_at_once() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    world.server.command(&["user", "quota", "alice", "--quota", "1MiB"]).succeeded();
    let total = || {
        let stat = rustix::fs::statvfs(mount.root()).unwrap();
        stat.f_blocks * stat.f_frsize
    };
    wait_until("the quota to arrive", PATIENCE, || total() == 1 << 20);
    let refused = fs::write(mount.path("big"), vec![1; 2 << 20]);
    assert_eq!(errno(refused), libc::EDQUOT);
    mount.unmount();
}

#[test]
fn no_password_is_ever_in_the_servers_log() {
    let world = World::new(&["alice"]);
    let wrong = world.outside().join("wrong");
    write_secret(&wrong, "not-the-password-at-all");
    world
        .mounting("alice")
        .password_file(&wrong)
        .in_background()
        .refused(Exit::WrongPassword.code());
    world.mount("alice").unmount();
    let said = world.server.said();
    assert!(!said.contains("not-the-password") && !said.contains("the password of"), "{said}");
}

#[test]
fn the_list_of_sessions_for_programs_counts_what_each_did() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let counts = || {
        let listed = world.server.command(&["session", "list", "--json"]).succeeded();
        let sessions: Value = serde_json::from_str(&listed.stdout).unwrap();
        assert_eq!((&sessions[0]["user"], &sessions[1]), (&"alice".into(), &Value::Null));
        let count = |name: &str| sessions[0]["counts"][name].as_u64().unwrap();
        [count("ops"), count("bytes_in"), count("barriers"), count("commits")]
    };
    let before = counts();
    mount.shell("head -c 100000 /dev/zero > file && sync .");
    let after = counts();
    let more: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    // Creating the file, and its data in one write or several; one barrier, and its commit.
    assert!(more[0] >= 2 && more[1] == 100_000 && more[2] >= 1 && more[3] >= 1, "{more:?}");
    mount.unmount();
}

#[test]
fn a_mount_is_refused_while_an_import_works_on_the_account_and_does_not_end_it() {
    let world = World::new(&["alice"]);
    let tree = world.outside();
    fs::write(tree.join("big"), vec![7; 200 << 20]).unwrap();
    let mut command = Command::new(program("xfer-server"));
    command.args(["import", "alice"]).arg(&tree).arg("--store").arg(world.server.store());
    let mut import = Running::start(&mut command);
    let meta = SqliteStore::open(world.server.store()).unwrap();
    let alice = Name::new(b"alice").unwrap();
    wait_until("the import to have committed something", PATIENCE, || {
        meta.account(&alice).unwrap().unwrap().usage.bytes > 0
    });
    import.signal(Signal::STOP);
    let mounted = world.mounting("alice").in_background();
    assert!(mounted.refused(Exit::InUse.code()).contains("administrator"));
    let taking = world.mounting("alice").arg("--takeover").in_background();
    assert!(taking.refused(Exit::InUse.code()).contains("administrator"));
    import.signal(Signal::CONT);
    assert_eq!(import.ended_within(PATIENCE), Some(0), "{}", import.said());
    let mount = world.mount("alice");
    assert_eq!(fs::metadata(mount.path("big")).unwrap().len(), 200 << 20);
    // The other way round.
    fs::write(mount.path("unsynced"), "x").unwrap();
    let tree = tree.to_str().unwrap();
    world.server.command(&["import", "alice", tree]).refused(12);
    world.server.command(&["export", "alice", &format!("{tree}/out")]).refused(12);
    mount.unmount();
}

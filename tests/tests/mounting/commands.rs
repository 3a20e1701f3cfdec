//! The `xfer` command, and the ways to unmount.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use xfer_mount::process::exit::Exit;
use xfer_tests::programs::{program, run_by};
use xfer_tests::pty::OnPty;
use xfer_tests::{Mount, PATIENCE, Server, World, run_within, shell, wait_until};

#[test]
fn status_shows_all_mounts_or_one_for_people_and_for_programs() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let home = alice.root().parent().unwrap().to_owned();
    let status = |args: &[&str]| {
        let mut command = Command::new(program("xfer"));
        run_within(world.at_home(command.arg("status").args(args)), PATIENCE).succeeded().stdout
    };
    let all = status(&[]);
    assert!(all.contains(alice.root().to_str().unwrap()), "{all}");
    assert!(all.contains(bob.root().to_str().unwrap()), "{all}");
    let one = alice.xfer("status", &[]).succeeded().stdout;
    assert!(one.contains("alice@") && !one.contains("bob@"), "{one}");
    let json: Value =
        serde_json::from_str(&alice.xfer("status", &["--json"]).succeeded().stdout).unwrap();
    assert!(json.to_string().contains(alice.root().to_str().unwrap()), "{json}");
    // Other tests' mounts of the same user may exist at the same time.
    let ours = |mount: &&Value| {
        mount["mountpoint"].as_str().is_some_and(|path| path.starts_with(home.to_str().unwrap()))
    };
    let count = || {
        let json: Value = serde_json::from_str(&status(&["--json"])).unwrap();
        json.as_array().unwrap().iter().filter(ours).count()
    };
    assert_eq!(count(), 2);
    bob.unmount();
    alice.unmount();
    assert_eq!(count(), 0);
}

#[test]
fn sync_returns_when_everything_is_on_the_servers_disk() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    for index in 0..200 {
        fs::write(mount.path(&format!("f{index}")), "x").unwrap();
    }
    mount.sync();
    world.server.kill();
    drop(mount);
    world.server.restart();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls | wc -l"), "202");
    mount.unmount();
}

#[test]
fn unmounting_in_any_way_makes_everything_durable_first() {
    let mut world = World::new(&["alice"]);
    for way in ["xfer", "fusermount3", "signal"] {
        let mut mount = world.mount("alice");
        fs::write(mount.path(way), vec![1; 3 << 20]).unwrap();
        match way {
            "xfer" => drop(mount.xfer("unmount", &[]).succeeded()),
            "signal" => mount.signal(Signal::TERM),
            _ => drop(shell(
                &world.outside(),
                &format!("fusermount3 -u '{}'", mount.root().display()),
            )),
        }
        assert_eq!(mount.ended(), Some(0), "{way}: {}", mount.said());
        assert!(!mount.is_mounted(), "{way}");
        world.server.kill();
        world.server.restart();
        let mount = world.mount("alice");
        assert_eq!(fs::read(mount.path(way)).unwrap(), vec![1; 3 << 20], "{way}");
        mount.unmount();
    }
}

#[test]
fn a_mount_in_use_is_not_unmounted_and_stays_usable() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let open = fs::File::create(mount.path("open")).unwrap();
    let refused = mount.xfer("unmount", &[]);
    let line = refused.refused(Exit::Other.code());
    assert!(line.contains(&format!("(pid {})", std::process::id())), "{line}");
    fs::write(mount.path("after"), "x").unwrap();
    drop(open);
    mount.unmount();
}

#[test]
fn xfer_unmount_itself_keeps_no_mount_busy_and_a_shell_is_told_to_leave_it() {
    let world = World::new(&["alice"]);
    let xfer = program("xfer").display().to_string();
    let run = |mount: &Mount, script: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-c", script, &xfer]).arg(mount.root()).current_dir(mount.root());
        run_within(world.at_home(&mut shell), PATIENCE)
    };
    let mount = world.mount("alice");
    fs::write(mount.path("file"), "x").unwrap();
    let line = run(&mount, r#""$0" unmount "$1"; exit $?"#).refused(Exit::Other.code());
    assert!(line.contains("has a working directory there (leave it with: cd /)"), "{line}");
    assert!(line.contains("bash (pid ") && !line.contains("xfer (pid "), "{line}");
    let line = run(&mount, r#"exec 5<file; cd /; "$0" unmount "$1"; exit $?"#);
    let line = line.refused(Exit::Other.code());
    assert!(line.contains("has files open there") && !line.contains("xfer (pid "), "{line}");
    let line = run(&mount, r#"cd /; exec "$0" unmount "$1" > "$1/log""#);
    let line = line.refused(Exit::Other.code());
    assert!(line.contains("the output of this command goes into the mount"), "{line}");
    // Nothing else uses it.
    for ways in [r#"exec "$0" unmount . "#, r#"exec 5<file <file; cd /; exec "$0" unmount "$1""#] {
        run(&mount, ways).succeeded();
        wait_until("the mount to go", PATIENCE, || !mount.is_mounted());
        run_within(&mut world.mounting("alice").command(), PATIENCE).succeeded();
    }
    unmounted(&world, mount.root());
}

#[test]
fn an_unmount_that_is_interrupted_says_what_it_waited_for_and_the_mount_stays() {
    let mut world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("ls");
    world.server.kill();
    wait_until("the loss to be noticed", PATIENCE, || !mount.is_connected());
    fs::write(mount.path("before"), "before").unwrap();
    let place = mount.root().to_str().unwrap();
    for (command, way_out) in [("sync", "until Ctrl-C"), ("unmount", "xfer unmount --abandon")] {
        let mut waiting = OnPty::start(&world.xfer_command(&[command, place]));
        waiting.says("no connection to the server (lost ");
        waiting.says(way_out);
        waiting.types("\x03");
        assert_ne!(waiting.ended(), Some(0));
    }
    let table = world.xfer(&["status"]).stdout;
    assert!(table.contains(&format!("{place}: connection lost ")), "{table}");
    world.server.restart();
    wait_until("the connection", PATIENCE, || mount.is_connected());
    mount.sync();
    // Long after the unmount would have come.
    assert!(mount.is_mounted());
    fs::write(mount.path("after"), "after").unwrap();
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat before after"), "beforeafter");
    mount.unmount();
}

#[test]
fn of_two_that_mount_at_one_place_at_once_one_finds_that_the_other_has() {
    let world = World::new(&["alice", "bob"]);
    let place = world.mount_point("place");
    for round in 0..3 {
        let mounting = ["alice", "bob"].map(|user| {
            let mut command = world.mounting(user).at(&place).command();
            // Uses another environment's directory of sockets, and so sees no claim of the other.
            if round == 2 && user == "bob" {
                command.env("XDG_RUNTIME_DIR", world.outside());
            }
            std::thread::spawn(move || run_within(&mut command, PATIENCE))
        });
        let ended = mounting.map(|mounting| mounting.join().unwrap());
        let (won, lost): (Vec<_>, Vec<_>) = ended.into_iter().partition(|end| end.code == Some(0));
        assert_eq!((won.len(), lost.len()), (1, 1), "{won:?} {lost:?}");
        assert_eq!(won[0].stderr, "");
        let line = lost[0].clone().refused(Exit::MountPointBusy.code());
        assert!(line.contains("is already mounted there"), "{line}");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let there = table.lines().filter(|line| line.split(' ').nth(4) == place.to_str()).count();
        assert_eq!(there, 1);
        shell(&place, "touch usable");
        shell(&world.outside(), &format!("fusermount3 -u '{}'", place.display()));
    }
}

#[test]
fn a_mount_in_use_is_said_to_be_although_its_session_is_over() {
    let world = World::new(&["alice"]);
    let mut mount = world.mount("alice");
    let open = fs::File::create(mount.path("open")).unwrap();
    mount.sync();
    world.server.command(&["session", "end", "alice"]).succeeded();
    mount.says("the session is over");
    let line = mount.xfer("unmount", &[]).refused(Exit::Other.code());
    assert!(line.contains("busy") && line.contains(&format!("(pid {})", std::process::id())));
    drop(open);
    mount.unmount();
}

#[test]
fn in_the_background_nothing_stays_open_that_the_caller_had() {
    let world = World::new(&["alice"]);
    let place = world.mount_point("alice");
    let password = world.password_file("alice");
    let lock = world.outside().join("lock");
    // The password is read from an inherited descriptor, which must stay open until then.
    let mounting = world.mounting("alice").password_file("/dev/fd/8".as_ref()).command();
    let script = r#"exec 7>"$1" 8<"$2"; flock 7; shift 2; "$@""#;
    let mut caller = Command::new("bash");
    caller.args(["-ec", script, "bash"]).args([&lock, &password]);
    run_within(world.at_home(run_by(&mut caller, &mounting)), PATIENCE).succeeded();
    let mut locking = Command::new("flock");
    run_within(locking.arg("-n").arg(&lock).arg("true"), PATIENCE).succeeded();
    shell(&place, "touch usable");
    let mut unmounting = Command::new(program("xfer"));
    run_within(world.at_home(unmounting.arg("unmount").arg(&place)), PATIENCE).succeeded();
}

fn unmounted(world: &World, place: &Path) {
    let mut unmounting = Command::new(program("xfer"));
    run_within(world.at_home(unmounting.arg("unmount").arg(place)), PATIENCE).succeeded();
}

#[test]
fn what_is_no_mount_is_refused_with_one_line_that_says_what_it_is() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("mkdir -p a/b; ln -s a/b link");
    let link = world.outside().join("link");
    std::os::unix::fs::symlink(mount.path("a"), &link).unwrap();
    let inside = format!("not a mount, but in the xfer mount {}", mount.root().display());
    let cases = [
        (world.outside(), "not an xfer mount of this user"),
        (world.outside().join("missing"), "no such directory"),
        (world.outside().join("missing/deeper"), "no such directory"),
        (mount.path("a/b"), &inside),
        (mount.path("link"), &inside),
        (link, &inside),
    ];
    for name in ["status", "sync", "unmount"] {
        for (path, why) in &cases {
            let mut command = Command::new(program("xfer"));
            let refused = run_within(world.at_home(command.arg(name).arg(path)), PATIENCE);
            let line = refused.refused(Exit::NotMounted.code());
            assert!(line.contains(&format!("{}: {why}", path.display())), "{line}");
        }
    }
    mount.unmount();
}

#[test]
fn traces_say_how_long_the_parts_of_a_change_and_of_a_question_took() {
    let world = World::with_server(&["alice"], |store| {
        let mut server = Command::new(program("xfer-server"));
        server.env("XFER_LOG", "xfer_server=trace");
        Server::start_as(server, store, "127.0.0.1:0", &[])
    });
    let mount = world.mount("alice");
    mount.shell("echo text > file && sync .");
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat file"), "text");
    mount.unmount();
    let said = world.server.said();
    for span in ["apply_some", "commit", "contents", "rows", "answer_now"] {
        let mut lines = said.lines().filter(|line| line.contains(span));
        assert!(lines.any(|line| line.contains("close time.busy=")), "{span}:\n{said}");
    }
}

#[test]
fn another_user_who_takes_the_place_of_sockets_in_tmp_keeps_xfer_from_no_mount() {
    let world = World::new(&["alice"]);
    let theirs = world.outside().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(54_321), None).unwrap();
    // In its own mount namespace, where /run is empty, and read-only in the second round.
    let script = r#"
        mount -t tmpfs tmpfs /run && mkdir -p -m 700 /tmp/xfer-0 && mount --bind "$1" /tmp/xfer-0
        unset XDG_RUNTIME_DIR
        mnt=$2 xfer=$3 && shift 3
        for mode in rw ro; do
            mount -o "remount,$mode" /run
            "$@"
            "$xfer" status "$mnt" | grep -q connected
            "$xfer" status 2>/dev/null | grep -q "$mnt"
            "$xfer" unmount "$mnt"
        done"#;
    let mount = world.mounting("alice").command();
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "bash", "-euo", "pipefail", "-c", script, "bash"]);
    hidden.args([&theirs, &world.mount_point("alice"), &program("xfer")]);
    let finished = run_within(world.at_home(run_by(&mut hidden, &mount)), PATIENCE).succeeded();
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
}

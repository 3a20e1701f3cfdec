//! Clocks that jump while a session goes on.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use xfer_mount::process::exit::Exit;
use xfer_protocol::limits::LEASE_ASKED_MS;
use xfer_tests::programs::{program, run_with_input};
use xfer_tests::waiting::holds_for;
use xfer_tests::world::write_secret;
use xfer_tests::{PATIENCE, Relay, Server, World, run_within, wait_until};

/// The jumps, as `faketime` writes them: far ahead, and back behind the beginning.
const JUMPS: [&str; 3] = ["+400d", "-30d", "+0"];

/// A day, in seconds.
const DAY_S: u64 = 24 * 60 * 60;

/// A clock for programs, which can be set while they run. Their monotonic clock is the machine's.
struct Clock(PathBuf);

impl Clock {
    fn new(directory: &Path) -> Clock {
        let clock = Clock(directory.join("clock"));
        clock.jump("+0");
        clock
    }

    fn jump(&self, to: &str) {
        // Replaced as a whole, since a program may read it at any moment.
        let next = self.0.with_extension("next");
        fs::write(&next, to).unwrap();
        fs::rename(&next, &self.0).unwrap();
    }

    /// The environment of a program under this clock.
    fn environment(&self) -> [(&'static str, String); 4] {
        let library = fs::read_dir("/usr/lib").unwrap().flatten();
        let library = library.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
        let library = library.into_iter().find(|path| path.exists()).expect("faketime");
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// A server under this clock.
fn start_server(clock: &Clock, store: &Path) -> Server {
    let mut command = Command::new(program("xfer-server"));
    command.envs(clock.environment());
    Server::start_as(command, store, "127.0.0.1:0", &[])
}

#[test]
fn a_session_goes_on_and_a_block_lasts_though_the_servers_clock_jumps() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::with_server(&["alice", "bob"], |store| start_server(&clock, store));
    let mount = world.mount("alice");
    let wrong = world.outside().join("wrong");
    write_secret(&wrong, "wrong");
    let refused = |exit: Exit| {
        world.mounting("bob").password_file(&wrong).in_background().refused(exit.code());
    };
    (0..5).for_each(|_| refused(Exit::WrongPassword));
    refused(Exit::Blocked);
    for (round, to) in JUMPS.iter().enumerate() {
        clock.jump(to);
        fs::write(mount.path(&format!("file{round}")), to).unwrap();
        mount.sync();
        refused(Exit::Blocked);
    }
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("file1")).unwrap(), JUMPS[1]);
    mount.unmount();
}

#[test]
fn a_session_goes_on_though_the_clients_clock_jumps_and_files_have_the_time_that_it_shows() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::new(&["alice"]);
    let mut mounting = world.mounting("alice");
    for (name, value) in clock.environment() {
        mounting = mounting.env(name, &value);
    }
    let mount = mounting.start();
    for (round, to) in JUMPS.iter().enumerate() {
        clock.jump(to);
        fs::write(mount.path(&format!("file{round}")), to).unwrap();
        mount.sync();
    }
    let age = |file: &str| {
        let changed = fs::metadata(mount.path(file)).unwrap().modified().unwrap();
        SystemTime::now().duration_since(changed).map_err(|ahead| ahead.duration().as_secs())
    };
    assert!(age("file0").is_err_and(|ahead| ahead > 399 * DAY_S), "{:?}", age("file0"));
    assert!(age("file1").is_ok_and(|age| age.as_secs() > 29 * DAY_S), "{:?}", age("file1"));
    assert!(mount.is_connected());
    mount.unmount();
}

#[test]
fn a_seat_is_kept_for_its_lease_and_no_longer_though_the_servers_clock_jumps() {
    const LEASE_ASKED: Duration = Duration::from_millis(LEASE_ASKED_MS);
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::with_server(&["alice"], |store| start_server(&clock, store));
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    fs::write(mount.path("file"), "first").unwrap();
    mount.sync();
    relay.cut();
    let list = || world.server.command(&["session", "list", "--json"]).succeeded().stdout;
    wait_until("the client to be away", PATIENCE, || list().contains("away_secs"));
    // Another machine, with a home of its own.
    let elsewhere = world.mount_point("elsewhere");
    let ask = || {
        let other = world.mounting("alice").at(&elsewhere);
        other.env("HOME", directory.path().to_str().unwrap()).in_background()
    };
    let asked = Instant::now();
    ask().refused(Exit::InUse.code());
    for to in JUMPS {
        clock.jump(to);
        ask().refused(Exit::InUse.code());
    }
    clock.jump("+400d");
    ask().refused(Exit::InUse.code());
    clock.jump("-30d");
    wait_until("the seat to be free", LEASE_ASKED + PATIENCE, || ask().code == Some(0));
    assert!(asked.elapsed() >= LEASE_ASKED, "{:?}", asked.elapsed());
    assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "first");
    let mut unmount = Command::new(program("xfer"));
    run_within(world.at_home(unmount.arg("unmount").arg(&elsewhere)), PATIENCE).succeeded();
    relay.mend();
    wait_until("the first to have the tree again", PATIENCE, || mount.is_connected());
    mount.unmount();
}

#[test]
fn a_client_whose_clock_jumps_while_it_is_away_waits_no_longer_and_no_shorter_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::new(&["alice"]);
    let relay = Relay::to(world.server.address);
    for (before, after) in [("+400d", "-30d"), ("-30d", "+400d"), ("+400d", "+400d")] {
        clock.jump("+0");
        let mut mounting = world.mounting("alice").through(relay.address);
        for (name, value) in clock.environment() {
            mounting = mounting.env(name, &value);
        }
        // A day's patience, which the jump does not use up.
        let mut mount = mounting.arg("-o").arg("wait=86400").start();
        relay.cut();
        let path = mount.path("file");
        let syncing = std::thread::spawn(move || {
            let mut file = File::create(path)?;
            file.write_all(b"meanwhile")?;
            file.sync_all()
        });
        mount.says("the connection to the server is lost");
        clock.jump(before);
        assert!(holds_for(Duration::from_secs(2), || !syncing.is_finished()), "{before}");
        assert!(!mount.is_connected());
        clock.jump(after);
        relay.mend();
        syncing.join().unwrap().unwrap();
        assert!(mount.is_connected());
        mount.sync();
        mount.unmount();
        let mount = world.mount("alice");
        assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "meanwhile");
        mount.shell("rm file");
        mount.unmount();
    }
}

#[test]
fn an_invitation_is_good_for_a_day_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::with_server(&["alice", "bob"], |store| start_server(&clock, store));
    let invited = |user: &str| {
        let line = world.server.command(&["user", "invite", user, "--host", "127.0.0.1"]);
        let line = line.succeeded().stdout;
        line.split('\'').nth(1).unwrap().to_owned()
    };
    let (early, late) = (invited("alice"), invited("bob"));
    let redeem = |invitation: &str| {
        let mut login = world.xfer_command(&["login", invitation, "--password-stdin"]);
        run_with_input(&mut login, b"the new password\n", PATIENCE)
    };
    clock.jump("+23h");
    redeem(&early).succeeded();
    clock.jump("+25h");
    let line = redeem(&late).refused(9);
    assert!(line.contains("expired"), "{line}");
}

#[test]
fn an_account_that_expires_while_it_is_mounted_ends_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(directory.path());
    let world = World::with_server(&["alice"], |store| start_server(&clock, store));
    let user = |arguments: &[&str]| world.server.command(&[&["user"], arguments].concat());
    user(&["expire", "alice", "--within", "1"]).succeeded();
    let mut mount = world.mount("alice");
    clock.jump("+23h");
    fs::write(mount.path("file"), "text").unwrap();
    mount.sync();
    fs::write(mount.path("file"), "newer").unwrap();
    clock.jump("+25h");
    mount.says("ended by the server's administrator");
    assert_eq!(mount.unmounted_by_force(), Some(0), "{}", mount.said());
    let line = world.mounting("alice").in_background().refused(Exit::WrongPassword.code());
    assert!(line.contains("or it has expired"), "{line}");
    user(&["enable", "alice"]).succeeded();
    let mount = world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "newer");
    mount.unmount();
}

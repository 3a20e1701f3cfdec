//! What a mount says: how urgent it is in the system's log, and that it goes on if nobody hears it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use xfer_mount::process::exit::Exit;
use xfer_tests::programs::{Running, program, run_by};
use xfer_tests::{PATIENCE, Relay, Server, World, run_within, wait_until};

/// Runs its arguments where `/dev` has another log socket, then changes the mount `$2` each time that it is told so
/// by a file, and unmounts it.
const WITH_ANOTHER_LOG: &str = r#"
    log=$1 root=$2; shift 2
    mkdir dev && mount -t tmpfs none dev
    for name in fuse null urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
    touch dev/log; mount --bind "$log" dev/log
    mount --rbind dev /dev
    "$@"
    for round in first second; do
        until [ -e $round ]; do sleep 0.1; done
        touch "$root/$round"
    done
    until [ -e end ]; do sleep 0.1; done
    umount -l "$root""#;

#[test]
fn a_mount_in_the_background_logs_to_the_systems_log_and_each_line_with_the_severity_of_its_event()
{
    let world = World::new(&["alice"]);
    let directory = tempfile::tempdir().unwrap();
    let log = UnixDatagram::bind(directory.path().join("log")).unwrap();
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", WITH_ANOTHER_LOG, "sh"]);
    command.arg(directory.path().join("log")).arg(world.mount_point("alice"));
    run_by(&mut command, &mount).current_dir(&directory);
    let mut script = Running::start(command.env("XFER_LOG", "xfer_client=trace"));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let theirs = lines.clone();
    // Read at once: a log that does not take a line loses it.
    std::thread::spawn(move || {
        let mut line = [0; 4096];
        while let Ok(len) = log.recv(&mut line) {
            theirs.lock().unwrap().push(String::from_utf8_lossy(&line[..len]).into_owned());
        }
    });
    let logged = |parts: &[&str]| {
        let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
        wait_until(&format!("{parts:?}"), PATIENCE, || lines.lock().unwrap().iter().any(has_all));
    };
    let go_on = |to: &str| fs::write(directory.path().join(to), "").unwrap();
    go_on("first");
    logged(&[" TRACE ", "xfer_client::"]);
    relay.cut();
    logged(&[" WARN ", "the connection to the server is lost"]);
    logged(&[" INFO ", "the tree cannot be reached"]);
    go_on("second");
    // What can't be sent any more is an error.
    let place = world.mount_point("alice");
    let status = || world.xfer(&["status", "--json", place.to_str().unwrap()]).stdout;
    wait_until("a change that waits", PATIENCE, || !status().contains("\"pending_ops\": 0"));
    world.server.command(&["session", "end", "alice"]).succeeded();
    relay.mend();
    logged(&[" ERROR ", "; not on the server: "]);
    go_on("end");
    // It says last why it failed.
    logged(&["<11>xfer-mount[", "not on the server", "see: xfer rescue list"]);
    assert_eq!(script.ended_within(PATIENCE), Some(0), "{}", script.said());
    for line in lines.lock().unwrap().iter() {
        // The facility is that of users.
        let severity = match line.split_whitespace().find(|word| LEVELS.contains(word)) {
            None => continue,
            Some("ERROR") => "<11>xfer-mount[",
            Some("WARN") => "<12>xfer-mount[",
            Some("INFO") => "<14>xfer-mount[",
            Some(_) => "<15>xfer-mount[",
        };
        assert!(line.starts_with(severity), "{line}");
    }
}

const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// Its arguments as a command whose standard error is a pipe that nobody reads.
fn unheard(command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec 2> >(exec true); wait $!; exec \"$@\"", "bash"]);
    run_by(&mut shell, command);
    shell
}

#[test]
fn a_server_goes_on_though_its_standard_output_takes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let script = "exec \"$@\" run --listen 127.0.0.1:0 --store . > /dev/full";
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(program("xfer-server")).current_dir(&store);
    let mut server = Running::start(&mut command);
    server.line("its port", |line| line.contains("listening address=127.0.0.1:").then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(PATIENCE), Some(0), "{}", server.said());
}

#[test]
fn a_mount_a_server_and_a_command_go_on_though_nobody_reads_what_they_say() {
    let mut world = World::with_server(&["alice"], |store| {
        let server = unheard(&Command::new(program("xfer-server")));
        Server::start_as(server, store, "127.0.0.1:0", &[])
    });
    let relay = Relay::to(world.server.address);
    let mut mount = world.mounting("alice").through(relay.address).command();
    let mut mount = Running::start(&mut unheard(mount.arg("-f")));
    let place = world.mount_point("alice");
    let status = || world.xfer(&["status", "--json", place.to_str().unwrap()]);
    let is_well = || status().stdout.contains("\"connected\"");
    wait_until("the mount", PATIENCE, is_well);
    for round in 0..3 {
        relay.break_connections();
        fs::write(place.join(format!("file{round}")), "text").unwrap();
        wait_until("the connection", PATIENCE, is_well);
    }
    assert!(mount.is_running() && world.server.is_running());
    world.xfer(&["unmount", place.to_str().unwrap()]).succeeded();
    assert_eq!(mount.ended_within(PATIENCE), Some(0));
    // A command goes on with the other paths.
    let at = |path: &str| format!("alice@{}:{path}", world.server.address);
    let paths = ["none", "file0", "neither", "file1"].map(at);
    let trust = ["--fingerprint", &world.server.fingerprint, "--password-file"];
    let mut remove = world.xfer_command(&["rm"]);
    remove.args(trust).arg(world.password_file("alice")).args(paths);
    let removed = run_within(&mut unheard(&remove), PATIENCE);
    assert_eq!(removed.code, Some(Exit::Other.code().into()), "{removed}");
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls"), "file2\ninbox\noutbox");
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
}

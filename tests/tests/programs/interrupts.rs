//! Programs that wait for a silent server and are told to end.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use xfer_tests::programs::wait_for_line;
use xfer_tests::waiting::{holds_for, waits_for_a_mount};
use xfer_tests::{Mount, PATIENCE, Relay, World, wait_until};

/// The tree in which programs wait. A fresh mount knows nothing of `d`: it is too large to come
/// along with the root.
const TREE: &str = "mkdir d && (cd d && seq 12000 | xargs touch) && echo text > d/file \
                    && head -c 3000000 /dev/urandom > big \
                    && setfattr -n user.a -v b d/file && ln -s file d/link";

/// The longest time until a program ends that is told to.
const ENDING: Duration = Duration::from_secs(2);

/// How often that is tried: on a machine that is busy, a program that may end does not always run soon.
const TRIES: usize = 3;

/// Programs that each wait for the server's answer.
const WAITING: &[&str] = &[
    "exec ls d",
    "exec stat d/file",
    "exec cat big",
    "exec dd if=big iflag=direct of=/dev/null status=none",
    "exec sync changed",
    "exec sync .",
    "exec touch -d 2001-01-01 d/file",
    "exec chmod 600 d/file",
    "exec truncate -s 1 d/file",
    "exec mv d/file d/moved",
    "exec rm d/file",
    "exec mkdir d/made",
    "exec ln d/file d/linked",
    "exec touch d/made",
    "exec readlink d/link",
    "exec getfattr -n user.a d/file",
    "exec head -c 64000000 /dev/zero > grown",
];

/// Starts a program, and waits until it waits for the server or has ended. A program that may also
/// wait for a disk while it starts creates the file `$READY` once it has started.
#[track_caller]
fn waiting(mount: &Mount, script: &str) -> Child {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(mount.root()).env("READY", &ready);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let waits = || {
        let started = ready.exists() || !script.contains("READY");
        started && waits_for_a_mount(&process)
    };
    wait_until(&format!("`{script}` to wait"), PATIENCE, || {
        // For a while, since even a request that is answered at once waits for a moment.
        holds_for(Duration::from_millis(300), waits) || child.try_wait().unwrap().is_some()
    });
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

/// Waits for a program to end that was told to; returns its status, and how long it took.
#[track_caller]
fn ended(child: &mut Child, what: &str) -> (ExitStatus, Duration) {
    let (told, mut status) = (Instant::now(), None);
    wait_until(what, PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    (status.unwrap(), told.elapsed())
}

/// The result of an end that comes in time, at one of a few tries.
#[track_caller]
fn in_time<T>(what: &str, end: impl Fn() -> (T, Duration)) -> T {
    let mut late = Vec::new();
    while late.len() < TRIES {
        match end() {
            (result, took) if took < ENDING => return result,
            (_, took) => late.push(took),
        }
    }
    panic!("{what} took {late:?}")
}

/// Mounts with empty caches, and returns the result of `act` while the server is silent and a change
/// is in the log. Operations wait for it without end, so that nothing but a signal ends them.
#[track_caller]
fn on_a_silent_server<T>(world: &World, act: impl Fn(&Mount) -> T) -> T {
    let relay = Relay::to(world.server.address);
    let mounting = world.mounting("alice").through(relay.address);
    let mount = mounting.arg("--log-size=16MiB").arg("-o").arg("wait=forever").start();
    // Look these up before the server falls silent, so that it can be opened and files be created.
    fs::metadata(mount.path("big")).unwrap();
    mount.shell("ls -R outbox");
    mount.sync();
    relay.hold_answers();
    mount.shell("touch changed");
    let result = act(&mount);
    relay.release();
    mount.unmount();
    result
}

#[test]
fn a_program_that_waits_for_a_silent_server_can_be_killed() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell(TREE);
    let before = mount.shell("find d | sort | md5sum && stat -c %a%y d/file");
    mount.unmount();
    for script in WAITING {
        let what = format!("the end of `{script}`");
        let killed = |mount: &Mount| {
            let mut child = waiting(mount, script);
            signal(&child, Signal::KILL);
            ended(&mut child, &what)
        };
        let end = in_time(&what, || on_a_silent_server(&world, killed));
        assert_eq!(end.signal(), Some(9), "{script}");
        let mount = world.mount("alice");
        // Interrupted operations must not have changed anything.
        assert_eq!(
            mount.shell("find d | sort | md5sum && stat -c %a%y d/file"),
            before,
            "{script}"
        );
        mount.unmount();
    }
}

#[test]
fn a_program_that_waits_for_a_silent_server_ends_by_the_signals_that_ask_it_to() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell(TREE);
    mount.unmount();
    for (number, asked) in [(2, Signal::INT), (15, Signal::TERM), (1, Signal::HUP)] {
        let what = format!("the end by {asked:?}");
        let told = |mount: &Mount| {
            let mut child = waiting(mount, "exec stat d/file");
            signal(&child, asked);
            ended(&mut child, &what)
        };
        let end = in_time(&what, || on_a_silent_server(&world, told));
        assert_eq!(end.signal(), Some(number));
    }
    // A program that handles the signal is interrupted too, and a failed fsync reports the failure.
    for call in ["open('big', 'rb').read()", "os.fsync(os.open('changed', os.O_WRONLY))"] {
        let script = format!(
            "exec python3 -c \"import os\nopen(os.environ['READY'], 'w').close()\n\
             try: {call}\nexcept KeyboardInterrupt: os._exit(7)\""
        );
        let told = |mount: &Mount| {
            let mut child = waiting(mount, &script);
            signal(&child, Signal::INT);
            ended(&mut child, "its handler to run")
        };
        let end = in_time(call, || on_a_silent_server(&world, told));
        assert_eq!(end.code(), Some(7), "{call}");
    }
}

#[test]
fn a_program_that_is_stopped_while_it_waits_goes_on_and_notices_nothing() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell(TREE);
    mount.unmount();
    let relay = Relay::to(world.server.address);
    let mount = world.mounting("alice").through(relay.address).start();
    fs::metadata(mount.path("big")).unwrap();
    relay.hold_answers();
    let mut child = waiting(&mount, "exec stat d/file");
    let status = format!("/proc/{}/status", child.id());
    let pending = || {
        let text = fs::read_to_string(&status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() != 0
    };
    signal(&child, Signal::STOP);
    assert!(pending(), "the signal does not wait");
    // Long enough for signals to be checked twice.
    assert!(holds_for(Duration::from_millis(500), pending), "it was interrupted");
    relay.release();
    wait_until("it to be stopped", PATIENCE, || {
        fs::read_to_string(&status).unwrap().contains("State:\tT")
    });
    signal(&child, Signal::CONT);
    assert!(child.wait().unwrap().success());
    mount.unmount();
}

#[test]
fn a_program_that_ends_does_not_wait_for_what_its_open_files_still_need() {
    let world = World::new(&["alice", "bob"]);
    let ending = |end: &str| {
        let relay = Relay::to(world.server.address);
        let mount = world.mounting("alice").through(relay.address).start();
        mount.shell("touch outbox/bob/.other.part && rm outbox/bob/.other.part && sync .");
        relay.hold_answers();
        // The kernel closes the program's file as it ends, and the close asks for room in bob's inbox.
        let script = "import os\nfile = os.open('outbox/bob/file', os.O_WRONLY | os.O_CREAT)\n\
                      os.write(file, b'text')\n";
        let mut python = Command::new("python3");
        let python = python.arg("-c").arg(format!("{script}{end}")).current_dir(mount.root());
        let (_, took) = ended(&mut python.spawn().unwrap(), &format!("the end by {end}"));
        relay.release();
        mount.shell("rm outbox/bob/file");
        mount.unmount();
        ((), took)
    };
    for end in ["os.kill(os.getpid(), 9)", "os._exit(0)"] {
        in_time(end, || ending(end));
    }
}

#[test]
fn a_program_that_waits_while_it_starts_another_keeps_nobody_from_being_interrupted() {
    let world = World::new(&["alice", "bob"]);
    let mount = world.mount("alice");
    mount.shell(TREE);
    mount.unmount();
    // `exec` closes the file, and the close asks for room in bob's inbox. Until then, most of the
    // program's files in `/proc` block a reader along with it. `statm` does not: it shows the new
    // program's memory, of which there is next to none.
    let script = "import os\nfile = os.open('outbox/bob/file', os.O_WRONLY | os.O_CREAT)\n\
                  os.write(file, b'text')\nprint('ready', flush=True)\n\
                  os.execvp('sleep', ['sleep', '1000'])\n";
    let killed = |mount: &Mount| {
        let mut python = Command::new("python3");
        let python = python.arg("-c").arg(script).current_dir(mount.root());
        let mut starting = python.stdout(Stdio::piped()).spawn().unwrap();
        wait_for_line(&mut starting, "ready");
        let statm = format!("/proc/{}/statm", starting.id());
        wait_until("the other program to be started", PATIENCE, || {
            let pages = fs::read_to_string(&statm).unwrap();
            pages.split(' ').next().unwrap().parse::<u64>().unwrap() < 100
        });
        let mut other = waiting(mount, "exec stat d/file");
        let both = [("the other", &mut other), ("the one that starts", &mut starting)];
        let [(other, first), (starting, second)] = both.map(|(what, child)| {
            signal(child, Signal::KILL);
            ended(child, &format!("the end of {what}"))
        });
        ([other, starting].map(|status| status.signal()), first.max(second))
    };
    let ends = in_time("the end of both", || on_a_silent_server(&world, killed));
    assert_eq!(ends, [Some(9), Some(9)]);
}

//! A mount that was taken over waits, shows nothing that may be out of date, and has the tree again by
//! itself.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use xfer_tests::files::errno;
use xfer_tests::waiting::{holds_for, waits_for_a_mount};
use xfer_tests::world::write_secret;
use xfer_tests::{Mount, PATIENCE, World, run_within, wait_until};

use crate::{output, shows, start};

/// Another mount of alice that takes the tree over.
fn take_over(world: &World, options: &[&str]) -> Mount {
    let elsewhere = world.mount_point("elsewhere");
    let mounting = world.mounting("alice").at(&elsewhere).arg("--takeover");
    options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start()
}

fn mount(world: &World, options: &[&str]) -> Mount {
    let mounting = world.mounting("alice");
    options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start()
}

fn is_dormant(mount: &Mount) -> bool {
    mount.xfer("status", &["--json"]).succeeded().stdout.contains("\"dormant\"")
}

/// Has the kernel keep names, absent names, attributes, data, listings and link targets.
const LOOK: &str = "cat file d/file changed; ls -lR; stat file d d/e; readlink link
    ! ls absent d/absent d/e/absent 2> /dev/null";

#[test]
fn a_mount_that_was_taken_over_waits_and_then_shows_what_the_other_has_changed() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=forever"]);
    first.shell(
        "mkdir -p d/e gone && echo old > file && echo old > d/file && ln -s target link
         echo unchanged > unchanged; echo aaaa > changed; echo kept > d/e/kept; echo x > moved",
    );
    first.shell(&format!("{LOOK}\n{LOOK}"));
    let open = File::open(first.path("changed")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at_d = rustix::fs::open(first.path("d"), flags, Mode::empty()).unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    assert!(shows(&first, "with the client on"), "{}", first.xfer("status", &[]).stdout);
    // The mount point itself can be looked at, and nothing waits for that.
    assert!(fs::metadata(first.root()).unwrap().is_dir());
    rustix::fs::statvfs(first.root()).unwrap();
    let begin = Instant::now();
    run_within(Command::new("df").arg(first.root()), PATIENCE).succeeded();
    assert!(begin.elapsed() < Duration::from_secs(10), "df waited for {:?}", begin.elapsed());
    let waiting = [
        "cat file d/file changed",
        "ls d",
        "ls",
        "readlink link",
        "stat -c %s absent",
        "cat d/absent d/e/absent",
        "cat moved-to",
        "cat unchanged",
        "echo late > late; cat late",
        "! cat gone 2> /dev/null",
    ];
    let mut programs: Vec<_> = waiting.iter().map(|script| start(first.root(), script)).collect();
    second.shell(
        "echo new > new && mv new file && echo newer > d/file && ln -sfn other link
         echo 12345 > absent; echo a > d/absent; echo b > d/e/absent; mv moved moved-to; rmdir gone",
    );
    // In place, so that it keeps its content.
    let changed = fs::OpenOptions::new().write(true).open(second.path("changed")).unwrap();
    changed.write_all_at(b"bbbb", 0).unwrap();
    drop(changed);
    for (program, script) in programs.iter_mut().zip(waiting) {
        assert!(program.try_wait().unwrap().is_none(), "{script} does not wait");
    }
    second.unmount();
    let said: Vec<String> = programs.into_iter().map(output).collect();
    let expected = [
        "new\nnewer\nbbbb",
        "absent\ne\nfile",
        "absent\nchanged\nd\nfile\ninbox\nlink\nmoved-to\noutbox\nunchanged",
        "other",
        "6",
        "a\nb",
        "x",
        "unchanged",
        "late",
        "",
    ];
    // The program that made a file may have been faster.
    let said: Vec<String> = said.iter().map(|said| said.replace("late\nlink", "link")).collect();
    assert_eq!(said[..8], expected[..8]);
    assert_eq!(said[8..], expected[8..]);
    let mut bytes = [0; 4];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"bbbb", "an open file shows what was changed");
    assert!(
        rustix::fs::statat(&at_d, "absent", AtFlags::empty()).is_ok(),
        "from within a directory"
    );
    assert!(first.is_connected());
    drop((open, at_d));
    first.unmount();
}

#[test]
fn programs_that_work_while_another_mount_takes_the_tree_wait_and_go_on() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=forever"]);
    let work = "for n in $(seq 1 1000000); do
            mkdir d && echo $n > d/f && mv d/f d/g && rm d/g && rmdir d || exit 1
            [[ ! -e end ]] || exit 0
        done";
    let mut worker = start(first.root(), work);
    for _ in 0..5 {
        let second = take_over(&world, &[]);
        wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
        second.unmount();
        wait_until("the first mount to have the tree", PATIENCE, || first.is_connected());
        assert_eq!(worker.try_wait().unwrap(), None, "it goes on");
    }
    fs::write(first.path("end"), "").unwrap();
    output(worker);
}

#[test]
fn a_program_waits_once_for_a_name_that_its_kernel_looks_up_twice() {
    const WAIT: Duration = Duration::from_secs(5);
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=5"]);
    first.shell("mkdir d; echo text > d/file; cat d/file");
    let _second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    let begin = Instant::now();
    assert_eq!(errno(fs::metadata(first.path("d/file"))), libc::EBUSY);
    assert!((WAIT..WAIT * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[test]
fn a_dormant_mount_gives_ebusy_once_a_programs_patience_ends() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=0"]);
    first.shell("mkdir d; echo text > d/file; cat d/file; ls -l d; ! ls absent 2> /dev/null");
    let open = File::open(first.path("d/file")).unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    for name in ["d", "d/file", "absent", "d/absent"] {
        assert_eq!(errno(fs::metadata(first.path(name))), libc::EBUSY, "{name}");
    }
    assert_eq!(errno(fs::read_dir(first.root()).and_then(|mut d| d.next().unwrap())), libc::EBUSY);
    assert_eq!(errno(fs::write(first.path("new"), "x")), libc::EBUSY);
    assert_eq!(errno(open.read_at(&mut [0; 4], 0)), libc::EBUSY, "cached bytes of an open file");
    assert_eq!(errno(open.metadata()), libc::EBUSY);
    assert_eq!(errno(open.sync_all()), 0, "nothing of this mount is missing on the server");
    drop(open);
    second.unmount();
    wait_until("the first mount to have the tree again", PATIENCE, || {
        fs::read_to_string(first.path("d/file")).is_ok_and(|text| text == "text\n")
    });
    first.unmount();
}

/// The longest time until a program ends that is told to, at the best of so many tries: on a machine that
/// is busy, a program that may end does not always run soon.
const ENDING: Duration = Duration::from_secs(2);
const TRIES: usize = 3;

/// Starts a program, waits until it waits for its mount, and tells it to end. Returns how that took.
fn ends_after(program: &mut Command, signal: Signal) -> Duration {
    let text = format!("{program:?}");
    let mut child = program.stderr(Stdio::null()).spawn().unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    wait_until(&format!("{text} to wait"), PATIENCE, || {
        assert_eq!(child.try_wait().unwrap(), None, "{text} does not wait");
        // For a while, since even a request that is answered at once waits for a moment.
        holds_for(Duration::from_millis(200), || waits_for_a_mount(&process))
    });
    let told = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let mut status = None;
    wait_until(&format!("{text} to end"), PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(signal.as_raw()), "{text}");
    told.elapsed()
}

#[test]
fn programs_that_wait_for_a_dormant_mount_end_by_ctrl_c_and_by_kill() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=forever"]);
    first.shell("mkdir d; echo text > file; echo text > d/file");
    let open = File::options().read(true).write(true).open(first.path("file")).unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    let path = |name: &str| first.path(name).display().to_string();
    let with = |words: &[&str], name: &str| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args((!name.is_empty()).then(|| path(name)));
        // What is open already is read and written by these.
        command.stdin(open.try_clone().unwrap()).stdout(open.try_clone().unwrap());
        command
    };
    for signal in [Signal::INT, Signal::KILL] {
        for (words, name) in [
            (&["stat", "-c", "%s"][..], "file"),
            (&["ls"], "."),
            (&["ls"], "d"),
            // It reads, it writes, and it opens, without looking a name up.
            (&["head", "-c", "1"], ""),
            (&["echo", "more"], ""),
            (&["head", "-c", "1", "/dev/stdin"], ""),
            (&["cat"], "d/file"),
            (&["touch"], "made"),
            (&["mkdir"], "d/made"),
            (&["rm"], "file"),
        ] {
            let took = || ends_after(&mut with(words, name), signal);
            let mut tries = std::iter::repeat_with(took).take(TRIES);
            assert!(tries.any(|took| took < ENDING), "{words:?} {name} by {signal:?}");
        }
    }
    second.unmount();
    wait_until("the first mount to have the tree again", PATIENCE, || first.is_connected());
    assert_eq!(first.shell("cat file; ls . d"), "text\n.:\nd\nfile\ninbox\noutbox\n\nd:\nfile");
    drop(open);
    first.unmount();
}

#[test]
fn a_dormant_mount_takes_the_tree_again_when_nothing_asks_for_it_and_can_be_unmounted() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &[]);
    fs::write(first.path("file"), "1").unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    second.unmount();
    wait_until("the first mount to have the tree again", PATIENCE, || first.is_connected());
    assert_eq!(fs::read_to_string(first.path("file")).unwrap(), "1");
    let third = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    let begun = Instant::now();
    first.unmount();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    fs::write(third.path("file"), "3").unwrap();
    third.unmount();
}

#[test]
fn a_dormant_mount_comes_back_after_the_server_was_killed() {
    let mut world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=forever"]);
    first.shell("echo old > file; cat file");
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    fs::write(second.path("file"), "new").unwrap();
    second.sync();
    world.server.kill();
    world.server.restart();
    let waiting = start(first.root(), "cat file");
    second.unmount();
    assert_eq!(output(waiting), "new");
    first.unmount();
}

#[test]
fn a_changed_password_ends_a_dormant_mount_too() {
    let world = World::new(&["alice"]);
    let mut first = mount(&world, &[]);
    fs::write(first.path("file"), "1").unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    let new = world.outside().join("new");
    write_secret(&new, "a new password");
    let args = ["user", "passwd", "alice", "--password-file", new.to_str().unwrap()];
    world.server.command(&args).succeeded();
    let waiting = start(first.root(), "! cat file 2> /dev/null");
    first.says("the session is over");
    assert_eq!(output(waiting), "");
    for mut mount in [first, second] {
        assert_eq!(mount.unmounted_by_force(), Some(0), "{}", mount.said());
    }
}

#[test]
fn files_that_were_open_without_a_name_are_there_when_a_mount_comes_back() {
    let world = World::new(&["alice"]);
    let first = mount(&world, &["-o", "wait=forever"]);
    fs::write(first.path("file"), vec![7; 300_000]).unwrap();
    let open = File::open(first.path("file")).unwrap();
    fs::remove_file(first.path("file")).unwrap();
    let second = take_over(&world, &[]);
    wait_until("the first mount to be dormant", PATIENCE, || is_dormant(&first));
    fs::write(second.path("other"), "x").unwrap();
    second.unmount();
    wait_until("the first mount to have the tree again", PATIENCE, || first.is_connected());
    let mut bytes = vec![0; 300_000];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7));
    drop(open);
    first.unmount();
    let last = mount(&world, &[]);
    let used = rustix::fs::statvfs(last.root()).unwrap();
    assert!((used.f_blocks - used.f_bfree) * used.f_frsize < 300_000, "its space is given back");
    last.unmount();
}

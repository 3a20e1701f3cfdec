//! Files that are not sent: incomplete ones, and those that there is no room for. None of this is
//! silent; nothing is lost, and nothing arrives in part.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::process::{Pid, Signal};
use xfer_tests::files::errno;
use xfer_tests::programs::wait_for_line;
use xfer_tests::sending::{
    A_WHILE, arrives, die_while_writing, nothing_arrives, send_at_once, state, status,
    wait_for_state, with_little_room, with_small_inbox, writer,
};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, Relay, World, wait_until};

const MIB: u64 = 1 << 20;

/// Waits until a program that writes more than the log holds is waiting for the server.
fn wait_for_full_log(pid: u32) {
    let wchan = format!("/proc/{pid}/wchan");
    let waits = || fs::read_to_string(&wchan).unwrap_or_default().contains("wait_answer");
    wait_until("the log to be full", PATIENCE, || holds_for(Duration::from_millis(300), waits));
}

/// Makes a write in a mailbox fail, and checks that the file is not sent and says why.
fn check_failure(why: &str, fail: impl FnOnce(&Mount, &Path)) {
    let (_world, alice, bob) = with_little_room();
    let path = alice.path("outbox/bob/file");
    fail(&alice, &path);
    wait_for_state(&path, why);
    alice.sync();
    nothing_arrives(&bob);
    let status = status(&alice);
    assert!(status.contains("1 failed") && status.contains("outbox/bob/file: failed:"), "{status}");
    // Once it is completely rewritten, it is sent with the attributes that it was given.
    alice.shell("chmod 640 outbox/bob/file");
    alice.shell("echo whole > outbox/bob/file");
    let arrived = arrives(&bob, "inbox/alice/file");
    assert_eq!(fs::read_to_string(&arrived).unwrap(), "whole\n");
    assert_eq!(bob.shell("stat -c %a inbox/alice/file"), "640");
    wait_for_state(&path, "received");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_copy_that_does_not_fit_the_quota_is_not_sent_in_part() {
    check_failure("failed: quota exceeded", |alice, _| {
        alice.shell(
            "head -c 20M /dev/zero | tr '\\0' x > /tmp/xfer-b20-$$ && \
                     fallocate -l 16M other && \
                     fails cp /tmp/xfer-b20-$$ outbox/bob/file 2>/dev/null; rm -f /tmp/xfer-b20-$$",
        );
    });
}

#[test]
fn a_file_of_which_a_copied_range_is_missing_is_not_sent() {
    check_failure("failed: quota exceeded", |alice, path| {
        alice.shell("head -c 20M /dev/zero | tr '\\0' x > large");
        let (large, to) = (File::open(alice.path("large")).unwrap(), File::create(path).unwrap());
        let copied = rustix::fs::copy_file_range(&large, None, &to, None, 20 * MIB as usize);
        copied.unwrap_err();
    });
}

#[test]
fn a_file_for_which_space_could_not_be_allocated_is_not_sent() {
    check_failure("failed: quota exceeded", |_, path| {
        let mut file = File::create(path).unwrap();
        file.write_all(b"part").unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
    });
}

#[test]
fn a_file_that_could_not_be_made_as_large_as_it_should_be_is_not_sent() {
    check_failure("failed: file too large", |_, path| {
        let mut file = File::create(path).unwrap();
        file.write_all(b"part").unwrap();
        assert_eq!(errno(file.set_len(1 << 45)), libc::EFBIG);
    });
}

#[test]
fn a_file_that_failed_stays_unsent_when_others_close_it_and_over_a_remount() {
    let (world, alice, bob) = with_little_room();
    let path = alice.path("outbox/bob/file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"part").unwrap();
    let other = File::options().append(true).open(&path).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
    // A write through another handle that was open before does not make the file complete.
    (&other).write_all(b", more").unwrap();
    drop(other);
    drop(file);
    wait_for_state(&path, "failed: quota exceeded");
    // Reading it, changing its time or opening it for appending does not send it either.
    alice.shell("cat outbox/bob/file > copy && touch outbox/bob/file && : >> outbox/bob/file");
    nothing_arrives(&bob);
    alice.unmount();
    let alice = world.mount("alice");
    wait_for_state(&path, "failed: quota exceeded");
    nothing_arrives(&bob);
    // Moved out it is an ordinary file; moved back in, it is sent as it is.
    alice.shell("mv outbox/bob/file mine");
    assert_eq!(state(&alice.path("mine")), "");
    alice.shell("mv mine outbox/bob/file");
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/file")).unwrap(), "part, more");
    // So is one that fails and is ordered to be.
    let ordered = alice.path("outbox/bob/ordered");
    let mut file = File::create(&ordered).unwrap();
    file.write_all(b"part").unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
    drop(file);
    wait_for_state(&ordered, "failed: quota exceeded");
    world.xfer(&["outbox", "send", ordered.to_str().unwrap()]).succeeded();
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/ordered")).unwrap(), "part");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_partial_file_that_gets_its_name_all_the_same_is_not_sent() {
    let (_world, alice, bob) = with_little_room();
    // As `rsync --partial` does.
    let mut file = File::create(alice.path("outbox/bob/.film.Ab12Cd")).unwrap();
    file.write_all(b"part").unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 40 * MIB).unwrap_err();
    drop(file);
    alice.shell("mv outbox/bob/.film.Ab12Cd outbox/bob/film");
    wait_for_state(&alice.path("outbox/bob/film"), "failed: quota exceeded");
    nothing_arrives(&bob);
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_whose_writer_is_killed_is_held() {
    let (world, alice, bob) = with_little_room();
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("INT", 2)] {
        let path = alice.path(&format!("outbox/bob/{signal}"));
        let mut writer = writer(&path);
        assert_eq!(state(&path), "writing");
        // SAFETY: the signal goes to a child of ours that has not been reaped yet.
        assert_eq!(unsafe { libc::kill(writer.id() as i32, number) }, 0);
        writer.wait().unwrap();
        wait_for_state(&path, "held: the writing program was killed");
    }
    nothing_arrives(&bob);
    assert!(status(&alice).contains("3 held"), "{}", status(&alice));
    alice.unmount();
    let alice = world.mount("alice");
    wait_for_state(&alice.path("outbox/bob/KILL"), "held: the writing program was killed");
    nothing_arrives(&bob);
    alice.shell("echo whole > outbox/bob/KILL");
    arrives(&bob, "inbox/alice/KILL");
    // Or it is sent as it is, if its user says so.
    let as_it_is = alice.path("outbox/bob/TERM");
    world.xfer(&["outbox", "send", as_it_is.to_str().unwrap()]).succeeded();
    arrives(&bob, "inbox/alice/TERM");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_is_sent_when_its_writer_ends_without_closing_it() {
    let (_world, alice, bob) = with_little_room();
    let run = |name: &str, script: &str| {
        let ended = Command::new("python3").args(["-c", script]).current_dir(alice.root()).output();
        assert!(ended.is_ok());
        arrives(&bob, &format!("inbox/alice/{name}"));
    };
    run("ends", "import os; os.write(os.open('outbox/bob/ends', 65), b'x'); os._exit(3)");
    // Threads killed by the program's own exit don't mean that it was killed.
    run(
        "threads",
        "import os, threading, time\n\
         fd = os.open('outbox/bob/threads', 65)\n\
         for _ in range(20): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n\
         os.write(fd, b'x')\n\
         os._exit(0)",
    );
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_of_which_a_write_was_interrupted_is_sent_only_if_that_is_made_up_for() {
    let world = World::new(&["alice", "bob"]);
    let bob = world.mount("bob");
    let relay = Relay::to(world.server.address);
    let alice = world.mounting("alice").through(relay.address).arg("--log-size=16MiB").start();
    // Look the name up before the server falls silent.
    alice.shell("touch outbox/bob/.other.part && rm outbox/bob/.other.part && sync .");
    for (name, then) in [("part", "pass"), ("whole", "os.write(file, b'x')")] {
        relay.hold_answers();
        let script = format!(
            "import os, signal, sys\n\
             def stop(*_): raise KeyboardInterrupt\n\
             signal.signal(signal.SIGINT, stop)\n\
             file = os.open('outbox/bob/{name}', os.O_WRONLY | os.O_CREAT)\n\
             try:\n  while True: os.write(file, b'x' * 100000)\n\
             except KeyboardInterrupt: print('interrupted', flush=True)\n\
             sys.stdin.read()\n{then}\nos.close(file)"
        );
        let mut python = Command::new("python3");
        let python = python.args(["-c", &script]).current_dir(alice.root());
        let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        wait_for_full_log(python.id());
        let pid = Pid::from_raw(python.id() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        wait_for_line(&mut python, "interrupted");
        relay.release();
        drop(python.stdin.take());
        python.wait().unwrap();
    }
    arrives(&bob, "inbox/alice/whole");
    wait_for_state(&alice.path("outbox/bob/part"), "failed: interrupted");
    assert!(holds_for(A_WHILE, || !bob.path("inbox/alice/part").exists()));
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_whose_writer_is_killed_in_a_write_is_held_whatever_others_write() {
    let world = World::new(&["alice", "bob"]);
    let bob = world.mount("bob");
    let relay = Relay::to(world.server.address);
    let alice = world.mounting("alice").through(relay.address).arg("--log-size=16MiB").start();
    let path = alice.path("outbox/bob/file");
    let mut other = File::create(&path).unwrap();
    other.write_all(b"the head, ").unwrap();
    alice.sync();
    relay.hold_answers();
    let mut dd = Command::new("dd");
    let dd = dd.args(["if=/dev/zero", "bs=100000", "count=1000", "conv=notrunc", "status=none"]);
    let mut dd = dd.arg(format!("of={}", path.display())).spawn().unwrap();
    wait_for_full_log(dd.id());
    dd.kill().unwrap();
    dd.wait().unwrap();
    relay.release();
    other.write_all(b"and the tail").unwrap();
    drop(other);
    wait_for_state(&path, "held: the writing program was killed");
    nothing_arrives(&bob);
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_is_sent_although_another_name_of_it_was_renamed_meanwhile() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell(
        "exec 3>outbox/bob/file; echo text >&3; ln outbox/bob/file kept; mv kept moved; exec 3>&-",
    );
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/file")).unwrap(), "text\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_was_made_and_never_opened_is_not_sent_by_itself() {
    let world = with_small_inbox(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    // A waiting item makes the client check all unsent ones.
    alice.shell("head -c 90000 /dev/urandom > outbox/bob/large || true");
    wait_for_state(&alice.path("outbox/bob/large"), "waiting");
    alice
        .shell("python3 -c \"import os, stat; os.mknod('outbox/bob/made', 0o600 | stat.S_IFREG)\"");
    nothing_arrives(&bob);
    // Reading it does not make it whole.
    alice.shell("cat outbox/bob/made");
    nothing_arrives(&bob);
    wait_for_state(&alice.path("outbox/bob/made"), "held: nothing was written to it yet");
    assert!(status(&alice).contains("1 held"), "{}", status(&alice));
    alice.shell("echo whole > outbox/bob/made");
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/made")).unwrap(), "whole\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_was_open_when_its_mount_died_is_held() {
    let world = World::new(&["alice", "bob"]);
    let mut alice = world.mount("alice");
    die_while_writing(&mut alice, "echo x > other && sync other");
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    wait_for_state(&alice.path("outbox/bob/half"), "held: the mount ended before it was sent");
    nothing_arrives(&bob);
    alice.shell("echo ', and whole' >> outbox/bob/half");
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/half")).unwrap(), "half, and whole\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_a_full_inbox_refuses_says_so_and_is_sent_once_there_is_room() {
    let world = with_small_inbox(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("head -c 60000 /dev/urandom > outbox/bob/first");
    alice.sync();
    // Programs that ignore the result of close(2).
    alice.shell("head -c 9000 /dev/urandom > second && (cat second > outbox/bob/second || true)");
    alice.shell(
        "python3 -c \"open('outbox/bob/third', 'w').write('x' * 9000)\" 2>/dev/null || true",
    );
    for name in ["second", "third"] {
        wait_for_state(
            &alice.path(&format!("outbox/bob/{name}")),
            "waiting: the inbox of bob is full",
        );
    }
    wait_until("two to wait", PATIENCE, || status(&alice).contains("2 waiting"));
    // A remount does not forget it either.
    alice.unmount();
    let alice = world.mount("alice");
    wait_for_state(&alice.path("outbox/bob/second"), "waiting: the inbox of bob is full");
    let bob = world.mount("bob");
    let second = arrives(&bob, "inbox/alice/second");
    arrives(&bob, "inbox/alice/third");
    assert_eq!(fs::read(second).unwrap(), fs::read(alice.path("second")).unwrap());
    wait_for_state(&alice.path("outbox/bob/third"), "received");
    wait_until("no draft", PATIENCE, || !status(&alice).contains("waiting:"));
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_was_refused_only_when_it_was_committed_is_sent_again_too() {
    let world = with_small_inbox(&["alice", "bob", "carol"]);
    let (alice, carol) = (world.mount("alice"), world.mount("carol"));
    // Both were told that there is room; one of them comes too late.
    std::thread::scope(|scope| {
        for from in [&alice, &carol] {
            scope.spawn(move || {
                from.shell(
                    "for n in 1 2 3 4; do head -c 12000 /dev/urandom > outbox/bob/$n; done || true",
                );
            });
        }
    });
    let bob = world.mount("bob");
    for from in ["alice", "carol"] {
        for n in 1..=4 {
            arrives(&bob, &format!("inbox/{from}/{n}"));
        }
    }
    assert_eq!(bob.shell("find inbox -type f | wc -l"), "8");
    bob.unmount();
    alice.unmount();
    carol.unmount();
}

#[test]
fn a_revised_file_of_the_same_name_is_sent_as_a_new_delivery() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let read = |path: &str| fs::read_to_string(arrives(&bob, path)).unwrap();
    let revise = |how: &str, number: u32, expected: &str| {
        alice.shell(how);
        let path = match number {
            1 => "inbox/alice/report.txt".to_owned(),
            number => format!("inbox/alice/report ({number}).txt"),
        };
        assert_eq!(read(&path), expected, "{how}");
        assert_eq!(alice.shell("cat outbox/bob/report.txt"), expected.trim_end());
        wait_for_state(&alice.path("outbox/bob/report.txt"), "received");
    };
    revise("echo one > report.txt && cp report.txt outbox/bob/", 1, "one\n");
    revise("echo two > report.txt && cp report.txt outbox/bob/", 2, "two\n");
    revise("echo three > report.txt && mv report.txt outbox/bob/", 3, "three\n");
    revise("echo four > outbox/bob/report.txt", 4, "four\n");
    revise("echo five >> outbox/bob/report.txt", 5, "four\nfive\n");
    revise(
        "echo seven > /tmp/xfer-$$ && rsync -I --inplace /tmp/xfer-$$ outbox/bob/report.txt; rm /tmp/xfer-$$",
        6,
        "seven\n",
    );
    let edited = "vim -u NONE -N -es -c '%s/seven/eight/' -c wq outbox/bob/report.txt";
    revise(edited, 7, "eight\n");
    // The delivery keeps its old content.
    assert_eq!(read("inbox/alice/report.txt"), "one\n");
    // Opening it for writing or looking at it does not send it.
    alice.shell(
        "touch outbox/bob/report.txt && cat outbox/bob/report.txt && : >> outbox/bob/report.txt",
    );
    let none = || !bob.path("inbox/alice/report (8).txt").exists();
    assert!(holds_for(A_WHILE, none));
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_is_revised_while_its_first_version_is_still_on_its_way() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    for version in 1..=20 {
        alice.shell(&send_at_once(&version.to_string(), "report"));
    }
    let bob = world.mount("bob");
    for version in 2..=20 {
        arrives(&bob, &format!("inbox/alice/report ({version})"));
    }
    let all = bob.shell("cat inbox/alice/* | sort -n | tr '\\n' ' '");
    assert_eq!(all.trim(), (1..=20).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_program_that_writes_the_next_version_beside_the_record_and_renames_it_revises_it() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let python = "import os, tempfile\n\
        with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as next: next.write('python')\n\
        os.rename(next.name, 'letter')";
    let ways = [
        ("sed", "sed -i s/.*/sed/ letter"),
        ("perl", "perl -pi -e s/.*/perl/ letter"),
        ("python", &format!("python3 -c \"{python}\"")),
        ("other", "echo other > next && mv next letter"),
    ];
    alice.shell("echo first > outbox/bob/letter");
    arrives(&bob, "inbox/alice/letter");
    for (number, (text, way)) in ways.into_iter().enumerate() {
        alice.shell(&format!("cd outbox/bob && {way}"));
        let arrived = arrives(&bob, &format!("inbox/alice/letter ({})", number + 2));
        assert_eq!(fs::read_to_string(arrived).unwrap().trim(), text);
        wait_for_state(&alice.path("outbox/bob/letter"), "received");
    }
    assert_eq!(alice.shell("ls -A outbox/bob"), "letter");
    // Nothing is delivered under a name that it had only for a moment.
    assert_eq!(bob.shell("ls inbox/alice | grep -v letter || true"), "");
    bob.unmount();
    alice.unmount();
}

#[test]
fn another_user_of_the_machine_may_revise_what_it_may_write() {
    let world = World::new(&["alice", "bob"]);
    world.let_others_in();
    let (alice, bob) = (
        world.mounting("alice").arg("-o").arg("ids=stored,allow_other").start(),
        world.mount("bob"),
    );
    alice.shell("chmod 777 . outbox outbox/bob");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --";
    alice.shell(&format!("{nobody} bash -c 'echo one > outbox/bob/letter'"));
    arrives(&bob, "inbox/alice/letter");
    alice.shell(&format!("{nobody} bash -c 'echo two > outbox/bob/letter'"));
    let second = arrives(&bob, "inbox/alice/letter (2)");
    assert_eq!(fs::read_to_string(second).unwrap(), "two\n");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_is_written_through_memory_beyond_the_quota_is_not_sent() {
    let (_world, alice, bob) = with_little_room();
    let path = alice.path("outbox/bob/file");
    let mut file = xfer_tests::files::read_write(&path);
    file.set_len(30 * MIB).unwrap();
    file.rewind().unwrap();
    let mut mapped = xfer_tests::files::Mapped::try_new(file.as_fd(), 30 * MIB as usize).unwrap();
    let page = vec![1; 64 << 10];
    (0..30 * MIB as usize).step_by(page.len()).for_each(|at| mapped.write(at, &page));
    drop(mapped);
    drop(file);
    wait_for_state(&path, "failed: quota exceeded");
    nothing_arrives(&bob);
    bob.unmount();
    alice.unmount();
}

#[test]
fn arrivals_leave_a_tenth_of_the_quota_free_and_come_when_there_is_room() {
    let world = World::new(&["alice", "bob --quota 10MiB"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("for n in $(seq 12); do head -c 1M /dev/urandom > outbox/bob/$n; done");
    wait_until("eight to arrive", PATIENCE, || {
        fs::read_dir(bob.path("inbox/alice")).is_ok_and(|arrived| arrived.count() == 8)
    });
    wait_until("the rest to wait for room", PATIENCE, || {
        status(&bob).contains("4 of them for room")
    });
    // The rest is free for the recipient.
    bob.shell("head -c 1M /dev/zero > mine");
    assert!(holds_for(A_WHILE, || fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 8));
    bob.shell("rm mine inbox/alice/*");
    wait_until("the rest to arrive", PATIENCE, || {
        fs::read_dir(bob.path("inbox/alice")).unwrap().count() == 4
    });
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_program_that_is_started_while_a_file_is_open_in_the_outbox_starts() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let mut file = File::create(alice.path("outbox/bob/file")).unwrap();
    file.write_all(b"one, ").unwrap();
    // The kernel closes the new program's copy of the descriptor during exec, with a lock held.
    for _ in 0..20 {
        alice.shell("true");
    }
    file.write_all(b"two").unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/file")).unwrap(), "one, two");
    bob.unmount();
    alice.unmount();
}

//! When a file is sent: once nothing of it has changed for a while, or as soon as a program says that it
//! is complete.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use xfer_tests::files::{make_tree, set_xattr};
use xfer_tests::programs::run_within;
use xfer_tests::sending::{arrives, nothing_arrives, send_at_once, state, status, wait_for_state};
use xfer_tests::snapshot::snapshot;
use xfer_tests::{Mount, PATIENCE, World, wait_until};

const AT_REST: &str = "waiting: sent after";

fn alice_and_bob() -> (World, Mount, Mount) {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    (world, alice, bob)
}

/// What must be the same of a file that was sent.
fn described(mount: &Mount, path: &str) -> String {
    let of = "stat -c '%a %s %Y' {}; sha256sum < {}; getfattr -n user.colour --only-values {}";
    mount.shell(&format!("{} 2> /dev/null || true", of.replace("{}", path)))
}

/// Has alice run a program in her outbox for bob, and checks that he gets what she has, once.
fn check_arrives(program: &[&str], name: &str) {
    let (_world, alice, bob) = alice_and_bob();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).current_dir(alice.path("outbox/bob"));
    run_within(&mut command, PATIENCE).succeeded();
    arrives(&bob, &format!("inbox/alice/{name}"));
    let (sent, arrived) = (format!("outbox/bob/{name}"), format!("inbox/alice/{name}"));
    assert_eq!(described(&bob, &arrived), described(&alice, &sent), "{program:?}");
    wait_for_state(&alice.path(&sent), "received");
    assert_eq!(bob.shell("ls -A inbox/alice"), name, "{program:?}");
    bob.unmount();
    alice.unmount();
}

/// Touches something again and again, for twice as long as it would have to be left alone before it is
/// sent. Returns whether it was never left alone for that long, which a busy machine can't promise.
fn keeps_touching(quiet: Duration, mut touch: impl FnMut(usize)) -> bool {
    let (begun, mut last) = (Instant::now(), Instant::now());
    let mut number = 0;
    while begun.elapsed() < 2 * quiet {
        touch(number);
        if last.elapsed() > quiet {
            return false;
        }
        (last, number) = (Instant::now(), number + 1);
        std::thread::sleep(quiet / 10);
    }
    true
}

#[test]
fn what_a_program_sets_after_the_last_close_is_sent_too() {
    let build = "echo 'int main(void) { return 0; }' | gcc -x c -o program -";
    check_arrives(&["bash", "-c", build], "program");
    check_arrives(&["curl", "-sR", "-o", "page", "file:///etc/hostname"], "page");
    // As others do.
    let set = "import os, time\n\
        with open('tool', 'w') as tool: tool.write('x')\n\
        os.chmod('tool', 0o751); os.utime('tool', (1e9, 1e9))\n\
        time.sleep(0.2); os.setxattr('tool', 'user.colour', b'red')";
    check_arrives(&["python3", "-c", set], "tool");
    let copy = "import shutil; shutil.copy2('/etc/passwd', 'users')";
    check_arrives(&["python3", "-c", copy], "users");
}

#[test]
fn a_file_that_is_closed_and_changed_again_is_sent_once() {
    let (_world, alice, bob) = alice_and_bob();
    let touches: [fn(&Path, usize); 4] = [
        |path, number| {
            let mut log = File::options().create(true).append(true).open(path).unwrap();
            writeln!(log, "{number}").unwrap();
        },
        |path, number| {
            fs::set_permissions(path, Permissions::from_mode(0o600 + number as u32 % 8)).unwrap();
        },
        |path, number| set_xattr(path, "user.colour", &[b'a' + number as u8]).unwrap(),
        |path, number| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            File::open(path).unwrap().set_modified(time).unwrap();
        },
    ];
    let quiet = Duration::from_secs(1);
    for (way, touch) in touches.into_iter().enumerate() {
        let name = (0..100).map(|number| format!("log{way}-{number}")).find(|name| {
            let path = alice.path("outbox/bob").join(name);
            fs::write(&path, "text\n").unwrap();
            keeps_touching(quiet, |number| touch(&path, number))
                && !bob.path("inbox/alice").join(name).exists()
        });
        let name = name.unwrap();
        arrives(&bob, &format!("inbox/alice/{name}"));
        assert!(!bob.path(&format!("inbox/alice/{name} (2)")).exists());
        let (sent, arrived) = (format!("outbox/bob/{name}"), format!("inbox/alice/{name}"));
        assert_eq!(described(&bob, &arrived), described(&alice, &sent));
    }
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_was_made_empty_and_filled_later_is_sent_once_with_its_content() {
    let (_world, alice, bob) = alice_and_bob();
    // Filled before and after the time after which a file with data would be sent.
    for (name, pause) in [("soon", 800), ("later", 1500)] {
        let path = alice.path("outbox/bob").join(name);
        drop(File::create(&path).unwrap());
        std::thread::sleep(Duration::from_millis(pause));
        let rests = state(&path);
        assert!(rests.starts_with(AT_REST) && rests.ends_with("since it is empty"), "{rests}");
        fs::write(&path, "content").unwrap();
        let arrived = arrives(&bob, &format!("inbox/alice/{name}"));
        assert_eq!(fs::read_to_string(arrived).unwrap(), "content");
        wait_for_state(&path, "received");
    }
    assert_eq!(bob.shell("ls -A inbox/alice"), "later\nsoon");
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_is_moved_in_from_elsewhere_does_not_rest() {
    let (_world, alice, bob) = alice_and_bob();
    alice.shell("mkdir album; echo x > album/x; echo y > letter; echo z > next; : > empty");
    let moved = |from: &str, to: &str, arrived: &str| {
        let to = alice.path("outbox/bob").join(to);
        fs::rename(alice.path(from), &to).unwrap();
        let state = state(&to);
        assert!(
            ["sending", "sent", "received"].iter().any(|word| state.starts_with(word)),
            "{state}"
        );
        arrives(&bob, &format!("inbox/alice/{arrived}"));
    };
    moved("album", "album", "album/x");
    moved("letter", "letter", "letter");
    moved("empty", "empty", "empty");
    // Over one that was sent, too.
    moved("next", "letter", "letter (2)");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_program_that_tries_out_whether_it_can_write_sends_only_its_result() {
    // It makes an empty archive first, writes another one under a random name, and renames that.
    check_arrives(&["zip", "-q", "archive.zip", "/etc/passwd", "/etc/group"], "archive.zip");
    let slow = "import os, time\n\
        open('result', 'w').close()\n\
        next = open('zimLaz2n', 'w')\n\
        for _ in range(15): next.write('x' * 100000); next.flush(); time.sleep(0.2)\n\
        next.close(); os.rename('zimLaz2n', 'result'); os.chmod('result', 0o640)";
    check_arrives(&["python3", "-c", slow], "result");
    let insert = "create table t (x); insert into t values (1)";
    check_arrives(&["sqlite3", "all.db", insert], "all.db");
}

#[test]
fn a_name_that_looks_temporary_and_an_empty_file_wait_longer_and_are_sent_after_all() {
    let (_world, alice, bob) = alice_and_bob();
    let names = [".env.sample", "notes~", "film.part", "empty"];
    for name in names {
        fs::write(alice.path("outbox/bob").join(name), name.replace("empty", "")).unwrap();
    }
    nothing_arrives(&bob);
    for (name, why) in names.iter().zip(["its name", "its name", "its name", "it is empty"]) {
        let state = state(&alice.path("outbox/bob").join(name));
        assert!(state.starts_with("waiting: sent after 10 s without a change, since"), "{state}");
        assert!(state.contains(why), "{state}");
    }
    assert!(status(&alice).contains("4 waiting"), "{}", status(&alice));
    names.iter().for_each(|name| drop(arrives(&bob, &format!("inbox/alice/{name}"))));
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_is_synced_before_it_is_closed_is_sent_at_once() {
    let (_world, alice, bob) = alice_and_bob();
    let is_at_rest = |name: &str| state(&alice.path("outbox/bob").join(name)).starts_with(AT_REST);
    alice.shell(&send_at_once("text", "synced"));
    assert!(!is_at_rest("synced"));
    arrives(&bob, "inbox/alice/synced");
    // But not if it was changed after that.
    let mut file = File::create(alice.path("outbox/bob/changed")).unwrap();
    file.write_all(b"one").unwrap();
    file.sync_all().unwrap();
    file.write_all(b", two").unwrap();
    drop(file);
    wait_until("the close", PATIENCE, || state(&alice.path("outbox/bob/changed")) != "writing");
    assert!(is_at_rest("changed") || bob.path("inbox/alice/changed").exists());
    assert_eq!(fs::read_to_string(arrives(&bob, "inbox/alice/changed")).unwrap(), "one, two");
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_is_at_rest_is_sent_when_the_mount_ends() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("echo text > outbox/bob/letter && cp -r /etc/apt outbox/bob/");
    alice.shell("echo text > outbox/bob/letter.part");
    alice.unmount();
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/letter");
    arrives(&bob, "inbox/alice/apt");
    assert!(!bob.path("inbox/alice/letter.part").exists());
    // The next mount knows that this one was complete, too.
    let alice = world.mount("alice");
    wait_for_state(&alice.path("outbox/bob/letter.part"), AT_REST);
    arrives(&bob, "inbox/alice/letter.part");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_at_rest_is_sent_by_the_next_mount_if_this_one_dies() {
    let world = World::new(&["alice", "bob"]);
    let mut alice = world.mount("alice");
    alice.shell("echo text > outbox/bob/letter && sync outbox");
    alice.die();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    arrives(&bob, "inbox/alice/letter");
    wait_for_state(&alice.path("outbox/bob/letter"), "received");
    assert_eq!(bob.shell("ls -A inbox/alice"), "letter");
    bob.unmount();
    alice.unmount();
}

#[test]
fn directories_that_are_copied_into_the_outbox_are_sent_whole_and_once() {
    let (world, alice, bob) = alice_and_bob();
    let source = world.outside();
    make_tree(&source.join("album"), 120, 7);
    let before = snapshot(&source.join("album"));
    let copy = |how: &str, name: &str| {
        alice.shell(&format!("{how} {} outbox/bob/{name}", source.join("album").display()));
        let album = arrives(&bob, &format!("inbox/alice/{name}"));
        // Complete when it appears: compare it at once, without waiting.
        assert_eq!(snapshot(&album), before, "{how}");
        wait_for_state(&alice.path("outbox/bob").join(name), "received");
    };
    copy("cp -a", "copied");
    let synced = || alice.shell(&format!("rsync -a {}/album/ outbox/bob/synced", source.display()));
    synced();
    let album = arrives(&bob, "inbox/alice/synced");
    assert_eq!(snapshot(&album), before, "rsync");
    assert_eq!(bob.shell("ls -A inbox/alice"), "copied\nsynced");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_is_not_sent_while_a_program_works_in_it() {
    let (_world, alice, bob) = alice_and_bob();
    alice.shell("mkdir -p outbox/bob/album/2024");
    assert!(state(&alice.path("outbox/bob/album")).starts_with("waiting: sent after 2 s"));
    let mut photo = File::create(alice.path("outbox/bob/album/2024/photo")).unwrap();
    nothing_arrives(&bob);
    nothing_arrives(&bob);
    photo.write_all(b"photo").unwrap();
    drop(photo);
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cat inbox/alice/album/2024/photo"), "photo");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_rests_from_the_last_close_of_a_file_in_it_on() {
    let (_world, alice, bob) = alice_and_bob();
    let album = alice.path("outbox/bob/album");
    fs::create_dir(&album).unwrap();
    let mut photo = File::create(album.join("photo")).unwrap();
    photo.write_all(b"photo").unwrap();
    // It is looked at when it would have rested, and again when the file is closed.
    wait_for_state(&album, "writing");
    drop(photo);
    wait_until("the close to be noticed", PATIENCE, || state(&album) != "writing");
    assert!(state(&album).starts_with(AT_REST), "{}", state(&album));
    arrives(&bob, "inbox/alice/album/photo");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_change_of_anything_in_a_directory_keeps_it_at_rest() {
    let (_world, alice, bob) = alice_and_bob();
    let touches: [fn(&Path, usize); 5] = [
        |album, number| fs::write(album.join(number.to_string()), "").unwrap(),
        |album, number| fs::create_dir(album.join(number.to_string())).unwrap(),
        |album, number| set_xattr(&album.join("d/e"), "user.n", &[number as u8]).unwrap(),
        |album, number| {
            let mode = 0o700 + number as u32 % 8;
            fs::set_permissions(album.join("d/e"), Permissions::from_mode(mode)).unwrap();
        },
        |album, number| {
            let names = [album.join("d/e"), album.join("d/f")];
            fs::rename(&names[number % 2], &names[(number + 1) % 2]).unwrap();
        },
    ];
    for (way, touch) in touches.into_iter().enumerate() {
        let name = (0..100).map(|number| format!("album{way}-{number}")).find(|name| {
            let album = alice.path("outbox/bob").join(name);
            fs::create_dir_all(album.join("d")).unwrap();
            fs::write(album.join("d/e"), "text").unwrap();
            keeps_touching(Duration::from_secs(2), |number| {
                // If the machine has let it rest, it may be sent, and nothing in it can be changed.
                if state(&album).starts_with(AT_REST) {
                    touch(&album, number);
                }
            }) && !bob.path("inbox/alice").join(name).exists()
        });
        let name = name.unwrap();
        arrives(&bob, &format!("inbox/alice/{name}"));
        let album = |mount: &Mount, at: &str| {
            let list = "find . ! -type d -printf '%P %m %s %T@\\n' | sort";
            let value = "getfattr -n user.n --only-values d/e 2> /dev/null || true";
            mount.shell(&format!("cd {at}/{name} && ({list}; find . -type d | sort; {value})"))
        };
        assert_eq!(album(&bob, "inbox/alice"), album(&alice, "outbox/bob"), "{name}");
    }
    bob.unmount();
    alice.unmount();
}

#[test]
fn work_elsewhere_in_the_tree_keeps_nothing_at_rest() {
    let (_world, alice, bob) = alice_and_bob();
    let (root, over) = (alice.root().to_owned(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                fs::write(root.join("file"), number.to_string()).unwrap();
                fs::create_dir_all(root.join(format!("d/{number}"))).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        alice.shell("mkdir outbox/bob/album && echo x > outbox/bob/album/x; echo y > outbox/bob/y");
        arrives(&bob, "inbox/alice/album/x");
        arrives(&bob, "inbox/alice/y");
        over.store(true, Ordering::Relaxed);
    });
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_in_which_a_file_was_long_open_is_sent_when_the_mount_ends() {
    let world = World::new(&["alice", "bob"]);
    let alice = world.mount("alice");
    alice.shell("mkdir outbox/bob/album moved");
    let mut photo = File::create(alice.path("outbox/bob/album/photo")).unwrap();
    let mut other = File::create(alice.path("moved/other")).unwrap();
    alice.shell("mv moved outbox/bob/");
    for name in ["album", "moved"] {
        wait_for_state(&alice.path("outbox/bob").join(name), "writing");
    }
    photo.write_all(b"photo").unwrap();
    other.write_all(b"other").unwrap();
    drop((photo, other));
    alice.unmount();
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/moved");
    arrives(&bob, "inbox/alice/album");
    assert_eq!(bob.shell("cat inbox/alice/*/*"), "photoother");
    bob.unmount();
}

#[test]
fn what_rests_when_a_mount_ends_without_the_server_is_sent_by_the_next() {
    let mut world = World::new(&["alice", "bob"]);
    let options = "offline,wait=1";
    let mut alice = world.mounting("alice").arg("-o").arg(options).start();
    alice.shell("ls -R > /dev/null");
    world.server.kill();
    alice.shell("mkdir outbox/bob/album && echo x > outbox/bob/album/x");
    assert_eq!(alice.xfer("unmount", &[]).code, Some(14));
    assert_eq!(alice.ended(), Some(14));
    world.server.restart();
    let alice = world.mounting("alice").arg("-o").arg(options).start();
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/album/x");
    wait_for_state(&alice.path("outbox/bob/album"), "received");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_directory_in_which_something_could_not_be_made_is_not_sent_as_if_it_were_whole() {
    let world = World::new(&["alice", "bob"]);
    world.server.command(&["user", "quota", "alice", "--nodes", "20"]).succeeded();
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let source = world.outside().join("source");
    make_tree(&source, 40, 7);
    alice.shell(&format!("! cp -r {} outbox/bob/album 2> /dev/null", source.display()));
    wait_for_state(&alice.path("outbox/bob/album"), "failed: quota exceeded");
    nothing_arrives(&bob);
    nothing_arrives(&bob);
    // A user who wants it all the same says so.
    set_xattr(&alice.path("outbox/bob/album"), "user.xfer.state", b"send").unwrap();
    arrives(&bob, "inbox/alice/album");
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_file_that_leaves_the_outbox_has_no_state_under_its_other_name() {
    let (_world, alice, bob) = alice_and_bob();
    alice.shell("echo x > outbox/bob/file; ln outbox/bob/file kept; rm outbox/bob/file");
    assert_eq!(state(&alice.path("kept")), "");
    alice.shell("echo y > outbox/bob/file.part; ln outbox/bob/file.part other");
    set_xattr(&alice.path("outbox/bob/file.part"), "user.xfer.state", b"cancel").unwrap();
    alice.shell("rm outbox/bob/file.part");
    assert_eq!(state(&alice.path("other")), "");
    nothing_arrives(&bob);
    bob.unmount();
    alice.unmount();
}

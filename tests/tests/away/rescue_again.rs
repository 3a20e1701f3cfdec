//! Rescues of which a part reached the server: before the mount ended, or by an attempt that was
//! interrupted or failed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, RwLock};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use xfer_tests::programs::program;
use xfer_tests::snapshot::{assert_same, snapshot_without_times};
use xfer_tests::{Mount, PATIENCE, World, shell, wait_until};

/// The bytes of each new file, so many that it takes a while to fill.
const BYTES: usize = 6 << 20;

/// Abandons a mount whose server does not answer.
fn abandon(mount: Mount) {
    let place = mount.root().to_owned();
    mount.xfer("unmount", &["--abandon"]).succeeded();
    wait_until("the mount to go", PATIENCE, || !xfer_tests::mount::is_mounted(&place));
}

/// A world whose rescue has new files `f0` to `f4`, each with another name and an attribute, a new
/// directory with one more, and a file that is older than the rescue and written anew. Also the same
/// tree as it should become.
fn world_with_a_rescue() -> (World, PathBuf) {
    let mut world = World::new(&["alice"]);
    let reference = world.outside();
    let mount = world.mount("alice");
    shell(&reference, "mkdir -m 700 inbox outbox");
    for directory in [mount.root(), &reference] {
        shell(directory, "echo old > older");
    }
    mount.sync();
    mount.shell("find . > /dev/null; cat older > /dev/null");
    world.server.kill();
    for directory in [mount.root(), &reference] {
        let bytes = |seed: usize| -> Vec<u8> {
            (0..BYTES).map(|at| (at / 251 + at * seed + 1) as u8 | 1).collect()
        };
        fs::create_dir(directory.join("new")).unwrap();
        for count in 0..5 {
            let file = directory.join(format!("f{count}"));
            fs::write(&file, bytes(count)).unwrap();
            fs::hard_link(&file, directory.join(format!("new/link{count}"))).unwrap();
        }
        fs::write(directory.join("new/private"), bytes(7)).unwrap();
        fs::write(directory.join("older"), bytes(9)).unwrap();
        shell(
            directory,
            "for f in f?; do setfattr -n user.colour -v blue $f; done
             chmod 400 new/private; chmod 750 new",
        );
    }
    abandon(mount);
    world.server.restart();
    (world, reference)
}

/// The attempts to apply, which are killed.
fn begin_to_apply(world: &World, name: &str) -> Child {
    let mut command = Command::new(program("xfer"));
    command.args(["rescue", "apply", name]).stdout(Stdio::null()).stderr(Stdio::null());
    world.at_home(&mut command).spawn().unwrap()
}

/// Fails if anything in a directory is not the same as in another one, which may have more.
fn assert_whole(directory: &Path, reference: &Path) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".xfer-rescue-") || name == "older" {
            continue;
        }
        let (found, wanted) = (entry.path(), reference.join(&name));
        if entry.file_type().unwrap().is_dir() {
            assert_whole(&found, &wanted);
            continue;
        }
        assert!(wanted.exists(), "{} is one too many", found.display());
        assert!(fs::read(&found).unwrap() == fs::read(&wanted).unwrap(), "{}", found.display());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&found), mode(&wanted), "{}", found.display());
    }
}

/// Applies a rescue, which finds nothing to say and leaves the mount the same as the reference.
#[track_caller]
fn assert_applies_whole(world: &World, name: &str, mount: &Mount, reference: &Path) {
    let applied = world.rescue(&["apply", name]).succeeded();
    assert_eq!(applied.stderr, "", "{applied:?}");
    assert_same(&snapshot_without_times(reference), &snapshot_without_times(mount.root()));
}

#[test]
fn an_apply_that_is_killed_again_and_again_shows_no_part_of_a_new_file_and_leaves_no_copies() {
    let (world, reference) = world_with_a_rescue();
    let mount = world.mount("alice");
    let name = world.only_rescue();
    for count in 0..6 {
        // Killed while another one of the files is being filled.
        let place = mount.path(if count == 5 { "older" } else { "" });
        let before = fs::metadata(&place).unwrap().ctime_nsec();
        let mut applying = begin_to_apply(&world, &name);
        let is_filling = || {
            let hidden = fs::read_dir(mount.root()).unwrap().flatten().map(|entry| entry.path());
            let hidden = hidden.filter(|path| path.to_string_lossy().contains(".xfer-rescue-"));
            let mut files = hidden.flat_map(|path| fs::read_dir(path).unwrap().flatten());
            files.any(|file| file.metadata().is_ok_and(|file| file.is_file() && file.len() > 0))
        };
        wait_until("a file to be filled", PATIENCE, || match count {
            5 => fs::metadata(&place).unwrap().ctime_nsec() != before,
            _ => {
                is_filling()
                    && mount.path(&format!("f{}", count.max(1) - 1)).exists() | (count == 0)
            }
        });
        applying.kill().unwrap();
        applying.wait().unwrap();
        assert_whole(mount.root(), &reference);
    }
    assert_applies_whole(&world, &name, &mount, &reference);
    mount.unmount();
}

#[test]
fn an_apply_that_meets_the_quota_leaves_no_part_of_a_file_and_is_finished_by_the_next() {
    let (world, reference) = world_with_a_rescue();
    world.server.command(&["user", "quota", "alice", "--quota", "14MiB"]).succeeded();
    let mount = world.mount("alice");
    let name = world.only_rescue();
    for _ in 0..2 {
        let refused = world.rescue(&["apply", &name]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let last = refused.stderr.lines().last().unwrap();
        assert!(last.contains("(see above), so apply it again"), "{refused:?}");
        assert!(!last.contains("for you to decide"), "{refused:?}");
        assert_whole(mount.root(), &reference);
        assert!(mount.path("f0").exists() && !mount.path("f4").exists());
        assert!(!mount.shell("ls -A").contains("rescue"), "{}", mount.shell("ls -A"));
    }
    world.server.command(&["user", "quota", "alice", "--quota", "1GiB"]).succeeded();
    assert_applies_whole(&world, &name, &mount, &reference);
    mount.unmount();
}

#[test]
fn what_an_apply_made_before_it_lost_its_mount_is_not_taken_for_applied() {
    let (mut world, reference) = world_with_a_rescue();
    let mount = world.mount("alice");
    let name = world.only_rescue();
    let mut applying = begin_to_apply(&world, &name);
    wait_until("a file to be there", PATIENCE, || mount.path("f1").exists());
    mount.signal(Signal::KILL);
    assert_eq!(applying.wait().unwrap().code(), Some(1));
    world.server.kill();
    world.server.restart();
    shell(Path::new("/"), &format!("umount -l '{}'", mount.root().display()));
    drop(mount);
    let mount = world.mount("alice");
    assert_whole(mount.root(), &reference);
    assert_applies_whole(&world, &name, &mount, &reference);
    mount.unmount();
}

#[test]
fn what_others_changed_between_two_attempts_to_apply_is_kept() {
    let (world, reference) = world_with_a_rescue();
    let mount = world.mount("alice");
    let name = world.only_rescue();
    for (changed, has_begun) in [
        (&["f2", "f4"][..], (|mount: &Mount| mount.path("f1").exists()) as fn(&Mount) -> bool),
        (&["older"], |mount| fs::metadata(mount.path("older")).unwrap().len() != 4),
    ] {
        let mut applying = begin_to_apply(&world, &name);
        wait_until("applying to begin", PATIENCE, || has_begun(&mount));
        applying.kill().unwrap();
        applying.wait().unwrap();
        for file in changed {
            mount.shell(&format!("echo theirs > {file}.new; cat {file}.new > {file}"));
        }
    }
    for _ in 0..2 {
        let applied = world.rescue(&["apply", &name]);
        assert_ne!(applied.code, None, "{applied:?}");
        for file in ["f2", "f4", "older"] {
            assert_eq!(fs::read_to_string(mount.path(file)).unwrap(), "theirs\n", "{file}");
            let beside = mount.path(&format!("{file}.rescued"));
            let wanted = fs::read(reference.join(file)).unwrap();
            assert!(fs::read(beside).unwrap() == wanted, "{file}");
            assert!(!mount.path(&format!("{file}.rescued-1")).exists(), "{file}");
        }
    }
    mount.unmount();
}

/// Runs a script in a mount whose server is stopped, and in a directory. The server has read the first
/// of its changes once it goes on, and the mount is abandoned by then.
fn abandon_half_sent(world: &mut World, script: &str) -> PathBuf {
    let reference = world.outside();
    shell(&reference, "mkdir -m 700 inbox outbox");
    let mount = world.mount("alice");
    mount.shell("ls");
    mount.sync();
    let server = Pid::from_raw(world.server.pid() as i32).unwrap();
    kill_process(server, Signal::STOP).unwrap();
    for directory in [mount.root(), &reference] {
        shell(directory, script);
    }
    abandon(mount);
    kill_process(server, Signal::CONT).unwrap();
    reference
}

/// Makes nodes, writes a file that does not fit into what is on its way, and goes on with the nodes.
const HALF: &str = "
    echo text > doc; mkdir one; echo in > one/file; echo saved > .saved.tmp; ln -s doc link
    mkfifo pipe; echo gone > gone; mkdir passing; echo x > passing/x; ln doc another
    head -c 24000000 /dev/zero | tr '\\0' x > big
    rm gone; rm -r passing; rm another; mv .saved.tmp saved; mv one two; echo more >> doc; chmod 600 doc";

#[test]
fn what_reached_the_server_of_an_abandoned_mount_is_completed_in_place() {
    let mut world = World::new(&["alice"]);
    let reference = abandon_half_sent(&mut world, HALF);
    let mount = world.mount("alice");
    // Otherwise this proves nothing.
    let there = mount.shell("ls -A");
    for name in ["doc", "one", ".saved.tmp", "pipe", "gone", "another", "big"] {
        assert!(there.lines().any(|line| line == name), "{there}");
    }
    assert!(!mount.path("two").exists() && mount.path("passing/x").exists(), "{there}");
    let number = fs::metadata(mount.path("doc")).unwrap().ino();
    assert_applies_whole(&world, &world.only_rescue(), &mount, &reference);
    assert_eq!(fs::metadata(mount.path("doc")).unwrap().ino(), number);
    mount.unmount();
}

#[test]
fn a_new_file_that_reached_the_server_and_that_others_changed_is_not_overwritten() {
    let mut world = World::new(&["alice"]);
    abandon_half_sent(&mut world, HALF);
    let mount = world.mount("alice");
    mount.shell("echo theirs >> doc; echo theirs >> gone; echo theirs >> .saved.tmp");
    let applied = world.rescue(&["apply", &world.only_rescue()]).succeeded();
    assert!(applied.stderr.contains("doc: it has changed on the server, so"), "{applied:?}");
    let read = |name: &str| fs::read_to_string(mount.path(name)).unwrap();
    assert_eq!(
        (read("doc"), read("doc.rescued")),
        ("text\ntheirs\n".into(), "text\nmore\n".into())
    );
    assert_eq!((read("gone"), read("saved")), ("gone\ntheirs\n".into(), "saved\n".into()));
    assert_eq!(read(".saved.tmp"), "saved\ntheirs\n");
    mount.unmount();
}

/// A way to a server on which changes stop. Then it tells of each connection how it ends.
struct Way {
    address: SocketAddr,
    stops: Arc<AtomicBool>,
    /// Held for writing as long as nothing is read.
    stopped: Arc<RwLock<()>>,
    ends: Receiver<io::Result<()>>,
}

impl Way {
    fn to(server: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stops, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(RwLock::new(())));
        let (sender, ends) = channel();
        let (theirs, lock) = (stops.clone(), stopped.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut from, &mut to));
                let (stops, lock, sender) = (theirs.clone(), lock.clone(), sender.clone());
                thread::spawn(move || pass(client, server, &stops, &lock, &sender));
            }
        });
        Way { address, stops, stopped, ends }
    }
}

/// Passes what a client sends to the server until that stops; then reads the rest and passes nothing.
fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    stops: &AtomicBool,
    stopped: &RwLock<()>,
    ends: &Sender<io::Result<()>>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = client.read(&mut buffer);
        if stops.load(Ordering::SeqCst) {
            drop(stopped.read());
        }
        match read {
            Ok(0) => break drop(ends.send(Ok(()))),
            Err(error) => break drop(ends.send(Err(error))),
            Ok(_) if stops.load(Ordering::SeqCst) => {}
            Ok(count) => drop(io::Write::write_all(&mut server, &buffer[..count])),
        }
    }
}

#[test]
fn what_an_abandoned_mount_had_not_delivered_is_not_delivered_later() {
    let world = World::new(&["alice"]);
    let way = Way::to(world.server.address);
    let mount = world.mounting("alice").through(way.address).start();
    mount.shell("ls");
    mount.sync();
    let nothing_is_read = way.stopped.write().unwrap();
    way.stops.store(true, Ordering::SeqCst);
    mount.shell("head -c 24000000 /dev/zero | tr '\\0' x > big");
    abandon(mount);
    drop(nothing_is_read);
    let mut ends = std::iter::from_fn(|| way.ends.recv_timeout(PATIENCE).ok());
    let is_reset =
        |end: io::Result<()>| end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(ends.any(is_reset), "everything was delivered");
}

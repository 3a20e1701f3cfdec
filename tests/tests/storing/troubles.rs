//! Troubles of the server's machine: a disk that fills up or fails for one user, a clock that is wrong.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, copy_file_range, fadvise, fallocate, statvfs};
use tempfile::TempDir;
use xfer_mount::process::exit::Exit;
use xfer_server::program::control::{self, Answer, Session, ask};
use xfer_tests::files::{errno, write_synced};
use xfer_tests::fragile::chosen::{Call, Failure};
use xfer_tests::fragile::image::Image;
use xfer_tests::fragile::mounted::Fragile;
use xfer_tests::programs::program;
use xfer_tests::server::Server;
use xfer_tests::small_disk::SmallDisk;
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, World, shell, wait_until};

/// Writes until an error, and returns its errno.
fn fill(path: &Path) -> i32 {
    let mut file = File::create(path).unwrap();
    loop {
        let written = file.write_all(&[7; 1 << 20]);
        if written.is_err() {
            return errno(written);
        }
        // Sync each write, so that the client learns of the server's free space in time.
        file.sync_all().unwrap();
    }
}

/// A server whose store is on a disk of its own, of 96 MiB.
fn with_a_small_disk(users: &[&str]) -> (World, SmallDisk) {
    with_a_disk(users, |store| SmallDisk::at(store, "96m"))
}

/// A server whose store is on a disk of its own.
fn with_a_disk(users: &[&str], make: impl FnOnce(&Path) -> SmallDisk) -> (World, SmallDisk) {
    let mut disk = None;
    let world = World::with_server(users, |store| {
        let accounts = store.join("../accounts");
        fs::rename(store, &accounts).unwrap();
        fs::create_dir(store).unwrap();
        disk = Some(make(store));
        shell(store, &format!("cp -a '{}'/. .", accounts.display()));
        Server::start(store, "127.0.0.1:0")
    });
    (world, disk.unwrap())
}

#[test]
fn a_full_disk_is_told_at_the_system_call_and_removing_files_makes_room() {
    let (world, _disk) = with_a_small_disk(&["alice"]);
    let mount = world.mount("alice");
    assert_eq!(fill(&mount.path("big")), libc::ENOSPC);
    assert!(fs::metadata(mount.path("big")).unwrap().len() > 16 << 20);
    // Existing data stays, small operations still work, and so does a new login.
    mount.sync();
    mount.shell("mkdir small && mv big small/ && head -c 4096 small/big | wc -c");
    mount.unmount();
    let mount = world.mount("alice");
    mount.shell("rm small/big");
    // At once, although the removed file stays on the server's disk until the change is durable.
    fs::write(mount.path("again"), vec![7; 8 << 20]).unwrap();
    mount.sync();
    mount.unmount();
}

#[test]
fn room_that_was_freed_is_there_at_once_on_a_disk_that_frees_late() {
    let (world, _disk) = with_a_disk(&["alice"], SmallDisk::that_frees_late);
    let mount = world.mount("alice");
    let part = vec![7; 16 << 20];
    let fits = |index: &u32| write_synced(&mount.path(&format!("part{index}")), &part).is_ok();
    let count = (0..100).take_while(fits).count();
    assert!((6..100).contains(&count), "{count}");
    mount.shell("rm part0 part1 part2 part3");
    mount.sync();
    // The disk's own next transaction may be half a minute away.
    let begin = Instant::now();
    write_synced(&mount.path("again"), &part.repeat(2)).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    mount.unmount();
}

#[test]
fn what_was_allocated_can_be_written_when_the_disk_is_full() {
    const ALLOCATED: usize = 48 << 20;
    let (world, _disk) = with_a_small_disk(&["alice"]);
    let mount = world.mount("alice");
    let file = File::create(mount.path("allocated")).unwrap();
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, ALLOCATED as u64).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fill(&mount.path("big")), libc::ENOSPC);
    file.write_all_at(&vec![7; ALLOCATED], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(mount.path("allocated")).unwrap(), vec![7; ALLOCATED]);
    drop(file);
    mount.unmount();
}

#[test]
fn a_disk_smaller_than_the_quota_bounds_what_can_be_written_and_shows_in_df() {
    let (world, _disk) = with_a_small_disk(&["alice --quota 10GiB"]);
    let mount = world.mount("alice");
    let free = || {
        let stat = statvfs(mount.root()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let on_disk = || {
        let stat = statvfs(world.server.store()).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    mount.sync();
    let before = free();
    assert!(before > 16 << 20 && before < on_disk(), "{before} of {}", on_disk());
    // In one call, so that the server's reports can't matter in between.
    let file = File::create(mount.path("file")).unwrap();
    let allocate =
        |len| errno(fallocate(&file, FallocateFlags::empty(), 0, len).map_err(Into::into));
    assert_eq!(allocate(before + 4096), libc::ENOSPC);
    assert_eq!(errno(file.write_all_at(b"x", 1 << 40)), 0);
    drop(file);
    let most = vec![7; before as usize - (4 << 20)];
    for round in 0..5 {
        fs::write(mount.path("file"), &most).unwrap();
        mount.sync();
        assert_eq!(errno(fs::write(mount.path("more"), vec![7; 8 << 20])), libc::ENOSPC);
        assert!(free() < 8 << 20, "round {round}: {} bytes free", free());
        // The client learns what a change frees when the change is acknowledged as durable.
        mount.shell(": > file; : > more");
        mount.sync();
        assert!(free() + (2 << 20) > before, "round {round}: {} of {before} bytes", free());
    }
    mount.unmount();
}

#[test]
fn a_server_whose_clock_is_far_off_is_warned_of_and_works() {
    let world = World::with_server(&["alice"], |store| {
        let mut command = Command::new("faketime");
        command.arg("-f").arg("+3h").arg(program("xfer-server"));
        Server::start_as(command, store, "127.0.0.1:0", &[])
    });
    let mount = world.mount("alice");
    fs::write(mount.path("file"), "text").unwrap();
    mount.sync();
    assert!(mount.said().contains("clock"), "{}", mount.said());
    mount.unmount();
}

#[test]
fn what_several_sessions_acknowledge_at_once_fits_on_the_disk() {
    let users = ["alice", "bob", "carol", "dave"];
    let (world, _disk) = with_a_small_disk(&users);
    let mounts: Vec<_> = users.iter().map(|user| world.mount(user)).collect();
    let written: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = mounts
            .iter()
            .map(|mount| {
                scope.spawn(|| {
                    let mut file = File::create(mount.path("file")).unwrap();
                    let mut written = 0;
                    // Without waiting for the server, as dd does.
                    let refused = loop {
                        match file.write(&[7; 128 << 10]) {
                            Ok(count) => written += count as u64,
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
                    written
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(written.iter().sum::<u64>() > 40 << 20, "{written:?}");
    for (mount, written) in mounts.into_iter().zip(written) {
        mount.sync();
        assert_eq!(fs::metadata(mount.path("file")).unwrap().len(), written);
        mount.unmount();
    }
    for user in users {
        let mount = world.mount(user);
        assert!(fs::read(mount.path("file")).unwrap().iter().all(|byte| *byte == 7));
        mount.shell("rm file");
        mount.unmount();
    }
}

#[test]
fn a_disk_full_of_rows_is_told_at_the_call_and_people_log_in_and_remove() {
    let (world, _disk) = with_a_small_disk(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    assert_eq!(fill(&alice.path("big")), libc::ENOSPC);
    let name = |index: usize| format!("{index:0250}");
    let make_directories = |mount: &Mount| {
        let refused = |index: &usize| match fs::create_dir(mount.path(&name(*index))) {
            Ok(()) => false,
            made => {
                assert_eq!(errno(made), libc::ENOSPC);
                true
            }
        };
        (0..).find(refused).unwrap()
    };
    // Each session has some room of its own.
    make_directories(&bob);
    let made = make_directories(&alice);
    alice.sync();
    bob.sync();
    bob.unmount();
    let bob = world.mount("bob");
    bob.shell("ls && touch -d 2001-01-01 inbox && chmod 750 inbox");
    bob.sync();
    bob.unmount();
    alice.shell("ls | wc -l && rm big && rmdir 0*");
    alice.sync();
    fs::create_dir(alice.path(&name(made))).unwrap();
    fs::write(alice.path("again"), vec![7; 8 << 20]).unwrap();
    alice.sync();
    alice.unmount();
}

#[test]
fn changes_that_find_the_disk_full_after_a_break_wait_for_room_and_are_not_lost() {
    let (mut world, _disk) = with_a_small_disk(&["alice"]);
    let mount = world.mount("alice");
    fs::write(mount.path("before"), "kept").unwrap();
    mount.sync();
    world.server.kill();
    let data = vec![7; 4 << 20];
    (0..4).for_each(|index| fs::write(mount.path(&format!("file{index}")), &data).unwrap());
    // Another program on the server's machine uses the room that there was.
    let ballast = world.server.store().join("ballast");
    assert_eq!(fill(&ballast), libc::ENOSPC);
    // Rows can still be written.
    let size = fs::metadata(&ballast).unwrap().len() - (8 << 20);
    File::options().write(true).open(&ballast).unwrap().set_len(size).unwrap();
    world.server.restart();
    wait_until("the server to have no room", PATIENCE, || {
        let shown = mount.xfer("status", &[]).succeeded().stdout;
        shown.contains("the server's disk is full, so they wait")
    });
    let file = File::open(mount.path("file3")).unwrap();
    assert_eq!(errno(file.sync_all()), libc::ENOSPC);
    assert_eq!(errno(fs::write(mount.path("more"), &data)), libc::ENOSPC);
    assert_eq!(fs::read_to_string(mount.path("before")).unwrap(), "kept");
    let refused = mount.xfer("sync", &[]);
    assert!(refused.stderr.contains("the server's disk is full"), "{refused:?}");
    fs::remove_file(ballast).unwrap();
    wait_until("the changes to be durable", PATIENCE, || file.sync_all().is_ok());
    drop(file);
    mount.unmount();
    let mount = world.mount("alice");
    (0..4).for_each(|index| {
        assert_eq!(fs::read(mount.path(&format!("file{index}"))).unwrap(), data);
    });
    mount.unmount();
}

#[test]
fn a_disk_without_room_for_more_files_is_told_at_the_call_and_shows_in_df() {
    let (world, _disk) = with_a_disk(&["alice"], |store| SmallDisk::with_files(store, 300));
    let mount = world.mount("alice");
    let free = || statvfs(mount.root()).unwrap().f_ffree;
    mount.sync();
    assert!(free() < 300, "{}", free());
    let refused = (0..300).find_map(|index| fs::write(mount.path(&format!("f{index}")), "x").err());
    assert_eq!(refused.unwrap().raw_os_error(), Some(libc::ENOSPC));
    mount.sync();
    mount.shell("mkdir dir && mv f1 dir/ && rm f2 f3 f4");
    mount.sync();
    fs::write(mount.path("again"), "x").unwrap();
    mount.sync();
    mount.unmount();
}

/// A program that writes a file of its user's and syncs it.
type Syncing = JoinHandle<std::io::Result<()>>;

fn sync(mount: &Mount, text: &'static [u8]) -> Syncing {
    let path = mount.path("file");
    std::thread::spawn(move || write_synced(&path, text))
}

/// A server with three users on a disk that fails and waits as it is told.
struct OnOneDisk {
    world: World,
    disk: Fragile,
    bob: Mount,
    carol: Mount,
    _place: TempDir,
}

impl OnOneDisk {
    fn new() -> OnOneDisk {
        let place = tempfile::tempdir().unwrap();
        let disk = Fragile::mount(Image::new(), place.path());
        let world = World::with_store_within(place.path(), &["alice", "bob", "carol"]);
        let [bob, carol] = ["bob", "carol"].map(|user| mount_synced(&world, user));
        OnOneDisk { world, disk, bob, carol, _place: place }
    }

    fn transactions(&self) -> u64 {
        match ask(self.world.server.store(), &control::Command::Commits).unwrap() {
            Answer::Commits { transactions, .. } => transactions,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the server has applied changes of alice's and bob's and has them wait for a commit.
    fn both_wait(&self) -> bool {
        let waits = |session: &Session| {
            session.applied > session.durable && ["alice", "bob"].contains(&&*session.user)
        };
        match ask(self.world.server.store(), &control::Command::List).unwrap() {
            Answer::Sessions { sessions } => sessions.iter().filter(|one| waits(one)).count() == 2,
            other => panic!("{other:?}"),
        }
    }

    /// Has alice and bob wait while carol's commit is held, and then fail alice's sync in the next one.
    /// Returns alice's program, once those of the others have succeeded, and whether alice and bob were
    /// in one commit.
    fn fail_in_one_commit(&self, alice: &Mount, failure: Failure) -> (Syncing, bool) {
        let before = self.transactions();
        self.disk.fail(Call::Sync, b"alice's", failure);
        [b"alice's".as_slice(), b"carol's"].iter().for_each(|one| self.disk.hold_syncs(one));
        let carols = sync(&self.carol, b"carol's");
        wait_until("carol's commit", PATIENCE, || self.disk.held(b"carol's") > 0);
        let (alices, bobs) = (sync(alice, b"alice's"), sync(&self.bob, b"bob's"));
        wait_until("alice and bob to wait for a commit", PATIENCE, || self.both_wait());
        // They may be in separate commits all the same if the machine is busy: then this one waits less
        // long, and that is found out.
        self.disk.release(b"carol's");
        wait_until("alice's commit", PATIENCE, || self.disk.held(b"alice's") > 0);
        let waits = holds_for(Duration::from_secs(1), || !bobs.is_finished());
        self.disk.release(b"alice's");
        bobs.join().unwrap().unwrap();
        let is_one = waits && self.transactions() - before == 2;
        carols.join().unwrap().unwrap();
        (alices, is_one)
    }

    fn end(self) {
        [&self.bob, &self.carol].iter().for_each(|mount| mount.sync());
        self.bob.unmount();
        self.carol.unmount();
        for user in ["bob", "carol"] {
            let mount = self.world.mount(user);
            assert_eq!(mount.shell("cat file"), format!("{user}'s"));
            mount.unmount();
        }
    }
}

/// How often two users' changes may miss a common commit.
const ROUNDS_MAX: usize = 20;

/// Has this machine read all files below a directory from their disk again.
fn drop_caches(directory: &Path) {
    for path in shell(directory, "find \"$PWD\" -type f").lines() {
        fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
    }
}

/// The first bytes of a content that can't be read.
const UNREADABLE: &[u8] = b"unreadable";

/// A mount of which everything is durable, the mailboxes too.
fn mount_synced(world: &World, user: &str) -> Mount {
    let mount = world.mounting(user).arg("-o").arg("wait=forever").start();
    mount.sync();
    mount
}

#[test]
fn a_disk_that_fails_for_one_user_ends_that_session_alone_though_another_is_in_the_same_commit() {
    let all = OnOneDisk::new();
    for call in [Call::Sync, Call::Write] {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "alice and bob were in no common commit");
            let mut alice = mount_synced(&all.world, "alice");
            let (alices, is_one) = match call {
                Call::Sync => all.fail_in_one_commit(&alice, Failure::Broken),
                Call::Read => unreachable!("it is not among them"),
                Call::Write => {
                    all.disk.fail(Call::Write, b"alice's", Failure::Broken);
                    let alices = sync(&alice, b"alice's");
                    sync(&all.bob, b"bob's").join().unwrap().unwrap();
                    (alices, true)
                }
            };
            assert_eq!(errno(alices.join().unwrap()), libc::EIO, "{call:?}");
            alice.says("the session is over");
            assert_eq!(alice.unmounted_by_force(), Some(i32::from(Exit::Lost.code())));
            drop(alice);
            all.disk.mend();
            // Nothing is lost even so.
            let alice = all.world.mount("alice");
            let rescue = all.world.only_rescue();
            all.world.rescue(&["apply", &rescue]).succeeded();
            assert_eq!(alice.shell("cat file"), "alice's");
            all.world.rescue(&["drop", &rescue]).succeeded();
            alice.shell("rm file");
            alice.unmount();
            if is_one {
                break;
            }
        }
    }
    all.end();
}

#[test]
fn a_content_that_can_not_be_read_while_it_is_copied_ends_that_session_alone() {
    let all = OnOneDisk::new();
    let alice = mount_synced(&all.world, "alice");
    let mut bytes = vec![7; 1 << 20];
    bytes[..UNREADABLE.len()].copy_from_slice(UNREADABLE);
    fs::write(alice.path("source"), &bytes).unwrap();
    alice.unmount();
    drop_caches(&all.world.server.store().join("contents"));
    all.disk.fail(Call::Read, UNREADABLE, Failure::Broken);
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "alice and bob were in no common commit");
        let mut alice = mount_synced(&all.world, "alice");
        let source = File::open(alice.path("source")).unwrap();
        let copy = File::create(alice.path("copy")).unwrap();
        alice.sync();
        let before = all.transactions();
        [b"alice's".as_slice(), b"carol's"].iter().for_each(|one| all.disk.hold_syncs(one));
        let carols = sync(&all.carol, b"carol's");
        wait_until("carol's commit", PATIENCE, || all.disk.held(b"carol's") > 0);
        let (alices, bobs) = (sync(&alice, b"alice's"), sync(&all.bob, b"bob's"));
        wait_until("alice and bob to wait for a commit", PATIENCE, || all.both_wait());
        // The server has to copy a part, and can't.
        let copied = copy_file_range(&source, Some(&mut 1), &copy, Some(&mut 0), 500_000).unwrap();
        assert_eq!(copied, 500_000);
        all.disk.release(b"carol's");
        wait_until("alice's commit", PATIENCE, || all.disk.held(b"alice's") > 0);
        let waits = holds_for(Duration::from_secs(1), || !bobs.is_finished());
        all.disk.release(b"alice's");
        bobs.join().unwrap().unwrap();
        carols.join().unwrap().unwrap();
        let is_one = waits && all.transactions() - before == 2;
        // What alice did before that is durable.
        alices.join().unwrap().unwrap();
        assert_eq!(errno(copy.sync_all()), libc::EIO);
        alice.says("the session is over");
        drop((source, copy));
        assert_eq!(alice.unmounted_by_force(), Some(i32::from(Exit::Lost.code())));
        // Both others go on.
        sync(&all.bob, b"bob's").join().unwrap().unwrap();
        sync(&all.carol, b"carol's").join().unwrap().unwrap();
        let rescue = all.world.only_rescue();
        all.world.rescue(&["drop", "--unapplied", &rescue]).succeeded();
        if is_one {
            break;
        }
    }
    all.disk.mend();
    let alice = all.world.mount("alice");
    assert_eq!(alice.shell("cat file; stat -c %s copy"), "alice's0");
    assert!(fs::read(alice.path("source")).unwrap() == bytes);
    alice.unmount();
    all.end();
}

#[test]
fn a_disk_that_is_full_for_one_user_is_told_to_that_one_though_another_is_in_the_same_commit() {
    let all = OnOneDisk::new();
    let alice = mount_synced(&all.world, "alice");
    for call in [Call::Sync, Call::Write] {
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "alice and bob were in no common commit");
            let (alices, is_one) = match call {
                Call::Sync => all.fail_in_one_commit(&alice, Failure::Full),
                Call::Read => unreachable!("it is not among them"),
                Call::Write => {
                    all.disk.fail(Call::Write, b"alice's", Failure::Full);
                    let alices = sync(&alice, b"alice's");
                    sync(&all.bob, b"bob's").join().unwrap().unwrap();
                    (alices, true)
                }
            };
            assert_eq!(errno(alices.join().unwrap()), libc::ENOSPC, "{call:?}");
            let before = all.transactions();
            sync(&all.bob, b"bob's").join().unwrap().unwrap();
            assert!(all.transactions() > before);
            all.disk.mend();
            let file = fs::File::open(alice.path("file")).unwrap();
            wait_until("room for alice", PATIENCE, || file.sync_all().is_ok());
            drop(file);
            assert_eq!(alice.shell("cat file; rm file"), "alice's");
            alice.sync();
            if is_one {
                break;
            }
        }
    }
    let said = all.world.server.said();
    assert!(!said.contains("storage failed"), "{said}");
    alice.unmount();
    all.end();
}

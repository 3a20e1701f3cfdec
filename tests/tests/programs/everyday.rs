//! Everyday programs on a mount, compared with what they do elsewhere.
#![allow(clippy::unwrap_used)]

use std::fs;

use rustix::fs as sys;
use xfer_tests::files::{errno, make_tree, set_xattr};
use xfer_tests::snapshot::{assert_same, snapshot};
use xfer_tests::world::{before_and_after_a_remount, on_a_mount};
use xfer_tests::{World, shell};

/// A tree outside the mount with hard links, symbolic links, holes, attributes and odd modes.
fn varied_tree(world: &World) -> std::path::PathBuf {
    let source = world.outside().join("source");
    make_tree(&source, 120, 5);
    shell(
        &source,
        "ln 'd00/e0/file 0.txt' hard; ln hard d01/hard-too; ln -s d00/e0 soft; ln -s nowhere gone
         truncate -s 5M sparse; echo middle | dd of=sparse seek=4000 conv=notrunc status=none
         setfattr -n user.colour -v green hard; setfattr -n user.empty d02
         chmod 640 hard; chmod 1777 d03; mkdir empty; touch -d '1970-01-01 00:00:01.5' sparse",
    );
    source
}

/// Removes the attributes from that tree.
const WITHOUT_ATTRIBUTES: &str = "setfattr -x user.colour hard; setfattr -x user.empty d02";

#[test]
fn rsync_with_every_option_transfers_nothing_the_second_time() {
    let world = World::new(&["alice"]);
    let source = varied_tree(&world);
    let mount = world.mount("alice");
    let rsync = |mount: &xfer_tests::Mount| {
        let to = mount.path("copy");
        let rsync =
            format!("rsync -aHAX --sparse --checksum --itemize-changes . '{}/'", to.display());
        shell(&source, &rsync)
    };
    assert_ne!(rsync(&mount), "");
    assert_eq!(rsync(&mount), "");
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(rsync(&mount), "");
    assert_same(&snapshot(&source), &snapshot(&mount.path("copy")));
    assert_eq!(mount.shell("stat -c %b copy/sparse"), "8");
    mount.unmount();
}

#[test]
fn cpio_packs_and_unpacks_hard_links_symbolic_links_and_times() {
    let world = World::new(&["alice"]);
    let source = varied_tree(&world);
    // The cpio format can't store attributes or fractions of seconds.
    shell(&source, WITHOUT_ATTRIBUTES);
    shell(&source, "find . -exec touch -h -d '2001-02-03 04:05:06' {} +");
    let mount = world.mount("alice");
    shell(
        &source,
        &format!("find . | cpio -o -H newc --quiet > '{}'", mount.path("all").display()),
    );
    mount.shell("mkdir out && cd out && cpio -idm --sparse --quiet < ../all");
    assert_same(&snapshot(&source), &snapshot(&mount.path("out")));
    assert_eq!(mount.shell("stat -c %h out/hard"), "3");
    mount.unmount();
}

#[test]
fn cp_keeps_everything_inside_the_mount_and_out_of_it_again() {
    let world = World::new(&["alice"]);
    let source = varied_tree(&world);
    let mount = world.mount("alice");
    shell(&source, &format!("cp -a . '{}'", mount.path("one").display()));
    mount.shell("cp -a one two");
    let back = world.outside().join("back");
    mount.shell(&format!("cp -a two '{}'", back.display()));
    let expected = snapshot(&source);
    for copy in [mount.path("one"), mount.path("two"), back] {
        assert_same(&expected, &snapshot(&copy));
    }
    assert_eq!(mount.shell("stat -c %h one/hard two/hard"), "3\n3");
    assert_eq!(mount.shell("stat -c %b one/sparse two/sparse"), "8\n8");
    mount.unmount();
}

#[test]
fn du_adds_up_to_what_the_quota_counts() {
    let world = World::new(&["alice --quota 64MiB"]);
    let source = varied_tree(&world);
    // Attributes count towards the usage, but `du` can't see them.
    shell(&source, WITHOUT_ATTRIBUTES);
    let mount = world.mount("alice");
    let used = || {
        let stat = sys::statvfs(mount.root()).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    };
    // `df` counts whole blocks.
    let counted = || mount.shell("du -s -B4096 . | cut -f1").parse::<u64>().unwrap() * 4096;
    assert_eq!(counted(), used());
    shell(&source, &format!("cp -a . '{}'", mount.path("copy").display()));
    assert_eq!(counted(), used());
    mount.shell("fallocate -l 3M copy/more; fallocate -p -o 1M -l 1M copy/more; rm -r copy/d0*");
    assert_eq!(counted(), used());
    mount.unmount();
}

#[test]
fn dd_writes_and_reads_in_blocks_of_every_size() {
    let world = World::new(&["alice"]);
    let source = world.outside();
    shell(&source, "seq 1 30000 > numbers");
    let sizes = "1000 7 511 512 4095 4096 4097 65536 131071 131072 1048576 3000000";
    let options = ["", "oflag=append", "oflag=direct", "oflag=dsync", "conv=sparse", "conv=fsync"];
    let mount = world.mount("alice");
    for option in options {
        // With some options, small blocks would take too long.
        let sizes = if option.is_empty() { sizes } else { "4096 131072 3000000" };
        mount.shell(&format!(
            "for bs in {sizes}; do
                 dd if='{from}/numbers' of=copy bs=$bs {option} status=none
                 cmp copy '{from}/numbers'
                 dd if=copy bs=$bs status=none | cmp - '{from}/numbers'
                 rm copy
             done",
            from = source.display()
        ));
    }
    mount.unmount();
}

#[test]
fn python_maps_a_file_and_seeks_about_in_it() {
    before_and_after_a_remount(
        |mount| {
            mount.shell(
                "python3 - <<'END'
import mmap, random
random.seed(7)
expected = bytearray(8 << 20)
with open('file', 'w+b', buffering=0) as file:
    file.truncate(len(expected))
    with mmap.mmap(file.fileno(), 0) as mapped:
        for _ in range(300):
            at = random.randrange(len(expected) - 5000)
            piece = random.randbytes(random.randrange(5000))
            mapped[at:at + len(piece)] = expected[at:at + len(piece)] = piece
            file.seek(at)
            assert file.read(len(piece)) == piece
        mapped.flush()
open('expected', 'wb').write(expected)
END
cmp file expected",
            );
        },
        |mount| {
            mount.shell(
                "python3 - <<'END'
import random
expected = open('expected', 'rb').read()
with open('file', 'rb', buffering=0) as file:
    for at in random.Random(8).choices(range(len(expected)), k=300):
        file.seek(at)
        assert file.read(3000) == expected[at:at + 3000]
END",
            );
        },
    );
}

#[test]
fn locks_on_ranges_wait_for_other_processes_and_end_with_them() {
    on_a_mount(|mount| {
        let said = mount.shell(
            "python3 - <<'END'
import fcntl, os, time
with open('file', 'w+b') as file:
    file.write(bytes(100)); file.flush()
    ready, done = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)
        os.write(ready[1], b'x'); os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 0)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 70, 30)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, 29)
        print('not excluded')
    except OSError as error:
        print(type(error).__name__)
    os.write(done[1], b'x')
    fcntl.lockf(file, fcntl.LOCK_EX, 2, 29)
    os.waitpid(holder, 0)
    print('got it')
END",
        );
        assert_eq!(said, "BlockingIOError\ngot it");
    });
}

#[test]
fn programs_that_watch_a_directory_are_told_what_others_do_in_it() {
    on_a_mount(|mount| {
        let seen = mount.shell(
            "mkdir watched; inotifywait -qm --format '%e %f' watched > ../seen & watcher=$!
             until touch watched/probe && grep -q probe ../seen; do
                 rm watched/probe; sleep 0.05
             done
             rm watched/probe; : > ../seen
             echo x > watched/one; mv watched/one watched/two; chmod 600 watched/two; rm watched/two
             mkdir watched/three; touch watched/last
             until grep -q 'CREATE last' ../seen; do sleep 0.05; done
             kill $watcher; tr -d '\\0' < ../seen",
        );
        for event in [
            "CREATE one",
            "MODIFY one",
            "CLOSE_WRITE,CLOSE one",
            "MOVED_FROM one",
            "MOVED_TO two",
            "ATTRIB two",
            "DELETE two",
            "CREATE,ISDIR three",
        ] {
            assert!(seen.lines().any(|line| line == event), "{event} is not in:\n{seen}");
        }
    });
}

const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
                   GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org \
                   GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org;";

#[test]
fn git_finds_its_index_up_to_date_after_a_remount_without_looking_into_files() {
    // Unlike `git status`, `diff-files` reports every file whose inode number or times differ from
    // those in the index.
    let unchanged = format!("{GIT} cd work; git diff-files --quiet");
    before_and_after_a_remount(
        |mount| {
            make_tree(&mount.path("work"), 200, 6);
            mount.shell(&format!(
                "{GIT} cd work; git init -q . && git add -A && git commit -qm one"
            ));
            // Git does not trust a file as new as the index; this writes the index again.
            mount.shell(&format!("{GIT} cd work; sleep 0.05; git update-index --refresh"));
            mount.shell(&unchanged);
        },
        |mount| {
            mount.shell(&unchanged);
            mount.shell(&format!("{GIT} cd work; git gc -q --prune=now; git fsck --strict"));
            assert_eq!(mount.shell(&format!("{GIT} cd work; git status --porcelain")), "");
        },
    );
}

#[test]
fn two_processes_write_to_one_sqlite_database() {
    let integrity = "for j in wal delete; do sqlite3 $j.db 'PRAGMA integrity_check;
                     SELECT count(*), count(DISTINCT writer) FROM t;'; done";
    let expected = "ok\n400|2\nok\n400|2";
    before_and_after_a_remount(
        |mount| {
            mount.shell(
                "python3 - <<'END'
import os, sqlite3
for journal in ('wal', 'delete'):
    name = journal + '.db'
    database = sqlite3.connect(name)
    assert database.execute(f'PRAGMA journal_mode={journal}').fetchone()[0] == journal
    database.execute('CREATE TABLE t(writer INTEGER, n INTEGER)')
    database.close()
    writers = []
    for writer in (1, 2):
        if (child := os.fork()) == 0:
            database = sqlite3.connect(name, timeout=60, isolation_level=None)
            for n in range(200):
                database.execute('BEGIN IMMEDIATE')
                database.execute('INSERT INTO t VALUES (?, ?)', (writer, n))
                database.execute('COMMIT')
            os._exit(0)
        writers.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in writers)
END",
            );
            assert_eq!(mount.shell(integrity), expected);
        },
        |mount| assert_eq!(mount.shell(integrity), expected),
    );
}

#[test]
fn cargo_builds_a_crate_in_the_mount() {
    on_a_mount(|mount| {
        let cargo = "unset CARGO_TARGET_DIR; cd hello; cargo build -q --offline";
        mount.shell("cargo new -q --vcs none hello");
        // Keeps cargo from looking for a workspace in the directories above.
        mount.shell("echo '[workspace]' >> hello/Cargo.toml");
        mount.shell(cargo);
        assert_eq!(mount.shell("hello/target/debug/hello"), "Hello, world!");
        mount.shell("sed -i s/world/mount/ hello/src/main.rs");
        mount.shell(cargo);
        assert_eq!(mount.shell("hello/target/debug/hello"), "Hello, mount!");
    });
}

#[test]
fn an_overlay_has_the_mount_beneath_it() {
    assert!(rustix::process::geteuid().is_root(), "overlays are made by root: run it as root");
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    on_a_mount(|mount| {
        let script = format!(
            "mkdir -p lower/d; echo lower > lower/d/file; echo gone > lower/d/other
             cd '{}'; mkdir upper work merged
             mount -t overlay overlay -o lowerdir='{}',upperdir=upper,workdir=work merged
             cat merged/d/file; echo more >> merged/d/file; rm merged/d/other
             mv merged/d/file merged
             cat merged/file; ls merged/d",
            upper.path().display(),
            mount.path("lower").display(),
        );
        let said = mount.shell(&format!("unshare -m bash -euc \"{script}\""));
        assert_eq!(said, "lower\nlower\nmore");
        assert_eq!(mount.shell("cat lower/d/*"), "lower\ngone");
    });
}

#[test]
fn nano_saves_a_file_and_leaves_nothing_else_behind() {
    before_and_after_a_remount(
        |mount| {
            mount.shell(
                "echo second > letter.txt; chmod 640 letter.txt; python3 - <<'END'
import os, pty
pid, terminal = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'xterm'
    os.execvp('nano', ['nano', '--ignorercfiles', '--backup', 'letter.txt'])
shown = b''
while b'second' not in shown:
    shown += os.read(terminal, 4096)
os.write(terminal, b'first\\r\\x0f\\r\\x18')
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
assert os.waitpid(pid, 0)[1] == 0
END",
            );
        },
        |mount| {
            assert_eq!(mount.shell("cat letter.txt; cat letter.txt~"), "first\nsecond\nsecond");
            assert_eq!(mount.shell("stat -c %a letter.txt"), "640");
            assert_eq!(mount.shell("ls -A"), "inbox\nletter.txt\nletter.txt~\noutbox");
        },
    );
}

#[test]
fn access_control_lists_and_attributes_of_the_system_are_refused() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let mount = world.mount("alice");
    let file = mount.path("file");
    fs::write(&file, "x").unwrap();
    let names = [
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.other",
        "security.capability",
        "security.other",
        "trusted.other",
    ];
    // The kernel itself validates the format of a capability.
    let value = [&[0, 0, 0, 2][..], &[0; 16]].concat();
    for name in names {
        let set = set_xattr(&file, name, &value).map_err(Into::into);
        assert_eq!(errno(set), libc::EOPNOTSUPP, "{name}");
    }
    assert_eq!(mount.shell("getfacl -cE file"), "user::rw-\ngroup::r--\nother::r--");
    let refused = mount.shell("setfacl -m u:daemon:r file 2>&1 || true");
    assert!(refused.contains("Operation not supported"), "{refused}");
    // Programs that copy ACLs must cope with there being none.
    let from = source.display();
    assert_eq!(
        mount.shell(&format!("cp -a '{from}' cp; rsync -aAX '{from}/' rsync; cat cp/file")),
        "x"
    );
    mount.unmount();
}

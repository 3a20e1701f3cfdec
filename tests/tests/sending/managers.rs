//! What file managers and editors do in a mailbox, each in its own steps.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use xfer_tests::pty::OnPty;
use xfer_tests::sending::{A_WHILE, arrives, wait_for_state};
use xfer_tests::waiting::holds_for;
use xfer_tests::{Mount, PATIENCE, World, run_within, shell, wait_until};

/// An album with modes and times of its own, outside of all mounts.
fn make_album(world: &World) {
    shell(
        &world.outside(),
        "mkdir -p album/2024/raw album/none; echo text > album/notes; : > album/2024/empty
         head -c 300000 /dev/urandom > album/2024/raw/photo; echo x > album/2024/script
         chmod 640 album/notes; chmod 750 album/2024/script; chmod 711 album/2024; chmod 500 album/none
         find album -depth -exec touch -d '2001-02-03 04:05:06' {} +",
    );
}

/// Everything of a tree that a file manager keeps.
fn kept(directory: &Path) -> String {
    let script =
        "find . -printf '%P %y %m %s %Ts\\n' | sed '/ d /s/ [0-9]* \\([0-9]*\\)$/ \\1/' | sort
        find . -type f -print0 | sort -z | xargs -0 sha256sum";
    shell(directory, script)
}

/// Has a script of a file manager copy the album and a file into alice's outbox for bob, and checks that he
/// gets both whole and once.
fn check_copied(world: &World, script: &[&str]) {
    make_album(world);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let mut copy = Command::new(script[0]);
    copy.args(&script[1..]).current_dir(world.outside()).env("OUTBOX", alice.path("outbox/bob"));
    run_within(world.at_home(&mut copy), PATIENCE).succeeded();
    arrives(&bob, "inbox/alice/notes");
    let album = arrives(&bob, "inbox/alice/album");
    // Complete when it appears: compare it at once, without waiting.
    assert_eq!(kept(&album), kept(&world.outside().join("album")));
    let notes = "stat -c '%a %s %Y' notes";
    assert_eq!(bob.shell(&format!("cd inbox/alice; {notes}")), "640 5 981173106");
    for name in ["album", "notes"] {
        wait_for_state(&alice.path("outbox/bob").join(name), "received");
    }
    assert!(holds_for(A_WHILE, || bob.shell("ls -A inbox/alice") == "album\nnotes"));
    bob.unmount();
    alice.unmount();
}

#[test]
fn what_gio_copies_arrives_whole_and_once_with_modes_and_times() {
    let world = World::new(&["alice", "bob"]);
    // `gio copy` copies files only. A directory is copied in the steps of Nautilus: it is made, then come its
    // files, each as `gio copy` makes it, and its attributes at last. All of it takes longer than a directory rests.
    let script = "set -eu
        export TZ=UTC
        copy() {
            gio mkdir \"$2\"
            for entry in \"$1\"/*; do
                if [ -d \"$entry\" ]; then copy \"$entry\" \"$2/${entry##*/}\"
                elif [ -e \"$entry\" ]; then sleep 0.3; gio copy --preserve -P \"$entry\" \"$2/\"
                fi
            done
            sleep 0.3
            gio set -t uint64 \"$2\" time::modified \"$(stat -c %Y \"$1\")\"
            gio set -t uint32 \"$2\" unix::mode \"$((0$(stat -c %a \"$1\")))\"
        }
        copy album \"$OUTBOX/album\"
        gio copy --preserve album/notes \"$OUTBOX/\"";
    check_copied(&world, &["bash", "-c", script]);
}

#[test]
fn what_is_copied_in_the_steps_of_dolphin_arrives_whole_and_once_with_modes_and_times() {
    let world = World::new(&["alice", "bob"]);
    // As KIO does: each file is written as NAME.part, gets its attributes and then its name. A directory is
    // made first, and its times are set when all is there.
    let script = "
import os, time
def copy_file(source, target):
    part = target + '.part'
    with open(source, 'rb') as data, open(part, 'xb') as copy:
        while block := data.read(100000):
            copy.write(block)
            copy.flush()
            time.sleep(0.1)
    of = os.stat(source)
    os.chmod(part, of.st_mode & 0o777)
    os.utime(part, ns=(of.st_atime_ns, of.st_mtime_ns))
    time.sleep(0.3)
    os.rename(part, target)
def copy(source, target):
    of = os.stat(source)
    os.mkdir(target, of.st_mode & 0o777 | 0o700)
    for entry in sorted(os.listdir(source)):
        one = (os.path.join(source, entry), os.path.join(target, entry))
        (copy if os.path.isdir(one[0]) else copy_file)(*one)
    time.sleep(0.3)
    os.chmod(target, of.st_mode & 0o777)
    os.utime(target, ns=(of.st_atime_ns, of.st_mtime_ns))
copy('album', os.environ['OUTBOX'] + '/album')
copy_file('album/notes', os.environ['OUTBOX'] + '/notes')";
    check_copied(&world, &["python3", "-c", script]);
}

/// Has an editor change a letter that was sent, and checks that the new text is sent, once, and nothing else.
fn check_revised(editor: &[&str], edit: impl FnOnce(&mut OnPty, &Mount)) {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    let letter = alice.path("outbox/bob/letter.txt");
    alice.shell("echo 'hello world' > outbox/bob/letter.txt; chmod 640 outbox/bob/letter.txt");
    arrives(&bob, "inbox/alice/letter.txt");
    wait_for_state(&letter, "received");
    let mut command = Command::new(editor[0]);
    world.at_home(command.args(&editor[1..]).arg(&letter).env("TERM", "xterm"));
    let mut editor = OnPty::start(&command);
    editor.says("hello world");
    edit(&mut editor, &alice);
    assert_eq!(editor.ended(), Some(0), "{}", editor.said());
    let revised = arrives(&bob, "inbox/alice/letter (2).txt");
    assert_eq!(fs::read_to_string(revised).unwrap(), "hello xfer\n");
    assert_eq!(bob.shell("cat inbox/alice/letter.txt"), "hello world");
    assert_eq!(bob.shell("stat -c %a 'inbox/alice/letter (2).txt'"), "640");
    wait_for_state(&letter, "received");
    assert_eq!(alice.shell("ls -A outbox/bob"), "letter.txt");
    let both = || bob.shell("ls -A inbox/alice") == "letter (2).txt\nletter.txt";
    assert!(holds_for(A_WHILE, both), "{}", bob.shell("ls -A inbox/alice"));
    bob.unmount();
    alice.unmount();
}

#[test]
fn a_record_that_is_edited_by_nano_is_sent_as_a_new_version() {
    check_revised(&["nano", "--ignorercfiles"], |nano, _| {
        // To the end of the line, over the last word, write out, exit.
        nano.types("\x05\x7f\x7f\x7f\x7f\x7fxfer\x0f");
        nano.says("File Name to Write");
        nano.types("\r");
        nano.says("Wrote 1 line");
        nano.types("\x18");
    });
}

#[test]
fn a_record_that_is_edited_by_vim_is_sent_as_a_new_version() {
    for way in ["backupcopy=no", "backupcopy=yes"] {
        let set = format!("set {way}");
        check_revised(&["vim", "-N", "-u", "NONE", "-i", "NONE", "--cmd", &set], |vim, alice| {
            vim.types(":%s/world/xfer/\r");
            let swap = alice.path("outbox/bob/.letter.txt.swp");
            wait_until("the swap file", PATIENCE, || swap.exists());
            vim.types(":wq\r");
        });
    }
}

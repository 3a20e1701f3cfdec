//! The main job, done by ordinary programs on real files; everything must still be there afterwards.
#![allow(clippy::unwrap_used)]

use xfer_tests::files::make_tree;
use xfer_tests::snapshot::{assert_same, snapshot};
use xfer_tests::{Mount, World, shell};

#[test]
fn a_new_account_has_an_inbox_and_an_outbox_and_nothing_else() {
    let world = World::new(&["alice", "bob"]);
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls -A"), "inbox\noutbox");
    assert_eq!(mount.shell("ls -A outbox"), "bob");
    assert_eq!(mount.shell("ls -A inbox"), "");
    mount.unmount();
}

#[test]
fn thousands_of_files_survive_copying_and_remounting_and_a_restart_of_the_server() {
    let mut world = World::new(&["alice"]);
    let source = world.outside().join("source");
    make_tree(&source, 3000, 1);
    let mount = world.mount("alice");
    shell(&source, &format!("cp -a . '{}'", mount.path("copy").display()));
    let expected = snapshot(&source);
    assert_same(&expected, &snapshot(&mount.path("copy")));
    mount.unmount();

    let mount = world.mount("alice");
    assert_same(&expected, &snapshot(&mount.path("copy")));
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();

    let mount = world.mount("alice");
    assert_same(&expected, &snapshot(&mount.path("copy")));
    mount.shell("mv copy moved && test ! -e copy && rm -r moved && test ! -e moved");
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("ls"), "inbox\noutbox");
    mount.unmount();
}

#[test]
fn head_and_cat_and_ls_show_a_file_as_it_was_uploaded() {
    let world = World::new(&["alice"]);
    let source = world.outside();
    shell(&source, "seq 1 2000000 > numbers");
    let mount = world.mount("alice");
    shell(&source, &format!("cp numbers '{}'", mount.root().display()));
    mount.unmount();

    let mount = world.mount("alice");
    assert_eq!(mount.shell("head -n 3 numbers"), "1\n2\n3");
    assert_eq!(mount.shell("tail -n 1 numbers"), "2000000");
    let numbers = source.join("numbers");
    mount.shell(&format!("cat numbers | cmp - '{}'", numbers.display()));
    let len = std::fs::metadata(&numbers).unwrap().len();
    assert!(mount.shell("ls -l numbers").contains(&len.to_string()));
    mount.unmount();
}

#[test]
fn tar_packs_and_unpacks_a_tree_with_everything_in_it() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    make_tree(&source, 300, 2);
    shell(&source, "ln -s 'd00/e0' soft && ln 'd00/e0/file 0.txt' hard && mkfifo pipe");
    shell(&source, "chmod 640 hard && setfattr -n user.colour -v green hard && mkdir -p a/b/c");
    let mount = world.mount("alice");
    shell(&source, &format!("tar --xattrs -cf '{}' .", mount.path("all.tar").display()));
    mount.shell("mkdir out && tar --xattrs -xpf all.tar -C out");
    assert_same(&snapshot(&source), &snapshot(&mount.path("out")));
    mount.unmount();
    let mount = world.mount("alice");
    assert_same(&snapshot(&source), &snapshot(&mount.path("out")));
    mount.unmount();
}

#[test]
fn rsync_brings_a_tree_over_and_then_finds_nothing_to_do() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    make_tree(&source, 200, 3);
    let mount = world.mount("alice");
    let rsync = format!("rsync -a --itemize-changes . '{}/'", mount.path("copy").display());
    assert_ne!(shell(&source, &rsync), "");
    assert_eq!(shell(&source, &rsync), "");
    assert_same(&snapshot(&source), &snapshot(&mount.path("copy")));
    mount.unmount();
}

const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
                   GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org \
                   GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org;";

#[test]
fn git_clones_commits_and_stays_clean_across_a_remount() {
    let world = World::new(&["alice"]);
    let source = world.outside().join("source");
    make_tree(&source, 400, 4);
    shell(&source, &format!("{GIT} git init -q . && git add -A && git commit -qm one"));
    let mount = world.mount("alice");
    mount.shell(&format!("{GIT} git clone -q '{}' work", source.display()));
    let work = |mount: &Mount, script: &str| mount.shell(&format!("{GIT} cd work; {script}"));
    assert_eq!(work(&mount, "git status --porcelain"), "");
    work(&mount, "echo more > new && git add new && git commit -qm two && git gc -q");
    let head = work(&mount, "git rev-parse HEAD");
    mount.unmount();

    let mount = world.mount("alice");
    assert_eq!(work(&mount, "git rev-parse HEAD"), head);
    assert_eq!(work(&mount, "git status --porcelain"), "");
    work(&mount, "git fsck --strict");
    mount.unmount();
}

#[test]
fn sqlite_keeps_a_database_with_either_journal() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    for journal in ["delete", "wal"] {
        let database = format!("{journal}.db");
        mount.shell(&format!(
            "sqlite3 {database} 'PRAGMA journal_mode={journal}; CREATE TABLE t(n INTEGER);' &&
             for i in 1 2 3 4 5; do sqlite3 {database} \
                 'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<500)
                  INSERT INTO t SELECT n FROM c;'; done"
        ));
    }
    mount.unmount();
    let mount = world.mount("alice");
    for journal in ["delete", "wal"] {
        let ask = format!("sqlite3 {journal}.db 'SELECT count(*), sum(n) FROM t;'");
        assert_eq!(mount.shell(&ask), "2500|626250");
        assert_eq!(mount.shell(&format!("sqlite3 {journal}.db 'PRAGMA integrity_check;'")), "ok");
    }
    mount.unmount();
}

#[test]
fn vim_saves_a_file_and_leaves_nothing_else_behind() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let edit = "vim -N -u NONE -n -es -c 'set backup writebackup backupcopy=no nobackup' \
                -c '%s/world/xfer/' -c wq letter.txt </dev/null";
    mount.shell(&format!("echo 'hello world' > letter.txt && chmod 640 letter.txt && {edit}"));
    assert_eq!(mount.shell("cat letter.txt"), "hello xfer");
    assert_eq!(mount.shell("stat -c %a letter.txt"), "640");
    assert_eq!(mount.shell("ls -A"), "inbox\nletter.txt\noutbox");
    mount.unmount();
    let mount = world.mount("alice");
    assert_eq!(mount.shell("cat letter.txt"), "hello xfer");
    mount.unmount();
}

#[test]
fn mounting_goes_to_the_background_once_the_mount_is_usable() {
    let world = World::new(&["alice", "bob"]);
    world.mounting("alice").in_background().succeeded();
    let root = world.mount_point("alice");
    assert_eq!(shell(&root, "ls; ls outbox"), "inbox\noutbox\nbob");
    shell(&root, "echo kept > file");
    shell(root.parent().unwrap(), "fusermount3 -u alice");
    world.mounting("alice").in_background().succeeded();
    assert_eq!(shell(&root, "cat file"), "kept");
    shell(root.parent().unwrap(), "fusermount3 -u alice");
}

#[test]
fn two_mounts_of_two_users_see_only_their_own() {
    let world = World::new(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.shell("echo secret > mine && sync mine");
    assert_eq!(bob.shell("find . -name mine"), "");
    bob.unmount();
    alice.unmount();
}

//! The same commands by a session of their own and through a mount: output, exit code and the tree that
//! results are the same.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use xfer_tests::programs::{Finished, run_with_input, shell};
use xfer_tests::{PATIENCE, World};

use crate::{at, bytes, world, write};

/// The commands, in order. `{}` is the account; `%` is a directory of this machine that each way has for
/// itself; `^` is a path that is nearly as long as the kernel takes; what is after `<` comes from standard input.
const COMMANDS: &str = "
ls {}:
put -r tree {}:
put -r tree/d {}:other
put tree/f {}:name
put tree/f tree/empty {}:tree/d
put -r tree/f tree/nothing {}:tree
put tree {}:x
put - {}:typed < typed
ls -laR {}:
ls {}:tree/* {}:*.txt {}:name
ls --json -R {}:tree
stat {}:tree/f {}:tree/link {}:tree
stat --json {}:tree/pipe {}:name {}:nothing
cat {}:typed {}:tree/f {}:tree/d {}:tree/link {}:nothing
cat --range 1-2 {}:tree/f
head -n 2 {}:tree/lines {}:tree/f
head -c 5 {}:tree/lines
find {}: --name *i* --type f
find {}:tree --type l --json
find -0 {}:tree/d
du {}:tree
du -sh {}:tree {}:name
mkdir {}:made {}:made/below {}:tree
mkdir -p {}:made/a/b/c {}:made
cp {}:name {}:copy
cp {}:tree {}:copied
cp -r {}:tree {}:copied
cp -r {}:tree {}:copied
cp -r {}:tree {}:tree/d
cp {}:name {}:tree/lines {}:made
cp {}:name {}:nothing/name
mv {}:copy {}:made/moved
mv {}:made/moved {}:name {}:made/a
mv {}:tree {}:tree/d
mv {}:nothing {}:made
mv {}:tree/f {}:copied
mv {}:copied {}:tree/lines
rm {}:nothing {}:made {}:tree/link
rm -f {}:nothing {}:no*
rm -r {}:made/a {}:copied/tree
rm -r {}:
rm -r {}:inbox
get -r {}:tree %
get -r {}:tree %
get {}:tree/lines %/lines
get {}:tree/lines {}:typed %/lines
get {}:typed -
get -r --checksum {}:copied %/copied
put --checksum tree/lines {}:tree/lines
send tree/f {}:tree/d {} --to zed
send tree/f {} --to nobody
put tree/f {}:outbox/zed/
cp -r {}:tree {}:outbox/zed/all
mv {}:typed {}:outbox/zed/
mv {}:tree/d {}:outbox/nobody/
outbox {}
inbox {}
ls -R {}:outbox
rm -r {}:outbox/zed/all
rm {}:outbox/zed/typed
mkdir -p {}:a/^ {}:b/^
put tree/f {}:a/^/f
mv {}:a {}:b/^
find {}:b
ls -lR {}:b/^/a
stat {}:b/^/a/^/f {}:b/^/a/^/g
cat {}:b/^/a/^/f
put - {}:b/^/a/^/typed < typed
cp -r {}:b {}:c
cp {}:c/^/a/^/f {}:c/^/a/^/g
mv {}:c/^/a/^/g {}:c/^/a/h
du {}:c
rm -r {}:b {}:c
";

/// Runs a line of the table for a user.
fn run(world: &World, user: &str, line: &str) -> Finished {
    let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
    let mut command = world.xfer_command(&[]);
    for word in line.split(' ') {
        let own = format!("here-{user}");
        let word = word.replace('^', &["long"; 800].join("/"));
        command.arg(word.replace("{}", &at(world, user)).replace('%', &own));
    }
    let input = format!("{input}\n");
    run_with_input(command.current_dir(world.outside()), input.as_bytes(), PATIENCE)
}

/// What may differ between two accounts: their names, times, and the numbers of nodes.
fn same(text: &str) -> String {
    let is_of_moment = |line: &&str| {
        ["\"mtime\"", "\"ctime\"", "\"inode\"", "  changed", "  inode", "  modified"]
            .iter()
            .all(|field| !line.trim_start().starts_with(field.trim_start()))
    };
    let text = text.replace("alone", "USER").replace("mount", "USER");
    let lines = text.lines().filter(is_of_moment).map(|line| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let is_date = |word: &str| word.len() == 10 && word.as_bytes()[4] == b'-';
        let is_time = |word: &str| word.len() == 8 && word.as_bytes()[2] == b':';
        for word in &mut words {
            if is_date(word) || is_time(word) || word.ends_with('Z') && word.len() > 18 {
                *word = "MOMENT".to_owned();
            }
        }
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything of a directory that the commands determine.
fn contents(directory: &std::path::Path) -> String {
    let script = "find . -printf '%p %y %m %s %l\\n' | sort; \
                  find . -type f -print0 | sort -z | xargs -0r sha256sum";
    shell(directory, script)
}

#[test]
fn a_mount_and_a_session_give_the_same_output_and_the_same_tree() {
    let world = world(&["alone", "mount", "zed"]);
    write(&world, "tree/f", "text");
    write(&world, "tree/empty", "");
    write(&world, "tree/lines", "one\ntwo\nthree\n");
    write(&world, "tree/d/big", bytes(2 << 20));
    write(&world, "tree/d/.hidden", "");
    let path = |path: &str| world.outside().join(path);
    symlink("f", path("tree/link")).unwrap();
    shell(&path("tree"), "mkfifo pipe; chmod 750 d; chmod 600 f");
    for user in ["alone", "mount"] {
        fs::create_dir(path(&format!("here-{user}"))).unwrap();
    }
    let mount = world.mount("mount");
    for line in COMMANDS.lines().filter(|line| !line.is_empty()) {
        let [alone, mounted] = ["alone", "mount"].map(|user| run(&world, user, line));
        let shown = |done: &Finished| (done.code, same(&done.stdout), same(&done.stderr));
        assert_eq!(shown(&alone), shown(&mounted), "{line}");
        // No line of the table is wrong itself.
        assert!(matches!(alone.code, Some(0 | 1)), "{alone}");
    }
    assert_eq!(contents(&path("here-alone")), contents(&path("here-mount")));
    let mounted = contents(mount.root());
    mount.unmount();
    let alone = world.mount("alone");
    assert_eq!(same(&contents(alone.root())), same(&mounted));
    assert!(mounted.lines().count() > 20, "{mounted}");
    alone.unmount();
}

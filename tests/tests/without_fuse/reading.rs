//! Looking at a tree: `ls`, `stat`, `cat`, `head`, `find` and `du`.
#![allow(clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use xfer_tests::programs::program;
use xfer_tests::{PATIENCE, Relay, World, run_within};

use crate::{at, bytes, json, log_in_at, world, write, xfer};

/// A tree with a few files.
fn with_files() -> World {
    let world = world(&["alice"]);
    write(&world, "tree/notes/a.txt", "one\ntwo\nthree\n");
    write(&world, "tree/notes/b.txt", "four\n");
    write(&world, "tree/notes/.hidden", "");
    write(&world, "tree/notes/[c].txt", "five\n");
    write(&world, "tree/big", bytes(3 << 20));
    std::os::unix::fs::symlink("notes/a.txt", world.outside().join("tree/link")).unwrap();
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    world
}

#[test]
fn a_tree_is_looked_at_without_fuse() {
    let world = with_files();
    let trace = world.outside().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=%file", "-o"]).arg(&trace).arg(program("xfer"));
    command.args(["cat", &format!("{}:tree/notes/b.txt", at(&world, "alice"))]);
    let printed = run_within(world.at_home(&mut command), PATIENCE).succeeded();
    assert_eq!(printed.stdout, "four\n");
    let calls = fs::read_to_string(&trace).unwrap();
    assert!(calls.contains("open") && !calls.contains("fuse"), "{calls}");
    assert!(!calls.contains("mount("), "{calls}");
}

#[test]
fn directories_are_listed_in_the_order_of_names_and_patterns_are_expanded() {
    let world = with_files();
    let ls = |arguments: &[&str]| {
        xfer(&world, &[&["ls"], arguments].concat()).succeeded().stdout.replace('\n', " ")
    };
    assert_eq!(ls(&["{}:"]), "inbox outbox tree ");
    assert_eq!(ls(&["{}:tree"]), "big link notes ");
    assert_eq!(ls(&["{}:tree/notes"]), "[c].txt a.txt b.txt ");
    assert_eq!(ls(&["-a", "{}:/tree/notes/"]), ".hidden [c].txt a.txt b.txt ");
    assert_eq!(ls(&["{}:tree/notes/?.txt"]), "/tree/notes/a.txt /tree/notes/b.txt ");
    assert_eq!(ls(&["{}:t*/n*/[ab].txt"]), "/tree/notes/a.txt /tree/notes/b.txt ");
    // A name that is there means itself.
    assert_eq!(ls(&["{}:tree/notes/[c].txt"]), "/tree/notes/[c].txt ");
    assert_eq!(ls(&["{}:tree/link", ":tree/big"]), "/tree/link /tree/big ");
    let recursive = ls(&["-R", "{}:tree"]);
    assert_eq!(recursive, "/tree: big link notes  /tree/notes: [c].txt a.txt b.txt ");
    let long = ls(&["-l", "{}:tree/link"]);
    assert!(
        long.starts_with("lrwxrwxrwx  11  2") && long.ends_with("link -> notes/a.txt "),
        "{long}"
    );
}

#[test]
fn json_says_everything_of_each_entry() {
    let world = with_files();
    let entries = json(&world, &["ls", "{}:tree"]);
    let paths: Vec<_> = entries.as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(paths, ["/tree/big", "/tree/link", "/tree/notes"]);
    assert_eq!(entries[0]["kind"], "file");
    assert_eq!((&entries[0]["size"], &entries[0]["mode"]), (&(3 << 20).into(), &"0644".into()));
    assert_eq!(
        (&entries[1]["kind"], &entries[1]["target"]),
        (&"symlink".into(), &"notes/a.txt".into())
    );
    assert_eq!(entries[2]["kind"], "directory");
    for field in ["allocated", "uid", "gid", "links", "inode"] {
        assert!(entries[0][field].is_u64(), "{field}");
    }
    let time = fs::metadata(world.outside().join("tree/big")).unwrap().modified().unwrap();
    let time = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let shown = entries[0]["mtime"].as_str().unwrap();
    let nanos = format!(".{:09}", time.subsec_nanos());
    assert!(shown.contains(nanos.trim_end_matches('0')), "{shown} {nanos}");
    let stat = json(&world, &["stat", "{}:tree/big"]);
    assert_eq!(stat[0], entries[0]);
    let recursive = json(&world, &["ls", "-aR", "{}:tree"]);
    assert_eq!(recursive.as_array().unwrap().len(), 7);
}

#[test]
fn files_are_printed_whole_or_in_part() {
    let world = with_files();
    let cat = |arguments: &[&str]| xfer(&world, &[&["cat"], arguments].concat()).succeeded().stdout;
    assert_eq!(cat(&["{}:tree/notes/a.txt", ":tree/notes/b.txt"]), "one\ntwo\nthree\nfour\n");
    assert_eq!(cat(&["--range", "4-6", "{}:tree/notes/a.txt"]), "two");
    assert_eq!(cat(&["--range", "8-", "{}:tree/notes/a.txt"]), "three\n");
    assert_eq!(cat(&["--range", "99-", "{}:tree/notes/a.txt"]), "");
    let head =
        |arguments: &[&str]| xfer(&world, &[&["head"], arguments].concat()).succeeded().stdout;
    assert_eq!(head(&["{}:tree/notes/a.txt"]), "one\ntwo\nthree\n");
    assert_eq!(head(&["-n", "2", "{}:tree/notes/a.txt"]), "one\ntwo\n");
    assert_eq!(head(&["-n", "0", "{}:tree/notes/a.txt"]), "");
    assert_eq!(head(&["-c", "5", "{}:tree/notes/a.txt"]), "one\nt");
    assert_eq!(
        head(&["-n", "1", "{}:tree/notes/?.txt"]),
        "==> /tree/notes/a.txt <==\none\n\n==> /tree/notes/b.txt <==\nfour\n"
    );
    let line = xfer(&world, &["cat", "--range", "6-4", "{}:tree/big"]).refused(2);
    assert!(line.contains("'6-4' is not a range"), "{line}");
}

#[test]
fn only_the_beginning_of_a_file_is_fetched_for_its_first_lines() {
    let world = world(&["alice"]);
    write(&world, "long", "a line of text\n".repeat(2 << 20));
    xfer(&world, &["put", "long", "{}:"]).succeeded();
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    let before = relay.passed().down;
    let place = format!("{account}:long");
    let printed = world.xfer(&["head", &place]).succeeded().stdout;
    assert_eq!(printed, "a line of text\n".repeat(10));
    let fetched = relay.passed().down - before;
    assert!(fetched < 1 << 20, "{fetched} of 30 MiB");
    let printed = world.xfer(&["cat", "--range", "15000000-15000009", &place]).succeeded().stdout;
    assert_eq!(printed, "a line of text\na line of text\n"[..10].to_owned());
    let fetched = relay.passed().down - before;
    assert!(fetched < 4 << 20, "{fetched} of 30 MiB");
}

#[test]
fn files_are_found_by_name_and_kind() {
    let world = with_files();
    let find = |arguments: &[&str]| {
        xfer(&world, &[&["find"], arguments].concat()).succeeded().stdout.replace('\n', " ")
    };
    assert_eq!(
        find(&["{}:tree"]),
        "/tree /tree/big /tree/link /tree/notes /tree/notes/.hidden /tree/notes/[c].txt \
         /tree/notes/a.txt /tree/notes/b.txt "
    );
    assert_eq!(find(&["{}:", "--name", "*.txt", "--type", "f"]).matches(".txt ").count(), 3);
    assert_eq!(find(&["{}:tree", "--type", "d"]), "/tree /tree/notes ");
    assert_eq!(find(&["{}:tree", "--type", "l"]), "/tree/link ");
    assert_eq!(find(&["{}:tree", "--name", "*hid*"]), "/tree/notes/.hidden ");
    assert_eq!(find(&["-0", "{}:tree", "--name", "b*"]), "/tree/big\0/tree/notes/b.txt\0");
    let found = json(&world, &["find", "{}:tree", "--name", "big"]);
    assert_eq!((&found[0]["path"], &found[0]["size"]), (&"/tree/big".into(), &(3 << 20).into()));
}

#[test]
fn the_space_of_a_directory_is_that_of_all_in_it() {
    let world = with_files();
    let du = |arguments: &[&str]| xfer(&world, &[&["du"], arguments].concat()).succeeded().stdout;
    assert_eq!(du(&["{}:tree"]), "12\t/tree/notes\n3084\t/tree\n");
    assert_eq!(du(&["-s", "{}:tree"]), "3084\t/tree\n");
    assert_eq!(du(&["-sh", "{}:tree/big"]), "3 MiB\t/tree/big\n");
    let used = json(&world, &["du", "-s", "{}:tree"]);
    assert_eq!(used[0]["bytes"], 3084 << 10);
}

#[test]
fn names_need_not_be_utf_8() {
    let world = world(&["alice"]);
    let odd = OsString::from_vec(b"a\xff\xfe\nb".to_vec());
    fs::write(world.outside().join(&odd), "odd").unwrap();
    let account = at(&world, "alice");
    let run = |arguments: &[&OsStr]| {
        let mut command = world.xfer_command(&[]);
        run_within(command.args(arguments).current_dir(world.outside()), PATIENCE).succeeded()
    };
    let place = |path: &[u8]| OsString::from_vec([account.as_bytes(), b":", path].concat());
    run(&["put".as_ref(), odd.as_ref(), &place(b"d\xe9")]);
    assert_eq!(run(&["cat".as_ref(), &place(b"d\xe9")]).stdout, "odd");
    run(&["cp".as_ref(), &place(b"d\xe9"), &place(b"\xe9\xe9")]);
    run(&["put".as_ref(), odd.as_ref(), &place(b"")]);
    assert_eq!(run(&["cat".as_ref(), &place(b"?\xe9")]).stdout, "oddodd");
    assert_eq!(run(&["cat".as_ref(), &place(b"a*\xfe?b")]).stdout, "odd");
    let found = json(&world, &["find", "{}:", "--name", "a*b"]);
    assert_eq!(found[0]["path_hex"], "2f61fffe0a62");
    fs::remove_file(world.outside().join(&odd)).unwrap();
    run(&["get".as_ref(), &place(odd.as_bytes()), ".".as_ref()]);
    assert_eq!(fs::read(world.outside().join(&odd)).unwrap(), b"odd");
    run(&["rm".as_ref(), &place(b"[!io]*")]);
    assert_eq!(xfer(&world, &["ls", "{}:"]).succeeded().stdout, "inbox\noutbox\n");
}

#[test]
fn what_can_t_be_read_is_said_in_a_line_and_the_others_are_printed() {
    let world = with_files();
    let done = xfer(
        &world,
        &[
            "cat",
            "{}:nothing",
            ":tree/notes/b.txt",
            ":tree",
            ":tree/link",
            ":t/*",
            ":*/*.png",
            ":7",
        ],
    );
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), "four\n"));
    let lines: Vec<_> = done.stderr.lines().collect();
    let account = format!("alice@{}", world.server.address.ip());
    let expected = [
        "xfer: cannot read '/nothing': no such file or directory".to_owned(),
        "xfer: cannot read '/t/*': no match".to_owned(),
        "xfer: cannot read '/*/*.png': no match".to_owned(),
        format!(
            "xfer: cannot read '/7': no such file or directory; a port is followed by a colon: {account}:7:"
        ),
        "xfer: cannot read '/tree': it is a directory".to_owned(),
        "xfer: cannot read '/tree/link': it is not a regular file".to_owned(),
    ];
    assert_eq!(lines, expected);
    let line = xfer(&world, &["ls", "{}:tree/link/a.txt"]).refused(1);
    assert!(line.ends_with("not a directory"), "a link is not followed: {line}");
    let line = xfer(&world, &["ls", "{}:tree/../tree"]).refused(2);
    assert!(line.ends_with("a path cannot have '..' in it"), "{line}");
    let line = xfer(&world, &["ls", "tree"]).refused(2);
    assert!(line.contains("write USER@HOST[:PORT]:PATH"), "{line}");
    // A port without a colon after it: the server is looked for at the usual one.
    for path in ["33555", "33555/x"] {
        let line = world.xfer(&["ls", &format!("alice@127.9.9.9:{path}")]).refused(6);
        let hint = " (a port is followed by a colon: alice@127.9.9.9:33555:)";
        assert_eq!(line.ends_with(hint), path == "33555", "{line}");
    }
}

//! Whole files and directories, there and back: `get` and `put`.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use xfer_tests::programs::{Running, shell};
use xfer_tests::pty::OnPty;
use xfer_tests::small_disk::SmallDisk;
use xfer_tests::{PATIENCE, Relay, World, run_within, wait_until};

use crate::{at, bytes, json, log_in_at, names, read, with_input, world, write, xfer};

/// Everything of a tree that get and put keep.
fn kept(world: &World, directory: &str) -> String {
    let script = "find . -type l -printf '%p %l\\n' -o -printf '%p %y %m %T@\\n' | sort; find . -type f -print0 | sort -z | \
                  xargs -0 sha256sum";
    shell(&world.outside().join(directory), script)
}

#[test]
fn a_directory_comes_back_as_it_was() {
    let world = world(&["alice"]);
    write(&world, "tree/empty", "");
    write(&world, "tree/a/b/big", bytes((5 << 20) + 7));
    write(&world, "tree/a/script", "#!/bin/sh\n");
    fs::create_dir(world.outside().join("tree/a/nothing")).unwrap();
    let path = |path: &str| world.outside().join(path);
    symlink("../nowhere", path("tree/a/link")).unwrap();
    fs::set_permissions(path("tree/a/script"), Permissions::from_mode(0o750)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 123_456_789);
    File::open(path("tree/a/script")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(path("tree/a/nothing"), Permissions::from_mode(0o500)).unwrap();
    File::open(path("tree/a")).unwrap().set_modified(old).unwrap();
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    xfer(&world, &["get", "-r", "{}:tree", "back"]).succeeded();
    assert_eq!(kept(&world, "tree"), kept(&world, "back"));
    // Once more into it, as cp does.
    xfer(&world, &["get", "-r", "{}:tree", "back"]).succeeded();
    assert_eq!(kept(&world, "tree"), kept(&world, "back/tree"));
}

#[test]
fn a_file_goes_where_the_last_argument_says() {
    let world = world(&["alice"]);
    write(&world, "one", "1");
    write(&world, "two", "2");
    xfer(&world, &["put", "one", "{}:name"]).succeeded();
    xfer(&world, &["mkdir", "{}:d"]).succeeded();
    xfer(&world, &["put", "one", "two", "{}:d"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:name", ":d/*"]).succeeded().stdout, "112");
    let line = xfer(&world, &["put", "one", "two", "{}:name"]).refused(1);
    assert!(line.contains("cannot write to '/name': not a directory"), "{line}");
    let line = xfer(&world, &["put", "one", "{}:nothing/"]).refused(1);
    assert!(line.contains("cannot write to '/nothing': no such file"), "{line}");
    fs::create_dir(world.outside().join("here")).unwrap();
    xfer(&world, &["get", "{}:d/*", "here"]).succeeded();
    assert_eq!(names(&world.outside().join("here")), ["one", "two"]);
    // Without a last argument, here.
    xfer(&world, &["get", "{}:name"]).succeeded();
    assert_eq!(read(&world, "name"), b"1");
    let line = xfer(&world, &["get", "{}:d", "x"]).refused(1);
    assert!(line.contains("it is a directory; give -r"), "{line}");
    let line = xfer(&world, &["put", "here", "{}:x"]).refused(1);
    assert!(line.contains("it is a directory; give -r"), "{line}");
    let line = xfer(&world, &["put", "nothing", "{}:x"]).refused(1);
    assert_eq!(line, "xfer: cannot read 'nothing': no such file or directory");
    let line = xfer(&world, &["put", "{}:name", "{}:x"]).refused(2);
    assert!(line.contains("use `xfer cp`"), "{line}");
}

#[test]
fn a_disk_that_is_full_keeps_no_part_of_what_it_had_no_room_for() {
    let world = world(&["alice"]);
    write(&world, "big", bytes(8 << 20));
    write(&world, "small", "text");
    xfer(&world, &["put", "big", "small", "{}:"]).succeeded();
    let place = world.outside().join("disk");
    fs::create_dir(&place).unwrap();
    let _disk = SmallDisk::at(&place, "4m");
    let line = xfer(&world, &["get", "{}:big", "disk"]).refused(1);
    assert!(line.ends_with("no space is left on the disk"), "{line}");
    assert_eq!(names(&place), [""; 0]);
    xfer(&world, &["get", "{}:small", "disk"]).succeeded();
}

#[test]
fn two_files_of_one_name_are_not_put_over_each_other() {
    let world = world(&["alice"]);
    write(&world, "a/f", "one");
    write(&world, "b/f", "two");
    let line = xfer(&world, &["put", "a/f", "b/f", "{}:"]).refused(1);
    assert_eq!(
        line,
        "xfer: cannot transfer 'b/f': another file of this command goes to the same place"
    );
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "one");
    xfer(&world, &["mkdir", "{}:d"]).succeeded();
    xfer(&world, &["put", "b/f", "{}:d"]).succeeded();
    fs::create_dir(world.outside().join("here")).unwrap();
    xfer(&world, &["get", "{}:f", ":d/f", "here"]).refused(1);
    assert_eq!(read(&world, "here/f"), b"one");
}

#[test]
fn standard_input_and_output_are_files_too() {
    let world = world(&["alice"]);
    let text = String::from_utf8_lossy(&bytes(3 << 20)).into_owned();
    with_input(&world, &["put", "-", "{}:f"], text.as_bytes()).succeeded();
    let printed = xfer(&world, &["get", "{}:f", "-"]).succeeded();
    assert!(printed.stdout == text);
    assert_eq!(printed.stderr, "");
    with_input(&world, &["put", "-", "{}:f"], b"").succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "");
    let line = with_input(&world, &["put", "-", "{}:"], b"x").refused(1);
    assert!(line.contains("standard input has no name"), "{line}");
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "f\ninbox\noutbox\n");
}

#[test]
fn a_directory_of_ten_thousand_files_is_stored_and_fetched() {
    let world = world(&["alice"]);
    for number in 0..10_000 {
        write(&world, &format!("many/{number}"), number.to_string());
    }
    xfer(&world, &["put", "-r", "many", "{}:"]).succeeded();
    let listed = xfer(&world, &["ls", "{}:many"]).succeeded().stdout;
    assert_eq!(listed.lines().count(), 10_000);
    fs::create_dir(world.outside().join("back")).unwrap();
    xfer(&world, &["get", "-q", "{}:many/9*", "back"]).succeeded();
    for number in (0..10_000).filter(|number: &u32| number.to_string().starts_with('9')) {
        assert_eq!(read(&world, &format!("back/{number}")), number.to_string().as_bytes());
    }
    assert_eq!(names(&world.outside().join("back")).len(), 1111);
    xfer(&world, &["rm", "-r", "{}:many"]).succeeded();
    assert_eq!(xfer(&world, &["ls", "{}:"]).succeeded().stdout, "inbox\noutbox\n");
}

#[test]
fn a_file_of_the_same_size_and_time_is_left_out_unless_contents_are_compared() {
    let world = world(&["alice"]);
    let path = world.outside().join("f");
    write(&world, "f", "one");
    xfer(&world, &["put", "f", "{}:"]).succeeded();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    write(&world, "f", "two");
    File::open(&path).unwrap().set_modified(time).unwrap();
    xfer(&world, &["put", "f", "{}:"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "one");
    xfer(&world, &["put", "--checksum", "f", "{}:"]).succeeded();
    assert_eq!(xfer(&world, &["cat", "{}:f"]).succeeded().stdout, "two");
    // The same bytes are left out whatever the time, which is set.
    let inode = || json(&world, &["stat", "{}:f"])[0]["inode"].as_u64();
    let before = inode();
    File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    xfer(&world, &["put", "--checksum", "f", "{}:"]).succeeded();
    assert_eq!(inode(), before);
    assert_eq!(json(&world, &["stat", "{}:f"])[0]["mtime"], "1970-01-01T00:00:00Z");
    // And the other way.
    write(&world, "back", "abc");
    File::open(world.outside().join("back")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    xfer(&world, &["get", "{}:f", "back"]).succeeded();
    assert_eq!(read(&world, "back"), b"abc");
    xfer(&world, &["get", "--checksum", "{}:f", "back"]).succeeded();
    assert_eq!(read(&world, "back"), b"two");
    let inode = || fs::metadata(world.outside().join("back")).unwrap().ino();
    let before = inode();
    File::open(world.outside().join("back")).unwrap().set_modified(SystemTime::now()).unwrap();
    xfer(&world, &["get", "--checksum", "{}:f", "back"]).succeeded();
    assert_eq!(inode(), before);
}

#[test]
fn what_was_stored_is_fetched_again_to_be_compared() {
    let world = world(&["alice"]);
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    write(&world, "big", bytes(8 << 20));
    let path = world.outside().join("big");
    let put = |options: &[&str], name: &str| {
        let before = relay.passed();
        let place = format!("{account}:{name}");
        let arguments = [&["put"], options, &[path.to_str().unwrap(), &place]].concat();
        world.xfer(&arguments).succeeded();
        (relay.passed().up - before.up, relay.passed().down - before.down)
    };
    let (up, down) = put(&[], "one");
    assert!(up > 8 << 20 && down < 1 << 20, "{up} {down}");
    let (up, down) = put(&["--checksum"], "two");
    assert!(up > 8 << 20 && down > 8 << 20, "{up} {down}");
    // The other way, each byte is fetched once.
    let before = relay.passed().down;
    let back = world.outside().join("back");
    let place = format!("{account}:one");
    world.xfer(&["get", "--checksum", &place, back.to_str().unwrap()]).succeeded();
    assert!(read(&world, "back") == bytes(8 << 20));
    assert!(relay.passed().down - before < 10 << 20);
}

#[test]
fn progress_is_shown_on_a_terminal_alone_and_not_if_it_is_unwanted() {
    let world = world(&["alice", "bob"]);
    let (account, outside) = (at(&world, "alice"), world.outside());
    for name in ["shown", "quiet", "piped"] {
        write(&world, name, bytes(64 << 20));
    }
    let path = |name: &str| outside.join(name).to_str().unwrap().to_owned();
    let command = |way: &str, name: &str| {
        let arguments = match way {
            "put" => vec![path(name), format!("{account}:")],
            "get" => vec![format!("{account}:{name}"), path(&format!("back {name}"))],
            _ => vec![path(name), account.clone(), "--to".to_owned(), "bob".to_owned()],
        };
        let mut command = world.xfer_command(&[way]);
        command.args(arguments);
        command
    };
    let on_a_terminal = |command: &mut Command| {
        let mut program = OnPty::start(command);
        assert_eq!(program.ended(), Some(0), "{}", program.said());
        program.said()
    };
    for way in ["put", "get", "send"] {
        let said = on_a_terminal(&mut command(way, "shown"));
        for part in [" of 64.00 MiB", "/s", " left"] {
            assert!(said.contains(part), "{way}: {said}");
        }
        assert_eq!(on_a_terminal(command(way, "quiet").arg("-q")), "", "{way}");
        let piped = run_within(&mut command(way, "piped"), PATIENCE).succeeded();
        assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("", ""), "{way}");
    }
}

#[test]
fn several_files_are_under_way_at_once() {
    let world = world(&["alice"]);
    let names = ["one", "two"];
    names.iter().for_each(|name| write(&world, &format!("tree/{name}"), bytes(64 << 20)));
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    let relay = Relay::to(world.server.address);
    let account = format!("alice@{}", relay.address);
    log_in_at(&world, &account, "alice");
    let back = world.outside().join("back");
    let mut command = world.xfer_command(&["get", "-r", &format!("{account}:tree")]);
    let mut get = Running::start(command.arg(&back));
    let is_part_begun = |name: &str| {
        let mut entries = fs::read_dir(&back).into_iter().flatten().flatten();
        entries.any(|entry| {
            let is_part = entry.file_name().to_string_lossy().starts_with(&format!("{name}.xfer-"));
            is_part && entry.metadata().is_ok_and(|meta| meta.len() > 0)
        })
    };
    // The part of each has bytes, and neither has its name.
    wait_until("both to be under way", PATIENCE, || {
        names.iter().all(|name| is_part_begun(name) && !back.join(name).exists())
    });
    assert_eq!(get.ended_within(PATIENCE), Some(0), "{}", get.said());
    for name in names {
        assert!(read(&world, &format!("back/{name}")) == bytes(64 << 20));
    }
}

#[test]
fn without_room_a_file_is_refused_and_nothing_of_it_is_left() {
    let world = world(&["alice --quota 4MiB"]);
    write(&world, "small", bytes(1 << 20));
    write(&world, "big", bytes(8 << 20));
    xfer(&world, &["put", "small", "{}:"]).succeeded();
    let line = xfer(&world, &["put", "big", "{}:"]).refused(1);
    assert!(line.contains("cannot write '/big': the quota is exceeded"), "{line}");
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "inbox\noutbox\nsmall\n");
    // The old file stays if the new one finds no room.
    let line = xfer(&world, &["put", "big", "{}:small"]).refused(1);
    assert!(line.contains("the quota is exceeded"), "{line}");
    xfer(&world, &["get", "{}:small", "back"]).succeeded();
    assert!(read(&world, "back") == bytes(1 << 20));
    let line = with_input(&world, &["put", "-", "{}:big"], &bytes(8 << 20)).refused(1);
    assert!(line.contains("the quota is exceeded"), "{line}");
    assert_eq!(xfer(&world, &["ls", "-a", "{}:"]).succeeded().stdout, "inbox\noutbox\nsmall\n");
}

#[test]
fn nothing_is_written_through_a_link_that_stands_in_the_way() {
    let world = world(&["alice"]);
    write(&world, "tree/d/f", "new");
    write(&world, "other/f", "old");
    xfer(&world, &["put", "-r", "tree", "{}:"]).succeeded();
    fs::create_dir(world.outside().join("here")).unwrap();
    symlink("../other", world.outside().join("here/d")).unwrap();
    let done = xfer(&world, &["get", "-r", "{}:tree/d", "here"]);
    assert!(done.stderr.contains("cannot make 'here/d': it exists already"), "{done}");
    // A link that the user has named is followed.
    xfer(&world, &["get", "-r", "{}:tree/d/", "here/d/"]).succeeded();
    assert_eq!(read(&world, "other/d/f"), b"new");
    fs::create_dir(world.outside().join("top")).unwrap();
    symlink("../other", world.outside().join("top/d")).unwrap();
    xfer(&world, &["cp", "-r", "{}:tree", ":top"]).succeeded();
    let done = xfer(&world, &["get", "-r", "{}:top", "."]);
    assert_eq!(done.code, Some(1), "{done}");
    assert!(done.stderr.contains("cannot make './top/d': it exists already"), "{done}");
    assert_eq!(read(&world, "other/f"), b"old");
    // A file takes the place of a link.
    symlink("other/f", world.outside().join("f")).unwrap();
    xfer(&world, &["get", "{}:tree/d/f", "f"]).succeeded();
    assert_eq!((read(&world, "f"), read(&world, "other/f")), (b"new".to_vec(), b"old".to_vec()));
}

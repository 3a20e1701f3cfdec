//! What is moved or in the way and is no plain file: pipes, devices, holes, and the tree itself by its mount.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use xfer_tests::programs::{run_by, shell};
use xfer_tests::{PATIENCE, run_within};

use crate::{at, bytes, json, read, world, write, xfer};

#[test]
fn a_pipe_or_device_gets_the_bytes_of_a_file_and_is_not_replaced() {
    let world = world(&["alice"]);
    let outside = world.outside();
    write(&world, "f", bytes(3 << 20));
    shell(&outside, "mkfifo pipe; mkdir d; mkfifo d/f; mknod null c 1 3; ln -s null link");
    xfer(&world, &["put", "f", "{}:f"]).succeeded();
    let alice = world.mount("alice");
    shell(alice.root(), "mkfifo pipe; ln -s f to_f");
    // As /dev/stdout is.
    shell(&outside, "ln -s /proc/self/fd/1 stdout");
    let check = || {
        let mut to_file =
            world.xfer_command(&["get", &format!("{}:f", at(&world, "alice")), "stdout"]);
        to_file.current_dir(&outside).stdout(File::create(outside.join("written")).unwrap());
        assert!(to_file.status().unwrap().success());
        assert!(read(&world, "written") == read(&world, "f"));
        assert!(outside.join("stdout").is_symlink());
        let mut reader = Command::new("cat")
            .arg("pipe")
            .current_dir(&outside)
            .stdout(File::create(outside.join("read")).unwrap())
            .spawn()
            .unwrap();
        xfer(&world, &["get", "{}:f", "pipe"]).succeeded();
        assert!(reader.wait().unwrap().success());
        assert!(read(&world, "read") == read(&world, "f"));
        xfer(&world, &["get", "{}:f", "null"]).succeeded();
        xfer(&world, &["get", "{}:f", "link"]).succeeded();
        // Nobody has named these.
        let not_regular = ["cannot write '", "it is not a regular file"];
        let refused: [&[&str]; 6] = [
            &["get", "{}:f", "d"],
            &["get", "{}:to_f", "null"],
            &["put", "f", "{}:pipe"],
            &["put", "-", "{}:pipe"],
            &["cp", "{}:f", "{}:pipe"],
            &["cp", "{}:to_f", "{}:pipe"],
        ];
        for words in refused {
            let line = xfer(&world, words).refused(1);
            assert!(not_regular.iter().all(|part| line.contains(part)), "{words:?}: {line}");
        }
        let kinds = shell(&outside, "stat -c '%n %F %t,%T' pipe d/f null link");
        assert_eq!(
            kinds,
            "pipe fifo 0,0\nd/f fifo 0,0\nnull character special file 1,3\nlink symbolic link 0,0"
        );
        let in_tree = xfer(&world, &["stat", "{}:pipe"]).succeeded().stdout;
        assert!(in_tree.contains("pipe"), "{in_tree}");
    };
    check();
    alice.unmount();
    check();
}

#[test]
fn holes_stay_holes_on_both_sides() {
    let world = world(&["alice"]);
    const SIZE: u64 = 300 << 20;
    let file = File::create(world.outside().join("sparse")).unwrap();
    file.write_all_at(b"middle", SIZE / 2).unwrap();
    file.set_len(SIZE).unwrap();
    let alice = world.mount("alice");
    for (name, mount) in [("a", Some(alice)), ("b", None)] {
        let (there, back) = (format!("{{}}:{name}"), format!("back-{name}"));
        xfer(&world, &["put", "--checksum", "sparse", &there]).succeeded();
        let used = json(&world, &["du", &there])[0]["bytes"].as_u64().unwrap();
        assert!(used <= 4 << 20, "{used}");
        xfer(&world, &["get", "--checksum", &there, &back]).succeeded();
        let same =
            Command::new("cmp").args(["sparse", &back]).current_dir(world.outside()).status();
        assert!(same.unwrap().success());
        let found = fs::metadata(world.outside().join(&back)).unwrap();
        assert_eq!(found.len(), SIZE);
        assert!(found.blocks() * 512 <= 4 << 20, "{}", found.blocks());
        // A pipe has no holes.
        let piped =
            world.xfer_command(&["get", &there.replace("{}", &at(&world, "alice")), "/dev/stdout"]);
        let mut count = Command::new("bash");
        count.args(["-c", "\"$@\" | wc -c", "bash"]);
        let counted = run_within(run_by(&mut count, &piped), PATIENCE).succeeded();
        assert_eq!(counted.stdout.trim(), SIZE.to_string());
        mount.into_iter().for_each(|mount| mount.unmount());
    }
}

#[test]
fn a_tree_that_is_fetched_or_stored_into_itself_by_its_mount_is_copied_once() {
    let world = world(&["alice"]);
    let alice = world.mount("alice");
    shell(alice.root(), "mkdir -p x/a/b y/a/b; echo text > x/a/f; echo text > y/a/f");
    let into = |directory: &str| alice.path(directory).display().to_string();
    xfer(&world, &["get", "-r", "{}:x", &into("x/a/copy")]).succeeded();
    xfer(&world, &["put", "-r", &into("y"), "{}:y/a/copy"]).succeeded();
    for directory in ["x", "y"] {
        let found = shell(&alice.path(directory), "find . | sort");
        let copied = "./a/copy\n./a/copy/a\n./a/copy/a/b\n./a/copy/a/f";
        assert_eq!(found, format!(".\n./a\n./a/b\n{copied}\n./a/f"), "{directory}");
    }
    alice.unmount();
}

//! Options of sshfs: docs/FROM-SSHFS.md says how each is answered, and so they are.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::process::Command;

use xfer_mount::process::exit::Exit;
use xfer_tests::programs::{Finished, program, run_within};
use xfer_tests::{PATIENCE, World};

const PAGE: &str = include_str!("../../../docs/FROM-SSHFS.md");

/// A row of the page's table of options.
struct Row {
    options: Vec<&'static str>,
    is_accepted: bool,
    /// What a refusal says to write, word for word.
    instead: Vec<&'static str>,
}

/// The texts in backticks.
fn quoted(text: &'static str) -> Vec<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn rows() -> Vec<Row> {
    let table = PAGE.split_once("\n## Options\n").unwrap().1;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &'static str| {
        let cells: Vec<_> = line.split(" | ").collect();
        let is_accepted = match cells[1] {
            "accepted" => true,
            "refused" => false,
            other => panic!("{other}"),
        };
        Row { options: quoted(cells[0]), is_accepted, instead: quoted(cells[2]) }
    };
    rows.map(row).collect()
}

/// Tries to mount with an option, at a port where no server is.
fn mount_with(world: &World, option: &str) -> Finished {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut mount = Command::new(program("xfer-mount"));
    match option.starts_with('-') {
        true => mount.args(option.split(' ')),
        false => mount.args(["-o", option]),
    };
    mount.arg(format!("alice@{free}")).arg(world.mount_point("alice"));
    run_within(world.at_home(&mut mount), PATIENCE)
}

#[test]
fn each_option_of_sshfs_is_answered_as_the_page_about_it_says() {
    let world = World::new(&[]);
    let mut count = 0;
    for Row { options, is_accepted, instead } in rows() {
        for option in options {
            count += 1;
            let finished = mount_with(&world, option);
            if is_accepted {
                // It went on, to the server.
                finished.refused(Exit::Unreachable.code());
                continue;
            }
            let line = finished.refused(Exit::Usage.code());
            let is_told = |part: &&str| line.contains(part.trim_end_matches('='));
            match instead.is_empty() {
                true => assert!(line.contains("leave it out"), "{option}: {line}"),
                false => assert!(instead.iter().any(is_told), "{option}: {line}"),
            }
            assert!(!line.contains("unknown option"), "{option}: {line}");
        }
    }
    assert!(count > 100, "only {count} options were found");
}

#[test]
fn a_mount_with_every_word_of_sshfs_that_is_accepted_works_and_honours_those_that_mean_something() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo text > file && chmod 666 file");
    mount.unmount();
    let accepted = rows().into_iter().filter(|row| row.is_accepted);
    let words: Vec<_> =
        accepted.flat_map(|row| row.options).filter(|word| !word.starts_with('-')).collect();
    assert!(words.len() > 20 && words.contains(&"reconnect"), "{words:?}");
    let mount = world.mounting("alice").arg("-o").arg(&words.join(",")).start();
    let shown = mount.shell("cat file; stat -c '%a %u %g' file; findmnt -n -o SOURCE,OPTIONS .");
    let mut lines = shown.lines();
    assert_eq!((lines.next(), lines.next()), (Some("text"), Some("644 0 0")), "{shown}");
    let mounted = lines.next().unwrap();
    assert!(mounted.starts_with("x ") && mounted.contains("noexec"), "{mounted}");
    let refused = std::fs::write(mount.path("file"), "new").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mount.unmount();
}

#[test]
fn a_directory_behind_the_host_is_answered_by_what_to_mount() {
    let world = World::new(&[]);
    let mut mount = Command::new(program("xfer-mount"));
    mount.arg("alice@host:photos/").arg(world.mount_point("alice"));
    let line = run_within(world.at_home(&mut mount), PATIENCE).refused(Exit::Usage.code());
    assert!(line.ends_with("mounted whole, not a directory of it; write alice@host"), "{line}");
}

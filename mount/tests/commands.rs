//! The real binaries with bad input: one line on standard error, and a specific exit code.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const XFER_MOUNT: &str = env!("CARGO_BIN_EXE_xfer-mount");
const XFER: &str = env!("CARGO_BIN_EXE_xfer");

fn run(program: &str, home: &Path, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(home)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env_remove("XDG_STATE_HOME")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn check(program: &str, arguments: &[&str], code: i32, part: &str) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("mnt")).unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    std::fs::write(home.path().join("password"), "secret\n").unwrap();
    let output = run(program, home.path(), arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part), "{arguments:?}: {said}");
}

/// Like `check`, and the output is one line.
fn check_line(program: &str, arguments: &[&str], code: i32, part: &str) {
    check(program, arguments, code, part);
    let home = tempfile::tempdir().unwrap();
    let output = run(program, home.path(), arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{arguments:?}");
}

fn has_fuse() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok()
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    check_line(XFER_MOUNT, &[], 2, "<MOUNTPOINT>; see: xfer-mount --help");
    check_line(XFER_MOUNT, &["--nonsense", "a@h", "mnt"], 2, "--nonsense");
    check_line(XFER_MOUNT, &["--accept-new", "--ca", "f", "a@h", "mnt"], 2, "cannot be used with");
    let two_passwords = ["--password-stdin", "--password-file", "f", "a@h", "mnt"];
    check_line(XFER_MOUNT, &two_passwords, 2, "cannot be used with");
    check_line(XFER_MOUNT, &["host", "mnt"], 2, "write USER@HOST[:PORT]");
    check_line(XFER_MOUNT, &["a@::1", "mnt"], 2, "in brackets");
    check_line(XFER_MOUNT, &["a@h:99999", "mnt"], 2, "is not a port");
    check_line(XFER_MOUNT, &["-o", "shiny", "a@h", "mnt"], 2, "known are ids=stored");
    check_line(XFER_MOUNT, &["-o", "rw,auto_unmount", "a@h", "mnt"], 2, "not supported");
    check_line(XFER_MOUNT, &["--cache-size", "1KiB", "a@h", "mnt"], 2, "between 16MiB and 1TiB");
    check_line(XFER_MOUNT, &["--fingerprint", "sha256:1", "a@h", "mnt"], 2, "64 hexadecimal");
    check_line(XFER, &[], 2, "a command is missing; see: xfer --help");
    check_line(XFER, &["unmount"], 2, "<MOUNTPOINT>; see: xfer unmount --help");
    check_line(XFER, &["nonsense"], 2, "nonsense");
    check_line(XFER, &["send", "f", "--to", "bob"], 2, "FILE or USER@HOST[:PORT] is missing");
    check_line(XFER, &["login", "alice"], 2, "'alice' has no host; write USER@HOST[:PORT]");
    check_line(XFER_MOUNT, &["a@127.0.0.1:1:", "mnt"], 2, "a colon, as if a path followed");
}

#[test]
fn a_mount_point_that_will_not_do_is_said_before_anything_is_asked() {
    if !has_fuse() {
        check(XFER_MOUNT, &["a@127.0.0.1:1", "mnt"], 5, "install the package fuse3");
        return;
    }
    for foreground in [&["-f"][..], &[]] {
        let with = |rest: &[&'static str]| [foreground, rest].concat();
        check(XFER_MOUNT, &with(&["a@127.0.0.1:1", "gone"]), 3, "no such directory; make it");
        check(XFER_MOUNT, &with(&["a@127.0.0.1:1", "file"]), 3, "not a directory");
        check(XFER_MOUNT, &with(&["a@127.0.0.1:1", "/proc"]), 4, "already mounted there");
        check(XFER_MOUNT, &with(&["a@127.0.0.1:1", "mnt"]), 6, "is xfer-server running there");
        let lost = ["a@no-such-host.invalid", "mnt"];
        check(XFER_MOUNT, &with(&lost), 6, "no such host");
    }
}

#[test]
fn a_directory_that_is_no_mount_ends_with_13() {
    for arguments in [["status", "mnt"], ["sync", "mnt"], ["unmount", "mnt"]] {
        check_line(XFER, &arguments, 13, "not an xfer mount of this user");
    }
    check_line(XFER, &["sync", "gone/x"], 13, "no such directory");
}

#[test]
fn the_help_says_what_a_takeover_does_to_the_other_mount() {
    let home = tempfile::tempdir().unwrap();
    let output = run(XFER_MOUNT, home.path(), &["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("--takeover Take the tree from a mount"), "{help}");
    assert!(words.contains("is dormant until this one ends"), "{help}");
}

#[test]
fn no_mounts_are_no_error() {
    let home = tempfile::tempdir().unwrap();
    let output = run(XFER, home.path(), &["status", "--json"]);
    assert!(output.status.success());
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().is_array());
}

//! The real binary: each command, each refusal with its line and its code.

#![allow(clippy::unwrap_used)]

mod running;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xfer_protocol::message::BUSY_ALERT;
use xfer_server::listener::half_open::PLACES;

use running::{Ended, Server, xfer_server};

/// Runs a command on a store, with `input` on its standard input.
fn on(store: &Path, command: &str, input: &str) -> Ended {
    let mut arguments: Vec<&str> = command.split_whitespace().collect();
    let store = store.to_str().unwrap();
    arguments.extend(["--store", store]);
    xfer_server(&arguments, input)
}

/// Fails the test unless the command succeeds, with one line at most of what it did.
fn done(store: &Path, command: &str, input: &str) -> String {
    let ended = on(store, command, input);
    assert_eq!(ended.code, 0, "{command}: {}", ended.err);
    assert!(ended.err.lines().count() < 2, "{command}: {}", ended.err);
    assert!(!ended.err.starts_with("xfer-server: "), "{command}: {}", ended.err);
    ended.out
}

/// Fails the test unless the command fails with this code and one line that contains `line`.
fn refused(store: &Path, command: &str, input: &str, code: i32, line: &str) {
    let ended = on(store, command, input);
    assert_eq!(ended.code, code, "{command}: {}", ended.err);
    assert!(ended.err.starts_with("xfer-server: "), "{command}: {}", ended.err);
    assert!(ended.err.contains(line), "{command}: {}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{command}: {}", ended.err);
    assert!(ended.err.contains("; "), "{command} does not say what to do: {}", ended.err);
}

/// Adds the first user of a store, which makes it.
fn first_user(store: &Path, add: &str, input: &str) {
    let ended = on(store, add, input);
    let made = format!("made a new store in {}\n", store.display());
    assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{add}: {}", ended.err);
    assert!(ended.err.starts_with(&made) && ended.err.contains(" is added; "), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 2, "{}", ended.err);
}

fn with_users(users: &[&str]) -> tempfile::TempDir {
    let store = tempfile::tempdir().unwrap();
    for (place, user) in users.iter().enumerate() {
        let add = format!("user add {user} --password-stdin");
        match place {
            0 => first_user(store.path(), &add, "secret\n"),
            _ => drop(done(store.path(), &add, "secret\n")),
        }
    }
    store
}

#[test]
fn a_store_is_made_only_in_a_directory_that_has_nothing_else() {
    let outside = tempfile::tempdir().unwrap();
    let place = outside.path().join("documents");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("numbers"), "mine").unwrap();
    for command in ["user add alice --password-stdin", "run --listen 127.0.0.1:0"] {
        let line =
            "has no store in it, but other files, such as 'numbers'; give --store a directory";
        refused(&place, command, "secret\n", 1, line);
    }
    assert_eq!(std::fs::read_to_string(place.join("numbers")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn users_are_added_listed_changed_and_removed() {
    let store = with_users(&["bob"]);
    let store = store.path();
    done(store, "user add alice --password-stdin --quota none", "secret\n");
    done(store, "user quota bob --quota 500MiB", "");
    let list = done(store, "user list", "");
    let rows: Vec<Vec<&str>> =
        list.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let users: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(users, ["USER", "alice", "bob"]);
    assert!(list.lines().nth(1).unwrap().contains("none"), "{list}");
    assert!(list.lines().nth(2).unwrap().contains("500 MiB"), "{list}");
    done(store, "user passwd alice --password-stdin", "other\n");
    refused(store, "user remove alice", "alice\n", 2, "use --yes");
    done(store, "user remove alice --yes --now", "");
    assert!(!done(store, "user list", "").contains("alice"));
    refused(
        store,
        "user remove alice",
        "",
        7,
        "there is no user 'alice'; see: xfer-server user list",
    );
    refused(store, "user restore alice", "", 7, "no removed user 'alice' is kept");
}

#[test]
fn a_command_that_changes_a_user_says_in_a_line_what_it_did() {
    let store = with_users(&["bob"]);
    let store = store.path();
    for (command, line) in [
        (
            "user add alice --password-stdin --quota 500",
            "alice is added; quota: 500 B and 10000000 nodes",
        ),
        ("user passwd alice --password-stdin", "the password of alice is set"),
        // A number without a unit is one of bytes.
        (
            "user quota alice --quota 600",
            "quota of alice: 600 B and 10000000 nodes; of the inbox: 1 GiB and 10000 items",
        ),
        (
            "user quota alice --quota none --inbox none --inbox-items 1",
            "quota of alice: none; of the inbox: 1 item",
        ),
        ("user disable alice", "alice is disabled; to undo that: xfer-server user enable alice"),
        ("user enable alice", "alice is not disabled, and does not expire"),
        ("user expire alice --within never", "alice is not disabled, and does not expire"),
        ("user passwords alice on", "alice logs in by a password or by keys"),
        ("user keys revoke alice --all", "all keys of alice are revoked"),
        ("user remove alice --yes --now", "alice is deleted for good"),
    ] {
        let ended = on(store, command, "secret\n");
        assert_eq!(ended.code, 0, "{command}: {}", ended.err);
        let said = (ended.out.as_str(), ended.err.trim_end_matches('\n'));
        assert_eq!(said, ("", line), "{command}");
    }
    let expires = on(store, "user expire bob --within 3", "").err;
    assert!(
        expires.starts_with("bob is disabled from 2") && expires.ends_with(" on\n"),
        "{expires}"
    );
    let shown = on(store, "user quota bob", "");
    assert!(shown.out.contains("data") && shown.err.is_empty(), "{}", shown.err);
}

#[test]
fn the_list_says_of_each_user_how_a_login_can_succeed() {
    let store = with_users(&["bob", "carol", "dave"]);
    let store = store.path();
    let invited = on(store, "user add alice --invite --host example.org", "");
    assert_eq!(invited.code, 0, "{}", invited.err);
    done(store, "user disable carol", "");
    // It has no key either.
    let off = on(store, "user passwords dave off", "");
    let said: Vec<&str> = off.err.lines().collect();
    assert_eq!(said[0], "dave logs in by keys alone");
    assert!(said[1].starts_with("no machine of dave has a key, so dave cannot log in now; run: "));
    let list = done(store, "user list", "");
    let rows = list.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()));
    let logins: Vec<(&str, &str)> =
        rows.map(|row| row.collect::<Vec<_>>()).map(|cells| (cells[0], cells[9])).collect();
    let expected =
        [("USER", "LOGIN"), ("alice", "no"), ("bob", "yes"), ("carol", "disabled"), ("dave", "no")];
    assert_eq!(logins, expected, "{list}");
}

#[test]
fn each_limit_of_a_user_is_set_by_itself() {
    let store = with_users(&["bob"]);
    let store = store.path();
    let limits = |changes: &str| {
        done(store, &format!("user quota bob {changes}"), "");
        let list = done(store, "user list", "");
        let row = list.lines().nth(1).unwrap();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        [2, 4, 6, 8].map(|column| cells[column].to_owned())
    };
    assert_eq!(limits("--quota 1MiB"), ["1 MiB", "10000000", "1 GiB", "10000"]);
    assert_eq!(limits("--nodes 12"), ["1 MiB", "12", "1 GiB", "10000"]);
    assert_eq!(limits("--inbox 8KiB"), ["1 MiB", "12", "8 KiB", "10000"]);
    assert_eq!(limits("--inbox-items 3"), ["1 MiB", "12", "8 KiB", "3"]);
    let all = "--quota 2MiB --nodes none --inbox none --inbox-items none";
    assert_eq!(limits(all), ["2 MiB", "none", "none", "none"]);
    let json = done(store, "user quota bob --nodes 7 --inbox 8KiB --json", "");
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "name": "bob",
        "used_bytes": 0,
        "quota_bytes": 2 << 20,
        "used_nodes": 3,
        "quota_nodes": 7,
        "inbox_used_bytes": 0,
        "inbox_quota_bytes": 8 << 10,
        "inbox_used_items": 0,
        "inbox_quota_items": null,
    });
    assert_eq!(shown, expected);
    // Without a limit to set, it shows them.
    assert_eq!(done(store, "user quota bob --json", ""), json);
    let shown = done(store, "user quota bob", "");
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = shown.lines().map(cells).collect();
    assert_eq!(rows[0], ["USED", "MAX"]);
    assert_eq!(rows[1], ["data", "0", "B", "2", "MiB"]);
    assert_eq!(rows[2], ["nodes", "3", "7"]);
    assert_eq!(rows[3], ["inbox", "0", "B", "8", "KiB"]);
    assert_eq!(rows[4], ["items", "in", "the", "inbox", "0", "none"]);
}

#[test]
fn users_who_do_not_exist_are_refused_by_name() {
    let store = with_users(&["bob"]);
    let store = store.path();
    refused(store, "user passwd eve --password-stdin", "x\n", 7, "'eve'");
    refused(store, "user quota eve --quota 1G", "", 7, "'eve'");
    refused(store, "user remove ../../etc", "", 7, "'../../etc'");
    refused(store, "user quota eve", "", 7, "'eve'");
    refused(store, "user quota eve --json", "", 7, "'eve'");
    let exists = "user bob exists; for another machine: xfer-server user invite bob; \
                  for a new password: xfer-server user passwd bob";
    refused(store, "user add bob --password-stdin", "x\n", 8, exists);
    refused(store, "user add Bob --password-stdin", "x\n", 2, "is not a user name");
}

/// Types a line on a terminal; returns the command's exit code and output.
fn typed(store: &Path, command: &str, line: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_xfer-server");
    let command = format!("{program} {command} --store {}", store.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    (ended.status.code().unwrap(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn a_user_is_removed_only_by_who_types_the_name_or_says_yes() {
    let store = with_users(&["alice"]);
    let store = store.path();
    refused(store, "user remove alice", "alice\n", 2, "no terminal to confirm it");
    for line in ["", "y", "yes", "bob", "alic"] {
        let (code, said) = typed(store, "user remove alice", line);
        assert!(code == 1 && said.contains("alice stays as it is"), "{line:?}: {code} {said}");
    }
    assert!(done(store, "user list", "").contains("alice"));
    let (code, said) = typed(store, "user remove alice", "alice");
    assert!(
        code == 0 && said.contains("is kept for 30 days") && said.contains("user restore alice")
    );
    assert!(!on(store, "user list", "").out.contains("alice"));
    let restored = on(store, "user restore alice", "");
    assert!(restored.code == 0 && restored.err.starts_with("alice is back"), "{}", restored.err);
    let (code, said) = typed(store, "user remove alice --now", "alice");
    assert!(code == 0 && said.contains("for good"), "{code} {said}");
    assert!(!done(store, "user list --removed", "").contains("alice"));
}

#[test]
fn a_store_that_others_may_write_to_is_refused() {
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let store = with_users(&["alice"]);
    let store = store.path();
    for shared in [0o777, 0o1777, 0o770, 0o722] {
        mode(store, shared);
        let line = format!("run: chmod 700 {}", store.display());
        refused(store, "run --listen 127.0.0.1:0", "", 3, &line);
        refused(store, "user list", "", 3, &line);
        refused(store, "user add bob --password-stdin", "x\n", 3, &line);
    }
    mode(store, 0o755);
    mode(&store.join("xfer.db"), 0o666);
    let line = format!("run: chmod 600 {}", store.join("xfer.db").display());
    refused(store, "user list", "", 3, &line);
    mode(&store.join("xfer.db"), 0o600);
    drop(Server::start(store));
    mode(&store.join("contents"), 0o777);
    refused(store, "run --listen 127.0.0.1:0", "", 3, "run: chmod 700");
}

/// All files of a directory, with their owners.
fn owners(directory: &Path) -> Vec<(PathBuf, (u32, u32))> {
    let mut waiting = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, (metadata.uid(), metadata.gid())));
    }
    found
}

#[test]
fn what_root_makes_in_a_store_is_its_owners() {
    const OWNER: (u32, u32) = (4_242, 4_243);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(OWNER.0), Some(OWNER.1)).unwrap();
    // Only root can read the password or reach the store.
    let password = parent.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    for store in [home.clone(), home.join("new/store")] {
        first_user(&store, &format!("user add alice --password-file {}", password.display()), "");
        done(&store, "user quota alice --quota 1GiB", "");
        assert_eq!(Server::start(&store).end(rustix::process::Signal::TERM), 0);
        assert_eq!(on(&store, "user remove alice --yes", "").code, 0);
    }
    let owners = owners(&home);
    assert!(owners.len() > 12, "{owners:?}");
    owners.iter().for_each(|(path, owner)| assert_eq!(*owner, OWNER, "{}", path.display()));
}

#[test]
fn names_that_no_user_can_have_are_said_to_be_none() {
    let store = with_users(&["bob"]);
    let _server = Server::start(store.path());
    for name in ["Bob", "bob:pw", "bob@host"] {
        for command in [
            format!("user remove {name} --yes"),
            format!("user quota {name} --quota none"),
            format!("user passwd {name} --password-stdin"),
            format!("session end {name}"),
            format!("import {name} /nowhere"),
            format!("export {name} /nowhere"),
        ] {
            refused(store.path(), &command, "", 7, "is not a user name");
        }
    }
}

#[test]
fn passwords_come_from_a_file_or_standard_input_and_are_checked() {
    let store = with_users(&["bob"]);
    let store = store.path();
    let file = store.join("password");
    std::fs::write(&file, "from a file\nnot this\n").unwrap();
    let from_file = format!("--password-file {}", file.display());
    done(store, &format!("user add alice {from_file}"), "");
    refused(store, "user add eve --password-stdin", "", 9, "the password is empty");
    refused(store, "user add eve --password-stdin", "\nx\n", 9, "the password is empty");
    refused(store, "user add eve --password-stdin", &"x".repeat(1025), 9, "longer than 1024");
    refused(store, "user add eve --password-file /no/such/file", "", 9, "/no/such/file");
    refused(store, "user add eve", "", 9, "no terminal");
    let both = format!("user add eve {from_file} --password-stdin");
    refused(store, &both, "", 2, "cannot be used with");
    assert!(!done(store, "user list", "").contains("eve"));
}

#[test]
fn a_command_line_that_is_wrong_is_explained_in_a_line() {
    let store = tempfile::tempdir().unwrap();
    let store = store.path();
    refused(store, "fly", "", 2, "there is no command 'fly'");
    refused(store, "user add", "", 2, "<NAME>");
    refused(store, "user quota bob --quota much", "", 2, "a size like 10GiB");
    refused(store, "run --listen nowhere", "", 2, "'nowhere'");
    refused(store, "run --cert a", "", 2, "--key");
    refused(store, "run --cert a\nb", "", 2, "unexpected");
    refused(store, "user add bob --host files.example.org", "", 2, "--invite");
    assert_eq!(xfer_server(&["--help"], "").code, 0);
    let help = |command: &str| xfer_server(&["user", command, "--help"], "").out;
    assert!(help("add").contains("With --invite: the host name"));
    assert!(help("invite").contains("--host") && !help("invite").contains("--invite"));
    assert_eq!(xfer_server(&["--version"], "").out, "xfer-server 0.1.0\n");
}

#[test]
fn a_store_that_is_none_is_not_made_by_mistake() {
    let parent = tempfile::tempdir().unwrap();
    let store = parent.path().join("none");
    for command in ["user list", "user remove bob", "user quota bob --quota 1G"] {
        refused(&store, command, "", 3, "no store in");
    }
    refused(&store, "session list", "", 11, "no server runs");
    refused(&store, "fingerprint", "", 6, "start the server once");
    assert!(!store.exists());
    // Nor by an account that is not made.
    refused(&store, "user add bob --password-stdin", "", 9, "the password is empty");
    assert!(!store.exists());
    first_user(&store, "user add bob --password-stdin", "secret\n");
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&file, "run --listen 127.0.0.1:0", "", 3, "cannot use the store");
    refused(&file, "user add bob --password-stdin", "x\n", 3, "cannot use the store");
}

#[test]
fn a_store_that_holds_something_else_is_said_to() {
    let store = tempfile::tempdir().unwrap();
    std::fs::write(store.path().join("xfer.db"), "not a database, but long enough".repeat(99))
        .unwrap();
    refused(store.path(), "user list", "", 3, "xfer.db");
    refused(store.path(), "run --listen 127.0.0.1:0", "", 3, "xfer.db");
}

#[test]
fn certificates_that_cannot_be_used_are_refused() {
    let store = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    drop((Server::start(store.path()), Server::start(other.path())));
    let run = |cert: &Path, key: &Path| {
        format!("run --listen 127.0.0.1:0 --cert {} --key {}", cert.display(), key.display())
    };
    let cert = store.path().join("tls/cert.pem");
    let key = store.path().join("tls/key.pem");
    let (store, others) = (store.path(), other.path().join("tls/key.pem"));
    refused(store, &run(&store.join("none"), &key), "", 6, "none");
    refused(store, &run(&key, &key), "", 6, "no certificate");
    refused(store, &run(&cert, &cert), "", 6, "no private key");
    refused(store, &run(&cert, &others), "", 6, "cannot be used");
    std::fs::write(&key, "gone").unwrap();
    refused(store, "run --listen 127.0.0.1:0", "", 6, "no private key");
}

#[test]
fn one_store_has_one_server_and_one_address_too() {
    let store = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let server = Server::start(store.path());
    refused(store.path(), "run --listen 127.0.0.1:0", "", 4, "in use by another xfer-server");
    let same_address = format!("run --listen {}", server.address);
    refused(other.path(), &same_address, "", 5, "cannot listen on 127.0.0.1:");
    refused(other.path(), "run --listen 192.0.2.1:1", "", 5, "cannot listen on 192.0.2.1:1");
}

#[test]
fn the_fingerprint_stays_what_it_is() {
    let store = tempfile::tempdir().unwrap();
    let first = Server::start(store.path()).fingerprint.clone();
    assert_eq!(Server::start(store.path()).fingerprint, first);
    assert_eq!(done(store.path(), "fingerprint", ""), format!("{first}\n"));
    let hex = first.strip_prefix("sha256:").unwrap();
    assert!(hex.len() == 64 && hex.chars().all(|c| "0123456789abcdef".contains(c)), "{first}");
}

#[test]
fn sessions_are_asked_of_the_server_that_runs() {
    let store = with_users(&["alice"]);
    refused(store.path(), "session list", "", 11, "no server runs");
    refused(store.path(), "session end alice", "", 11, "no server runs");
    let server = Server::start(store.path());
    assert!(done(store.path(), "session list", "").starts_with("USER"));
    refused(store.path(), "session end alice", "", 7, "alice has no session");
    done(store.path(), "user add bob --password-stdin", "x\n");
    done(store.path(), "user remove bob --yes --now", "");
    drop(server);
    refused(store.path(), "session list", "", 11, "no server runs");
}

#[test]
fn a_store_with_a_long_path_can_be_asked_too() {
    let parent = tempfile::tempdir().unwrap();
    let store = parent.path().join("d".repeat(150));
    let _server = Server::start(&store);
    assert!(done(&store, "session list", "").starts_with("USER"));
}

#[test]
fn a_server_ends_well_when_it_is_told_to() {
    let store = tempfile::tempdir().unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let server = Server::start(store.path());
        let silent = TcpStream::connect(&server.address).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(server.end(signal), 0);
        assert!(start.elapsed().as_secs() < 10);
        drop(silent);
    }
}

#[test]
fn connections_that_say_nothing_make_room_for_others_and_hear_that_the_server_is_busy() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(store.path());
    let mut silent: Vec<TcpStream> =
        (0..PLACES).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let newcomer = TcpStream::connect(&server.address).unwrap();
    let heard = |socket: &mut TcpStream| {
        let mut bytes = Vec::new();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.read_to_end(&mut bytes);
        bytes
    };
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed().as_secs() < 60, "none of them heard anything");
        if let Some(said) = silent.iter_mut().map(heard).find(|said| !said.is_empty()) {
            assert_eq!(said, BUSY_ALERT);
            break;
        }
    }
    drop(newcomer);
}

#[test]
fn all_files_of_a_store_are_the_owners_alone() {
    let store = with_users(&["alice"]);
    let _server = Server::start(store.path());
    let mut directories = vec![store.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
}

/// A hello of TLS 1.2: one cipher suite, one group, no `supported_versions`.
fn tls12_hello() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..], // supported_groups: x25519
        &[0, 13, 0, 4, 0, 2, 4, 3],      // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session; ECDHE-ECDSA-AES128-GCM; no compression
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

#[test]
fn tls_before_1_3_and_plain_text_are_refused() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(store.path());
    for (sent, alert) in [(tls12_hello(), Some(70)), (b"GET / HTTP/1.1\r\n\r\n".to_vec(), None)] {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        socket.write_all(&sent).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.first().is_none_or(|kind| *kind == 21), "not an alert: {answer:?}");
        if let Some(alert) = alert {
            assert_eq!(answer.last(), Some(&alert), "{answer:?}");
        }
    }
}

//! Users managed by somebody who may not enter the store, by the server's admin socket.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use xfer_tests::programs::{Finished, program, run_with_input, run_within};
use xfer_tests::pty::OnPty;
use xfer_tests::server::Server;
use xfer_tests::{PATIENCE, World, wait_until, world};

/// The group that may use the socket.
const GROUP: u32 = 4711;

/// Another one.
const OTHER_GROUP: u32 = 4712;

/// The user who is in it.
const MEMBER: u32 = 20_001;

/// Runs the program as a user who may not even reach where it was built.
const AS_MEMBER: &str = "program=$1 uid=$2 groups=$3; shift 3; exec 3<\"$program\"
    exec setpriv --reuid $uid --regid $uid --groups $groups -- /proc/self/fd/3 \"$@\"";

/// A world whose server has an admin socket.
struct Managed {
    world: World,
    socket: PathBuf,
}

impl Managed {
    fn new(users: &[&str]) -> Managed {
        let mut world = World::new(users);
        let place = world.outside().join("run");
        fs::create_dir(&place).unwrap();
        chown(&place, None, Some(GROUP)).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o2750)).unwrap();
        world.let_others_in();
        let socket = place.join("admin.sock");
        world.server.terminate();
        world.server = start(world.server.store(), &socket);
        Managed { world, socket }
    }

    fn store(&self) -> &Path {
        self.world.server.store()
    }

    /// A command as one who is in a group gives it.
    fn command_of(&self, group: u32, arguments: &[&str]) -> Command {
        self.command_by(MEMBER, group, arguments)
    }

    /// The same by a user with another number.
    fn command_by(&self, uid: u32, group: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", AS_MEMBER, "bash"]).arg(program("xfer-server"));
        command.args([uid.to_string(), group.to_string()]).args(arguments);
        command.env("XFER_STORE", self.store()).env("XFER_ADMIN_SOCKET", &self.socket);
        command
    }

    fn as_member(&self, arguments: &[&str]) -> Finished {
        run_within(&mut self.command_of(GROUP, arguments), PATIENCE)
    }

    /// What the command line of the store's owner says.
    fn users(&self) -> Value {
        let list = self.world.server.command(&["user", "list", "--json"]).succeeded();
        serde_json::from_str(&list.stdout).unwrap()
    }

    /// Whether there is a user of this name.
    fn has(&self, name: &str) -> bool {
        self.users()["users"].as_array().unwrap().iter().any(|user| user["name"] == name)
    }
}

fn start(store: &Path, socket: &Path) -> Server {
    Server::start_with(store, "127.0.0.1:0", &["--admin-socket", socket.to_str().unwrap()])
}

/// A line without what is different each time.
fn masked(text: &str, managed: &Managed) -> String {
    let mut text = text.replace(managed.store().to_str().unwrap(), "STORE");
    text = text.replace(&managed.world.server.address.port().to_string(), "PORT");
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.');
    let mut words: Vec<String> = text.split_inclusive(|c| !is_part(c)).map(str::to_owned).collect();
    for word in &mut words {
        let is_random = word.len() > 60 || word.chars().filter(char::is_ascii_digit).count() > 7;
        let is_time = word.contains(':') && word.chars().any(|c| c.is_ascii_digit());
        if is_random || is_time {
            *word = "X\n".to_owned();
        }
    }
    words.concat()
}

#[test]
fn a_command_by_the_admin_socket_says_and_does_what_it_says_and_does_in_the_store() {
    let (here, there) = (Managed::new(&["alice"]), Managed::new(&["alice"]));
    let password = here.world.password_file("alice");
    let password = fs::read(password).unwrap();
    let commands = [
        "user add bob --password-stdin --quota 1GiB",
        "user add bob --password-stdin",
        "user add Bob --password-stdin",
        "user add carol --invite --host files.example.org",
        "user invite alice",
        "user invite nobody",
        "user list",
        "user keys list alice",
        "user keys list alice --json",
        "user keys revoke alice --all",
        "user keys revoke alice laptop",
        "user keys expire alice laptop --within 30",
        "user passwd bob --password-stdin",
        "user passwd bob",
        "user passwords bob off",
        "user passwords bob on",
        "user expire bob --within 30",
        "user disable bob",
        "user expire bob --within never",
        "user list --json",
        "user enable bob",
        "user quota bob --quota 2GiB --nodes 100 --inbox none --inbox-items 7",
        "user quota bob",
        "user quota bob --json",
        "user remove bob",
        "user remove bob --yes",
        "user list --removed",
        "user list --removed --json",
        "user restore bob --as robert",
        "user restore bob",
        "user remove robert --now --yes",
        "user list",
        "session list",
        "session list --json",
        "session end alice",
        "session end nobody",
        "session end Nobody",
    ];
    for line in commands {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut in_store = Command::new(program("xfer-server"));
        in_store.args(&arguments).arg("--store").arg(here.store());
        let mut by_socket = there.command_of(GROUP, &arguments);
        let expected = run_with_input(&mut in_store, &password, PATIENCE);
        let found = run_with_input(&mut by_socket, &password, PATIENCE);
        let shown = |finished: &Finished, managed| {
            let Finished { code, stdout, stderr, .. } = finished;
            (*code, masked(stdout, managed), masked(stderr, managed))
        };
        assert_eq!(shown(&found, &there), shown(&expected, &here), "{line}: {found}");
    }
    let status = there.as_member(&["status", "--json"]).succeeded();
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["address"], json!(there.world.server.address.to_string()));
}

#[test]
fn a_member_of_the_group_sets_passwords_from_files_and_ends_sessions_and_the_log_says_who_did() {
    let managed = Managed::new(&["alice"]);
    let file = managed.world.outside().join("secret");
    fs::write(&file, "the password of bob\n").unwrap();
    chown(&file, Some(20_001), Some(20_001)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    managed.as_member(&["user", "add", "bob", "--password-file", file]).succeeded();
    world::write_secret(&managed.world.password_file("bob"), "the password of bob");
    let mount = managed.world.mount("bob");
    let listed = managed.as_member(&["session", "list"]).succeeded();
    assert!(listed.stdout.contains("\nbob "), "{listed}");
    managed.as_member(&["session", "end", "bob"]).succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
    let log = managed.world.server.said();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("uid=20001")).collect();
    assert!(lines.len() == 2 && lines[0].contains("{\"add\":") && lines[0].ends_with("done"));
    assert!(lines[1].contains("session end bob"), "{log}");
    assert!(!log.contains("the password of bob"), "{log}");
    // A file that the member may not read is not read with the server's rights.
    let foreign = managed.world.password_file("alice");
    let line = managed
        .as_member(&["user", "passwd", "bob", "--password-file", foreign.to_str().unwrap()])
        .refused(9);
    assert!(line.contains("permission denied"), "{line}");
}

#[test]
fn questions_of_commands_by_the_admin_socket_are_asked_where_they_were_typed() {
    let managed = Managed::new(&["alice"]);
    let on_terminal = |arguments: &[&str]| OnPty::start(&managed.command_of(GROUP, arguments));
    let mut add = on_terminal(&["user", "add", "bob"]);
    add.says("New password: ");
    assert!(!add.echoes());
    add.types("the password of bob\r");
    add.says("Again: ");
    add.types("the password of bob\r");
    assert_eq!(add.ended(), Some(0), "{}", add.said());
    world::write_secret(&managed.world.password_file("bob"), "the password of bob");
    managed.world.mount("bob").unmount();
    // Both questions of a command that has two kinds of them.
    let mut passwd = on_terminal(&["user", "passwd", "bob"]);
    passwd.says("New password: ");
    passwd.types("one\r");
    passwd.says("Again: ");
    passwd.types("another\r");
    for _ in 0..2 {
        passwd.says("They differ. New password: ");
        passwd.types("one\r");
        passwd.says("Again: ");
        passwd.types("another\r");
    }
    passwd.says("the passwords differ; try again");
    assert_eq!(passwd.ended(), Some(9), "{}", passwd.said());
    let mut remove = on_terminal(&["user", "remove", "bob"]);
    remove.says("This removes bob");
    remove.says("Type the name to confirm: ");
    remove.types("alice\r");
    assert_eq!(remove.ended(), Some(1), "{}", remove.said());
    let mut remove = on_terminal(&["user", "remove", "bob"]);
    remove.says("Type the name to confirm: ");
    remove.types("\x03");
    assert_eq!(remove.ended(), Some(130), "{}", remove.said());
    assert!(managed.has("bob"));
    let mut remove = on_terminal(&["user", "remove", "bob"]);
    remove.says("Type the name to confirm: ");
    remove.types("bob\r");
    assert_eq!(remove.ended(), Some(0), "{}", remove.said());
    assert!(!managed.has("bob"));
}

#[test]
fn whoever_is_not_in_the_group_of_the_admin_socket_may_do_nothing_by_it() {
    let managed = Managed::new(&["alice"]);
    let before = managed.users();
    for arguments in [
        &["user", "list"][..],
        &["user", "remove", "alice", "--yes"],
        &["session", "end", "alice"],
        &["status"],
    ] {
        let mut command = managed.command_of(OTHER_GROUP, arguments);
        let line = run_within(&mut command, PATIENCE).refused(3);
        assert!(line.contains("is not for this user; run this as"), "{line}");
    }
    assert_eq!(managed.users(), before);
    // The certificate is in the store, which neither may enter; the server tells those whom it may.
    let fingerprint = managed.as_member(&["fingerprint"]).succeeded().stdout;
    assert_eq!(fingerprint.trim(), managed.world.server.fingerprint);
    let mut command = managed.command_of(OTHER_GROUP, &["fingerprint"]);
    let line = run_within(&mut command, PATIENCE).refused(6);
    assert!(
        line.contains("permission denied; run it as root") && !line.contains("no certificate"),
        "{line}"
    );
    // Without the socket, nobody but the owner does anything at all.
    let mut command = managed.command_of(GROUP, &["session", "list"]);
    let line = run_within(command.env("XFER_ADMIN_SOCKET", "off"), PATIENCE).refused(3);
    assert!(line.contains("control socket is not for this user; run this as"), "{line}");
    let mode = fs::symlink_metadata(&managed.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn an_admin_socket_is_for_the_store_of_its_server_alone() {
    let mut managed = Managed::new(&["alice"]);
    let other = managed.world.outside().join("other");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    for arguments in [&["user", "list"][..], &["session", "list"]] {
        let mut command = managed.command_of(GROUP, arguments);
        let line = run_within(command.env("XFER_STORE", &other), PATIENCE).refused(2);
        assert!(line.contains("check --store and --admin-socket"), "{line}");
    }
    // By another path to the same store.
    let link = managed.world.outside().join("link");
    std::os::unix::fs::symlink(managed.store(), &link).unwrap();
    let mut command = managed.command_of(GROUP, &["user", "list"]);
    run_within(command.env("XFER_STORE", &link), PATIENCE).succeeded();
    managed.world.server.terminate();
    for arguments in [&["user", "list"][..], &["session", "list"]] {
        let line = managed.as_member(arguments).refused(11);
        assert!(line.contains("no server runs on this store"), "{line}");
    }
}

#[test]
fn a_server_replaces_what_a_killed_one_left_of_its_admin_socket_and_nothing_else() {
    let mut managed = Managed::new(&["alice"]);
    let other = managed.world.outside().join("other");
    // That of another server, which is told so and serves its clients.
    let second = start(&other, &managed.socket);
    wait_until("a line about it", PATIENCE, || {
        second.said().contains("cannot make the admin socket")
    });
    managed.as_member(&["user", "list"]).succeeded();
    drop(second);
    managed.world.server.kill();
    managed.world.server = start(managed.store(), &managed.socket);
    managed.as_member(&["user", "list"]).succeeded();
    managed.world.server.terminate();
    fs::remove_file(&managed.socket).unwrap();
    fs::write(&managed.socket, "precious").unwrap();
    let server = start(managed.store(), &managed.socket);
    wait_until("a line about it", PATIENCE, || {
        server.said().contains("cannot make the admin socket")
    });
    assert_eq!(fs::read(&managed.socket).unwrap(), b"precious");
}

/// What the server says to a line.
fn said_to(socket: &mut UnixStream, line: &str) -> String {
    socket.write_all(line.as_bytes()).unwrap();
    let mut said = String::new();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may close it before it has read all.
    let _ = socket.read_to_string(&mut said);
    said
}

#[test]
fn strange_commands_by_the_admin_socket_are_refused_and_who_says_nothing_is_in_nobodys_way() {
    let managed = Managed::new(&["alice"]);
    let before = managed.users();
    let connect = || UnixStream::connect(&managed.socket).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let remove = json!({ "remove": { "name": "alice", "yes": true, "now": true, "number": null } });
    let manage = |version: &str, order: Value, extra: &str| {
        let line = json!({
            "version": version, "command": "manage", "order": order, "can_be_asked": false
        });
        format!("{}{extra}\n", line.to_string().trim_end_matches('}'))
    };
    for line in [
        "\n".to_owned(),
        "{}\n".to_owned(),
        "[".repeat(60_000) + "\n",
        "x".repeat(100_000) + "\n",
        manage("0.0.0", remove.clone(), "}"),
        manage(version, remove.clone(), ",\"store\":\"/nowhere\"}"),
    ] {
        let said = said_to(&mut connect(), &line);
        let is_refused = said.contains("invalid") || said.contains("other_store");
        assert!(is_refused, "{}: {said}", &line[..line.len().min(80)]);
    }
    for order in [json!("run"), json!({ "remove": {} }), json!({ "remove": { "name": [] } })] {
        let said = said_to(&mut connect(), &manage(version, order, "}"));
        assert!(said.contains("\"failure\":{"), "{said}");
    }
    // One who leaves in the middle of a question.
    let order =
        json!({ "remove": { "name": "alice", "yes": false, "now": false, "number": null } });
    let line =
        manage(version, order, "}").replace("\"can_be_asked\":false", "\"can_be_asked\":true");
    let mut asked = connect();
    asked.write_all(line.as_bytes()).unwrap();
    let mut some = [0; 10];
    asked.read_exact(&mut some).unwrap();
    drop(asked);
    // Those who say nothing are in the way of each other, for a while, and of nobody else.
    let _silent: Vec<_> = (0..17).map(|_| connect()).collect();
    managed.world.server.command(&["session", "list"]).succeeded();
    assert_eq!(managed.users(), before);
    managed.as_member(&["user", "list"]).succeeded();
}

#[test]
fn questions_that_a_member_leaves_unanswered_keep_no_other_out() {
    let managed = Managed::new(&["alice"]);
    let ask = |_| {
        let mut asked = OnPty::start(&managed.command_of(GROUP, &["user", "remove", "alice"]));
        asked.says("Type the name to confirm: ");
        asked
    };
    let mut open: Vec<OnPty> = (0..8).map(ask).collect();
    let mut status = managed.command_by(20_002, GROUP, &["status"]);
    run_within(&mut status, PATIENCE).succeeded();
    managed.world.server.command(&["session", "list"]).succeeded();
    let line = managed.as_member(&["status"]).refused(1);
    assert!(line.contains("the server has too many commands under way; try again when"), "{line}");
    for asked in &mut open {
        asked.types("\x03");
        assert_eq!(asked.ended(), Some(130), "{}", asked.said());
    }
    managed.as_member(&["status"]).succeeded();
    // Not even with more connections than a person has.
    let connect = || UnixStream::connect(&managed.socket).unwrap();
    let _silent: Vec<_> = (0..200).map(|_| connect()).collect();
    managed.as_member(&["status"]).succeeded();
}

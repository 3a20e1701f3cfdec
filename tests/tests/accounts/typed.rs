//! What is typed at a terminal to log in, and to manage the keys of machines.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, World, wait_until, world};

use crate::{at, log_in, user};

#[test]
fn a_login_asks_once_whether_to_trust_the_server_and_for_the_password_and_a_mount_asks_nothing() {
    let world = World::new(&["alice"]);
    let target = at(&world, "alice");
    let mut login = OnPty::start(&world.xfer_command(&["login", &target]));
    login.says("(yes/no/the fingerprint)? ");
    login.types(&format!("{}\r", world.server.fingerprint));
    login.says("Password of alice@");
    assert!(!login.echoes());
    login.types("the password of alice\r");
    login.says("logs in to alice@");
    assert_eq!(login.ended(), Some(0), "{}", login.said());
    let mut mount = std::process::Command::new(xfer_tests::programs::program("xfer-mount"));
    world.at_home(&mut mount).arg(&target).arg(world.mount_point("alice"));
    let mut mount = OnPty::start(&mount);
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    assert!(!mount.said().contains('?') && !mount.said().contains("Password"), "{}", mount.said());
    // The password is nowhere on this machine.
    let home = world.home().display().to_string();
    let found = xfer_tests::shell(
        world.outside().as_path(),
        &format!("grep -rl 'password of alice' {home} || true"),
    );
    assert_eq!(found, "");
    world.xfer(&["unmount", world.mount_point("alice").to_str().unwrap()]).succeeded();
}

#[test]
fn a_machine_is_logged_out_from_another_one_and_the_lists_say_until_when_keys_are_good() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice", "laptop");
    let mount = world.mounting("alice").by_key().start();
    user(&world, &["keys", "expire", "alice", "laptop", "--within", "30"]).succeeded();
    let (target, trust) = (at(&world, "alice"), world.server.fingerprint.clone());
    let keys =
        |more: &[&str]| world.xfer(&[&["keys", &target, "--fingerprint", &trust], more].concat());
    let listed: Value = serde_json::from_str(&keys(&["--json"]).succeeded().stdout).unwrap();
    let of_server = user(&world, &["keys", "list", "alice", "--json"]).succeeded().stdout;
    let of_server: Value = serde_json::from_str(&of_server).unwrap();
    let (listed, of_server) = (&listed[0], &of_server[0]);
    assert_eq!((&listed["label"], &of_server["label"]), (&"laptop".into(), &"laptop".into()));
    let until = of_server["expires_secs"].as_i64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!((until - now.as_secs() as i64 + 3600) / (24 * 60 * 60), 30, "{of_server}");
    let day = xfer_tests::shell(&world.outside(), &format!("date -u -d @{until} +%FT%T"));
    assert!(listed["expires"].as_str().unwrap().starts_with(&day), "{listed}");
    let shown = keys(&[]).succeeded().stdout;
    assert!(shown.contains(&format!(", expires {day}")), "{shown}");
    let shown = user(&world, &["keys", "list", "alice"]).succeeded().stdout;
    let mut lines = shown.lines();
    assert!(lines.next().unwrap().ends_with("  EXPIRES"), "{shown}");
    assert!(lines.next().unwrap().split("  ").last().unwrap().starts_with(&day[..10]), "{shown}");
    let password = world.password_file("alice");
    let password = ["--password-file", password.to_str().unwrap()];
    keys(&[&["--revoke", "laptop"][..], &password].concat()).succeeded();
    wait_until("the end of the session", PATIENCE, || !mount.is_connected());
    let left = user(&world, &["keys", "list", "alice", "--json"]).succeeded().stdout;
    assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), serde_json::json!([]));
    // The table of all mounts stays one: why the session is over stands below it.
    let place = mount.root().display().to_string();
    let shown = world.xfer(&["status"]).succeeded().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].starts_with(&place) && lines[1].contains("  lost  "), "{shown}");
    let why = format!("{place}: lost: ");
    assert!(lines.len() == 3 && lines[2].starts_with(&why) && lines[2].len() > why.len());
}

#[test]
fn a_new_password_of_an_administrator_asks_about_the_keys_and_does_what_was_answered() {
    for (answer, left) in [("n\r", 1), ("\r", 1), ("y\r", 0)] {
        let world = World::new(&["alice"]);
        log_in(&world, "alice", "laptop");
        let mut command = std::process::Command::new(xfer_tests::programs::program("xfer-server"));
        command.args(["user", "passwd", "alice", "--store"]).arg(world.server.store());
        let mut passwd = OnPty::start(&command);
        let typed = ["another password", "anoter password", "another password", "another password"];
        let questions = ["New password: ", "Again: ", "They differ. New password: ", "Again: "];
        for (question, answer) in questions.into_iter().zip(typed) {
            passwd.says(question);
            passwd.types(&format!("{answer}\r"));
        }
        passwd.says("alice has 1 key of a machine, which still logs in. Revoke it too? [y/N] ");
        passwd.types(answer);
        assert_eq!(passwd.ended(), Some(0), "{}", passwd.said());
        let keys = user(&world, &["keys", "list", "alice", "--json"]).succeeded().stdout;
        let keys: Value = serde_json::from_str(&keys).unwrap();
        assert_eq!(keys.as_array().unwrap().len(), left, "{answer:?}");
        world::write_secret(&world.password_file("alice"), "another password");
        world.mount("alice").unmount();
    }
}

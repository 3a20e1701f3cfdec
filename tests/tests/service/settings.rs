//! Settings, from the command line, the environment and a file.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xfer_tests::programs::{Finished, Running, program, run_within};
use xfer_tests::{PATIENCE, wait_until};

const USAGE: u8 = 2;

struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Machine {
        let directory = tempfile::Builder::new().prefix("xfer-").tempdir().unwrap();
        Machine { directory }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn file(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("server.toml");
        fs::write(&file, text).unwrap();
        file
    }

    fn command(&self, file: Option<&Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("xfer-server"));
        command.args(arguments).env("XFER_STORE", self.store());
        if let Some(file) = file {
            command.env_remove("XFER_STORE").arg("--config").arg(file);
        }
        command
    }

    fn run(&self, file: Option<&Path>, arguments: &[&str]) -> Finished {
        run_within(&mut self.command(file, arguments), PATIENCE)
    }
}

/// The value of a setting in force, and where it comes from.
fn shown(finished: &Finished, key: &str) -> (String, String) {
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(&format!("{key} = "))).unwrap();
    let value = lines[at].split_once(" = ").unwrap().1.trim_matches('"').to_owned();
    (value, lines[at - 1].trim_start_matches("# ").to_owned())
}

#[test]
fn an_option_wins_over_the_environment_that_over_the_file_and_that_over_the_default() {
    let machine = Machine::new();
    let file = machine.file("silence = 5\nlisten = \"127.0.0.1:1\"\ntree-size = \"32MiB\"\n");
    let place = file.display().to_string();
    let mut command = machine.command(Some(&file), &["run", "--print-config", "--silence=7"]);
    command.env("XFER_SILENCE", "6").env("XFER_LISTEN", "127.0.0.1:2");
    let printed = run_within(&mut command, PATIENCE).succeeded();
    let is = |key: &str, value: &str, source: &str| {
        assert_eq!(shown(&printed, key), (value.to_owned(), source.to_owned()), "{printed:?}");
    };
    is("silence", "7", "the command line");
    is("listen", "127.0.0.1:2", "XFER_LISTEN");
    is("tree-size", "32MiB", &place);
    is("keep-lost", "7", "the default");
    // What is printed is a file that gives the same.
    let again = machine.file(&printed.stdout);
    let printed = machine.run(Some(&again), &["run", "--print-config"]).succeeded();
    assert_eq!(shown(&printed, "silence").0, "7");
    assert_eq!(shown(&printed, "listen").0, "127.0.0.1:2");
}

#[test]
fn a_file_says_where_the_store_is_for_the_server_and_the_commands_beside_it() {
    let machine = Machine::new();
    let store = machine.store();
    let file = machine.file(&format!("store = {store:?}\nlisten = \"127.0.0.1:0\"\n"));
    let mut running = Running::start(&mut machine.command(Some(&file), &["run"]));
    wait_until("the server to listen", PATIENCE, || running.said().contains("listening on"));
    let add = ["user", "add", "alice", "--invite", "--host", "files.example.org"];
    machine.run(Some(&file), &add).succeeded();
    assert!(machine.run(Some(&file), &["user", "list"]).succeeded().stdout.contains("alice"));
    assert!(store.join("xfer.db").exists());
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.ended_within(PATIENCE), Some(0));
}

#[test]
fn a_file_that_is_wrong_is_refused_by_a_line_that_says_where_and_why() {
    let machine = Machine::new();
    let check = |text: &str, arguments: &[&str], why: &str| {
        let file = machine.file(text);
        let line = machine.run(Some(&file), arguments).refused(USAGE);
        assert!(line.contains(&file.display().to_string()), "{line}");
        assert!(line.contains(why) && line.contains("mend the file"), "{line}");
    };
    for command in [&["run"][..], &["user", "list"]] {
        check(
            "port = 33000",
            command,
            "there is no setting 'port'; there are: store, admin-socket, listen",
        );
        check("listen = [1]", command, "listen must be a text or a number");
        check("silence = 5\nlisten = \n", command, "it is not TOML in line 2");
        check("silence = 5\n= 3\n", command, "it is not TOML in line 2");
        check("accept-older-database = true", command, "there is no setting");
        check("store = \"memory:\"", command, "the store memory: ends with the program");
    }
    check("silence = 1", &["run"], "from 3 to 10");
    check("listen = \"nowhere\"", &["run"], "invalid value 'nowhere' for '--listen <ADDR:PORT>'");
    let missing = machine.directory.path().join("missing.toml");
    let line = machine.run(Some(&missing), &["run"]).refused(USAGE);
    assert!(line.contains("there is no such file of settings"), "{line}");
    let file = machine.file("cert = \"cert.pem\"");
    let line = machine.run(Some(&file), &["run"]).refused(USAGE);
    assert!(line.contains("a certificate and its key go together; give --key too"), "{line}");
    // A wrong command line is said to be wrong, whatever the file says.
    let file = machine.file("silence = 5");
    let line = machine.run(Some(&file), &["run", "--silence=2"]).refused(USAGE);
    assert!(!line.contains("mend the file"), "{line}");
    // Nor does a wrong file keep anybody from help.
    let file = machine.file("port = 1");
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        machine.run(Some(&file), arguments).succeeded();
    }
    // Without a file, nothing is missed.
    machine.run(None, &["run", "--print-config"]).succeeded();
}

#[test]
fn a_variable_that_is_wrong_is_named_and_one_that_an_option_outdoes_is_not() {
    let machine = Machine::new();
    let run = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = machine.command(None, arguments);
        run_within(command.env(name, value), PATIENCE)
    };
    let line = run("XFER_KEEP_REMOVED", "x", &["run"]).refused(USAGE);
    let expected = "invalid value 'x' for '--keep-removed <DAYS>': it is not a whole number; it comes \
                    from the variable XFER_KEEP_REMOVED: mend or unset it";
    assert_eq!(line, format!("xfer-server: {expected}"));
    let line = run("XFER_STORE", "memory:", &["user", "list"]).refused(USAGE);
    assert!(line.contains("XFER_STORE"), "{line}");
    for option in [&["run", "--keep-removed", "y"][..], &["run", "--keep-removed=y"]] {
        let line = run("XFER_KEEP_REMOVED", "x", option).refused(USAGE);
        assert!(line.contains("'y'") && !line.contains("XFER_"), "{line}");
    }
    run("XFER_KEEP_REMOVED", "x", &["run", "--keep-removed=5", "--print-config"]).succeeded();
}

#[test]
fn the_file_of_the_package_shows_each_setting_with_its_default() {
    let machine = Machine::new();
    let shown_there = include_str!("../../../packaging/server/server.toml");
    let lines = || shown_there.lines().filter_map(|line| line.strip_prefix('#'));
    let enabled: Vec<&str> = lines().filter(|line| line.contains(" = ")).collect();
    let all = machine.file(&enabled.join("\n"));
    let of_file = machine.run(Some(&all), &["run", "--print-config"]).succeeded();
    let mut command = machine.command(None, &["run", "--print-config"]);
    let defaults = run_within(command.env_remove("XFER_STORE"), PATIENCE).succeeded();
    for line in defaults.stdout.lines().filter(|line| !line.starts_with('#')) {
        let key = line.split_once(" = ").unwrap().0;
        assert_eq!(shown(&of_file, key).0, shown(&defaults, key).0);
        assert_eq!(shown(&of_file, key).1, all.display().to_string(), "{key} is not in the file");
    }
    // As it is, it sets one, which needs what the package brings.
    let file = machine.file(shown_there);
    let as_it_is = machine.run(Some(&file), &["run", "--print-config"]).succeeded();
    let set = format!("# {}\nadmin-socket = \"/run/xfer/admin.sock\"", file.display());
    let unset = "# the default\nadmin-socket = \"off\"";
    assert_eq!(as_it_is.stdout.replace(&set, unset), defaults.stdout);
}

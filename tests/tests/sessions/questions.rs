//! Questions on a terminal: answers that are typed, and interrupts.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xfer_tests::programs::program;
use xfer_tests::pty::OnPty;
use xfer_tests::{World, shell};

const INTERRUPTED: Option<i32> = Some(130);

/// How a question ends without an answer.
#[derive(Clone, Copy, Debug)]
enum Way {
    Typed(&'static str),
    Sent(Signal),
}

const WAYS: [Way; 5] = [
    Way::Typed("half a passw\x03"),
    Way::Typed("\x1c"),
    Way::Sent(Signal::INT),
    Way::Sent(Signal::TERM),
    Way::Sent(Signal::HUP),
];

/// A question that a command asks once others are answered.
struct Question<'a> {
    command: &'a Command,
    /// The earlier questions and their answers.
    before: &'a [(&'a str, &'a str)],
    question: &'a str,
    hidden: bool,
}

impl Question<'_> {
    fn reached(&self) -> OnPty {
        let mut program = OnPty::start(self.command);
        for (question, answer) in self.before {
            program.says(question);
            program.types(answer);
        }
        program.says(self.question);
        assert_eq!(program.echoes(), !self.hidden, "{}", self.question);
        program
    }

    fn check_interrupted(&self, way: Way) {
        let mut program = self.reached();
        match way {
            Way::Typed(keys) => program.types(keys),
            Way::Sent(signal) => program.signal(signal),
        }
        let code = program.ended();
        let said = program.said();
        assert!(
            program.echoes(),
            "{way:?}, {}: the terminal shows nothing:\n{said}",
            self.question
        );
        assert_eq!(code, INTERRUPTED, "{way:?}, {}:\n{said}", self.question);
        program.says(": interrupted\r\n");
        let said = program.said();
        assert_eq!(said.matches("interrupted").count(), 1, "{way:?}:\n{said}");
        assert!(!said.contains("killed"), "{way:?}:\n{said}");
    }
}

fn mount(world: &World, options: &[&str], known_hosts: &Path) -> Command {
    let mut command = Command::new(program("xfer-mount"));
    world.at_home(&mut command).args(options).arg("--known-hosts").arg(known_hosts);
    command.arg(format!("alice@{}", world.server.address)).arg(world.mount_point("alice"));
    command
}

fn add_user(world: &World, name: &str) -> Command {
    let mut command = Command::new(program("xfer-server"));
    command.args(["user", "add", name, "--store"]).arg(world.server.store());
    command
}

#[test]
fn a_question_that_is_interrupted_leaves_the_terminal_as_it_was_and_says_so() {
    let world = World::new(&["alice"]);
    let known_hosts = world.outside().join("known_hosts");
    let fingerprint = ["--fingerprint", &world.server.fingerprint];
    let (background, foreground) =
        (mount(&world, &[], &known_hosts), mount(&world, &["-f"], &known_hosts));
    let trusted = mount(&world, &fingerprint, &known_hosts);
    let add = add_user(&world, "bob");
    let mut passwd = Command::new(program("xfer-server"));
    passwd.args(["user", "passwd", "alice", "--store"]).arg(world.server.store());
    let mut remove = Command::new(program("xfer-server"));
    remove.args(["user", "remove", "alice", "--store"]).arg(world.server.store());
    let mut login = world.xfer_command(&["login", "--fingerprint", &world.server.fingerprint]);
    login.arg(format!("alice@{}", world.server.address));
    let mut by_xfer = world.xfer_command(&["mount", "--fingerprint", &world.server.fingerprint]);
    by_xfer.arg(format!("alice@{}", world.server.address)).arg(world.mount_point("alice"));
    let trust = "(yes/no/the fingerprint)? ";
    let questions = [
        Question { command: &login, before: &[], question: "Password of alice@", hidden: true },
        Question { command: &by_xfer, before: &[], question: "Password of alice@", hidden: true },
        Question { command: &background, before: &[], question: trust, hidden: false },
        Question { command: &foreground, before: &[], question: trust, hidden: false },
        Question {
            command: &background,
            before: &[(trust, "perhaps\r")],
            question: "type yes, no or the fingerprint: ",
            hidden: false,
        },
        Question { command: &trusted, before: &[], question: "Password of alice@", hidden: true },
        Question { command: &add, before: &[], question: "New password: ", hidden: true },
        Question {
            command: &add,
            before: &[("New password: ", "secret\r")],
            question: "Again: ",
            hidden: true,
        },
        Question { command: &passwd, before: &[], question: "New password: ", hidden: true },
        Question { command: &remove, before: &[], question: "to confirm: ", hidden: false },
    ];
    for question in &questions {
        WAYS.iter().for_each(|way| question.check_interrupted(*way));
    }
    assert!(!known_hosts.exists());
    let users = world.server.command(&["user", "list"]).succeeded().stdout;
    assert!(users.contains("alice") && !users.contains("bob"), "{users}");
}

#[test]
fn answers_that_are_typed_mount_and_are_not_shown_if_they_are_secret() {
    let world = World::new(&["alice"]);
    let known_hosts = world.outside().join("known_hosts");
    let mut program = OnPty::start(&mount(&world, &[], &known_hosts));
    program.says("(yes/no/the fingerprint)? ");
    program.types("yes\r");
    program.says("Password of alice@");
    program.types("the password of alice\r");
    assert_eq!(program.ended(), Some(0), "{}", program.said());
    let said = program.said();
    assert!(program.echoes() && !said.contains("the password"), "{said}");
    shell(world.mount_point("alice").parent().unwrap(), "fusermount3 -u alice");
}

#[test]
fn a_user_whose_account_is_mounted_elsewhere_can_take_it_over_without_the_password_again() {
    let world = World::new(&["alice"]);
    let elsewhere = world.mount_point("elsewhere");
    let first = world.mounting("alice").at(&elsewhere).start();
    let known_hosts = world.outside().join("known_hosts");
    let second = mount(&world, &["--fingerprint", &world.server.fingerprint], &known_hosts);
    for (answer, code) in [("n\r", 11), ("\r", 11), ("y\r", 0)] {
        let mut program = OnPty::start(&second);
        program.says("Password of alice@");
        program.types("the password of alice\r");
        program.says("Take it over? [y/N] ");
        program.types(answer);
        assert_eq!(program.ended(), Some(code), "{}", program.said());
        assert!(program.said().contains("the account is in use on"), "{}", program.said());
    }
    let waits = first.xfer("status", &[]).succeeded().stdout;
    assert!(waits.contains("dormant"), "{waits}");
    shell(world.mount_point("alice").parent().unwrap(), "fusermount3 -u alice");
    first.unmount();
}

#[test]
fn a_question_that_is_stopped_and_continued_is_asked_again_and_the_shell_gets_its_terminal() {
    let world = World::new(&["alice"]);
    let store = world.server.store().to_str().unwrap().to_owned();
    let known_hosts = world.outside().join("known_hosts");
    let mount = mount(&world, &["--fingerprint", &world.server.fingerprint], &known_hosts);
    let arguments: Vec<&str> = mount.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let mount_line = format!("{} {}", mount.get_program().to_str().unwrap(), arguments.join(" "));
    let add_line = format!("{} user add bob --store {store}", program("xfer-server").display());
    // Unlike bash, it keeps the terminal settings that a job leaves.
    let mut dash = Command::new("dash");
    world.at_home(&mut dash).arg("-i").env("PS1", "ready> ");
    let mut shell = OnPty::start(&dash);
    shell.says("ready> ");
    for (line, questions, answer) in [
        (&add_line, &["New password: ", "Again: "][..], "secret\r"),
        (&mount_line, &["Password of alice@"], "the password of alice\r"),
    ] {
        shell.types(&format!("{line}\r"));
        for question in questions {
            shell.says(question);
            assert!(!shell.echoes(), "{question}");
            shell.types("half\x1a");
            shell.says("Stopped");
            shell.says("ready> ");
            assert!(shell.echoes(), "{question}");
            shell.types("fg\r");
            shell.says(question);
            assert!(!shell.echoes(), "{question}");
            shell.types(answer);
        }
        shell.says("ready> ");
        shell.types("echo ended: $?\r");
        shell.says("ended: 0\r\n");
    }
    let said = shell.said();
    assert!(!said.contains("interrupted") && !said.contains("half"), "{said}");
    shell.types("exit\r");
    assert_eq!(shell.ended(), Some(0));
    let users = world.server.command(&["user", "list"]).succeeded().stdout;
    assert!(users.contains("bob"), "{users}");
    xfer_tests::shell(world.mount_point("alice").parent().unwrap(), "fusermount3 -u alice");
}

//! What can be seen to be wrong without a password is said before one is asked for.
#![allow(clippy::unwrap_used)]

use xfer_mount::process::exit::Exit;
use xfer_tests::World;
use xfer_tests::machine::AS_USER;
use xfer_tests::pty::OnPty;

/// Something that is wrong on a machine.
struct Wrong<'a> {
    /// How it came to be so.
    set_up: &'a str,
    /// Arguments after the account.
    arguments: &'a str,
    exit: Exit,
    /// A part of the line that says it.
    said: &'a str,
}

/// Mounts on a terminal, as a user other than root.
fn mount_on_terminal(world: &World, set_up: &str, arguments: &str) -> OnPty {
    let script = format!(
        "mkdir \"$L/own\" \"$L/theirs\" && chown carol \"$L/own\" && chmod 1777 \"$L/theirs\"
         {set_up}
         {AS_USER} env HOME='{home}' xfer-mount --fingerprint {fingerprint} alice@{server} {arguments}",
        home = world.home_of_user().display(),
        fingerprint = world.server.fingerprint,
        server = world.server.address,
    );
    OnPty::start(&world.machine().command(&script))
}

#[test]
fn what_is_wrong_on_this_machine_is_said_before_the_password_is_asked_for() {
    let world = World::new(&["alice"]);
    let own = "\"$L/own\"";
    let wrongs = [
        Wrong {
            set_up: "sed -i /user_allow_other/d /etc/fuse.conf",
            arguments: "-o allow_other \"$L/own\"",
            exit: Exit::Usage,
            said: "until /etc/fuse.conf has the line user_allow_other",
        },
        Wrong {
            set_up: "",
            arguments: "\"$L/missing\"",
            exit: Exit::MountPointMissing,
            said: "no such directory; make it with: mkdir",
        },
        Wrong {
            set_up: "",
            arguments: "/usr/share",
            exit: Exit::MountPointMissing,
            said: "/usr/share: you may not write to it, so you may not mount on it",
        },
        Wrong {
            set_up: "",
            arguments: "\"$L/theirs\"",
            exit: Exit::MountPointMissing,
            said: "it belongs to another user, and only its owner may mount on it",
        },
        Wrong {
            set_up: "mount -t tmpfs none \"$L/own\"",
            arguments: own,
            exit: Exit::MountPointBusy,
            said: "is already mounted there",
        },
        Wrong {
            set_up: "chmod 600 /dev/fuse",
            arguments: own,
            exit: Exit::NoFuse,
            said: "no FUSE: /dev/fuse",
        },
        Wrong {
            set_up: "cp /usr/bin/fusermount3 \"$L/fusermount3\"
                     mount --bind \"$L/fusermount3\" /usr/bin/fusermount3",
            arguments: own,
            exit: Exit::NoFuse,
            said: "/usr/bin/fusermount3 does not run as root, so it cannot mount",
        },
        Wrong {
            set_up: "",
            arguments: "-o uid=0 \"$L/own\"",
            exit: Exit::Usage,
            said: "uid= of another user is for root",
        },
        Wrong {
            set_up: "",
            arguments: "-o idmap=user \"$L/own\"",
            exit: Exit::Usage,
            said: "write ids=mounter",
        },
    ];
    for Wrong { set_up, arguments, exit, said } in wrongs {
        let mut mount = mount_on_terminal(&world, set_up, arguments);
        mount.says(said);
        let code = mount.ended();
        let shown = mount.said();
        assert_eq!(code, Some(exit.code().into()), "{arguments}: {shown}");
        assert!(!shown.contains("Password of"), "{arguments}: {shown}");
    }
    // Otherwise it is asked for.
    for (set_up, arguments) in
        [("", own), ("echo user_allow_other >> /etc/fuse.conf", "-o allow_other \"$L/own\"")]
    {
        let mut mount = mount_on_terminal(&world, set_up, arguments);
        mount.says("Password of alice@");
        mount.types("\r");
        mount.says("the password is empty");
        assert_eq!(mount.ended(), Some(Exit::Usage.code().into()), "{}", mount.said());
    }
}

#[test]
fn a_pasted_fingerprint_is_a_yes_and_another_one_a_no_before_the_password_is_asked_for() {
    let world = World::new(&["alice"]);
    let known_hosts = world.outside().join("known_hosts");
    let mut command = std::process::Command::new(xfer_tests::programs::program("xfer-mount"));
    world.at_home(&mut command).arg("--known-hosts").arg(&known_hosts);
    command.arg(format!("alice@{}", world.server.address)).arg(world.mount_point("alice"));
    let mut mount = OnPty::start(&command);
    mount.says("(yes/no/the fingerprint)? ");
    mount.types(&format!("sha256:{}\r", "ab".repeat(32)));
    assert_eq!(mount.ended(), Some(Exit::Key.code().into()), "{}", mount.said());
    assert!(!mount.said().contains("Password of") && !known_hosts.exists(), "{}", mount.said());
    let mut mount = OnPty::start(&command);
    mount.says("(yes/no/the fingerprint)? ");
    mount.types(&format!("{}\r", world.server.fingerprint));
    mount.says("Password of alice@");
    mount.types("the password of alice\r");
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    let known = std::fs::read_to_string(known_hosts).unwrap();
    assert!(known.contains(&world.server.fingerprint), "{known}");
    world.xfer(&["unmount", world.mount_point("alice").to_str().unwrap()]).succeeded();
}

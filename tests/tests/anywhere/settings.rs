//! Settings, from files, the environment and the command line.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use xfer_tests::programs::{Finished, program, run_within};
use xfer_tests::{PATIENCE, World};

/// The user's own file.
pub fn own_file(world: &World) -> PathBuf {
    world.home().join(".config/xfer/config.toml")
}

/// Writes it.
pub fn write(world: &World, text: &str) {
    let file = own_file(world);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// `xfer-mount` for an account by this name, with these arguments.
pub fn command(world: &World, account: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("xfer-mount"));
    world.at_home(command.args(arguments).arg(account).arg(world.mount_point("alice")));
    command
}

fn run(mut command: Command) -> Finished {
    run_within(&mut command, PATIENCE)
}

/// The value of a setting in force, and where it comes from.
#[track_caller]
fn shown(printed: &str, key: &str) -> (String, String) {
    let lines: Vec<&str> = printed.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(&format!("{key} = ")));
    let at = at.unwrap_or_else(|| panic!("no {key}: {printed}"));
    let value = lines[at].split_once(" = ").unwrap().1.trim_matches('"').to_owned();
    (value, lines[at - 1].trim_start_matches("# ").to_owned())
}

#[test]
fn the_command_line_wins_over_the_environment_that_over_the_accounts_section_that_over_the_file() {
    let world = World::new(&[]);
    write(
        &world,
        "wait = 1\nretry = 2\nsilence = 3\ncache-size = \"32MiB\"\noffline = true\nfingerprint = \"sha256:00\"
         [account.\"alice@host:33000\"]\nretry = 4\nsilence = 5\ncache_size = \"64MiB\"\noffline = \"2GiB\"
         [account.\"bob@host\"]\nretry = 6\n"
            .replace("sha256:00", &format!("sha256:{}", "0".repeat(64)))
            .as_str(),
    );
    let print = |account: &str| {
        let arguments = ["--print-config", "--cache-size", "128MiB", "-o", "handoff,nooffline,rw"];
        let mut command = command(&world, account, &arguments);
        command
            .env("XFER_SILENCE", "7")
            .env("XFER_HANDOFF", "false")
            .env("XFER_ACCEPT_NEW", "true");
        run(command).succeeded().stdout
    };
    let file = own_file(&world).display().to_string();
    let section = format!("{file}, [account.\"alice@host:33000\"]");
    let alice = print("alice@host");
    for (key, value, origin) in [
        ("wait", "1", file.as_str()),
        ("retry", "4", &section),
        ("silence", "7", "XFER_SILENCE"),
        ("cache_size", "128MiB", "the command line"),
        ("offline", "false", "the command line"),
        ("handoff", "true", "the command line"),
        ("accept_new", "true", "XFER_ACCEPT_NEW"),
        ("log_size", "256MiB", "the default"),
    ] {
        assert_eq!(shown(&alice, key), (value.to_owned(), origin.to_owned()), "{alice}");
    }
    // A way to trust the server takes the place of another.
    assert!(!alice.contains("fingerprint ="), "{alice}");
    let bob = print("bob@host");
    assert_eq!(shown(&bob, "retry").0, "6", "{bob}");
    assert_eq!(shown(&bob, "cache_size").0, "128MiB", "{bob}");
    // What is printed says the same as a file.
    fs::write(own_file(&world), alice.as_str()).unwrap();
    let again = run(command(&world, "alice@host", &["--print-config"])).succeeded().stdout;
    let values = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(values(&again), values(&alice));
}

#[test]
fn another_file_can_be_named_and_one_without_a_home_is_not_missed() {
    let world = World::new(&[]);
    write(&world, "wait = 1\n");
    let other = world.outside().join("other.toml");
    fs::write(&other, "wait = 2\n").unwrap();
    let named = world.outside().join("xfer/config.toml");
    fs::create_dir_all(named.parent().unwrap()).unwrap();
    fs::write(&named, "wait = 3\n").unwrap();
    let wait = |prepare: &dyn Fn(&mut Command), arguments: &[&str]| {
        let arguments = [&["--print-config"], arguments].concat();
        let mut command = command(&world, "alice@host", &arguments);
        prepare(&mut command);
        shown(&run(command).succeeded().stdout, "wait").0
    };
    let other_text = other.to_str().unwrap();
    assert_eq!(wait(&|_| {}, &[]), "1");
    assert_eq!(
        wait(
            &|command| {
                command.env("XFER_CLIENT_CONFIG", &other);
            },
            &[]
        ),
        "2"
    );
    assert_eq!(
        wait(
            &|command| {
                command.env("XFER_CLIENT_CONFIG", "/none");
            },
            &["--config", other_text]
        ),
        "2"
    );
    assert_eq!(
        wait(
            &|command| {
                command.env("XDG_CONFIG_HOME", world.outside());
            },
            &[]
        ),
        "3"
    );
    assert_eq!(wait(&|_| {}, &["--config", "/dev/null"]), "30");
    // The home is then that of the system's list of users.
    wait(
        &|command| {
            command.env_remove("HOME");
        },
        &["--config", other_text],
    );
    let line = run(command(&world, "alice@host", &["--config", "/none"])).refused(2);
    assert!(line.ends_with("/none: there is no such file of settings"), "{line}");
}

#[test]
fn what_is_no_setting_is_refused_with_file_and_key_before_anything_is_asked() {
    let world = World::new(&[]);
    let file = own_file(&world).display().to_string();
    for (text, said) in [
        ("wiat = 5", "there is no setting 'wiat'; there are: password_file, "),
        ("password = \"x\"", "there is no setting 'password'; "),
        ("takeover = \"yes\"", "takeover: give true or false"),
        ("wait = true", "wait: give a value, not true or false"),
        ("wait = \"long\"", "wait: give seconds, like wait=30, or wait=forever"),
        ("wait = 99999999999999999999", "a number in line 1 is too large"),
        ("uid = 4294967295", "uid: give a user's number, like uid=1000"),
        ("uid = 0\nids = \"stored\"", "use only one of ids and uid"),
        ("wait = 1.5", "wait: give a text, a number, true or false"),
        // TOML's own octal number is a decimal one by now.
        ("umask = 0o077", "umask: give an octal number as a text, like \"077\""),
        ("cache-size = \"1KiB\"", "cache-size: 1KiB is not between 16MiB and 1TiB"),
        ("fingerprint = \"sha256:1\"", "fingerprint: not a fingerprint"),
        ("password_file = \"secret\"", "password_file: give a path that begins with / or ~/"),
        ("accept_new = true\nca = \"/ca\"", "use only one of accept_new and ca"),
        (
            "cache-size = \"1GiB\"\ncache_size = \"2GiB\"",
            "cache_size and cache-size are one setting",
        ),
        (
            "[account.\"a@h\"]\nwait = 5\n[account.\"a@h:33000\"]\nwait = 6",
            "there are two sections [account] of a@h:33000; make them one",
        ),
        ("wait = 5\nwait = 6", "it is not TOML in line 2: duplicate key"),
        ("wait = 5\n\nretry = ,", "it is not TOML in line 3: "),
        ("[acount.\"a@h\"]\nwait = 5", "there is no setting 'acount'; "),
        ("[account.\"a@h\"]\nwiat = 5", "[account.\"a@h\"]: there is no setting 'wiat'; "),
        ("[account.alice]\nwait = 5", "[account.\"alice\"]: 'alice' has no host"),
    ] {
        write(&world, text);
        let said = format!("{file}: {said}");
        for arguments in [&[][..], &["-o", "password_file=/none"]] {
            let line = run(command(&world, "alice@host", arguments)).refused(2);
            assert!(line.contains(&said), "{text}: {line}");
        }
        let line = world.xfer(&["ls", "alice@host:"]).refused(2);
        assert!(line.contains(&said), "{text}: {line}");
    }
    write(&world, &" ".repeat((1 << 20) + 1));
    let line = run(command(&world, "alice@host", &[])).refused(2);
    assert!(line.ends_with("it has more than 1048576 bytes, too many for settings"), "{line}");
    fs::write(own_file(&world), b"fsname = \"\xff\"").unwrap();
    let line = run(command(&world, "alice@host", &[])).refused(2);
    assert!(line.ends_with("it is not text in UTF-8, as settings are"), "{line}");
    write(&world, "");
    let mut wrong = command(&world, "alice@host", &[]);
    wrong.env("XFER_WAIT", "long");
    let line = run(wrong).refused(2);
    assert!(line.contains("XFER_WAIT: give seconds, like wait=30"), "{line}");
    std::os::unix::fs::chown(own_file(&world), Some(20_001), None).unwrap();
    let line = run(command(&world, "alice@host", &[])).refused(2);
    assert!(line.contains(&format!("{file}: it belongs to another user; run: chown")), "{line}");
    std::os::unix::fs::chown(own_file(&world), Some(0), None).unwrap();
    for mode in [0o620, 0o602] {
        fs::set_permissions(own_file(&world), Permissions::from_mode(mode)).unwrap();
        let line = run(command(&world, "alice@host", &[])).refused(2);
        assert!(
            line.ends_with(&format!("{file}: others may write to it; run: chmod go-w {file}")),
            "{line}"
        );
    }
}

#[test]
fn a_pipe_that_is_named_as_the_file_of_settings_is_waited_for() {
    let world = World::new(&[]);
    let pipe = world.outside().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let written = pipe.clone();
    // It opens the pipe when there is a reader.
    let writer = std::thread::spawn(move || fs::write(written, "fsname = \"piped\""));
    let arguments = ["--print-config", "--config", pipe.to_str().unwrap(), "-o", "ids=none"];
    let finished = run(command(&world, "alice@host", &arguments));
    writer.join().unwrap().unwrap();
    assert!(finished.stdout.contains("fsname = \"piped\""), "{finished}");
}

#[test]
fn owners_that_a_command_line_wants_are_shown_whatever_the_settings_say_of_others() {
    let world = World::new(&[]);
    let shown = |arguments: &[&str]| {
        let arguments = [&["--print-config", "-o", "umask=9"][..], arguments].concat();
        run(command(&world, "alice@host", &arguments)).stdout
    };
    write(&world, "uid = 5\ngid = 6");
    assert!(shown(&[]).contains("uid = \"5\""));
    let all = shown(&["-o", "ids=stored"]);
    assert!(!all.contains("uid =") && all.contains("ids = \"stored\""), "{all}");
    write(&world, "ids = \"stored\"");
    let all = shown(&["-o", "gid=7"]);
    assert!(!all.contains("ids =") && all.contains("gid = \"7\""), "{all}");
    let mut contradicting = command(&world, "alice@host", &[]);
    contradicting.env("XFER_IDS", "stored").env("XFER_UID", "5");
    let line = run(contradicting).refused(2);
    assert!(line.contains("XFER_UID: use only one of this and XFER_IDS"), "{line}");
}

#[test]
fn a_mount_and_a_command_without_one_need_no_option_that_is_set() {
    let world = World::new(&["alice", "bob"]);
    let account = |user: &str| format!("{user}@{}", world.server.address);
    let password = |user: &str| world.password_file(user).display().to_string();
    write(
        &world,
        &format!(
            "fingerprint = \"{}\"\numask = \"077\"\n[account.\"{}\"]\npassword_file = \"{}\"\n\
             [account.\"{}\"]\npassword-file = \"{}\"\nro = true\n",
            world.server.fingerprint,
            account("alice"),
            password("alice"),
            account("bob"),
            password("bob"),
        ),
    );
    let alice = world.mounting("alice").by_key().start();
    let bob = world.mounting("bob").by_key().start();
    alice.shell("echo text > file && chmod 644 file");
    assert_eq!(alice.shell("stat -c %a file"), "600");
    assert_eq!(
        bob.shell("mkdir d 2>&1 || true"),
        "mkdir: cannot create directory 'd': Read-only file system"
    );
    bob.unmount();
    let bob = world.mounting("bob").by_key().arg("-o").arg("rw,umask=0").start();
    assert_eq!(bob.shell("mkdir d && chmod 755 d && stat -c %a d"), "755");
    bob.unmount();
    alice.unmount();
    let place = format!("{}:", account("alice"));
    assert_eq!(world.xfer(&["ls", &place]).succeeded().stdout, "file\ninbox\noutbox\n");
    world.xfer(&["keys", &account("alice")]).succeeded();
    world.xfer(&["login", &account("alice"), "--label", "laptop"]).succeeded();
    let keys = world.xfer(&["keys", &account("alice")]).succeeded().stdout;
    assert!(keys.contains("laptop"), "{keys}");
    world.xfer(&["logout", &account("alice")]).succeeded();
}

#[test]
fn a_machine_has_settings_below_those_of_its_users_and_an_fstab_has_the_last_word() {
    let world = World::new(&["alice"]);
    let (server, fingerprint) = (world.server.address, &world.server.fingerprint);
    let password = world.password_file("alice");
    let done = world.machine().run(&format!(
        "mkdir -p /etc/xfer /root/.config/xfer
         printf '%s\\n' 'password_file = \"{password}\"' 'fingerprint = \"{fingerprint}\"' 'umask = \"007\"' \
             'ro = true' > /etc/xfer/client.toml
         echo 'umask = \"027\"' > /root/.config/xfer/config.toml
         echo 'alice@{server} '$PLACE' fuse.xfer noauto,rw 0 0' >> /etc/fstab
         mount -f $PLACE
         mount $PLACE
         echo text > $PLACE/file && chmod 666 $PLACE/file && stat -c %a $PLACE/file
         # What a remount does not name stays as it is, whatever the settings say.
         mount -o remount,noexec $PLACE
         echo more >> $PLACE/file
         umount $PLACE
         echo 'wiat = 1' >> /etc/xfer/client.toml
         mount $PLACE || true",
        password = password.display(),
    ));
    let done = done.succeeded();
    assert_eq!(done.stdout, "640\n", "{done}");
    assert!(done.stderr.contains("/etc/xfer/client.toml: there is no setting 'wiat'"), "{done}");
}

#[test]
fn the_example_says_what_is_in_force_anyway_and_all_of_it_can_be_set() {
    let world = World::new(&[]);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let example = fs::read_to_string(root.join("packaging/client/config.toml")).unwrap();
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')), "{example}");
    let is_setting = |line: &&str| line.contains(" = ") || line.starts_with('[');
    let settings: Vec<&str> =
        example.lines().filter_map(|line| line.strip_prefix('#')).filter(is_setting).collect();
    write(&world, &settings.join("\n"));
    let printed = run(command(&world, "alice@server.example.org", &["--print-config"]));
    let printed = printed.succeeded().stdout;
    for line in printed.lines().filter(|line| line.contains(" = ")) {
        let key = line.split(' ').next().unwrap();
        assert!(
            settings.iter().any(|set| set.starts_with(&format!("{key} = "))),
            "{key} is missing"
        );
    }
}

#[test]
fn a_mount_is_as_the_file_and_the_environment_say() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo text > file && chmod 666 file");
    mount.unmount();
    let account = format!("alice@{}", world.server.address);
    write(
        &world,
        &format!(
            "uid = \"77\"\numask = \"027\"\n[account.\"{account}\"]\nuid = \"78\"\nfsname = \"mine\"\n"
        ),
    );
    let mount = world.mounting("alice").env("XFER_GID", "88").start();
    let shown = mount.shell("stat -c '%a %u %g' file; findmnt -n -o SOURCE .");
    assert_eq!(shown, "640 78 88\nmine");
    mount.unmount();
}

//! `xfer mount`, and mounts that are made at each login, by a unit of systemd.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use xfer_mount::process::exit::Exit;
use xfer_tests::programs::{Finished, Running, program, run_within};
use xfer_tests::{PATIENCE, World};

use crate::log_in;

/// A world whose mount point has a name that units and shells treat in a special way.
struct Place {
    world: World,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let world = World::new(&["alice"]);
        let path = world.mount_point("my files-2");
        Place { world, path }
    }

    /// Runs `xfer mount` with these arguments before the account and the mount point.
    #[track_caller]
    fn mount(&self, arguments: &[&str]) -> Finished {
        let account = format!("alice@{}", self.world.server.address);
        let last = [account.as_str(), self.path.to_str().unwrap()];
        self.world.xfer(&[&["mount"], arguments, &last].concat())
    }

    /// The same at login, trusting the server.
    #[track_caller]
    fn at_login(&self, arguments: &[&str]) -> Finished {
        let trust = ["--at-login", "--fingerprint", &self.world.server.fingerprint];
        self.mount(&[&trust[..], arguments].concat())
    }

    fn units(&self) -> PathBuf {
        self.world.home().join(".config/systemd/user")
    }

    /// The unit, as systemd names it.
    fn unit(&self) -> PathBuf {
        let escape = &mut Command::new("systemd-escape");
        let escape = escape.args(["--path", "--suffix=service", "--template=xfer-@.service"]);
        let name = run_within(escape.arg(&self.path), PATIENCE);
        let name = match name.code {
            Some(0) => name.stdout.trim().replace("xfer-@", "xfer-"),
            _ => {
                let escape = &mut Command::new("systemd-escape");
                let escaped =
                    run_within(escape.arg("--path").arg(&self.path), PATIENCE).succeeded();
                format!("xfer-{}.service", escaped.stdout.trim())
            }
        };
        self.units().join(name)
    }

    /// A command in the unit, as systemd would run it.
    fn command(&self, setting: &str) -> Command {
        let text = fs::read_to_string(self.unit()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(setting)).unwrap();
        let mut shell = Command::new("sh");
        self.world.at_home(shell.args(["-c", &format!("exec {}", line.trim_start_matches('-'))]));
        shell
    }

    #[track_caller]
    fn listed(&self) -> String {
        self.world.xfer(&["mount", "--list"]).succeeded().stdout
    }
}

/// What a service tells systemd next.
fn heard(socket: &UnixDatagram) -> String {
    let mut said = [0; 64];
    let length = socket.recv(&mut said).unwrap();
    String::from_utf8_lossy(&said[..length]).trim_end().to_owned()
}

/// Where systemd would listen for the service.
fn notified(directory: &Path) -> (UnixDatagram, PathBuf) {
    let path = directory.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

#[test]
fn a_mount_at_login_is_a_unit_that_systemd_takes_and_that_mounts_and_unmounts() {
    let place = Place::new();
    log_in(&place.world, "alice");
    let done = place.at_login(&["-o", "ro,wait=5"]).succeeded();
    assert!(done.stdout.contains(" at each login from now on\n"), "{done}");
    assert!(done.stdout.contains("loginctl enable-linger"), "{done}");
    let unit = place.unit();
    let wanted = place.units().join("default.target.wants").join(unit.file_name().unwrap());
    assert_eq!(fs::read_link(wanted).unwrap(), unit);
    let mut verify = Command::new("systemd-analyze");
    let verified =
        run_within(place.world.at_home(verify.args(["verify", "--user"]).arg(&unit)), PATIENCE);
    assert_eq!(verified.succeeded().stderr, "");
    assert!(place.listed().ends_with(&format!("{}  not mounted\n", place.path.display())));
    let (socket, name) = notified(&place.world.outside());
    let mut service = Running::start(place.command("ExecStart=").env("NOTIFY_SOCKET", name));
    assert_eq!(heard(&socket), "READY=1");
    assert!(place.listed().ends_with("  mounted\n"));
    assert!(fs::write(place.path.join("file"), "").is_err(), "it is read-only");
    run_within(&mut place.command("ExecStop="), PATIENCE).succeeded();
    assert_eq!(service.ended_within(PATIENCE), Some(0));
    // After that there is nothing to unmount, which systemd is told not to mind.
    run_within(&mut place.command("ExecStop="), PATIENCE).refused(Exit::NotMounted.code());
    assert!(fs::read_to_string(&unit).unwrap().contains("\nExecStop=-\""));
}

#[test]
fn the_service_of_a_mount_waits_for_the_server_by_itself() {
    let mut place = Place::new();
    log_in(&place.world, "alice");
    place.at_login(&[]).succeeded();
    place.world.server.kill();
    let (socket, name) = notified(&place.world.outside());
    let mut service = Running::start(place.command("ExecStart=").env("NOTIFY_SOCKET", name));
    service.line("the first try", |line| line.contains("; trying again until").then_some(()));
    place.world.server.restart();
    assert_eq!(heard(&socket), "READY=1");
    fs::write(place.path.join("file"), "text").unwrap();
    // systemd ends a service by this signal if the command to stop it did not.
    service.signal(rustix::process::Signal::TERM);
    assert_eq!(service.ended_within(PATIENCE), Some(0), "{}", service.said());
    let mount = place.world.mount("alice");
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "text");
    mount.unmount();
}

#[test]
fn what_would_have_to_be_asked_at_a_login_is_refused_and_nothing_is_written() {
    let place = Place::new();
    let line = place.at_login(&[]).refused(Exit::Usage.code());
    let log_in_first = format!("first run: xfer login alice@{}", place.world.server.address);
    assert!(line.ends_with(&log_in_first), "{line}");
    let line = place.at_login(&["--password-stdin"]).refused(Exit::Usage.code());
    assert!(line.contains("no standard input"), "{line}");
    place.at_login(&["--password-file", "/no/such/file"]).refused(Exit::Usage.code());
    log_in(&place.world, "alice");
    let line = place.mount(&["--at-login"]).refused(Exit::Key.code());
    assert!(line.contains("is not known yet") && line.contains("--fingerprint"), "{line}");
    let line = place.at_login(&["-o", "shiny"]).refused(Exit::Usage.code());
    assert!(line.contains("unknown option 'shiny'"), "{line}");
    fs::remove_dir(&place.path).unwrap();
    let line = place.at_login(&[]).refused(Exit::MountPointMissing.code());
    assert!(line.contains("mkdir"), "{line}");
    assert!(!place.units().exists());
    assert_eq!(place.listed(), "");
}

#[test]
fn a_mount_at_login_can_be_changed_and_taken_back() {
    let place = Place::new();
    let password = place.world.password_file("alice");
    let password = password.to_str().unwrap();
    place.at_login(&["--password-file", password]).succeeded();
    place
        .at_login(&["-o", &format!("ro,password_file={password}"), "--tree-size", "32MiB"])
        .succeeded();
    let text = fs::read_to_string(place.unit()).unwrap();
    for part in
        [r#""-o" "ro""#, r#""--tree-size" "32MiB""#, &format!(r#""--password-file" "{password}""#)]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let remove = || place.world.xfer(&["mount", "--not-at-login", place.path.to_str().unwrap()]);
    assert_eq!(place.listed().lines().count(), 1);
    // An account is mounted in one place.
    let other = place.world.mount_point("other");
    let account = format!("alice@{}", place.world.server.address);
    let at_other = || {
        let words = ["mount", "--at-login", "--fingerprint", &place.world.server.fingerprint];
        let last = ["--password-file", password, &account, other.to_str().unwrap()];
        place.world.xfer(&[&words[..], &last].concat())
    };
    let line = at_other().refused(Exit::Usage.code());
    assert!(
        line.contains("at each login already; to end that: xfer mount --not-at-login /"),
        "{line}"
    );
    // One that is mounted stays.
    place
        .mount(&["--fingerprint", &place.world.server.fingerprint, "--password-file", password])
        .succeeded();
    let done = place.at_login(&["--password-file", password]).succeeded();
    assert!(done.stdout.contains("it is mounted already"), "{done}");
    let removed = remove().succeeded();
    assert!(removed.stdout.contains("stays mounted"), "{removed}");
    let line = at_other().refused(Exit::Usage.code());
    assert!(line.contains("to mount it elsewhere, first: xfer unmount /"), "{line}");
    assert_eq!(place.listed(), "");
    place.world.xfer(&["unmount", place.path.to_str().unwrap()]).succeeded();
    assert!(!place.unit().exists() && place.listed().is_empty());
    let wants = fs::read_dir(place.units().join("default.target.wants")).map_or(0, Iterator::count);
    assert_eq!(wants, 0);
    let line = remove().refused(Exit::NotMounted.code());
    assert!(line.contains("xfer mount --list"), "{line}");
}

#[test]
fn xfer_mount_is_the_same_as_the_program_of_that_name() {
    let place = Place::new();
    let password = place.world.password_file("alice");
    let fixed = ["--fingerprint", &place.world.server.fingerprint];
    let by_file = ["--password-file", password.to_str().unwrap()];
    let done = place.mount(&[&fixed[..], &by_file].concat()).succeeded();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    fs::write(place.path.join("file"), "text").unwrap();
    let line = place.mount(&[&fixed[..], &by_file].concat()).refused(Exit::MountPointBusy.code());
    assert!(line.starts_with("xfer: ") && line.contains("already mounted there"), "{line}");
    place.world.xfer(&["unmount", place.path.to_str().unwrap()]).succeeded();
    let help = |name: &str, arguments: &[&str]| {
        run_within(Command::new(program(name)).args(arguments), PATIENCE).succeeded().stdout
    };
    let options = |text: &str| {
        let words = text.split_whitespace().filter(|word| word.starts_with("--"));
        words.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let (own, all) =
        (options(&help("xfer-mount", &["--help"])), options(&help("xfer", &["mount", "--help"])));
    assert!(own.is_subset(&all), "{own:?} {all:?}");
}

/// A shell script of root's, with functions that begin and end a login: a systemd of root's, in a control group of
/// its own. It believes that the machine was started by systemd.
fn with_logins(world: &World, script: &str) -> String {
    let group = format!("xfer-login-{}", std::process::id());
    format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -m 700 -p /run/user/0
         export HOME=/root XDG_RUNTIME_DIR=/run/user/0
         groups=$(ls -d /sys/fs/cgroup/unified /sys/fs/cgroup/systemd 2>/dev/null || echo /sys/fs/cgroup)
         log_in() {{
             for of in $groups; do mkdir -p $of/{group}; done
             sh -c 'group=$1; shift; for of in $@; do echo $$ > $of/$group/cgroup.procs; done
                    exec /lib/systemd/systemd --user --log-target=console' sh {group} $groups >>$L/log 2>&1 &
             manager=$!
             until systemctl --user is-active --quiet default.target; do sleep 0.1; done 2>/dev/null
         }}
         log_out() {{
             kill $manager && wait $manager || true
             for of in $groups; do find $of/{group} -depth -type d -exec rmdir {{}} + || true; done
         }}
         has() {{ grep -qF \"$PLACE fuse.xfer\" /proc/self/mounts; }}
         trap 'cat $L/log; log_out; umount -l $PLACE 2>/dev/null || true' EXIT
         account=alice@{}
         {script}
         trap - EXIT",
        world.server.address,
    )
}

#[test]
fn a_real_systemd_mounts_at_login_again_after_a_crash_and_unmounts_at_logout() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let script = "
        log_in
        xfer mount --at-login --fingerprint $FINGERPRINT $account $PLACE
        has && echo text > $PLACE/file
        unit=$(basename $(ls ~/.config/systemd/user/xfer-*.service))
        kill -9 $(systemctl --user show --value --property=MainPID $unit)
        until [ \"$(systemctl --user show --value --property=NRestarts $unit)\" = 1 ]; do sleep 0.1; done
        until systemctl --user is-active --quiet $unit; do sleep 0.1; done
        cat $PLACE/file && echo more > $PLACE/file
        log_out
        fails has
        log_in
        until has; do sleep 0.1; done
        cat $PLACE/file
        systemctl --user stop $unit
        fails has && systemctl --user show --property=Result $unit
        xfer mount --not-at-login $PLACE
        log_out";
    let script = script.replace("$FINGERPRINT", &world.server.fingerprint);
    let finished = world.machine().run(&with_logins(&world, &script)).succeeded();
    let expected = "it is mounted\n";
    assert!(finished.stdout.contains(expected), "{finished}");
    let place = world.mount_point("alice").display().to_string();
    let end =
        format!("text\nmore\nResult=success\nnothing is mounted at {place} at login from now on\n");
    assert!(finished.stdout.ends_with(&end), "{finished}");
}

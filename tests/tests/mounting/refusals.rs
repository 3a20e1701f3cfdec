//! Bad input: one line that says what is wrong and what to do, and an exit code of its kind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use xfer_mount::process::exit::Exit;
use xfer_server::program::exit::Exit as ServerExit;
use xfer_tests::authority::Authority;
use xfer_tests::programs::{Finished, program, run_by, run_with_input};
use xfer_tests::server::command;
use xfer_tests::world::write_secret;
use xfer_tests::{PATIENCE, World, run_within, shell, wait_until};

/// Runs `xfer-mount` with exactly these arguments.
#[track_caller]
fn mount_with(world: &World, args: &[&str]) -> Finished {
    let mut mount = Command::new(program("xfer-mount"));
    run_within(world.at_home(mount.args(args)), PATIENCE)
}

/// A port where a stranger answers each connection with `answer`.
fn stranger(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 256];
            let _ = connection.read(&mut bytes);
            let _ = connection.write_all(answer);
        }
    });
    address
}

#[test]
fn a_mount_point_that_is_missing_or_no_directory_or_busy_is_named() {
    let world = World::new(&["alice"]);
    let outside = world.outside();
    let missing = world.mounting("alice").at(&outside.join("missing")).in_background();
    let line = missing.refused(Exit::MountPointMissing.code());
    assert!(line.contains("missing") && line.contains("mkdir"), "{line}");
    fs::write(outside.join("file"), "").unwrap();
    let file = world.mounting("alice").at(&outside.join("file")).in_background();
    file.refused(Exit::MountPointMissing.code());
    let mount = world.mount("alice");
    let busy = world.mounting("alice").in_background();
    let line = busy.refused(Exit::MountPointBusy.code());
    assert!(line.contains(mount.root().to_str().unwrap()), "{line}");
    mount.unmount();
}

#[test]
fn a_wrong_port_a_wrong_host_and_a_stranger_are_told_apart() {
    let world = World::new(&["alice"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |address| world.mounting("alice").through(address).in_background();
    let line = at(free).refused(Exit::Unreachable.code());
    assert!(line.contains("refused") && line.contains("port"), "{line}");
    at(stranger(b"SSH-2.0-OpenSSH_9.2\r\n")).refused(Exit::NotXfer.code());
    at(stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n")).refused(Exit::NotXfer.code());
    let root = world.mount_point("alice");
    let password = world.password_file("alice");
    let fixed = ["--password-file", password.to_str().unwrap(), "--accept-new"];
    let args = [&fixed[..], &["alice@no-such-host.invalid", root.to_str().unwrap()]].concat();
    mount_with(&world, &args).refused(Exit::Unreachable.code());
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let world = World::new(&["alice"]);
    let root = world.mount_point("alice");
    let root = root.to_str().unwrap();
    for target in ["alice", "@host", "alice@", "alice@host:port", "alice@host:0"] {
        mount_with(&world, &[target, root]).refused(Exit::Usage.code());
    }
    for args in [
        &["--cache-size", "lots", "alice@localhost", root][..],
        &["--fingerprint", "sha256:zz", "alice@localhost", root],
        &["-o", "no-such-option", "alice@localhost", root],
    ] {
        let refused = mount_with(&world, args);
        assert_eq!(refused.code, Some(i32::from(Exit::Usage.code())), "{refused}");
    }
}

#[test]
fn names_that_no_account_can_have_are_refused_before_a_connection_is_made() {
    let world = World::new(&[]);
    let root = world.mount_point("alice");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let refused = |user: &str| {
        let target = format!("{user}@{address}");
        mount_with(&world, &[&target, root.to_str().unwrap()]).refused(Exit::Usage.code())
    };
    let line = refused("Bob");
    assert!(line.contains(&format!("did you mean bob@{address}?")), "{line}");
    let line = refused("bob:pass");
    assert!(line.contains("--password-file") && !line.contains("pass@"), "{line}");
    let line = refused("b\u{f6}b\u{2028}\u{202e}");
    assert!(line.contains("'b\u{f6}b\\u{2028}\\u{202e}' cannot be a user name"), "{line}");
    let knocked = server.accept().map_err(|error| error.kind());
    assert!(matches!(knocked, Err(std::io::ErrorKind::WouldBlock)), "{knocked:?}");
    let line = mount_with(&world, &["bob@b\u{fc}cher.invalid", root.to_str().unwrap()])
        .refused(Exit::Usage.code());
    assert!(line.contains("'b\u{fc}cher.invalid'") && line.contains("xn--"), "{line}");
}

#[test]
fn a_byte_order_mark_in_a_password_file_is_no_part_of_the_password() {
    let world = World::new(&[]);
    let (plain, marked) = (world.outside().join("plain"), world.outside().join("marked"));
    write_secret(&plain, "secret\n");
    write_secret(&marked, "\u{feff}secret\r\n");
    for (added, mounted) in [(&plain, &marked), (&marked, &plain)] {
        let file = added.to_str().unwrap();
        let user = added.file_name().unwrap().to_str().unwrap();
        world.server.command(&["user", "add", user, "--password-file", file]).succeeded();
        world.mounting(user).password_file(mounted).start().unmount();
    }
}

#[test]
fn known_hosts_that_any_user_could_have_written_are_refused_with_what_to_do() {
    let world = World::new(&["alice"]);
    let root = world.mount_point("alice");
    let target = format!("alice@{}", world.server.address);
    let password = world.password_file("alice");
    let known = world.outside().join("state/known_hosts");
    let mount = || {
        let fixed = ["--accept-new", "--password-file", password.to_str().unwrap()];
        let hosts = ["--known-hosts", known.to_str().unwrap(), &target, root.to_str().unwrap()];
        mount_with(&world, &[&fixed[..], &hosts].concat())
    };
    let set_mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let directory = known.parent().unwrap();
    fs::create_dir(directory).unwrap();
    for (path, open, closed) in [(directory, 0o777, 0o755), (&known, 0o666, 0o644)] {
        set_mode(path, open);
        let line = mount().refused(Exit::Usage.code());
        assert!(line.contains(&format!("chmod o-w {}", path.display())), "{line}");
        set_mode(path, closed);
        mount().succeeded();
        shell(root.parent().unwrap(), "fusermount3 -u alice");
    }
}

#[test]
fn a_password_that_cannot_be_had_is_said_and_never_hangs() {
    let world = World::new(&["alice"]);
    let root = world.mount_point("alice");
    let target = format!("alice@{}", world.server.address);
    let fingerprint = world.server.fingerprint.as_str();
    let fixed = ["--fingerprint", fingerprint];
    let last = [target.as_str(), root.to_str().unwrap()];
    let with = |middle: &[&str]| mount_with(&world, &[&fixed[..], middle, &last[..]].concat());
    with(&["--password-file", "/no/such/file"]).refused(Exit::Usage.code());
    with(&["--password-stdin"]).refused(Exit::Usage.code());
    // Without a terminal it can't ask.
    let refused = with(&[]);
    assert_eq!(refused.code, Some(i32::from(Exit::Usage.code())), "{refused}");
}

#[test]
fn a_password_comes_from_standard_input_too() {
    let world = World::new(&["alice"]);
    let root = world.mount_point("alice");
    let mut mount = Command::new(program("xfer-mount"));
    world.at_home(&mut mount).args([
        "--fingerprint",
        &world.server.fingerprint,
        "--password-stdin",
    ]);
    mount.arg(format!("alice@{}", world.server.address)).arg(&root);
    run_with_input(&mut mount, b"the password of alice\n", PATIENCE).succeeded();
    shell(root.parent().unwrap(), "fusermount3 -u alice");
}

#[test]
fn an_unknown_key_fails_closed_and_a_changed_one_says_what_to_do() {
    let world = World::new(&["alice"]);
    let root = world.mount_point("alice");
    let target = format!("alice@{}", world.server.address);
    let password = world.password_file("alice");
    let known = world.outside().join("known_hosts");
    let fixed = ["--password-file", password.to_str().unwrap()];
    let hosts = ["--known-hosts", known.to_str().unwrap()];
    let last = [target.as_str(), root.to_str().unwrap()];
    let with =
        |middle: &[&str]| mount_with(&world, &[&fixed[..], &hosts[..], middle, &last[..]].concat());
    let line = with(&[]).refused(Exit::Key.code());
    assert!(line.contains(&world.server.fingerprint), "{line}");
    with(&["--accept-new"]).succeeded();
    shell(root.parent().unwrap(), "fusermount3 -u alice");
    // The server is known by now.
    with(&[]).succeeded();
    shell(root.parent().unwrap(), "fusermount3 -u alice");
    let other = format!("sha256:{}", "0".repeat(64));
    let text = fs::read_to_string(&known).unwrap().replace(&world.server.fingerprint, &other);
    fs::write(&known, text).unwrap();
    let line = with(&[]).refused(Exit::Key.code());
    assert!(line.contains("changed") && line.contains(known.to_str().unwrap()), "{line}");
    with(&["--accept-new"]).refused(Exit::Key.code());
    with(&["--fingerprint", &other]).refused(Exit::Key.code());
}

#[test]
fn a_mount_whose_server_shows_another_key_meanwhile_says_what_a_new_mount_would() {
    let mut world = World::new(&["alice"]);
    let mount = world.mounting("alice").arg("-o").arg("wait=1").start();
    world.server.kill();
    fs::remove_dir_all(world.server.store().join("tls")).unwrap();
    world.server.restart();
    let status = || mount.xfer("status", &[]).succeeded().stdout;
    wait_until("the other key to be seen", PATIENCE, || status().contains("certificate"));
    let said = status();
    for part in ["has changed since it was mounted; if its administrator", "posing as the server"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_server_with_a_certificate_of_an_authority_is_trusted_by_it() {
    let authority = Authority::make();
    let world = World::with_server(&["alice"], |store| authority.server(store));
    let root = world.mount_point("alice");
    let password = world.password_file("alice");
    let target = format!("alice@{}", world.server.address);
    let with = |ca: &str| {
        let args = ["--password-file", password.to_str().unwrap(), "--ca", ca, &target];
        mount_with(&world, &[&args[..], &[root.to_str().unwrap()]].concat())
    };
    with(authority.certificate().to_str().unwrap()).succeeded();
    shell(root.parent().unwrap(), "fusermount3 -u alice");
    let line = with("/no/such/file").refused(Exit::Usage.code());
    assert!(line.contains("/no/such/file"), "{line}");
    let other = Authority::make();
    with(other.certificate().to_str().unwrap()).refused(Exit::NotXfer.code());
}

#[test]
fn a_machine_without_fuse_is_told_what_is_missing() {
    let world = World::new(&["alice"]);
    let mount = world.mounting("alice").command();
    // In its own mount namespace, where this command finds a nearly empty /dev.
    let script = "mount -t tmpfs tmpfs \"$1\" && touch \"$1\"/{null,urandom} &&
                  for name in null urandom; do mount --bind /dev/$name \"$1\"/$name; done &&
                  mount --rbind \"$1\" /dev && shift && exec \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "--map-root-user", "bash", "-c", script, "bash"]);
    run_by(hidden.arg(world.outside()), &mount);
    let line = run_within(world.at_home(&mut hidden), PATIENCE).refused(Exit::NoFuse.code());
    assert!(line.contains("/dev/fuse"), "{line}");
}

fn store_and_password() -> (tempfile::TempDir, String) {
    let directory = tempfile::Builder::new().prefix("xfer-").tempdir_in("/tmp").unwrap();
    let password = directory.path().join("password");
    write_secret(&password, "a password");
    (directory, password.to_str().unwrap().to_owned())
}

#[track_caller]
fn run_server(store: &Path, args: &[&str]) -> Finished {
    let mut server = Command::new(program("xfer-server"));
    run_within(server.arg("run").args(args).arg("--store").arg(store), PATIENCE)
}

#[test]
fn accounts_that_exist_or_do_not_or_cannot_are_told_apart() {
    let (directory, password) = store_and_password();
    let store = directory.path().join("store");
    let user = |args: &[&str]| command(&store, &[&["user"], args].concat());
    let add = |name: &str| user(&["add", name, "--password-file", &password]);
    add("alice").succeeded();
    add("alice").refused(ServerExit::UserExists as u8);
    for name in ["", "a/b", "..", "Alice", "has space", &"x".repeat(65)] {
        add(name).refused(ServerExit::Usage as u8);
    }
    let passwd = ["passwd", "nobody", "--password-file", &password];
    user(&passwd).refused(ServerExit::NoUser as u8);
    user(&["remove", "nobody"]).refused(ServerExit::NoUser as u8);
    user(&["quota", "nobody", "--quota", "1GiB"]).refused(ServerExit::NoUser as u8);
    let refused = user(&["quota", "alice", "--quota", "much"]);
    assert_eq!(refused.code, Some(ServerExit::Usage as i32), "{refused}");
    for (text, what) in [("", "empty"), (&"x".repeat(1025)[..], "long")] {
        let file = directory.path().join(what);
        write_secret(&file, text);
        let refused = user(&["add", "bob", "--password-file", file.to_str().unwrap()]);
        refused.refused(ServerExit::Password as u8);
    }
    let listed = user(&["list"]).succeeded().stdout;
    assert!(listed.contains("alice") && !listed.contains("bob"), "{listed}");
    assert!(listed.contains("LOGIN") && listed.contains("yes"), "{listed}");
}

#[test]
fn a_store_in_use_by_another_server_is_left_alone() {
    let world = World::new(&["alice"]);
    let refused = run_server(world.server.store(), &["--listen", "127.0.0.1:0"]);
    let line = refused.refused(ServerExit::StoreInUse as u8);
    assert!(line.contains(&world.server.pid().to_string()), "{line}");
    world.mount("alice").unmount();
}

#[test]
fn an_address_in_use_or_not_ours_is_named() {
    let world = World::new(&[]);
    let (directory, _) = store_and_password();
    let store = directory.path().join("store");
    let taken = world.server.address.to_string();
    let line = run_server(&store, &["--listen", &taken]).refused(ServerExit::Listen as u8);
    assert!(line.contains(&taken), "{line}");
    run_server(&store, &["--listen", "192.0.2.1:0"]).refused(ServerExit::Listen as u8);
    let refused = run_server(&store, &["--listen", "nonsense"]);
    assert_eq!(refused.code, Some(ServerExit::Usage as i32), "{refused}");
}

#[test]
fn a_store_that_cannot_be_used_is_named() {
    let (directory, _) = store_and_password();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    run_server(&file, &["--listen", "127.0.0.1:0"]).refused(ServerExit::Store as u8);
    let broken = directory.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("xfer.db"), "this is no database at all, not even a small one").unwrap();
    run_server(&broken, &["--listen", "127.0.0.1:0"]).refused(ServerExit::Store as u8);
    run_server(Path::new("/proc/no-store"), &[]).refused(ServerExit::Store as u8);
}

#[test]
fn a_full_disk_is_said_at_the_start() {
    let (directory, _) = store_and_password();
    let script = "mount -t tmpfs -o size=64k tmpfs \"$1\" && cd \"$1\" && \
                  (cat /dev/zero > filler || true) 2>/dev/null; exec \"$2\" run \
                  --listen 127.0.0.1:0 --store \"$1\"/store";
    let mut small = Command::new("unshare");
    small.args(["--mount", "--map-root-user", "bash", "-c", script, "bash"]);
    small.arg(directory.path()).arg(program("xfer-server"));
    run_within(&mut small, PATIENCE).refused(ServerExit::DiskFull as u8);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let (directory, _) = store_and_password();
    let store = directory.path().join("store");
    let tls = |args: &[&str]| run_server(&store, &[&["--listen", "127.0.0.1:0"], args].concat());
    tls(&["--cert", "/no/cert", "--key", "/no/key"]).refused(ServerExit::Tls as u8);
    let refused = tls(&["--cert", "/no/cert"]);
    assert_eq!(refused.code, Some(ServerExit::Usage as i32), "{refused}");
}

#[test]
fn sessions_of_a_server_that_does_not_run_are_said_not_to_be() {
    let (directory, password) = store_and_password();
    let store = directory.path().join("store");
    command(&store, &["user", "add", "alice", "--password-file", &password]).succeeded();
    command(&store, &["session", "list"]).refused(ServerExit::NotRunning as u8);
    command(&store, &["session", "end", "alice"]).refused(ServerExit::NotRunning as u8);
}

#[test]
fn the_fingerprint_command_says_what_the_server_shows() {
    let world = World::new(&[]);
    let said = world.server.command(&["fingerprint"]).succeeded().stdout;
    assert_eq!(said.trim(), world.server.fingerprint);
}

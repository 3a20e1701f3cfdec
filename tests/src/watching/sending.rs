//! Sending between mounts, as both sides see it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::files::xattr_text;
use crate::programs::wait_for_line;
use crate::waiting::holds_for;
use crate::{Mount, PATIENCE, World, wait_until};

/// How long to watch for something that must not happen.
pub const A_WHILE: Duration = Duration::from_millis(1500);

/// Waits until a file appears in a recipient's mount, and returns its path.
pub fn arrives(recipient: &Mount, path: &str) -> PathBuf {
    let path = recipient.path(path);
    wait_until(&format!("{} to arrive", path.display()), PATIENCE, || path.exists());
    path
}

/// Fails the test if something from alice has arrived or soon does.
pub fn nothing_arrives(recipient: &Mount) {
    let nothing =
        || fs::read_dir(recipient.path("inbox/alice")).map_or(true, |mut all| all.next().is_none());
    assert!(holds_for(A_WHILE, nothing), "{}", recipient.shell("find inbox"));
}

/// A command that writes a line into a file for bob, and has it sent at once.
pub fn send_at_once(line: &str, name: &str) -> String {
    format!("echo {line} | dd of='outbox/bob/{name}' conv=fsync status=none")
}

/// The state of an item in a mailbox.
pub fn state(path: &Path) -> String {
    xattr_text(path, "user.xfer.state").unwrap_or_default()
}

/// Waits until the state of an item in a mailbox begins with `expected`.
pub fn wait_for_state(path: &Path, expected: &str) {
    wait_until(expected, PATIENCE, || state(path).starts_with(expected));
}

/// The full output of `xfer status` for a mount.
pub fn status(mount: &Mount) -> String {
    mount.xfer("status", &[]).succeeded().stdout
}

/// Kills a mount while `half`, a file for bob, is open in it, after a script has run there.
pub fn die_while_writing(mount: &mut Mount, script: &str) {
    let mut half = File::create(mount.path("outbox/bob/half")).unwrap();
    half.write_all(b"half").unwrap();
    mount.shell(script);
    half.sync_all().unwrap();
    mount.die();
}

/// Starts a program that writes to a file and then waits, with it open.
pub fn writer(path: &Path) -> Child {
    let mut command = Command::new("bash");
    command.args(["-c", "exec 3> \"$0\"; echo part >&3; echo ready; exec sleep 1000"]).arg(path);
    command.stdout(Stdio::piped()).process_group(0);
    let mut writer = command.spawn().unwrap();
    wait_for_line(&mut writer, "ready");
    writer
}

/// A world where alice has little room left; she and bob are mounted.
pub fn with_little_room() -> (World, Mount, Mount) {
    let world = World::new(&["alice --quota 24MiB", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    (world, alice, bob)
}

/// A world where bob's inbox has little room.
pub fn with_small_inbox(users: &[&str]) -> World {
    let world = World::new(users);
    world.server.command(&["user", "quota", "bob", "--inbox", "64KiB"]).succeeded();
    world
}

//! Work on an account's files without a mount: `xfer ls`, `xfer get` and so on.

mod job;
mod reading;
mod changing;
mod transfers;
mod special;
mod resuming;
mod sending;
mod arrivals;
mod both_ways;
mod elsewhere;

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;
use xfer_tests::programs::{Finished, run_with_input};
use xfer_tests::{PATIENCE, World};

/// A world with these users, whose machine has keys for all of them.
fn world(users: &[&str]) -> World {
    let world = World::new(users);
    users.iter().for_each(|user| log_in(&world, user.split(' ').next().expect("a name")));
    world
}

/// Gives this machine a key for an account, by its password.
fn log_in(world: &World, user: &str) {
    log_in_at(world, &at(world, user), user);
}

/// The same at another address of the server.
fn log_in_at(world: &World, account: &str, user: &str) {
    let file = world.password_file(user);
    let password = ["--password-file", file.to_str().expect("a path of tests")];
    world.xfer(&[&["login", account, "--accept-new"][..], &password].concat()).succeeded();
}

/// The account of a user: `USER@HOST:PORT`.
fn at(world: &World, user: &str) -> String {
    format!("{user}@{}", world.server.address)
}

/// Runs `xfer`, with `{}` in the arguments standing for alice's account.
#[track_caller]
fn xfer(world: &World, arguments: &[&str]) -> Finished {
    with_input(world, arguments, b"")
}

/// Like [`xfer`], with this on its standard input.
#[track_caller]
fn with_input(world: &World, arguments: &[&str], input: &[u8]) -> Finished {
    let account = at(world, "alice");
    let arguments: Vec<OsString> =
        arguments.iter().map(|argument| argument.replace("{}", &account).into()).collect();
    let mut command = world.xfer_command(&[]);
    run_with_input(command.args(arguments).current_dir(world.outside()), input, PATIENCE)
}

/// Runs `xfer` with `--json`, and returns what it prints.
#[track_caller]
fn json(world: &World, arguments: &[&str]) -> Value {
    let printed = xfer(world, &[arguments, &["--json"]].concat()).succeeded().stdout;
    serde_json::from_str(&printed).expect("JSON")
}

/// Writes a file outside of all trees.
fn write(world: &World, name: &str, data: impl AsRef<[u8]>) {
    let path = world.outside().join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, data).expect("a file");
}

/// Reads a file outside of all trees.
#[track_caller]
fn read(world: &World, name: &str) -> Vec<u8> {
    let path = world.outside().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a directory of this machine, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// Bytes in which no part repeats another.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

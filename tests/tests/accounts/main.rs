//! Accounts and how their users log in: keys of machines, invitations, passwords.

mod listing;
mod keys;
mod invitations;
mod passwords;
mod typed;
mod disabled;
mod removed;

use std::path::Path;
use std::process::Command;

use xfer_tests::programs::{Finished, program, run_within};
use xfer_tests::{PATIENCE, World};

/// The target of an account on the world's server.
fn at(world: &World, user: &str) -> String {
    format!("{user}@{}", world.server.address)
}

/// Gives this machine a key for an account, by its password.
#[track_caller]
fn log_in(world: &World, user: &str, label: &str) {
    let (target, file) = (at(world, user), world.password_file(user));
    let trust = ["--fingerprint", &world.server.fingerprint];
    let password = ["--password-file", file.to_str().expect("a path of tests")];
    let log_in = ["login", &target, "--label", label];
    let done = world.xfer(&[&log_in[..], &trust, &password].concat()).succeeded();
    assert!(done.stdout.contains("logs in to"), "{done}");
}

/// Runs `xfer-server user` with these arguments.
#[track_caller]
fn user(world: &World, arguments: &[&str]) -> Finished {
    world.server.command(&[&["user"], arguments].concat())
}

/// Tries to mount by this machine's key, or without one; returns the line that says why not.
#[track_caller]
fn refused(world: &World, name: &str, code: u8) -> String {
    let mut command = world.mounting(name).by_key().command();
    run_within(command.arg("-f"), PATIENCE).refused(code)
}

/// The same as [`World::xfer`], on a machine whose user has this home.
#[track_caller]
fn xfer_of(home: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program("xfer"));
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    run_within(command.args(arguments).env("HOME", home), PATIENCE)
}

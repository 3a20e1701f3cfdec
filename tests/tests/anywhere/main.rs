//! Mounting in whichever way a user prefers: by fstab, by mount(8), by an automounter, at login, or with
//! sshfs's options in the fingers.

mod fstab;
mod at_login;
mod checks;
mod others;
mod effects;
mod indexers;
mod sshfs;
mod settings;
mod places;

use xfer_tests::World;

/// Gives root's machine a key for an account, by its password.
#[track_caller]
fn log_in(world: &World, user: &str) {
    log_in_at(world, &format!("{user}@{}", world.server.address), user);
}

/// The same, for the server by this name.
#[track_caller]
fn log_in_at(world: &World, target: &str, user: &str) {
    let file = world.password_file(user);
    let file = file.to_str().expect("a path of tests");
    let trust = ["--fingerprint", &world.server.fingerprint];
    world.xfer(&[&["login", target, "--password-file", file][..], &trust].concat()).succeeded();
}

/// The option by which the world's server is trusted.
fn trust(world: &World) -> String {
    format!("fingerprint={}", world.server.fingerprint)
}

//! Mounting in whichever way a user prefers: by fstab, by mount(8), by an automounter, at login, or with
//! sshfs's options in the fingers.

mod checks;
mod sshfs;

//! The signals by which people end programs: a test that runs in the background of a shell ignores
//! them, and so would every program that it starts.

/// Has this process and the programs that it starts take SIGINT and SIGQUIT as they do on a terminal.
pub fn as_on_a_terminal() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default disposition runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

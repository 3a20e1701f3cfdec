//! What a server and its service manager (systemd) tell each other: sd_notify(3), the watchdog, and
//! a port that was opened for the server (sd_listen_fds(3)).
//!
//! Each does nothing for a server that was started in another way.

use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Tells that clients can connect.
pub fn notify_ready(line: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(line)]);
}

/// Tells that the server is ending.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("making everything durable")]);
}

/// Tells again and again that the server is alive, twice as often as the watchdog asks for. Must be
/// polled by the runtime that serves clients: a server that is stuck falls silent.
pub async fn feed_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut beats = tokio::time::interval((within / 2).max(Duration::from_millis(1)));
    loop {
        beats.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// The port that was opened for the server, if there is one.
///
/// # Errors
/// If what was opened is not a TCP port, or more than one was.
pub fn given_port() -> std::io::Result<Option<TcpListener>> {
    let mut given = ListenFd::from_env();
    if given.len() > 1 {
        return Err(std::io::Error::other(
            "more than one socket was passed by the service manager",
        ));
    }
    given.take_tcp_listener(0)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

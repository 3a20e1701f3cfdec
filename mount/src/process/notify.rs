//! Tells systemd that a mount in the foreground is usable (`Type=notify`); see sd_notify(3).

use sd_notify::NotifyState;

/// Says that the mount is usable, if something waits for that.
pub fn ready() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!("systemd cannot be told that the mount is usable: {error}");
    }
}

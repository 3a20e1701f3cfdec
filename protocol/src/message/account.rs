//! What a client may do with its account without a session: enrol a device, look after the account's
//! keys, set the password.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Password, PublicKey, Signature};
use crate::{Name, Timestamp};

/// How a client proves that it acts for the account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Credential {
    /// With the account's password.
    Password(Password),
    /// With the key of a device that the account knows.
    Device {
        /// The key.
        key: PublicKey,
        /// The signature of this TLS connection ([`BINDING_LABEL`](super::BINDING_LABEL)) by that
        /// key, so that it is useless on another connection.
        proof: Signature,
    },
    /// With the code of an invitation. It is good once, and for [`Task::Enrol`] alone.
    Invitation(InviteCode),
}

/// The code of an invitation: 128 random bits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct InviteCode(pub [u8; 16]);

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode(..)")
    }
}

/// Something to do with an account. No session is needed for it, and none is disturbed, except by
/// [`Task::Revoke`] and [`Task::SetPassword`]. A device's key suffices for [`Task::Keys`], and to
/// revoke that key itself: who steals it must neither keep the account nor lock its owner out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Let a device log in by its key.
    Enrol {
        /// The device's key.
        key: PublicKey,
        /// The signature of this TLS connection ([`BINDING_LABEL`](super::BINDING_LABEL)) by that
        /// key.
        proof: Signature,
        /// What the device is called in lists; at most
        /// [`LABEL_BYTES_MAX`](crate::limits::LABEL_BYTES_MAX).
        label: String,
        /// The account's new password; only with an invitation.
        password: Option<Password>,
    },
    /// List the keys of the account's devices.
    Keys,
    /// Let no device log in with this key any more. A session that was begun with it ends.
    Revoke(PublicKey),
    /// Set the account's password. Sessions that were begun with the old one end.
    SetPassword {
        /// The new password.
        password: Password,
        /// What becomes of the keys of the account's devices.
        keys: KeysThen,
    },
}

/// What becomes of an account's keys when its password is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KeysThen {
    /// They stay, with the sessions that were begun with them.
    Stay,
    /// All are revoked, except this one.
    AreRevokedBut(Option<PublicKey>),
}

/// The server's answer to a [`Task`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Done {
    /// To [`Task::Enrol`].
    Enrolled {
        /// The account's name, as the server writes it.
        user: Name,
    },
    /// To [`Task::Keys`]: sorted by the time of their enrolment, at most
    /// [`KEYS_MAX`](crate::limits::KEYS_MAX).
    Keys(Vec<DeviceKey>),
    /// To [`Task::Revoke`].
    Revoked {
        /// Whether there was such a key.
        was_known: bool,
    },
    /// To [`Task::SetPassword`].
    PasswordSet,
}

/// The key of a device that may log in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceKey {
    /// The key.
    pub key: PublicKey,
    /// What the device is called.
    pub label: String,
    /// When it was enrolled.
    pub enrolled: Timestamp,
    /// When it last began a session, or worked on the account.
    pub used: Option<Timestamp>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

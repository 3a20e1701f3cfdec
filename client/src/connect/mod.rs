//! How a session begins: from `user@host` to a [`NewSession`].
//!
//! Reading order: `target` (the address), `trust` (which keys to trust), `tls` (how that is
//! enforced), `tcp`, `network` (when it changes), `greeting` (the first messages), `retry` (busy servers), `dial` (opening
//! links), `server` (opening them to a real server), `login` (the steps in order), `account` (who acts
//! for it, and what needs no session), `device_keys` (the keys of this machine), `error`.
//!
//! A session begins in three steps, so that the user is asked at the right moment and no server
//! waits for a human: [`reach`] connects and looks at the server's certificate, [`Contact::trust`]
//! decides and may ask the user, and [`Peer::login`] sends the password.
//!
//! **Invariant:** nothing is sent to a server, not even a name, before its key is trusted.

mod target;
mod trust;
mod tls;
mod tcp;
mod network;
mod greeting;
mod retry;
mod dial;
mod server;
mod login;
mod account;
mod device_keys;
mod error;

pub use account::Identity;
pub use device_keys::DeviceKeys;
pub use dial::{
    Begin, Bid, Credentials, Dial, Dialling, Happening, LogLink, Missed, NewSession, Reader,
    Ticket, Writer,
};
pub use error::{ConnectError, EndpointError, NotXfer, Phase};
pub use login::{Contact, Login, Peer, reach};
pub use server::{SavedKey, host_name};
pub use target::{Target, TargetError};
pub use trust::{
    Asker, Fingerprint, FingerprintError, KnownHosts, NoAnswer, TrustError, TrustMode, TrustPolicy,
    state_directory,
};
pub use xfer_link::proof::SigningKey;

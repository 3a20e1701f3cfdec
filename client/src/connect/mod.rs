//! How a session begins: from `user@host` to a [`crate::session::Session`].
//!
//! Reading order: `target` (whom to reach), `fingerprint` and `known_hosts` (whom to trust), `trust`
//! (how it is decided), `tls` (how it is enforced), `tcp`, `login` (the steps in order), `error`.
//!
//! Three steps, so that the user is asked at the right moment and no server waits for a human:
//! [`reach`] connects and sees who answers, [`Contact::trust`] decides and may ask, and
//! [`Peer::login`] says the password.
//!
//! **Invariant:** nothing is said to a server, not even a name, before its key is trusted.

mod error;

mod fingerprint;

mod known_hosts;

mod login;

mod target;

mod tcp;

mod tls;

mod trust;

pub use error::{ConnectError, EndpointError, NotXfer, Phase};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use known_hosts::{KnownHosts, state_directory};
pub use login::{Contact, Login, Peer, reach};
pub use target::{Target, TargetError};
pub use trust::{Asker, NoAnswer, TrustError, TrustMode, TrustPolicy};

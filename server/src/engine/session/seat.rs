//! A seat: an account's one place for a session. It holds the identity of the session's client, the
//! secret that proves it, orders and counters.
//!
//! It knows neither the tree nor a link.

use std::time::SystemTime;

use subtle::ConstantTimeEq;
use xfer_protocol::message::{Refusal, Secret};
use xfer_protocol::{Name, SessionId, Timestamp};
use xfer_store::{Account, AccountId};

use crate::engine::session::counters::Counters;
use crate::engine::session::orders::Orders;
use crate::login::opening::Authenticated;

/// The seat of one account, as its present session holds it.
pub(crate) struct Seat {
    pub(crate) id: SessionId,
    pub(crate) who: Who,
    pub(crate) orders: Orders,
    pub(crate) counters: Counters,
    secret: Secret,
}

/// The user of a session, and the client's host and address.
pub(crate) struct Who {
    pub(crate) account: AccountId,
    pub(crate) user: Name,
    /// The client's host, as it named itself.
    pub(crate) host: String,
    pub(crate) address: String,
    pub(crate) since: Timestamp,
    /// The hash of the password that was given.
    password: String,
}

impl Seat {
    /// Makes a seat for a login, with a new identity and secret. None if the system gives no random
    /// bytes.
    pub(crate) fn new(auth: &Authenticated) -> Option<Seat> {
        let (id, secret) = draw_identity()?;
        let who = Who {
            account: auth.account,
            user: auth.user.clone(),
            host: auth.host.clone(),
            address: auth.address.clone(),
            since: SystemTime::now().into(),
            password: auth.password.clone(),
        };
        Some(Seat { id, who, orders: Orders::new(), counters: Counters::default(), secret })
    }

    /// Returns the secret, for the grant to the client.
    pub(crate) fn secret(&self) -> Secret {
        self.secret.clone()
    }

    /// Whether this is the session's secret. Takes the same time in either case.
    pub(crate) fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.0.ct_eq(&secret.0).into()
    }
}

impl Who {
    /// Whether the present account may still have this session: it is the same account, and its
    /// password is still the one that the user gave.
    pub(crate) fn may_be_of(&self, account: &Account) -> bool {
        account.id == self.account && account.password == self.password
    }

    /// The answer to another client of the account.
    pub(crate) fn in_use(&self) -> Refusal {
        Refusal::InUse { host: self.host.clone(), address: self.address.clone(), since: self.since }
    }
}

/// Draws a session's identity and secret at random, so that they can't be guessed.
fn draw_identity() -> Option<(SessionId, Secret)> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let (mut id, mut secret) = (SessionId([0; 16]), Secret([0; 32]));
    random.fill(&mut id.0).ok()?;
    random.fill(&mut secret.0).ok()?;
    Some((id, secret))
}

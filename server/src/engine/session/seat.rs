//! A seat: an account's one place for a session. It says who has it, proves it by a secret, takes
//! orders and counts.
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

/// The place of one account.
pub(crate) struct Seat {
    pub(crate) id: SessionId,
    pub(crate) who: Who,
    pub(crate) orders: Orders,
    pub(crate) counters: Counters,
    secret: Secret,
}

/// The user of a session, and where from.
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
    /// A seat for a login, under a new name and secret. None if the system gives no random bytes.
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

    /// The secret, for its client.
    pub(crate) fn secret(&self) -> Secret {
        self.secret.clone()
    }

    /// Whether this is its secret; takes the same time whether it is or not.
    pub(crate) fn has_secret(&self, secret: &Secret) -> bool {
        self.secret.0.ct_eq(&secret.0).into()
    }
}

impl Who {
    /// Whether the account, as it is now, may still have this session: it is the same one, and its
    /// password is still the one that was given.
    pub(crate) fn may_be_of(&self, account: &Account) -> bool {
        account.id == self.account && account.password == self.password
    }

    /// The answer to another client of the account.
    pub(crate) fn in_use(&self) -> Refusal {
        Refusal::InUse { host: self.host.clone(), address: self.address.clone(), since: self.since }
    }
}

/// A name and a secret that can't be guessed.
fn draw_identity() -> Option<(SessionId, Secret)> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let (mut id, mut secret) = (SessionId([0; 16]), Secret([0; 32]));
    random.fill(&mut id.0).ok()?;
    random.fill(&mut secret.0).ok()?;
    Some((id, secret))
}

//! A seat: an account's one place for a session. It holds the identity of the session's client, the
//! secrets that prove it, and orders.
//!
//! It knows neither the tree nor a link. A seat that stands without a session is in `standing`.

use std::time::SystemTime;

use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use xfer_protocol::message::{Refusal, Resume, Secret, Terms};
use xfer_protocol::{Name, SessionId, Timestamp};
use xfer_store::{Account, AccountId, Resumable, SecretHash, Store, StoreError};

use crate::engine::seats::proof::{Proved, hash};
use crate::engine::session::orders::Orders;
use crate::login::authority::Authority;
use crate::login::opening::Authenticated;

/// The seat of one account, as its present session holds it.
pub(crate) struct Seat {
    pub(crate) id: SessionId,
    pub(crate) who: Who,
    pub(crate) orders: Orders,
    /// The client's request by which the session came here; 0 for a login.
    pub(crate) attempt: u64,
    /// What was agreed on with the client.
    pub(crate) terms: Terms,
    /// When somebody else last asked for the seat.
    asked: Mutex<Option<Instant>>,
    /// Whether the client has shown that it knows of its session.
    heard: watch::Sender<bool>,
    secrets: Secrets,
}

/// The secrets that a session's client is granted.
struct Secrets {
    /// Admits read links.
    reads: Secret,
    /// Resumes the session once.
    resume: Secret,
}

/// The user of a session, and the client's host and address.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) account: AccountId,
    pub(crate) user: Name,
    /// The client's host, as it named itself.
    pub(crate) host: String,
    pub(crate) address: String,
    pub(crate) since: Timestamp,
    /// By what right the session exists.
    pub(crate) authority: Authority,
}

impl Seat {
    /// Makes a seat for a login, with a new identity and secret. None if the system gives no random
    /// bytes.
    pub(crate) fn new(auth: &Authenticated) -> Option<Seat> {
        let id = draw().map(SessionId)?;
        let who = Who {
            account: auth.account,
            user: auth.user.clone(),
            host: auth.host.clone(),
            address: auth.address.clone(),
            since: SystemTime::now().into(),
            authority: auth.authority.clone(),
        };
        Seat::with_secrets(id, who, 0, auth.terms)
    }

    /// Makes the seat of a session that goes on, with new secrets. None if the system gives no
    /// random bytes.
    pub(crate) fn again(proved: &Proved) -> Option<Seat> {
        let authority = proved.authority.clone();
        let known = Who::of(proved.account, &proved.user, &proved.known, authority);
        let who = Who { address: proved.address.clone(), ..known };
        let Resume { attempt, terms, .. } = proved.request;
        Seat::with_secrets(proved.known.session, who, attempt, terms)
    }

    fn with_secrets(id: SessionId, who: Who, attempt: u64, terms: Terms) -> Option<Seat> {
        let secrets = Secrets { reads: draw().map(Secret)?, resume: draw().map(Secret)? };
        let (orders, asked) = (Orders::new(), Mutex::default());
        // A client that continues its session knows of it.
        let heard = watch::Sender::new(attempt > 0);
        Some(Seat { id, who, orders, attempt, terms, asked, heard, secrets })
    }

    /// Notes that the client has shown that it knows of its session.
    pub(crate) fn note_heard(&self) {
        self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
    }

    /// Whether the client has shown that it knows of its session. One whose login was cut off does not
    /// know, so nothing of it can be lost, and it can't say that it is gone.
    pub(crate) fn is_heard(&self) -> bool {
        *self.heard.borrow()
    }

    /// Waits for that, for as long as a link may be silent.
    pub(crate) async fn is_heard_soon(&self) -> bool {
        let mut heard = self.heard.subscribe();
        // The sender is part of `self`, so this can't fail in another way.
        timeout(self.terms.silence.time(), heard.wait_for(|heard| *heard)).await.is_ok()
    }

    /// Notes that somebody else asks for the seat.
    pub(crate) fn note_asked(&self) {
        *self.asked.lock() = Some(Instant::now());
    }

    /// When somebody else last asked for the seat.
    pub(crate) fn asked(&self) -> Option<Instant> {
        *self.asked.lock()
    }

    /// Returns the secret for read links, for the grant to the client.
    pub(crate) fn secret(&self) -> Secret {
        self.secrets.reads.clone()
    }

    /// Returns the secret with which the client can resume the session, for the grant to the client.
    pub(crate) fn resume_secret(&self) -> Secret {
        self.secrets.resume.clone()
    }

    /// Returns the hash of [`Seat::resume_secret`], as the store keeps it.
    pub(crate) fn resume_hash(&self) -> SecretHash {
        hash(&self.secrets.resume)
    }

    /// Whether this is the session's secret for read links. Takes the same time in either case.
    pub(crate) fn has_secret(&self, secret: &Secret) -> bool {
        self.secrets.reads.0.ct_eq(&secret.0).into()
    }

    /// The session that begins here, as the store keeps it for its client to resume.
    pub(crate) fn resumable(&self, auth: &Authenticated) -> Resumable {
        let secret = self.resume_hash();
        Resumable {
            session: self.id,
            key: auth.key,
            secret,
            shown: secret,
            host: self.who.host.clone(),
            address: self.who.address.clone(),
            since: self.who.since,
            attempt: self.attempt,
            device: auth.authority.device(),
        }
    }
}

impl Who {
    /// The client of a session that the store knows.
    pub(crate) fn of(
        account: AccountId,
        user: &Name,
        known: &Resumable,
        authority: Authority,
    ) -> Who {
        Who {
            account,
            user: user.clone(),
            host: known.host.clone(),
            address: known.address.clone(),
            since: known.since,
            authority,
        }
    }

    /// Whether the present account may still have this session: it is the same account, and the
    /// client still has the right by which the session exists.
    pub(crate) async fn may_be_of(
        &self,
        account: &Account,
        store: &Store,
    ) -> Result<bool, StoreError> {
        Ok(account.id == self.account && self.authority.holds(store, account).await?)
    }

    /// The answer to another client of the account.
    pub(crate) fn in_use(&self) -> Refusal {
        Refusal::InUse { host: self.host.clone(), address: self.address.clone(), since: self.since }
    }
}

/// Draws random bytes that can't be guessed.
fn draw<const N: usize>() -> Option<[u8; N]> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut bytes = [0; N];
    random.fill(&mut bytes).ok()?;
    Some(bytes)
}

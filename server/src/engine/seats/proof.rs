//! A client's proof that a session is its own.
//!
//! The client shows the secret that it was granted last, and signs the connection with the key that
//! it named when it logged in. So neither a stolen secret nor a recorded proof is of use. Nothing
//! about the account is revealed to a client without the key.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::timeout;
use xfer_link::proof::is_own_session;
use xfer_protocol::Name;
use xfer_protocol::message::{Refusal, Resume, Secret};
use xfer_store::{Account, AccountId, Resumable, SecretHash, StoreError};

use crate::engine::Engine;
use crate::login::authority::Authority;
use crate::login::opening::Resuming;

/// The most proofs that are checked at a time.
pub(crate) const PROOFS_MAX: usize = 16;

/// The most clients that wait for that.
pub(crate) const PROVERS_MAX: usize = 2_048;

/// The longest time that one waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);

/// A client that has proved that the session is its own.
pub struct Proved {
    pub(crate) account: AccountId,
    pub(crate) user: Name,
    /// By what right the session exists.
    pub(crate) authority: Authority,
    /// The session, as the store knew it when the proof was checked.
    pub(crate) known: Resumable,
    pub(crate) request: Resume,
    pub(crate) address: String,
}

impl Engine {
    /// Checks a client's proof.
    ///
    /// # Errors
    /// The refusal to tell the client.
    pub async fn prove(&self, resuming: Resuming) -> Result<Proved, Refusal> {
        // A client needs no password to get here, so this is bounded.
        let _place = self.provers.try_acquire().map_err(|_| Refusal::Busy)?;
        let turn = timeout(TURN_MAX, self.proofs.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Stopping)?;
        let proved = self.check_proof(resuming).await;
        proved.unwrap_or_else(|error| {
            tracing::error!(%error, "a session cannot be looked up");
            Err(Refusal::Internal)
        })
    }

    async fn check_proof(&self, resuming: Resuming) -> Result<Result<Proved, Refusal>, StoreError> {
        let Resuming { user, request, binding, address } = resuming;
        let store = &self.stores.store;
        let Some(account) = store.accounts.find(user.clone()).await? else {
            return Ok(Err(Refusal::NoSession));
        };
        let known = store.trees.session_of(account.id, request.session).await?;
        let is_own =
            |known: &Resumable| is_own_session(known.key, known.session, binding, request.proof);
        let Some(known) = known.filter(is_own) else { return Ok(Err(Refusal::NoSession)) };
        if let Err(refusal) = check(&account, &known, &request) {
            return Ok(Err(refusal));
        }
        let authority = Authority::of(&known, &account);
        Ok(Ok(Proved { account: account.id, user, authority, known, request, address }))
    }
}

/// The hash of a secret, as the store keeps it.
pub(crate) fn hash(secret: &Secret) -> SecretHash {
    SecretHash(Sha256::digest(secret.0).into())
}

/// Checks the secret. A store that was put back from a backup may know only older ones.
fn check(account: &Account, known: &Resumable, request: &Resume) -> Result<(), Refusal> {
    if account.epoch < request.epoch || account.applied < request.durable {
        tracing::error!(
            user = %account.name,
            "the store is older than a client's session: it was put back from a backup"
        );
        return Err(Refusal::RolledBack);
    }
    let shown = hash(&request.secret);
    // The hashes of random secrets reveal nothing by the time that a comparison takes.
    if shown != known.secret && shown != known.shown {
        return Err(Refusal::NoSession);
    }
    // A later request of the client was granted. This one came late, and nobody waits for it.
    if request.attempt <= known.attempt { Err(Refusal::Busy) } else { Ok(()) }
}

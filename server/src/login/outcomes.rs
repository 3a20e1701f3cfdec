//! How checks of clients came out, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use xfer_protocol::message::{Credential, Refusal};

/// What a client shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A password.
    Password,
    /// The key of a device.
    Key,
    /// The code of an invitation.
    Invitation,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client acts for the account.
    Accepted,
    /// It was not the account's, or is no longer good.
    Wrong,
    /// The address is locked out.
    Blocked,
    /// It was not taken for another reason: the account is disabled, takes keys alone or has too many,
    /// or the server is busy or failed.
    Refused,
}

/// All that can be shown.
const EVIDENCE: [Evidence; 3] = [Evidence::Password, Evidence::Key, Evidence::Invitation];

/// All that can come of it.
const OUTCOMES: [Outcome; 4] =
    [Outcome::Accepted, Outcome::Wrong, Outcome::Blocked, Outcome::Refused];

/// How often each came of each.
#[derive(Default)]
pub struct Logins([[AtomicU64; OUTCOMES.len()]; EVIDENCE.len()]);

/// How often one thing came of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoginCount {
    /// What was shown.
    pub by: Evidence,
    /// What came of it.
    pub outcome: Outcome,
    /// How often, since the server's start.
    pub count: u64,
}

impl Logins {
    pub(super) fn note<T>(&self, by: Evidence, result: &Result<T, Refusal>) {
        let outcome = result.as_ref().err().map_or(Outcome::Accepted, Outcome::of);
        self.0[by as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn counts(&self) -> Vec<LoginCount> {
        let all = EVIDENCE.into_iter().flat_map(|by| OUTCOMES.map(|outcome| (by, outcome)));
        let count = |(by, outcome)| {
            let count = self.0[by as usize][outcome as usize].load(Ordering::Relaxed);
            LoginCount { by, outcome, count }
        };
        all.map(count).collect()
    }
}

impl Evidence {
    pub(super) fn of(credential: &Credential) -> Evidence {
        match credential {
            Credential::Password(_) => Evidence::Password,
            Credential::Device { .. } => Evidence::Key,
            Credential::Invitation(_) => Evidence::Invitation,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Evidence::Password => "password",
            Evidence::Key => "key",
            Evidence::Invitation => "invitation",
        }
    }
}

impl Outcome {
    fn of(refusal: &Refusal) -> Outcome {
        match refusal {
            Refusal::WrongPassword | Refusal::UnknownKey | Refusal::UsedInvitation => {
                Outcome::Wrong
            }
            Refusal::Blocked { .. } => Outcome::Blocked,
            Refusal::InUse { .. }
            | Refusal::NoSession
            | Refusal::Stopping
            | Refusal::Busy
            | Refusal::Internal
            | Refusal::Claimed
            | Refusal::RolledBack
            | Refusal::KeysOnly
            | Refusal::PasswordNeeded
            | Refusal::TooManyKeys
            | Refusal::Disabled => Outcome::Refused,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Wrong => "wrong",
            Outcome::Blocked => "blocked",
            Outcome::Refused => "refused",
        }
    }
}

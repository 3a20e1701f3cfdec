//! The waists that concern accounts alone. They need only rows, so a command that manages accounts
//! never touches contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use xfer_protocol::message::{DeviceKey, PublicKey};
use xfer_protocol::{Name, Timestamp};

use super::SqliteStore;
use crate::{
    Account, AccountId, Accounts, Answer, Change, Claim, CodeHash, Enrolment, Failures,
    ForgottenBefore, Invitation, Keys, NewAccount, Pair, Purpose, Removed, Resumable, Revoked,
    StoreError, WrongPasswords,
};

/// The accounts, wrong passwords and keys of a store.
pub(super) struct Ledger(pub(super) Arc<SqliteStore>);

impl Ledger {
    /// Runs `work` on a thread that may block.
    fn hop<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SqliteStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        let rows = self.0.clone();
        Box::pin(async move {
            // Either the work panicked, which is logged separately, or the process is ending.
            spawn_blocking(move || work(&rows)).await.unwrap_or(Err(StoreError::Panicked))
        })
    }
}

impl Accounts for Ledger {
    fn create(&self, new: NewAccount) -> Answer<'_, AccountId> {
        self.hop(move |rows| rows.create(&new))
    }

    fn find(&self, name: Name) -> Answer<'_, Option<Account>> {
        self.hop(move |rows| rows.account(&name))
    }

    fn list(&self) -> Answer<'_, Vec<Account>> {
        self.hop(|rows| rows.accounts())
    }

    fn sessions(&self) -> Answer<'_, Vec<(AccountId, Resumable)>> {
        self.hop(|rows| rows.present_sessions())
    }

    fn change(&self, account: AccountId, change: Change) -> Answer<'_, ()> {
        self.hop(move |rows| match change {
            Change::Password(password) => rows.set_password(account, &password),
            Change::TakesPasswords(takes) => rows.set_takes_passwords(account, takes),
            Change::DisabledFrom(from) => rows.set_disabled_from(account, from),
            Change::Quota(quota) => rows.set_quota(account, quota),
            Change::Inbox(inbox) => rows.set_inbox(account, inbox),
        })
    }

    fn remove(&self, account: AccountId, at: Timestamp) -> Answer<'_, ()> {
        self.hop(move |rows| rows.remove_account(account, at))
    }

    fn removed(&self) -> Answer<'_, Vec<Removed>> {
        self.hop(|rows| rows.removed_accounts())
    }

    fn restore(&self, account: AccountId, name: Name) -> Answer<'_, ()> {
        self.hop(move |rows| rows.restore_account(account, &name))
    }

    fn give_up(&self, account: AccountId) -> Answer<'_, ()> {
        self.hop(move |rows| rows.give_up_account(account))
    }

    fn clear_deleted(&self, now: Timestamp) -> Answer<'_, ()> {
        self.hop(move |rows| rows.clear_deleted(now).map(drop))
    }

    fn days_kept(&self) -> Answer<'_, u16> {
        self.hop(|rows| rows.days_kept())
    }

    fn keep_removed(&self, days: u16) -> Answer<'_, ()> {
        self.hop(move |rows| rows.keep_removed(days))
    }

    fn claim(&self, account: AccountId, purpose: Purpose) -> Answer<'_, Claim> {
        self.hop(move |rows| {
            let file = rows.claim(account, purpose)?;
            file.map(Claim::held_by).ok_or(StoreError::Claimed)
        })
    }
}

impl Failures for Ledger {
    fn of(&self, pairs: Vec<Pair>) -> Answer<'_, Vec<Option<WrongPasswords>>> {
        self.hop(move |rows| {
            pairs.iter().map(|pair| rows.failures(&pair.user, &pair.address)).collect()
        })
    }

    fn list(&self) -> Answer<'_, Vec<WrongPasswords>> {
        self.hop(|rows| rows.all_failures())
    }

    fn set(&self, failures: Vec<WrongPasswords>) -> Answer<'_, ()> {
        self.hop(move |rows| rows.set_failures(&failures))
    }

    fn forget(&self, before: ForgottenBefore) -> Answer<'_, ()> {
        self.hop(move |rows| rows.forget_failures(before))
    }
}

impl Keys for Ledger {
    fn of(&self, account: AccountId) -> Answer<'_, Vec<DeviceKey>> {
        self.hop(move |rows| rows.keys(account))
    }

    fn count_good(&self, at: Timestamp) -> Answer<'_, BTreeMap<AccountId, usize>> {
        self.hop(move |rows| rows.count_good_keys(at))
    }

    fn enrol(&self, account: AccountId, key: DeviceKey) -> Answer<'_, Enrolment> {
        self.hop(move |rows| rows.enrol(account, &key))
    }

    fn revoke(&self, account: AccountId, which: Revoked) -> Answer<'_, usize> {
        self.hop(move |rows| rows.revoke(account, which))
    }

    fn set_expiry(
        &self,
        account: AccountId,
        key: PublicKey,
        at: Option<Timestamp>,
    ) -> Answer<'_, bool> {
        self.hop(move |rows| rows.set_expiry(account, key, at))
    }

    fn invite(&self, account: AccountId, invitation: Invitation) -> Answer<'_, ()> {
        self.hop(move |rows| rows.invite(account, invitation))
    }

    fn redeem(
        &self,
        account: AccountId,
        code: CodeHash,
        key: DeviceKey,
        password: Option<String>,
    ) -> Answer<'_, Enrolment> {
        self.hop(move |rows| rows.redeem(account, code, &key, password.as_deref()))
    }
}

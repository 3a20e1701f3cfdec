//! Devices' keys, and invitations, in memory.

use std::collections::BTreeMap;

use xfer_protocol::Timestamp;
use xfer_protocol::limits::KEYS_MAX;
use xfer_protocol::message::{DeviceKey, PublicKey};

use super::tables::Tables;
use super::{Memory, answer};
use crate::{
    AccountId, Answer, Change, CodeHash, Enrolment, Invitation, Keys, Revoked, StoreError,
};

impl Keys for Memory {
    fn of(&self, account: AccountId) -> Answer<'_, Vec<DeviceKey>> {
        let state = self.lock();
        let mut keys = state.keys.get(&account).cloned().unwrap_or_default();
        keys.sort_by_key(|known| (known.enrolled, known.key.0));
        answer(Ok(keys))
    }

    fn count_good(&self, at: Timestamp) -> Answer<'_, BTreeMap<AccountId, usize>> {
        let is_good = |key: &&DeviceKey| key.expires.is_none_or(|expires| expires > at);
        let state = self.lock();
        let counts = state.keys.iter().map(|(account, keys)| {
            let count = keys.iter().filter(is_good).count();
            (*account, count)
        });
        answer(Ok(counts.filter(|(_, count)| *count > 0).collect()))
    }

    fn enrol(&self, account: AccountId, key: DeviceKey) -> Answer<'_, Enrolment> {
        answer(self.lock().enrol(account, key))
    }

    fn revoke(&self, account: AccountId, which: Revoked) -> Answer<'_, usize> {
        let mut state = self.lock();
        if state.invitations.get(&account).is_some_and(|(_, used_by)| used_by.is_some()) {
            state.invitations.remove(&account);
        }
        answer(Ok(state.revoke(account, which)))
    }

    fn set_expiry(
        &self,
        account: AccountId,
        key: PublicKey,
        at: Option<Timestamp>,
    ) -> Answer<'_, bool> {
        let mut state = self.lock();
        let known = state.key(account, key);
        answer(Ok(known.map(|known| known.expires = at).is_some()))
    }

    fn invite(&self, account: AccountId, invitation: Invitation) -> Answer<'_, ()> {
        let mut state = self.lock();
        let known = state.account(account).map(drop);
        if known.is_ok() {
            state.invitations.insert(account, (invitation, None));
        }
        answer(known)
    }

    fn redeem(
        &self,
        account: AccountId,
        code: CodeHash,
        key: DeviceKey,
        password: Option<String>,
    ) -> Answer<'_, Enrolment> {
        answer(self.lock().redeem(account, code, key, password))
    }
}

impl Tables {
    /// What is known of a key.
    pub(super) fn key(&mut self, account: AccountId, key: PublicKey) -> Option<&mut DeviceKey> {
        self.keys.get_mut(&account)?.iter_mut().find(|known| known.key == key)
    }

    fn enrol(&mut self, account: AccountId, key: DeviceKey) -> Result<Enrolment, StoreError> {
        self.account(account)?;
        let keys = self.keys.entry(account).or_default();
        if keys.iter().filter(|known| known.key != key.key).count() >= KEYS_MAX {
            return Ok(Enrolment::TooMany);
        }
        keys.retain(|known| known.key != key.key);
        keys.push(key);
        Ok(Enrolment::Done)
    }

    fn revoke(&mut self, account: AccountId, which: Revoked) -> usize {
        let is_revoked = |key: PublicKey| match which {
            Revoked::Key(revoked) => key == revoked,
            Revoked::AllBut(kept) => Some(key) != kept,
        };
        let keys = self.keys.entry(account).or_default();
        let count = keys.len();
        keys.retain(|known| !is_revoked(known.key));
        let revoked = count - keys.len();
        self.forget_sessions(account, |device| device.is_some_and(is_revoked));
        revoked
    }

    fn redeem(
        &mut self,
        account: AccountId,
        code: CodeHash,
        key: DeviceKey,
        password: Option<String>,
    ) -> Result<Enrolment, StoreError> {
        let is_good = |(invitation, used_by): &(Invitation, Option<PublicKey>)| {
            let is_free = used_by.is_none_or(|other| other == key.key);
            is_free && invitation.code == code && invitation.expires > key.enrolled
        };
        if !self.invitations.get(&account).is_some_and(is_good) {
            return Ok(Enrolment::NotInvited);
        }
        let used_by = key.key;
        let enrolment = self.enrol(account, key)?;
        match (enrolment, password) {
            (Enrolment::Done, Some(hash)) => {
                self.change(account, Change::Password(hash))?;
                self.invitations.remove(&account);
            }
            (Enrolment::Done, None) => {
                if let Some((_, by)) = self.invitations.get_mut(&account) {
                    *by = Some(used_by);
                }
            }
            (Enrolment::TooMany | Enrolment::NotInvited, _) => {}
        }
        Ok(enrolment)
    }
}

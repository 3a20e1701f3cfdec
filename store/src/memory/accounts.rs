//! Accounts in memory.

use std::sync::{Arc, Weak};

use xfer_protocol::tree::Usage;
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use super::tables::Tables;
use super::{Memory, answer};
use crate::{
    Account, AccountId, Accounts, Answer, Change, Claim, NewAccount, Purpose, Resumable, StoreError,
};

impl Accounts for Memory {
    fn create(&self, new: NewAccount) -> Answer<'_, AccountId> {
        answer(self.lock().create(new))
    }

    fn find(&self, name: Name) -> Answer<'_, Option<Account>> {
        answer(Ok(self.lock().named(&name).cloned()))
    }

    fn list(&self) -> Answer<'_, Vec<Account>> {
        let mut all: Vec<_> = self.lock().accounts.values().cloned().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        answer(Ok(all))
    }

    fn sessions(&self) -> Answer<'_, Vec<(AccountId, Resumable)>> {
        let state = self.lock();
        let present = state.sessions.iter().filter_map(|(account, sessions)| {
            Some((*account, sessions.present.as_ref()?.known.clone()))
        });
        answer(Ok(present.collect()))
    }

    fn change(&self, account: AccountId, change: Change) -> Answer<'_, ()> {
        let mut state = self.lock();
        let is_password = matches!(change, Change::Password(_));
        let changed = state.change(account, change);
        if is_password && changed.is_ok() {
            // An invitation would replace it again.
            state.invitations.remove(&account);
        }
        answer(changed)
    }

    fn remove(&self, account: AccountId) -> Answer<'_, ()> {
        let mut state = self.lock();
        let removed = state.accounts.remove(&account).map(drop).ok_or(StoreError::NoAccount);
        if removed.is_ok() {
            state.sessions.remove(&account);
            state.keys.remove(&account);
            state.invitations.remove(&account);
            state.removed.insert(account);
        }
        answer(removed)
    }

    fn clear_removed(&self, now: Timestamp) -> Answer<'_, ()> {
        let mut state = self.lock();
        state.clear_removed(now);
        state.garbage.clear();
        answer(Ok(()))
    }

    fn claim(&self, account: AccountId, purpose: Purpose) -> Answer<'_, Claim> {
        answer(self.lock().claim(account, purpose))
    }
}

impl Tables {
    fn create(&mut self, new: NewAccount) -> Result<AccountId, StoreError> {
        if self.named(&new.name).is_some() {
            return Err(StoreError::Exists(new.name));
        }
        let id = AccountId(self.next_account);
        let nodes = new.nodes();
        let usage = Usage {
            bytes: nodes.iter().map(|(_, _, node)| node.charge()).sum(),
            nodes: nodes.len() as u64,
        };
        for (ino, name, node) in nodes {
            if let Some(name) = name {
                let name =
                    Name::new(name).map_err(|error| StoreError::Database(error.to_string()))?;
                self.entries.entry((id, Ino::ROOT)).or_default().insert(name, ino);
            }
            self.nodes.insert((id, ino), Arc::new(node));
        }
        self.next_account += 1;
        let NewAccount { name, password, quota, inbox, time: _ } = new;
        let (applied, epoch, tidied) = (Seq(0), Epoch(0), Epoch(0));
        let waiting = Usage::default();
        let account = Account {
            id,
            name,
            password,
            takes_passwords: true,
            disabled_from: None,
            quota,
            inbox,
            waiting,
            usage,
            applied,
            epoch,
            tidied,
        };
        self.accounts.insert(id, account);
        Ok(id)
    }

    pub(super) fn change(&mut self, id: AccountId, change: Change) -> Result<(), StoreError> {
        let account = self.account(id)?;
        match change {
            Change::Password(password) => {
                account.password = Some(password);
                self.forget_sessions(id, |device| device.is_none());
            }
            Change::TakesPasswords(takes) => account.takes_passwords = takes,
            Change::DisabledFrom(from) => account.disabled_from = from,
            Change::Quota(quota) => {
                account.quota = quota;
                if let Some(sessions) = self.sessions.get_mut(&id) {
                    sessions.raise_quota(quota);
                }
            }
            Change::Inbox(inbox) => account.inbox = inbox,
        }
        Ok(())
    }

    fn claim(&mut self, account: AccountId, purpose: Purpose) -> Result<Claim, StoreError> {
        let claims = self.claims.entry(account).or_default();
        claims.read.retain(|claim| Weak::strong_count(claim) > 0);
        let holder = Arc::new(());
        match purpose {
            _ if claims.is_changed() => return Err(StoreError::Claimed),
            Purpose::Change if claims.is_read() => return Err(StoreError::Claimed),
            Purpose::Change => claims.change = Arc::downgrade(&holder),
            Purpose::Read => claims.read.push(Arc::downgrade(&holder)),
        }
        Ok(Claim::held_by(holder))
    }
}

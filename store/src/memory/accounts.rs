//! Accounts in memory.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};

use xfer_protocol::tree::Usage;
use xfer_protocol::{Epoch, Ino, Name, Seq, Timestamp};

use super::tables::Tables;
use super::{Memory, answer};
use crate::waists::accounts::days_later;
use crate::{
    Account, AccountId, Accounts, Answer, Change, Claim, NewAccount, Purpose, Removed, Resumable,
    StoreError,
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

    fn remove(&self, account: AccountId, at: Timestamp) -> Answer<'_, ()> {
        answer(self.lock().remove(account, at))
    }

    fn removed(&self) -> Answer<'_, Vec<Removed>> {
        let state = self.lock();
        let days = i64::from(state.days_kept);
        let kept = |(account, at): &(Account, Timestamp)| Removed {
            account: account.clone(),
            at: *at,
            until: days_later(*at, days),
        };
        let mut removed: Vec<_> = state.removed.values().map(kept).collect();
        removed.sort_by_key(|removed| Reverse((removed.at, removed.account.id)));
        answer(Ok(removed))
    }

    fn restore(&self, account: AccountId, name: Name) -> Answer<'_, ()> {
        answer(self.lock().restore(account, name))
    }

    fn give_up(&self, account: AccountId) -> Answer<'_, ()> {
        let mut state = self.lock();
        answer(match state.removed.remove(&account) {
            Some(_) => {
                state.deleted.insert(account);
                Ok(())
            }
            None => Err(StoreError::NoAccount),
        })
    }

    fn clear_deleted(&self, now: Timestamp) -> Answer<'_, ()> {
        let mut state = self.lock();
        state.clear_deleted(now);
        state.garbage.clear();
        answer(Ok(()))
    }

    fn days_kept(&self) -> Answer<'_, u16> {
        answer(Ok(self.lock().days_kept))
    }

    fn keep_removed(&self, days: u16) -> Answer<'_, ()> {
        self.lock().days_kept = days;
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

    fn remove(&mut self, id: AccountId, at: Timestamp) -> Result<(), StoreError> {
        let mut account = self.accounts.remove(&id).ok_or(StoreError::NoAccount)?;
        account.epoch = Epoch(account.epoch.0 + 1);
        self.sessions.remove(&id);
        self.keys.remove(&id);
        self.invitations.remove(&id);
        self.removed.insert(id, (account, at));
        Ok(())
    }

    fn restore(&mut self, id: AccountId, name: Name) -> Result<(), StoreError> {
        let Some((account, at)) = self.removed.remove(&id) else {
            return Err(StoreError::NoAccount);
        };
        if self.named(&name).is_some() {
            self.removed.insert(id, (account, at));
            return Err(StoreError::Exists(name));
        }
        self.accounts.insert(id, Account { name, ..account });
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

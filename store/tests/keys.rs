//! Keys of devices, and invitations: what goes with them, and what stays.

#![allow(clippy::unwrap_used)]

mod support;

use support::{account, device_id, device_key, name, resumable, time};
use xfer_protocol::limits::KEYS_MAX;
use xfer_store::embedded::SqliteStore;
use xfer_store::{CodeHash, Enrolment, Invitation, Resumable, Revoked};

fn store() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    (dir, store)
}

/// A session that this device began; 0 for one that a password began.
fn begun_by(device: u8, session: u8) -> Resumable {
    let device = (device > 0).then(|| device_id(device));
    Resumable { device, ..resumable(session, 1) }
}

#[test]
fn a_key_that_begins_a_session_is_noted_as_used() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    store.enrol(alice, &device_key(1, 10)).unwrap();
    store.enrol(alice, &device_key(2, 5)).unwrap();
    store.begin_resumable(alice, &begun_by(1, 1), None).unwrap();
    let keys = store.keys(alice).unwrap();
    let told: Vec<_> = keys.iter().map(|known| (known.key, known.used)).collect();
    assert_eq!(told, [(device_id(2), None), (device_id(1), Some(time(7)))]);
}

#[test]
fn the_sessions_of_a_revoked_key_go_with_it_and_no_others() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    for device in [1, 2] {
        store.enrol(alice, &device_key(device, 10)).unwrap();
        store.begin_resumable(alice, &begun_by(device, device), None).unwrap();
    }
    store.begin_resumable(alice, &begun_by(0, 3), None).unwrap();
    let there =
        |session: u8| store.session_of(alice, support::session_id(session)).unwrap().is_some();
    assert_eq!([1, 2, 3].map(there), [true; 3]);
    assert_eq!(store.revoke(alice, Revoked::Key(device_id(1))).unwrap(), 1);
    assert_eq!(store.revoke(alice, Revoked::Key(device_id(1))).unwrap(), 0);
    assert_eq!([1, 2, 3].map(there), [false, true, true]);
    store.set_password(alice, "new").unwrap();
    assert_eq!([1, 2, 3].map(there), [false, true, false], "a password began the third");
    assert_eq!(store.revoke(alice, Revoked::AllBut(Some(device_id(2)))).unwrap(), 0);
    assert_eq!(store.revoke(alice, Revoked::AllBut(None)).unwrap(), 1);
    assert_eq!([1, 2, 3].map(there), [false; 3]);
}

#[test]
fn an_account_has_a_bounded_number_of_keys() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    for device in 0..KEYS_MAX as u8 {
        assert_eq!(store.enrol(alice, &device_key(device, 10)).unwrap(), Enrolment::Done);
    }
    assert_eq!(store.enrol(alice, &device_key(200, 10)).unwrap(), Enrolment::TooMany);
    assert_eq!(store.enrol(alice, &device_key(3, 99)).unwrap(), Enrolment::Done, "known already");
    assert_eq!(store.keys(alice).unwrap().len(), KEYS_MAX);
}

#[test]
fn an_invitation_is_good_for_one_device_and_until_it_expires() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    let (code, other) = (CodeHash([1; 32]), CodeHash([2; 32]));
    let invite = || store.invite(alice, Invitation { code, expires: time(100) }).unwrap();
    let redeem_with = |code, device, secs| {
        store.redeem(alice, code, &device_key(device, secs), Some("new")).unwrap()
    };
    let redeem = |code, secs| redeem_with(code, 1, secs);
    assert_eq!(redeem(code, 50), Enrolment::NotInvited);
    invite();
    assert_eq!(redeem(other, 50), Enrolment::NotInvited);
    assert_eq!(redeem(code, 100), Enrolment::NotInvited);
    let password = || store.account(&name("alice")).unwrap().unwrap().password;
    assert_eq!(password().as_deref(), Some("$argon2id$"));
    assert_eq!(redeem(code, 99), Enrolment::Done);
    assert_eq!(password().as_deref(), Some("new"));
    assert_eq!(redeem_with(code, 2, 99), Enrolment::NotInvited);
    assert_eq!(redeem(code, 99), Enrolment::NotInvited, "it has set the password");
    invite();
    let without = |key| store.redeem(alice, code, &device_key(key, 99), None).unwrap();
    assert_eq!(without(1), Enrolment::Done);
    assert_eq!(without(2), Enrolment::NotInvited, "another machine");
    assert_eq!(without(1), Enrolment::Done, "it has set no password yet");
    assert_eq!(password().as_deref(), Some("new"));
    invite();
    let later = Invitation { code: other, expires: time(100) };
    store.invite(alice, later).unwrap();
    assert_eq!(redeem(code, 50), Enrolment::NotInvited, "a later one has replaced it");
}

#[test]
fn an_invitation_for_which_there_is_no_room_is_not_used_up() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    for device in 0..KEYS_MAX as u8 {
        store.enrol(alice, &device_key(device, 10)).unwrap();
    }
    let code = CodeHash([1; 32]);
    store.invite(alice, Invitation { code, expires: time(100) }).unwrap();
    let redeem = || store.redeem(alice, code, &device_key(200, 50), Some("new")).unwrap();
    assert_eq!(redeem(), Enrolment::TooMany);
    assert_eq!(store.revoke(alice, Revoked::Key(device_id(3))).unwrap(), 1);
    assert_eq!(redeem(), Enrolment::Done);
}

#[test]
fn a_removed_account_takes_its_keys_and_its_invitation_with_it() {
    let (_dir, store) = store();
    let alice = account(&store, "alice");
    store.enrol(alice, &device_key(1, 10)).unwrap();
    store.invite(alice, Invitation { code: CodeHash([1; 32]), expires: time(100) }).unwrap();
    store.remove_account(alice, time(40)).unwrap();
    store.give_up_account(alice).unwrap();
    assert!(store.enrol(alice, &device_key(2, 10)).is_err());
    assert!(store.clear_deleted(time(50)).unwrap());
    let again = account(&store, "alice");
    assert_eq!(store.keys(again).unwrap(), []);
    assert_eq!(store.keys(alice).unwrap(), []);
}

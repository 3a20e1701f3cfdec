//! How links begin: the first login, the session that goes on after a break, the client that comes
//! back after another one had the tree, and logins that are refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::files::Files;
use xfer_protocol::message::{Purpose, Refusal};
use xfer_store::Change;
use xfer_tests::cable::Wiring;
use xfer_tests::peers::{Host, Peer, name};

use super::{LOG, Round, Scene, options};

/// Longer than the server keeps the seat of a client that is away, once another one asks for it.
const ASKED: Duration = Duration::from_secs(60);

pub(super) const SCENE: Scene = Scene::on(1, 250, |round| Box::pin(play(round)));

async fn play(round: Arc<Round>) {
    let host = Round::host(&["alice"]).await;
    let password = host.account(&name("alice")).await.password.unwrap();
    set_password(&host, "$argon2id$v=19$m=8,t=1,p=1$Y2hlYXAgZm9yIHRlc3RzIQ$AAAAAAAAAAAAAAAAAAAAAA")
        .await;
    assert_eq!(round.refused(0, &host).await, Refusal::WrongPassword);
    set_password(&host, &password).await;
    let account = host.account(&name("alice")).await.id;
    let claim = host.store.accounts.claim(account, xfer_store::Purpose::Change).await.unwrap();
    assert_eq!(round.refused(0, &host).await, Refusal::Claimed);
    drop(claim);
    let Peer { client, cable, .. } = round.mount(0, &host, Purpose::Mount).await;
    let alice = Files::of(client);
    write(&alice, "before").await;
    alice.sync().await.unwrap();
    cable.cut();
    write(&alice, "after").await;
    alice.sync().await.unwrap();
    // She is away, and another machine has the tree meanwhile.
    cable.pull();
    sleep(ASKED).await;
    let other = host.mount_with("alice", Purpose::TakeOver, options(), Wiring::default()).await;
    let other = Files::of(other.unwrap().client);
    assert_eq!(other.read("after").await.unwrap(), b"text");
    other.rename("before", "renamed").await.unwrap();
    other.finish().await.unwrap();
    cable.plug_in();
    while !alice.status().has_seat || alice.exists("before").await.unwrap() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(alice.exists("renamed").await.unwrap());
    write(&alice, "back").await;
    alice.sync().await.unwrap();
    let last = alice.status().last;
    alice.finish().await.unwrap();
    let Peer { client, applied, .. } = round.look_afterwards(&host).await;
    assert_eq!(applied, last);
    let files = Files::of(client);
    let names: Vec<_> = files.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["after", "back", "inbox", "outbox", "renamed"].map(name));
    files.finish().await.unwrap();
}

async fn write(files: &Files, path: &str) {
    files.write(path, &Bytes::from_static(b"text")).await.unwrap();
}

async fn set_password(host: &Host, hash: &str) {
    let alice = host.account(&name("alice")).await.id;
    host.store.accounts.change(alice, Change::Password(hash.to_owned())).await.unwrap();
}

#[test]
fn a_login_or_a_return_that_is_cut_off_after_any_byte_keeps_nobody_out_and_loses_nothing() {
    SCENE.cut_each(0, LOG);
}

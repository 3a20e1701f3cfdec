//! What a client has left that is gone, or that another one has overtaken, on a clock that jumps ahead.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::core::{CopyRange, Core, Options};
use xfer_client::files::Files;
use xfer_client::offline::Unsent;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::Usage;
use xfer_tests::Random;
use xfer_tests::cable::{Cable, Wiring};
use xfer_tests::local_disk::LocalDisk;
use xfer_tests::peers::{Host, Machine, Peer, name, roomy};

/// Longer than an idle client takes to notice that its link is dead.
const NOTICED: Duration = Duration::from_secs(100);

/// Longer than the server waits for a client that is away, once another one asks.
const WAITED: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { handoff: true, offline_bytes: Some(1 << 20), ..roomy("test") }
}

/// A client that works offline, on a machine of its own.
async fn offline(host: &Host, purpose: Purpose) -> (Peer, Arc<LocalDisk>) {
    let disk = Arc::new(LocalDisk::new(false));
    let machine = Machine { disk: Some(disk.clone()), ..Machine::default() };
    let mounted = host.mount_on(&machine, "alice", purpose, options(), Wiring::default()).await;
    (mounted.unwrap(), disk)
}

/// Has a client make a file after its cable was pulled.
async fn write_late(peer: &Peer) -> Files {
    let files = Files::of(peer.client.clone());
    // So that its root is known.
    files.list("").await.unwrap();
    peer.cable.pull();
    files.write("late", &Bytes::new()).await.unwrap();
    files
}

/// The machine of a client whose cable is pulled crashes.
async fn crash(peer: &Peer, disk: &LocalDisk) {
    sleep(NOTICED).await;
    disk.crash(&mut Random::new(1));
    let _ = peer.client.finish().await;
}

/// The usage of the account, as the server has it.
async fn usage(host: &Host) -> Usage {
    host.account(&name("alice")).await.usage
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_made_offline_is_sent_after_a_crash() {
    let host = Host::new(&["alice"]);
    let (peer, disk) = offline(&host, Purpose::Mount).await;
    let files = Files::of(peer.client.clone());
    let bytes: Bytes = Random::new(1).bytes(100_000).into();
    files.write("file", &bytes).await.unwrap();
    files.write("copy", &Bytes::new()).await.unwrap();
    let [from, to] = [files.stat("file").await.unwrap().0, files.stat("copy").await.unwrap().0];
    files.sync().await.unwrap();
    peer.cable.pull();
    // Part of a file, since a whole one is shared.
    let part = CopyRange { from, from_offset: 0, to, to_offset: 0, len: 50_000 };
    files.client().call(move |core: &mut Core| core.copy_range(part, false)).await.unwrap();
    crash(&peer, &disk).await;
    let cable = Cable::new(Wiring::default());
    let settled = host.settle("alice", (&disk, &peer.key), &options(), &cable).await;
    assert!(settled.is_ok(), "{settled:?}");
    assert!(disk.rescues().is_empty(), "nobody else has changed the tree");
    let files = Files::of(host.mount("alice", Purpose::Mount).await.unwrap().client);
    assert_eq!(files.read("copy").await.unwrap(), bytes[..50_000]);
    files.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_left_waits_for_another_client_that_is_away_no_longer_than_a_login_does() {
    let host = Host::new(&["alice"]);
    let (first, disk) = offline(&host, Purpose::Mount).await;
    write_late(&first).await;
    crash(&first, &disk).await;
    let (second, _) = offline(&host, Purpose::TakeOver).await;
    assert!(!Files::of(second.client.clone()).exists("absent").await.unwrap());
    second.cable.pull();
    sleep(NOTICED).await;
    let settle = async || {
        let cable = Cable::new(Wiring::default());
        host.settle("alice", (&disk, &first.key), &options(), &cable).await
    };
    assert!(matches!(settle().await, Err(Unsent::InUse(_))));
    sleep(WAITED).await;
    settle().await.unwrap();
    let files = Files::of(host.mount("alice", Purpose::Mount).await.unwrap().client);
    assert!(files.exists("late").await.unwrap());
    files.finish().await.unwrap();
}

/// When a program closes a file without a name whose mount is overtaken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closed {
    /// While its mount is cut off.
    Meanwhile,
    /// Once it has come back.
    Afterwards,
}

#[tokio::test(start_paused = true)]
async fn a_file_without_a_name_goes_though_it_is_closed_while_others_have_the_tree_or_after() {
    for closed in [Closed::Meanwhile, Closed::Afterwards] {
        let host = Host::new(&["alice"]);
        let (first, _) = offline(&host, Purpose::Mount).await;
        let files = Files::of(first.client.clone());
        let before = usage(&host).await;
        files.write("file", &Bytes::from_static(&[1; 9000])).await.unwrap();
        let mut open = Some(files.open_file("file").await.unwrap());
        files.remove("file").await.unwrap();
        files.sync().await.unwrap();
        first.cable.pull();
        files.write("late", &Bytes::new()).await.unwrap();
        open.take_if(|_| closed == Closed::Meanwhile);
        let (second, _) = offline(&host, Purpose::TakeOver).await;
        let second = Files::of(second.client);
        second.write("theirs", &Bytes::new()).await.unwrap();
        second.remove("theirs").await.unwrap();
        second.sync().await.unwrap();
        assert_ne!(usage(&host).await, before, "it may still be open");
        first.cable.plug_in();
        sleep(NOTICED).await;
        assert_eq!(files.list("").await.unwrap().len(), 2, "the mailboxes");
        sleep(NOTICED).await;
        drop(open);
        files.sync().await.unwrap();
        assert_eq!(usage(&host).await, before, "{closed:?}");
        files.finish().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_without_the_tree_and_with_changes_is_not_waited_for() {
    let host = Host::new(&["alice"]);
    let wiring = Wiring::default();
    let options = Options { offline_bytes: None, ..options() };
    let first = host.mount_with("alice", Purpose::Mount, options, wiring).await.unwrap();
    let files = write_late(&first).await;
    let (second, _) = offline(&host, Purpose::TakeOver).await;
    let second = Files::of(second.client);
    second.write("theirs", &Bytes::new()).await.unwrap();
    first.cable.plug_in();
    sleep(NOTICED).await;
    let lost = files.finish().await.unwrap_err();
    assert!(lost.ops > 0 && !first.client.trace().is_empty(), "{lost}");
    let account = host.account(&name("alice")).await.id;
    let known = host.store.trees.session_of(account, first.session).await.unwrap();
    assert!(known.is_none(), "the server keeps nothing for it");
    second.finish().await.unwrap();
}

//! Sessions that the server ends: its disk is full for a while, it stops and starts again, and its
//! administrator ends one for good.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::files::Files;
use xfer_protocol::Errno;
use xfer_protocol::message::{EndReason, Purpose};
use xfer_protocol::tree::Room;
use xfer_tests::peers::{Peer, name};

use super::{LOG, Round, Scene};

pub(super) const SCENE: Scene = Scene::on(1, 250, |round| Box::pin(play(round)));

async fn play(round: Arc<Round>) {
    let mut host = Round::host(&["alice"]).await;
    let disk = host.simulated.clone().unwrap().disk;
    let Peer { client, .. } = round.mount(0, &host, Purpose::Mount).await;
    let alice = Files::of(client);
    alice.write("first", &Bytes::from_static(&[7; 100])).await.unwrap();
    alice.sync().await.unwrap();
    // The disk takes nothing for a while, though it says that it has room.
    disk.fill_unsaid(Room::default());
    alice.write("second", &Bytes::from_static(&[8; 100])).await.unwrap();
    assert_eq!(alice.sync().await, Err(Errno::ENOSPC));
    disk.clear();
    sleep(Duration::from_secs(20)).await;
    alice.sync().await.unwrap();
    // The server stops, and starts again.
    alice.write("third", &Bytes::from_static(&[9; 100])).await.unwrap();
    host.engine.stop(Duration::from_secs(10)).await;
    sleep(Duration::from_secs(5)).await;
    host.reopen(64 << 20);
    alice.write("fourth", &Bytes::from_static(&[10; 100])).await.unwrap();
    alice.sync().await.unwrap();
    let last = alice.status().last;
    assert!(host.engine.end(&name("alice"), EndReason::Administrator).await);
    alice.client().wait_over().await;
    assert_eq!(alice.sync().await, Ok(()), "all was durable before");
    alice.finish().await.unwrap();
    let Peer { client, applied, .. } = round.look_afterwards(&host).await;
    assert_eq!(applied, last);
    let files = Files::of(client);
    for (file, byte) in [("first", 7), ("second", 8), ("third", 9), ("fourth", 10)] {
        assert_eq!(files.read(file).await.unwrap(), [byte; 100]);
    }
    files.finish().await.unwrap();
}

#[test]
fn a_session_that_the_server_ends_may_lose_its_link_after_any_byte() {
    SCENE.cut_each(0, LOG);
}

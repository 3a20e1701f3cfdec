//! Clients that are away for far longer than their seat is kept.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::core::{Core, New, Options};
use xfer_client::drive::Client;
use xfer_protocol::limits::{CLIENT_SILENCE_TIMEOUT_MS, LEASE_MS};
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Errno, Ino};
use xfer_tests::cable::Wiring;
use xfer_tests::peers::{Host, OWNER, Peer, name, roomy};

const ROWS_BYTES: usize = 64 << 20;

/// The changes that each client has not sent.
const PENDING: usize = 20;

async fn create(client: &Arc<Client>, file: &str) -> Result<Ino, Errno> {
    let (file, data) = (name(file), Bytes::copy_from_slice(file.as_bytes()));
    let work = move |core: &mut Core| {
        let (ino, _) = core.make(Ino::ROOT, &file, &New::File { mode: 0o644 }, OWNER)?;
        core.write(ino, 0, &data, false).map(|_| ino)
    };
    client.call(work).await
}

async fn read(client: &Arc<Client>, file: &str) -> Result<Vec<u8>, Errno> {
    let file = name(file);
    let found = client.call(move |core: &mut Core| core.lookup(Ino::ROOT, &file)).await?;
    let ino = found.ok_or(Errno::ENOENT)?.0;
    let handle = client.call(move |core: &mut Core| core.open(ino, false)).await?;
    client.call(move |core: &mut Core| core.read(handle, ino, 0..1000)).await
}

/// A client is away for a month, with changes that it has not sent. Meanwhile the server may be killed
/// and started again.
async fn check(is_server_killed: bool) {
    let mut host = Host::simulated(&["alice"], Quota::UNLIMITED, ROWS_BYTES).await;
    let options = Options { wait: None, ..roomy("alice") };
    let mounted = host.mount_with("alice", Purpose::Mount, options, Wiring::default()).await;
    let Peer { client, cable, .. } = mounted.unwrap();
    let open = create(&client, "before").await.unwrap();
    let handle = client.call(move |core: &mut Core| core.open(open, false)).await.unwrap();
    client.sync().await.unwrap();
    cable.pull();
    for number in 0..PENDING {
        create(&client, &format!("pending {number}")).await.unwrap();
    }
    // Its file is removed while it is open, which the server learns only in a month.
    let unlink = |core: &mut Core| core.unlink(Ino::ROOT, &name("before"));
    client.call(unlink).await.unwrap();
    let last = client.status().last;
    sleep(Duration::from_millis(CLIENT_SILENCE_TIMEOUT_MS + LEASE_MS / 2)).await;
    assert_eq!(host.engine.sessions().len(), 1, "its seat is kept for a while");
    sleep(Duration::from_millis(LEASE_MS)).await;
    assert_eq!(host.engine.sessions().len(), 0, "the server keeps something of it in memory");
    if is_server_killed {
        host.kill();
        host.reopen(ROWS_BYTES);
    }
    sleep(Duration::from_secs(31 * 24 * 3600)).await;
    assert!(client.status().durable < last);
    cable.plug_in();
    client.sync().await.unwrap();
    let status = client.status();
    assert_eq!((status.durable, status.last), (last, last), "it goes on where it was");
    assert_eq!(status.trouble().map(ToString::to_string), None);
    let bytes = client.call(move |core: &mut Core| core.read(handle, open, 0..1000)).await;
    assert_eq!(bytes.unwrap(), b"before", "an open file");
    let close = move |core: &mut Core| {
        core.close(handle);
        Ok(())
    };
    client.call(close).await.unwrap();
    client.finish().await.unwrap();
    let Peer { client, applied, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    assert!(applied >= last);
    for number in 0..PENDING {
        let file = format!("pending {number}");
        assert_eq!(read(&client, &file).await.unwrap(), file.as_bytes());
    }
    assert_eq!(read(&client, "before").await, Err(Errno::ENOENT));
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_for_a_month_goes_on_where_it_was() {
    check(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_for_a_month_goes_on_though_the_server_was_killed_meanwhile() {
    check(true).await;
}

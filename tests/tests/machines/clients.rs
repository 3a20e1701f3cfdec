//! Two clients of one account, on a clock that jumps ahead: what is under way when the tree changes
//! hands.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use xfer_client::core::{Core, HandleId, Options, Trace};
use xfer_client::drive::{Rescue, Writing};
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_protocol::{Errno, Ino};
use xfer_tests::cable::{Cable, Wiring};
use xfer_tests::peers::{Host, Peer, roomy};

/// How long operations wait.
const WAIT: Duration = Duration::from_secs(3600);

/// What files hold.
const TEXT: Bytes = Bytes::from_static(b"text");

/// The delay of a slow cable.
const LAG: Duration = Duration::from_millis(100);

/// More entries than a page of a listing has.
const ENTRIES: usize = 6_000;

async fn client(host: &Host, purpose: Purpose, lag: Duration) -> (Files, Cable) {
    let options = Options { handoff: true, wait: Some(WAIT), ..roomy("test") };
    let wiring = Wiring { lag, ..Wiring::default() };
    let Peer { client, cable, .. } =
        host.mount_with("alice", purpose, options, wiring).await.unwrap();
    (Files::of(client), cable)
}

/// A client with a durable file, whose cable was pulled before it made another one.
async fn with_late_change(host: &Host) -> (Files, Cable) {
    let (first, cable) = client(host, Purpose::Mount, Duration::ZERO).await;
    first.write("old", &TEXT).await.unwrap();
    first.sync().await.unwrap();
    cable.pull();
    first.write("late", &TEXT).await.unwrap();
    (first, cable)
}

/// Keeps rescued changes in memory. The first tries fail.
#[derive(Default)]
struct Kept(Mutex<(usize, Vec<Trace>)>);

impl Rescue for Kept {
    fn keep(&self, _: String, changes: Vec<Trace>) -> Writing<'_> {
        Box::pin(async move {
            let mut kept = self.0.lock().unwrap();
            kept.0 += 1;
            if kept.0 <= 2 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            kept.1 = changes;
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_of_changes_that_came_too_late_fails_and_they_are_rescued() {
    let kept = Arc::new(Kept::default());
    let mut host = Host::new(&["alice"]);
    host.rescue_to(kept.clone());
    let (first, cable) = with_late_change(&host).await;
    let syncing = {
        let client = first.client().clone();
        tokio::spawn(async move { client.sync().await })
    };
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    // Many more ops than the first client made, so that their numbers say nothing.
    for number in 0..50 {
        second.write(format!("theirs{number}"), &TEXT).await.unwrap();
    }
    second.finish().await.unwrap();
    cable.plug_in();
    assert_eq!(syncing.await.unwrap(), Err(Errno::EIO));
    assert!(!first.exists("late").await.unwrap() && first.exists("theirs49").await.unwrap());
    assert!(kept.0.lock().unwrap().1.len() > 1, "its op, and where it was made");
    let errors = first.status().errors;
    assert!(errors.len() == 1 && errors[0].contains("stay in memory"), "{errors:?}");
    // The session goes on.
    first.write("late", &TEXT).await.unwrap();
    first.sync().await.unwrap();
    first.finish().await.unwrap();
}

/// Syncs an open file, as `fsync` does.
async fn sync_handle(files: &Files, handle: HandleId) -> Result<(), Errno> {
    let mut upto = None;
    let attempt = move |core: &mut Core| {
        let position = *upto.get_or_insert_with(|| core.position());
        core.sync_handle(handle, position)
    };
    files.client().call(attempt).await
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_changes_were_cut_off_says_so_at_its_next_sync_though_an_earlier_one_timed_out()
 {
    let mut host = Host::new(&["alice"]);
    host.rescue_to(Arc::new(Kept::default()));
    let options = Options { wait: Some(Duration::from_secs(5)), ..roomy("test") };
    let Peer { client, cable, .. } =
        host.mount_with("alice", Purpose::Mount, options, Wiring::default()).await.unwrap();
    let first = Files::of(client.clone());
    let mut open = Vec::new();
    for path in ["written", "untouched"] {
        first.write(path, &TEXT).await.unwrap();
        let ino = first.stat(path).await.unwrap().0;
        open.push((ino, client.call(move |core: &mut Core| core.open(ino, true)).await.unwrap()));
    }
    let [(ino, written), (_, untouched)] = open[..] else { unreachable!() };
    let directory = client.call(|core: &mut Core| core.open_directory(Ino::ROOT)).await.unwrap();
    first.sync().await.unwrap();
    cable.pull();
    client.call(move |core: &mut Core| core.write(ino, 0, &TEXT, false)).await.unwrap();
    first.write("new", &TEXT).await.unwrap();
    assert_eq!(sync_handle(&first, written).await, Err(Errno::ETIMEDOUT));
    let (second, _) = self::client(&host, Purpose::TakeOver, Duration::ZERO).await;
    second.write("theirs", &TEXT).await.unwrap();
    second.finish().await.unwrap();
    cable.plug_in();
    while !first.exists("theirs").await.is_ok_and(|exists| exists) {
        sleep(Duration::from_secs(1)).await;
    }
    let later = client.call(move |core: &mut Core| core.open(ino, true)).await.unwrap();
    for untold in [untouched, later] {
        assert_eq!(sync_handle(&first, untold).await, Ok(()));
    }
    for told in [written, directory] {
        assert_eq!(sync_handle(&first, told).await, Err(Errno::EIO));
        assert_eq!(sync_handle(&first, told).await, Ok(()), "it is said once");
    }
    first.finish().await.unwrap();
}

/// Keeps rescued changes nowhere, and takes long for that.
struct Slow(Duration);

impl Rescue for Slow {
    fn keep(&self, _: String, _: Vec<Trace>) -> Writing<'_> {
        Box::pin(async {
            sleep(self.0).await;
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_rescue_took_long_does_not_take_an_old_grant_for_the_tree() {
    let mut host = Host::new(&["alice"]);
    host.rescue_to(Arc::new(Slow(Duration::from_secs(600))));
    let (first, cable) = with_late_change(&host).await;
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    second.write("theirs", &TEXT).await.unwrap();
    second.finish().await.unwrap();
    // It hears of that, and begins to write a rescue.
    cable.plug_in();
    sleep(Duration::from_secs(120)).await;
    cable.pull();
    let (third, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    third.write("newer", &TEXT).await.unwrap();
    sleep(Duration::from_secs(1200)).await;
    assert!(!first.client().status().has_seat, "another one has the tree");
    third.finish().await.unwrap();
    cable.plug_in();
    assert!(first.exists("newer").await.unwrap());
    first.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_rescue_does_not_go_on_without_its_changes() {
    let host = Host::new(&["alice"]);
    let (first, cable) = with_late_change(&host).await;
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    second.write("theirs", &TEXT).await.unwrap();
    second.finish().await.unwrap();
    cable.plug_in();
    assert_eq!(first.sync().await, Err(Errno::EIO));
    let lost = first.finish().await.unwrap_err();
    assert!(lost.ops > 0 && lost.to_string().contains("another mount"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_interrupted_by_a_handoff_is_whole_and_right() {
    let host = Host::new(&["alice"]);
    let (maker, _) = client(&host, Purpose::Mount, Duration::ZERO).await;
    maker.make_directory("d").await.unwrap();
    for number in 0..ENTRIES {
        maker.write(format!("d/{number:05}"), &Bytes::new()).await.unwrap();
    }
    maker.finish().await.unwrap();
    for pause in [250, 450, 650, 850, 1050] {
        let (second, _) = client(&host, Purpose::Mount, Duration::ZERO).await;
        let (first, _) = client(&host, Purpose::TakeOver, LAG).await;
        // It keeps the tree for so long in any case.
        sleep(Duration::from_secs(3)).await;
        let listing = {
            let client = first.client().clone();
            tokio::spawn(async move { Files::of(client).list("d").await })
        };
        sleep(Duration::from_millis(pause)).await;
        let (gone, made) = ("d/00001", format!("d/x{pause}"));
        let is_there = second.exists(gone).await.unwrap();
        match is_there {
            true => second.remove(gone).await.unwrap(),
            false => second.write(gone, &Bytes::new()).await.unwrap(),
        }
        second.write(&made, &Bytes::new()).await.unwrap();
        second.remove(&made).await.unwrap();
        let listed = listing.await.unwrap().unwrap().len();
        let whole = [ENTRIES - 1, ENTRIES];
        assert!(whole.contains(&listed), "{listed} after {pause} ms");
        // What stays known is right.
        assert_eq!(first.exists(gone).await.unwrap(), !is_there, "{pause} ms");
        assert_eq!(first.list("d").await.unwrap().len(), ENTRIES - usize::from(is_there));
        assert!(first.exists("d/00000").await.unwrap());
        first.finish().await.unwrap();
        second.finish().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dormant_client_leaves_the_tree_of_one_that_is_away_alone_until_a_program_needs_it() {
    let host = Host::new(&["alice"]);
    let (first, _) = client(&host, Purpose::Mount, Duration::ZERO).await;
    let (second, cable) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    second.write("durable", &TEXT).await.unwrap();
    second.sync().await.unwrap();
    cable.pull();
    second.write("on a train", &TEXT).await.unwrap();
    sleep(Duration::from_secs(24 * 3600)).await;
    assert!(!first.status().has_seat);
    cable.plug_in();
    second.sync().await.unwrap();
    // And one that is needed is had once the lease is over.
    cable.pull();
    second.write("lost", &TEXT).await.unwrap();
    assert!(first.exists("on a train").await.unwrap());
    first.finish().await.unwrap();
    drop(second);
}

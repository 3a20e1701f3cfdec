//! Two clients of one account, on a clock that jumps ahead: what is under way when the tree changes
//! hands.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};
use xfer_client::core::{Core, HandleId, Link, Notice, Options, Trace};
use xfer_client::drive::{Kernel, Rescue, Writing};
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_protocol::{DeliveryId, Errno, Ino, Name};
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
    assert!(
        errors.len() == 1 && errors[0].contains("in memory, since neither sent nor kept"),
        "{errors:?}"
    );
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
    assert!(lost.ops > 0 && lost.to_string().contains("another client"), "{lost}");
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

/// Waits until a delivery of bob has arrived at alice's client, and pulls its cable before it is placed.
async fn pull_when_it_arrives(host: &Host, alice: &Files, cable: &Cable) {
    let bob = host.mount_with("bob", Purpose::Mount, roomy("bob"), Wiring::default());
    let bob = Files::of(bob.await.unwrap().client);
    bob.write("outbox/alice/sent", &TEXT).await.unwrap();
    while alice.status().waiting == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    cable.pull();
    bob.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_takes_the_tree_for_programs_and_not_to_place_what_arrived() {
    let host = Host::new(&["alice", "bob"]);
    let (first, cable) = client(&host, Purpose::Mount, LAG).await;
    pull_when_it_arrives(&host, &first, &cable).await;
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    // It keeps the tree for so long in any case.
    sleep(Duration::from_secs(3)).await;
    cable.plug_in();
    sleep(WAIT / 2).await;
    assert!(second.status().has_seat && !first.status().has_seat);
    assert!(second.exists("inbox/bob/sent").await.unwrap());
    assert!(first.exists("inbox/bob/sent").await.unwrap());
    assert!(first.status().has_seat, "a program needed it");
    first.finish().await.unwrap();
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_dialled_each_second_for_programs_only() {
    let host = Host::new(&["alice", "bob"]);
    let (alice, cable) = client(&host, Purpose::Mount, LAG).await;
    pull_when_it_arrives(&host, &alice, &cable).await;
    // The pauses have grown by then.
    sleep(Duration::from_secs(600)).await;
    let tries = async || {
        let mut next = BTreeSet::new();
        for _ in 0..60 {
            if let Link::Down { next_try: Some(at), .. } = alice.client().status().link {
                next.insert(at);
            }
            sleep(Duration::from_secs(1)).await;
        }
        next.len()
    };
    let idle = tries().await;
    assert!((1..=4).contains(&idle), "{idle} tries in a minute");
    let program = {
        let client = alice.client().clone();
        tokio::spawn(async move { Files::of(client).exists("file").await })
    };
    let hastened = tries().await;
    assert!(hastened > 30, "{hastened} tries in a minute");
    cable.plug_in();
    assert!(!program.await.unwrap().unwrap());
    alice.finish().await.unwrap();
}

/// A kernel that takes notices in, or is kept from that.
#[derive(Default)]
struct Forgetting {
    is_held: Mutex<bool>,
    released: Condvar,
    /// Whether it was told anything.
    is_told: AtomicBool,
}

impl Forgetting {
    fn hold(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.released.notify_all();
    }
}

impl Kernel for Forgetting {
    fn place(&self, _: DeliveryId, _: bool, _: &Name, _: &Name) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    fn write_back(&self, _: Ino) {}

    fn outdate(&self, _: &[Notice]) {
        self.is_told.store(true, Ordering::SeqCst);
        let is_held = self.is_held.lock().unwrap();
        drop(self.released.wait_while(is_held, |is_held| *is_held).unwrap());
    }

    fn notice(&self, _: Notice) {}
}

/// A program's read of a file on a client whose cable was pulled.
struct Reading {
    first: Files,
    cable: Cable,
    bytes: JoinHandle<Result<Vec<u8>, Errno>>,
}

impl Reading {
    async fn begin(host: &Host, kernel: &Arc<Forgetting>) -> Reading {
        let (maker, _) = client(host, Purpose::Mount, Duration::ZERO).await;
        maker.write("file", &TEXT).await.unwrap();
        maker.finish().await.unwrap();
        let (first, cable) = client(host, Purpose::Mount, Duration::ZERO).await;
        first.client().set_kernel(Some(kernel.clone()));
        first.stat("file").await.unwrap();
        cable.pull();
        let files = Files::of(first.client().clone());
        let bytes = tokio::spawn(async move { files.read("file").await });
        Reading { first, cable, bytes }
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_waits_for_the_link_waits_for_the_tree_if_another_client_has_it_by_then() {
    let host = Host::new(&["alice"]);
    let Reading { first, cable, bytes } = Reading::begin(&host, &Arc::default()).await;
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    // While a file is open for writing, the tree stays there.
    let open = second.create("open").await.unwrap();
    cable.plug_in();
    sleep(Duration::from_secs(600)).await;
    assert!(!first.status().has_seat && !bytes.is_finished());
    second.write("file", &Bytes::from_static(b"newer")).await.unwrap();
    open.close().await.unwrap();
    assert_eq!(bytes.await.unwrap().unwrap(), b"newer");
    first.finish().await.unwrap();
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_program_that_keeps_the_kernel_from_forgetting_what_is_old_is_refused_soon() {
    let (host, kernel) = (Host::new(&["alice"]), Arc::new(Forgetting::default()));
    let Reading { first, cable, bytes } = Reading::begin(&host, &kernel).await;
    let (second, _) = client(&host, Purpose::TakeOver, Duration::ZERO).await;
    let open = second.create("open").await.unwrap();
    // As by the lock of a page that the program reads.
    kernel.hold(true);
    cable.plug_in();
    while !kernel.is_told.load(Ordering::SeqCst) {
        advance(Duration::from_millis(100)).await;
    }
    // The clock does not jump ahead by itself while the kernel is busy.
    let mut waited = Duration::ZERO;
    while !bytes.is_finished() {
        advance(Duration::from_millis(100)).await;
        waited += Duration::from_millis(100);
        assert!(waited < Duration::from_secs(3), "it still waits after {waited:?}");
    }
    assert_eq!(bytes.await.unwrap(), Err(Errno::EBUSY));
    kernel.hold(false);
    // Then the clock jumps on, and programs wait again.
    sleep(Duration::from_secs(1)).await;
    open.close().await.unwrap();
    assert_eq!(first.read("file").await.unwrap(), TEXT);
    first.finish().await.unwrap();
    second.finish().await.unwrap();
}

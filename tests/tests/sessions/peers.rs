//! The client's core and the server's engine, connected by pipes in memory, on a clock that jumps
//! ahead when all tasks are idle: minutes or hours pass in milliseconds.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use xfer_client::core::{CopyRange, Core, Link, New, NewAttributes, Notice};
use xfer_client::drive::{Client, Kernel};
use xfer_protocol::message::{Opened, Purpose};
use xfer_protocol::tree::{Quota, Room};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};
use xfer_tests::cable::{Cable, Cut, Lane, LinkKind, Way, Wiring};
use xfer_tests::links::forgetful::Forgetful;
use xfer_tests::peers::{Host, OWNER, Peer, name, roomy};

async fn create(client: &Arc<Client>, file: &str, data: &'static [u8]) -> Result<Ino, Errno> {
    let file = name(file);
    let new = New::File { mode: 0o644 };
    let ino = client.call(move |s: &mut Core| Ok(s.make(Ino::ROOT, &file, &new, OWNER)?.0)).await?;
    let data = Bytes::from_static(data);
    client.call(move |s: &mut Core| s.write(ino, 0, &data, false)).await?;
    Ok(ino)
}

async fn read(client: &Arc<Client>, file: &str) -> Result<Vec<u8>, Errno> {
    let file = name(file);
    let found = client.call(move |s: &mut Core| s.lookup(Ino::ROOT, &file)).await?;
    let ino = found.ok_or(Errno::ENOENT)?.0;
    let handle = client.call(move |s: &mut Core| s.open(ino, false)).await?;
    client.call(move |s: &mut Core| s.read(handle, ino, 0..1 << 20)).await
}

/// A server with alice's account, and its disk, which others may fill.
async fn on_a_disk() -> (Host, Arc<Forgetful>) {
    let host = Host::simulated(&["alice"], Quota::UNLIMITED, 64 << 20).await;
    let disk = host.simulated.clone().unwrap().disk;
    (host, disk)
}

/// Returns how many seconds on that clock something takes.
async fn seconds<T>(what: impl Future<Output = T>) -> (T, f64) {
    let start = Instant::now();
    let result = what.await;
    (result, start.elapsed().as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_change_is_durable_within_two_seconds_though_nobody_asks() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"text").await.unwrap();
    let durable = async {
        while client.status().pending_ops > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (done, took) = seconds(timeout(Duration::from_secs(60), durable)).await;
    done.unwrap();
    assert!(took < 2.0, "{took} s");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_nothing_to_say_for_a_day_is_still_there() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"text").await.unwrap();
    sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(client.status().trouble().map(ToString::to_string), None);
    assert_eq!(read(&client, "file").await.unwrap(), b"text");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pulled_cable_is_noticed_in_ten_seconds_and_what_needs_the_server_waits_for_so_long() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let old = create(&client, "old", b"durable").await.unwrap();
    let open = client.call(move |s: &mut Core| s.open(old, false)).await.unwrap();
    client.sync().await.unwrap();
    // As when a laptop leaves a network.
    cable.pull();
    create(&client, "new", b"not durable").await.unwrap();
    let (settled, took) = seconds(client.sync()).await;
    assert_eq!(settled, Err(Errno::ETIMEDOUT), "an fsync on a dead link lied");
    assert!((30.0..=40.5).contains(&took), "{took} s");
    // Everything that is cached is there, and changes are made.
    let bytes = client.call(move |s: &mut Core| s.read(open, old, 0..100)).await;
    assert_eq!(bytes.unwrap(), b"durable");
    let (cached, took) = seconds(read(&client, "old")).await;
    assert_eq!((cached, took), (Ok(b"durable".to_vec()), 0.0));
    let (made, took) = seconds(create(&client, "later", b"")).await;
    assert!(made.is_ok() && took == 0.0, "{made:?} after {took} s");
    let (lost, took) = seconds(client.finish()).await;
    assert!((30.0..=30.5).contains(&took), "{took} s");
    assert_eq!(lost.unwrap_err().ops, 4);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_comes_and_goes_and_brings_nothing_about_is_waited_for_no_longer_than_asked() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    client.sync().await.unwrap();
    // Each link breaks with the first byte of an op.
    let (mut carried, broken) = (cable.carried(Way::Up), AtomicU64::new(0));
    cable.cut_after(Way::Up, 1);
    let cutting = async {
        loop {
            while cable.carried(Way::Up) == carried {
                sleep(Duration::from_millis(10)).await;
            }
            carried = cable.carried(Way::Up);
            cable.cut_after(Way::Up, 1);
            broken.fetch_add(1, Ordering::Relaxed);
        }
    };
    create(&client, "file", b"text").await.unwrap();
    let (settled, took) = tokio::select! {
        settled = seconds(client.sync()) => settled,
        () = cutting => unreachable!("it goes on for ever"),
    };
    assert_eq!(settled, Err(Errno::ETIMEDOUT));
    assert!((29.0..=45.0).contains(&took), "{took} s");
    assert!(broken.load(Ordering::Relaxed) > 5, "the links did not break");
    client.sync().await.unwrap();
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_a_change_waits_for_room_after_a_break_no_other_that_needs_room_keeps_its_program() {
    let (host, disk) = on_a_disk().await;
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "old", b"").await.unwrap();
    client.sync().await.unwrap();
    cable.pull();
    create(&client, "long", &[7; 300 << 10]).await.unwrap();
    disk.fill(Room { bytes: 100 << 10, files: 10 });
    cable.plug_in();
    assert_eq!(client.sync().await, Err(Errno::ENOSPC));
    let (refused, took) = seconds(create(&client, "short", b"text")).await;
    assert_eq!(refused, Err(Errno::ENOSPC));
    assert!(took < 2.0, "{took} s");
    disk.clear();
    sleep(Duration::from_secs(10)).await;
    client.sync().await.unwrap();
    assert_eq!(read(&client, "long").await.map(|bytes| bytes.len()), Ok(300 << 10));
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_less_than_it_says_is_full_for_programs_until_it_has_room() {
    let (host, disk) = on_a_disk().await;
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "old", b"").await.unwrap();
    client.sync().await.unwrap();
    disk.fill_unsaid(Room { bytes: 100 << 10, files: 10 });
    create(&client, "long", &[7; 300 << 10]).await.unwrap();
    let (refused, took) = seconds(client.sync()).await;
    assert_eq!(refused, Err(Errno::ENOSPC));
    assert!(took < 5.0, "{took} s");
    let (refused, took) = seconds(create(&client, "later", &[7; 300 << 10])).await;
    assert_eq!(refused, Err(Errno::ENOSPC));
    assert!(took < 5.0, "{took} s");
    // What was cached is read, and it is tried again until there is room.
    assert_eq!(read(&client, "long").await.map(|bytes| bytes.len()), Ok(300 << 10));
    sleep(Duration::from_secs(60)).await;
    disk.clear();
    sleep(Duration::from_secs(20)).await;
    client.sync().await.unwrap();
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn programs_that_need_different_room_at_once_are_both_told_that_the_disk_is_full() {
    let (host, disk) = on_a_disk().await;
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let old = create(&client, "old", b"text").await.unwrap();
    let new = create(&client, "new", b"").await.unwrap();
    client.finish().await.unwrap();
    disk.fill(Room { bytes: 10_000, files: 0 });
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    // The one needs more bytes than there are, and the other a file.
    let write = |ino, data: &'static [u8]| {
        let data = Bytes::from_static(data);
        client.call(move |s: &mut Core| s.write(ino, 4096, &data, false))
    };
    let both = async { tokio::join!(write(old, &[7; 20_000]), write(new, &[7; 100])) };
    let (both, took) = seconds(timeout(Duration::from_secs(10), both)).await;
    assert_eq!(both.unwrap(), (Err(Errno::ENOSPC), Err(Errno::ENOSPC)));
    assert!(took < 2.0, "{took} s");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_change_in_place_that_the_disk_refuses_is_told_too_and_made_once_it_can_be() {
    let (host, disk) = on_a_disk().await;
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let ino = create(&client, "file", &[7; 300 << 10]).await.unwrap();
    client.sync().await.unwrap();
    disk.fill_unsaid(Room::default());
    let new = Bytes::from_static(&[8; 300 << 10]);
    client.call(move |s: &mut Core| s.write(ino, 0, &new, false)).await.unwrap();
    let (refused, took) = seconds(client.sync()).await;
    assert_eq!(refused, Err(Errno::ENOSPC));
    assert!(took < 5.0, "{took} s");
    sleep(Duration::from_secs(60)).await;
    assert!(client.status().is_stuck);
    disk.clear();
    sleep(Duration::from_secs(20)).await;
    client.sync().await.unwrap();
    client.finish().await.unwrap();
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    assert_eq!(read(&client, "file").await.unwrap(), [8; 300 << 10]);
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_of_what_waits_for_room_times_out_and_any_other_goes_on() {
    let (host, disk) = on_a_disk().await;
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    for file in ["source", "other"] {
        create(&client, file, &[7; 300 << 10]).await.unwrap();
    }
    create(&client, "copy", b"").await.unwrap();
    client.finish().await.unwrap();
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let found = |file| client.call(move |s: &mut Core| s.lookup(Ino::ROOT, &name(file)));
    let (from, to) = (found("source").await.unwrap(), found("copy").await.unwrap());
    let (from, to) = (from.unwrap().0, to.unwrap().0);
    disk.fill_unsaid(Room::default());
    let copy = CopyRange { from, from_offset: 0, to, to_offset: 4096, len: 300 << 10 };
    client.call(move |s: &mut Core| s.copy_range(copy, false)).await.unwrap();
    assert_eq!(client.sync().await, Err(Errno::ENOSPC));
    let (unread, took) = seconds(read(&client, "copy")).await;
    assert_eq!(unread, Err(Errno::ETIMEDOUT));
    assert!((20.0..=61.0).contains(&took), "{took} s");
    assert_eq!(read(&client, "other").await.unwrap(), [7; 300 << 10]);
    disk.clear();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(read(&client, "copy").await.unwrap()[4096..], [7; 300 << 10]);
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_the_links_the_session_goes_on_and_each_change_is_made_once() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let break_link: [fn(&Cable); 2] = [Cable::cut, |cable| {
        let cable = cable.clone();
        cable.pull();
        tokio::spawn(async move {
            sleep(Duration::from_secs(20)).await;
            cable.plug_in();
        });
    }];
    for (round, break_link) in break_link.iter().cycle().take(6).enumerate() {
        create(&client, &format!("before {round}"), b"text").await.unwrap();
        break_link(&cable);
        create(&client, &format!("after {round}"), b"text").await.unwrap();
        client.sync().await.unwrap();
    }
    client.finish().await.unwrap();
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    for round in 0..6 {
        assert_eq!(read(&client, &format!("before {round}")).await.unwrap(), b"text");
        assert_eq!(read(&client, &format!("after {round}")).await.unwrap(), b"text");
    }
    let usage = client.status().usage;
    assert_eq!(usage.nodes, 3 + 12, "{usage:?}");
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_program_that_waits_has_the_server_dialled_within_a_second() {
    let host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    cable.pull();
    // By now the pauses between two tries are half a minute.
    sleep(Duration::from_secs(600)).await;
    cable.plug_in();
    let (synced, took) = {
        create(&client, "file", b"").await.unwrap();
        seconds(client.sync()).await
    };
    assert_eq!(synced, Ok(()));
    assert!(took <= 1.5, "{took} s");
    client.finish().await.unwrap();
}

/// How long the status says that it is until the next try.
fn next_try(client: &Client) -> Option<Duration> {
    match client.status().link {
        Link::Down { next_try, .. } => {
            Some(next_try?.saturating_duration_since(Instant::now().into_std()))
        }
        Link::Up | Link::Over(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_says_that_the_next_try_is_soon_while_a_program_waits() {
    let mut host = Host::new(&["alice"]);
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"").await.unwrap();
    client.sync().await.unwrap();
    host.kill();
    cable.cut();
    sleep(Duration::from_secs(600)).await;
    while next_try(&client).is_none_or(|next| next < Duration::from_secs(20)) {
        sleep(Duration::from_secs(1)).await;
    }
    create(&client, "other", b"").await.unwrap();
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.sync().await }
    });
    while next_try(&client).is_none_or(|next| next > Duration::from_secs(1)) {
        assert!(!waits.is_finished());
        sleep(Duration::from_millis(100)).await;
    }
    host.reopen(64 << 20);
    waits.await.unwrap().unwrap();
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_under_way_when_the_link_breaks_is_asked_again_over_the_next() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", &[7; 100_000]).await.unwrap();
    client.finish().await.unwrap();
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    cable.pull();
    let plug_in = async {
        sleep(Duration::from_secs(25)).await;
        cable.plug_in();
    };
    let (looked_up, ()) = tokio::join!(read(&client, "file"), plug_in);
    assert_eq!(looked_up.map(|bytes| bytes.len()), Ok(100_000));
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_is_asked_on_another_link_if_the_one_that_it_was_asked_on_falls_silent_alone() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", &[7; 100_000]).await.unwrap();
    client.finish().await.unwrap();
    for way in [Way::Up, Way::Down] {
        let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
        let lane = Lane { kind: LinkKind::Read, way };
        cable.end_after(lane, 10, Cut::Silent);
        assert_eq!(read(&client, "file").await.map(|bytes| bytes.len()), Ok(100_000), "{way:?}");
        assert!(cable.was_cut(lane));
        client.finish().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_shrinks_while_its_bytes_are_fetched_is_read_as_it_is_then() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let ino = create(&client, "file", &[7; 4096]).await.unwrap();
    client.finish().await.unwrap();
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    client.call(move |s: &mut Core| s.lookup(Ino::ROOT, &name("file"))).await.unwrap();
    cable.pull();
    let shrink = async {
        sleep(Duration::from_secs(1)).await;
        // The block that holds the rest stays, so that only the size tells what is no longer there.
        let new = NewAttributes { size: Some(100), ..NewAttributes::default() };
        client.call(move |s: &mut Core| s.set_attributes(ino, &new)).await.unwrap();
        cable.plug_in();
    };
    let (bytes, ()) = tokio::join!(read(&client, "file"), shrink);
    assert_eq!(bytes, Ok(vec![7; 100]));
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_takeover_waits_for_the_first_client_and_loses_nothing() {
    let host = Host::new(&["alice"]);
    let Peer { client: first, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    for number in 0..50 {
        create(&first, &format!("file {number}"), b"text").await.unwrap();
    }
    assert!(matches!(host.mount("alice", Purpose::Mount).await, Err(Opened::Refused(_))));
    let Peer { client: second, .. } = host.mount("alice", Purpose::TakeOver).await.unwrap();
    for number in 0..50 {
        assert_eq!(read(&second, &format!("file {number}")).await.unwrap(), b"text");
    }
    let status = first.status();
    assert!(!status.has_seat, "{status:?}");
    assert_eq!(status.other.map(|other| other.host), Some("laptop".to_owned()));
    let late = tokio::spawn(async move { create(&first, "late", b"").await });
    create(&second, "file", b"text").await.unwrap();
    second.finish().await.unwrap();
    late.await.unwrap().unwrap();
}

/// A kernel that keeps a program's writes to a mapping until it is asked to write them back.
struct Keeper(Weak<Client>);

impl Kernel for Keeper {
    fn place(&self, _: DeliveryId, _: bool, _: &Name, _: &Name) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn write_back(&self, ino: Ino) {
        let write = move |state: &mut Core| state.write(ino, 0, &"mapped".into(), false);
        self.0.upgrade().unwrap().run(write, |result| result.unwrap());
    }

    fn outdate(&self, _: &[Notice]) {}

    fn notice(&self, _: Notice) {}
}

/// A client whose file `file` is open for writing, mapped, and not written back.
async fn with_mapped_file(host: &Host) -> Peer {
    let peer = host.mount("alice", Purpose::Mount).await.unwrap();
    peer.client.set_kernel(Some(Arc::new(Keeper(Arc::downgrade(&peer.client)))));
    let ino = create(&peer.client, "file", b"").await.unwrap();
    peer.client.call(move |state: &mut Core| state.open(ino, true)).await.unwrap();
    peer
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_has_of_mapped_files_is_written_back_before_a_session_settles_or_ends() {
    let host = Host::new(&["alice"]);
    let Peer { client: synced, cable, .. } = with_mapped_file(&host).await;
    synced.sync().await.unwrap();
    cable.pull();
    let Peer { client: second, .. } = host.mount("alice", Purpose::TakeOver).await.unwrap();
    assert_eq!(read(&second, "file").await.unwrap(), b"mapped");
    second.finish().await.unwrap();

    let host = Host::new(&["alice"]);
    let Peer { client: _first, .. } = with_mapped_file(&host).await;
    let Peer { client: second, .. } = host.mount("alice", Purpose::TakeOver).await.unwrap();
    assert_eq!(read(&second, "file").await.unwrap(), b"mapped");
    second.finish().await.unwrap();

    let host = Host::new(&["alice"]);
    with_mapped_file(&host).await.client.finish().await.unwrap();
    let Peer { client: second, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    assert_eq!(read(&second, "file").await.unwrap(), b"mapped");
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_the_client_ends_its_session_and_tells_the_program_that_met_it() {
    let host = Host::new(&["alice"]);
    let Peer { client, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&client, "file", b"text").await.unwrap();
    client.sync().await.unwrap();
    let met = client.call(|_: &mut Core| -> Result<(), _> { panic!("a fault") }).await;
    assert_eq!(met, Err(Errno::EIO));
    // No half-changed state is shown, and the server admits the next login.
    assert_eq!(create(&client, "late", b"").await, Err(Errno::EIO));
    let trouble = client.status().trouble().map(ToString::to_string).unwrap();
    assert!(trouble.contains("a fault in this program"), "{trouble}");
    let second = loop {
        match host.mount("alice", Purpose::Mount).await {
            Ok(Peer { client, .. }) => break client,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(read(&second, "file").await.unwrap(), b"text");
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_first_client_that_does_not_answer_holds_a_takeover_up_for_seconds_only() {
    let host = Host::new(&["alice"]);
    let Peer { client: first, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    create(&first, "file", b"text").await.unwrap();
    first.sync().await.unwrap();
    cable.pull();
    let (second, took) = seconds(host.mount("alice", Purpose::TakeOver)).await;
    assert!(took <= 30.0, "{took} s");
    let Peer { client: second, .. } = second.unwrap();
    assert_eq!(read(&second, "file").await.unwrap(), b"text");
    second.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_first_makes_all_durable_that_its_clients_have() {
    let mut host = Host::new(&["alice", "bob"]);
    let Peer { client: alice, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let Peer { client: bob, .. } = host.mount("bob", Purpose::Mount).await.unwrap();
    create(&alice, "file", b"alice's").await.unwrap();
    create(&bob, "file", b"bob's").await.unwrap();
    let ((), took) = seconds(host.engine.stop(Duration::from_secs(10))).await;
    assert!(took <= 1.0, "{took} s");
    for client in [&alice, &bob] {
        assert_eq!(client.status().pending_ops, 0);
        assert_eq!(client.status().ending(), None);
    }
    let made = create(&alice, "while the server is away", b"").await.map(drop);
    assert_eq!(made, Ok(()));
    host.reopen(64 << 20);
    assert_eq!(alice.finish().await, Ok(()));
    assert_eq!(bob.finish().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_two_programs_close_at_once_is_sent_once_and_without_a_complaint() {
    let host = Host::new(&["alice", "bob"]);
    // While one program asks for room in bob's inbox, the other one does, too.
    let wiring = Wiring { lag: Duration::from_millis(100), ..Wiring::default() };
    let mounted = host.mount_with("alice", Purpose::Mount, roomy("alice"), wiring).await;
    let Peer { client, .. } = mounted.unwrap();
    client.make_mailboxes().await.unwrap();
    let (_, mailbox) = client
        .call(|s: &mut Core| s.lookup(Ino::OUTBOX, &name("bob")))
        .await
        .map(|found| ((), found.unwrap().0))
        .unwrap();
    let file = name("letter");
    let created = client.call(|s: &mut Core| s.create(mailbox, &file, 0o644, OWNER, true)).await;
    let ((ino, _), writer) = created.unwrap();
    let reader = client.call(|s: &mut Core| s.open(ino, false)).await.unwrap();
    let close = async |handle| {
        let closed = client.call(|s: &mut Core| {
            s.note_synced(handle);
            s.close(handle);
            s.send_if_whole(ino)
        });
        closed.await
    };
    assert_eq!(tokio::join!(close(writer), close(reader)), (Ok(()), Ok(())));
    assert_eq!(client.status().errors, [] as [String; 0]);
    client.finish().await.unwrap();
    assert_eq!(host.waiting(&name("bob")).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_a_second_name_is_sent_once_and_is_a_record_under_both() {
    let host = Host::new(&["alice", "bob"]);
    let mount = async || host.mount("alice", Purpose::Mount).await.unwrap().client;
    let waiting = async || host.waiting(&name("bob")).await.len();
    let client = mount().await;
    client.make_mailboxes().await.unwrap();
    let mailbox = client.call(|s: &mut Core| s.lookup(Ino::OUTBOX, &name("bob"))).await;
    let (mailbox, _) = mailbox.unwrap().unwrap();
    let (letter, other) = (name("letter"), name("other"));
    let created = client.call(|s: &mut Core| s.create(mailbox, &letter, 0o644, OWNER, true)).await;
    let ((ino, _), writer) = created.unwrap();
    client.call(|s: &mut Core| s.link(ino, Ino::ROOT, &other)).await.unwrap();
    let closed = client.call(|s: &mut Core| {
        s.note_synced(writer);
        s.close(writer);
        s.send_if_whole(ino)
    });
    closed.await.unwrap();
    let found = client.call(|s: &mut Core| s.lookup(Ino::ROOT, &other)).await.unwrap();
    assert!(found.unwrap().1.sent.is_some());
    client.finish().await.unwrap();
    assert_eq!(waiting().await, 1);
    for _ in 0..2 {
        mount().await.finish().await.unwrap();
        assert_eq!(waiting().await, 1, "it was sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn arrivals_of_one_name_are_placed_without_looking_at_each_of_them_again() {
    const COUNT: usize = 1200;
    let host = Host::new(&["alice", "bob"]);
    let alice = host.mount("alice", Purpose::Mount).await.unwrap().client;
    alice.make_mailboxes().await.unwrap();
    let (mailbox, _) =
        alice.call(|s: &mut Core| s.lookup(Ino::OUTBOX, &name("bob"))).await.unwrap().unwrap();
    let file = name("a.txt");
    for _ in 0..COUNT {
        let created = alice.call(|s: &mut Core| s.create(mailbox, &file, 0o644, OWNER, true)).await;
        let ((ino, _), writer) = created.unwrap();
        let closed = alice.call(|s: &mut Core| {
            s.note_synced(writer);
            s.close(writer);
            s.send_if_whole(ino)
        });
        closed.await.unwrap();
        alice.call(|s: &mut Core| s.unlink(mailbox, &file)).await.unwrap();
    }
    alice.finish().await.unwrap();
    let bob = host.mount("bob", Purpose::Mount).await.unwrap().client;
    let all = timeout(Duration::from_secs(3600), async {
        while !host.waiting(&name("bob")).await.is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    all.await.unwrap();
    let from = bob.call(|s: &mut Core| s.lookup(Ino::INBOX, &name("alice"))).await.unwrap();
    let (from, _) = from.unwrap();
    for number in 2..=COUNT {
        let name = name(&format!("a ({number}).txt"));
        let found = bob.call(|s: &mut Core| s.lookup(from, &name)).await.unwrap();
        assert!(found.is_some(), "{name}");
    }
    bob.finish().await.unwrap();
}

/// What a client loses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    Link,
    Server,
}

/// What is said in the minute in which a client comes back, with so much that it knows.
#[derive(Debug)]
struct Said {
    /// Bytes, by lane.
    bytes: [u64; 4],
    /// Questions.
    asked: u64,
}

const LANES: [Lane; 4] = [
    Lane { kind: LinkKind::Log, way: Way::Up },
    Lane { kind: LinkKind::Log, way: Way::Down },
    Lane { kind: LinkKind::Read, way: Way::Up },
    Lane { kind: LinkKind::Read, way: Way::Down },
];

/// Has a client come back that knows so many files and has some of them open, and says what that took.
async fn coming_back(known: usize, open: usize, lost: Lost) -> Said {
    let mut host = Host::simulated(&["alice"], Quota::UNLIMITED, 64 << 20).await;
    // What is said as a link begins counts, too.
    host.guard().await;
    let Peer { client, cable, .. } = host.mount("alice", Purpose::Mount).await.unwrap();
    let mut files = Vec::new();
    for number in 0..known {
        files.push(create(&client, &number.to_string(), b"text").await.unwrap());
    }
    for ino in files.iter().take(open).copied() {
        client.call(move |s: &mut Core| s.open(ino, true)).await.unwrap();
    }
    client.sync().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let before = LANES.map(|lane| cable.carried(lane));
    match lost {
        Lost::Link => cable.cut(),
        Lost::Server => {
            host.kill();
            cable.cut();
            host.reopen(64 << 20);
        }
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(client.status().link, Link::Up);
    let after = LANES.map(|lane| cable.carried(lane));
    // What it knew, it knows.
    for ino in files {
        client.call(move |s: &mut Core| s.attributes(ino)).await.unwrap();
    }
    let asked = host.engine.counts(&name("alice")).unwrap().reads;
    client.finish().await.unwrap();
    let mut bytes = after;
    bytes.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    Said { bytes, asked }
}

#[tokio::test(start_paused = true)]
async fn to_come_back_takes_no_more_for_a_client_that_knows_much_and_has_many_files_open() {
    for lost in [Lost::Link, Lost::Server] {
        let (little, much) =
            (coming_back(10, 2, lost).await, coming_back(5_000, 1_000, lost).await);
        println!("{lost:?}: {little:?}, {much:?}");
        assert!(little.bytes[0] > 100 && little.bytes[1] > 100, "it did not come back");
        assert_eq!(little.asked, much.asked, "{lost:?}");
        for (little, much) in little.bytes.into_iter().zip(much.bytes) {
            // Larger numbers take a few more bytes.
            assert!(much <= little + 100, "{lost:?}: {much} bytes, not {little}");
        }
    }
}

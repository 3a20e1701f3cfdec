//! A tree by path, without a kernel: what a program that is no mount does with it.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::Quota;
use xfer_protocol::{Errno, Name};
use xfer_tests::peers::{Host, name};

async fn files(host: &Host, user: &str) -> Files {
    let peer = host.mount(user, Purpose::Mount).await.unwrap();
    peer.client.make_mailboxes().await.unwrap();
    Files::of(peer.client)
}

async fn names(files: &Files, path: &str) -> Vec<String> {
    files.list(path).await.unwrap().iter().map(|entry| entry.name.to_string()).collect()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Waits until something of this user is in an inbox.
async fn arrival(files: &Files, sender: &str, what: &str) {
    let path = format!("inbox/{sender}/{what}");
    while !files.exists(&path).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_by_path_is_read_back_by_the_next_session() {
    let host = Host::new(&["alice"]);
    let alice = files(&host, "alice").await;
    alice.make_directory("/notes").await.unwrap();
    let long = Bytes::from(vec![7; 3 << 20]);
    alice.write("notes/long", &long).await.unwrap();
    alice.write("notes/short", &bytes("one")).await.unwrap();
    alice.write("notes/short", &bytes("2")).await.unwrap();
    alice.make_link("notes/link", bytes("short")).await.unwrap();
    alice.rename("notes/short", "notes/renamed").await.unwrap();
    alice.finish().await.unwrap();

    let alice = files(&host, "alice").await;
    assert_eq!(names(&alice, "").await, ["inbox", "notes", "outbox"]);
    assert_eq!(names(&alice, "notes").await, ["link", "long", "renamed"]);
    assert_eq!(alice.read("notes/long").await.unwrap(), long);
    assert_eq!(alice.read("notes/renamed").await.unwrap(), b"2");
    assert_eq!(alice.read_link("notes/link").await.unwrap(), "short");
    assert_eq!(alice.stat("notes/long").await.unwrap().1.file().unwrap().size, 3 << 20);
    alice.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_can_t_be_done_by_path_is_refused_as_on_a_mount() {
    let host = Host::new(&["alice"]);
    let alice = files(&host, "alice").await;
    alice.write("file", &bytes("x")).await.unwrap();
    alice.make_directory("directory").await.unwrap();
    alice.write("directory/file", &bytes("x")).await.unwrap();
    assert_eq!(alice.stat("nothing").await, Err(Errno::ENOENT));
    assert_eq!(alice.stat("file/within").await, Err(Errno::ENOTDIR));
    assert_eq!(alice.stat("directory/../file").await, Err(Errno::EINVAL));
    assert_eq!(alice.list("file").await, Err(Errno::ENOTDIR));
    assert_eq!(alice.read("directory").await, Err(Errno::EISDIR));
    assert_eq!(alice.make_directory("file").await, Err(Errno::EEXIST));
    assert_eq!(alice.remove("directory").await, Err(Errno::ENOTEMPTY));
    assert_eq!(alice.remove("/").await, Err(Errno::EBUSY));
    assert_eq!(alice.copy("file", "directory").await, Err(Errno::EEXIST));
    alice.remove("directory/file").await.unwrap();
    alice.remove("directory").await.unwrap();
    assert_eq!(names(&alice, "").await, ["file", "inbox", "outbox"]);
    alice.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_copied_whole_and_its_data_is_not_sent_again() {
    let host = Host::new(&["alice"]);
    let alice = files(&host, "alice").await;
    alice.make_directory("a").await.unwrap();
    alice.make_directory("a/b").await.unwrap();
    alice.write("a/b/file", &Bytes::from(vec![1; 1 << 20])).await.unwrap();
    alice.make_link("a/link", bytes("b/file")).await.unwrap();
    alice.sync().await.unwrap();
    alice.copy("a", "copy").await.unwrap();
    // Only the ops wait to be sent.
    assert!(alice.status().pending_bytes < 64 << 10, "{}", alice.status().pending_bytes);
    assert_eq!(names(&alice, "copy").await, ["b", "link"]);
    assert_eq!(alice.read("copy/b/file").await.unwrap(), vec![1; 1 << 20]);
    alice.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_and_a_directory_are_sent_by_path_and_arrive_in_the_inbox() {
    let host = Host::new(&["alice", "bob"]);
    let (alice, bob) = (files(&host, "alice").await, files(&host, "bob").await);
    alice.write("letter", &bytes("hello")).await.unwrap();
    alice.make_directory("photos").await.unwrap();
    alice.write("photos/1", &bytes("one")).await.unwrap();
    let to: Name = name("bob");
    alice.send("letter", &to).await.unwrap();
    alice.send("photos", &to).await.unwrap();
    assert_eq!(alice.send("letter", &to).await, Err(Errno::EEXIST));
    assert_eq!(alice.send("letter", &name("carol")).await, Err(Errno::ENOENT));
    arrival(&bob, "alice", "letter").await;
    arrival(&bob, "alice", "photos").await;
    let arrived = bob.inbox().await.unwrap();
    let arrived: Vec<_> =
        arrived.iter().map(|one| (one.sender.to_string(), one.entry.name.to_string())).collect();
    let from_alice = |what: &str| ("alice".to_owned(), what.to_owned());
    assert_eq!(arrived, [from_alice("letter"), from_alice("photos")]);
    assert_eq!(bob.read("inbox/alice/photos/1").await.unwrap(), b"one");
    assert_eq!(names(&alice, "").await, ["inbox", "letter", "outbox", "photos"]);
    alice.remove_all("photos").await.unwrap();
    assert!(!alice.exists("photos").await.unwrap());
    alice.finish().await.unwrap();
    bob.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handles_are_released_when_they_are_dropped() {
    let host = Host::new(&["alice"]);
    let alice = files(&host, "alice").await;
    let before = alice.status().usage;
    alice.write("file", &bytes("x")).await.unwrap();
    let open = alice.open_file("file").await.unwrap();
    alice.remove("file").await.unwrap();
    assert_eq!(open.read_at(0, 10).await.unwrap(), b"x", "it stays as long as it is open");
    assert_ne!(alice.status().usage, before);
    drop(open);
    assert_eq!(alice.status().usage, before, "it goes with its last handle");
    alice.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_dropped_and_not_closed_is_not_sent() {
    let host = Host::new(&["alice", "bob"]);
    let alice = files(&host, "alice").await;
    let half = alice.create("outbox/bob/half").await.unwrap();
    half.write_at(0, &bytes("half of it")).await.unwrap();
    drop(half);
    let whole = alice.create("outbox/bob/whole").await.unwrap();
    whole.write_at(0, &bytes("all of it")).await.unwrap();
    whole.close().await.unwrap();
    alice.sync().await.unwrap();
    let status = alice.status();
    assert_eq!(status.unsent.held, 1, "{:?}", status.unsent_files);
    assert!(alice.stat("outbox/bob/whole").await.unwrap().1.sent.is_some());
    assert!(alice.stat("outbox/bob/half").await.unwrap().1.sent.is_none());
    alice.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_without_room_is_refused_and_stays_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let quota = Quota { bytes: 1 << 20, nodes: 100 };
    let host = Host::with(directory.path(), &["alice"], quota, 64 << 20);
    let alice = files(&host, "alice").await;
    let refused = alice.write("large", &Bytes::from(vec![1; 2 << 20])).await;
    assert_eq!(refused, Err(Errno::EDQUOT));
    alice.remove("large").await.unwrap();
    alice.write("small", &bytes("x")).await.unwrap();
    alice.finish().await.unwrap();
}

//! The client's memory for a tree is bounded, and everything works within the bound.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use xfer_client::core::Options;
use xfer_client::files::Files;
use xfer_protocol::message::Purpose;
use xfer_tests::cable::Wiring;
use xfer_tests::peers::{Host, Peer, name, roomy};

/// Room for a few hundred files.
const LITTLE: usize = 128 << 10;

async fn mount(host: &Host, user: &str, tree_bytes: usize) -> Files {
    let options = Options { tree_bytes, ..roomy(user) };
    let Peer { client, .. } =
        host.mount_with(user, Purpose::Mount, options, Wiring::default()).await.unwrap();
    Files::of(client)
}

async fn make_files(files: &Files, parent: &str, count: usize) {
    for number in 0..count {
        files.write(format!("{parent}/file-{number:05}"), &Bytes::new()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_larger_than_the_bound_is_listed_whole_and_forgotten_again() {
    const FILES: usize = 3000;
    let host = Host::new(&["alice"]);
    let files = mount(&host, "alice", LITTLE).await;
    files.make_directory("large").await.unwrap();
    make_files(&files, "large", FILES).await;
    files.finish().await.unwrap();

    let files = mount(&host, "alice", LITTLE).await;
    let entries = files.list("large").await.unwrap();
    let expected: BTreeSet<String> = (0..FILES).map(|number| format!("file-{number:05}")).collect();
    assert_eq!(entries.len(), FILES, "a name is missing or listed twice");
    assert_eq!(
        entries.iter().map(|entry| entry.name.to_string()).collect::<BTreeSet<_>>(),
        expected
    );
    drop(entries);
    assert!(files.status().tree_bytes <= LITTLE, "{} bytes", files.status().tree_bytes);
    assert!(!files.exists("large/no such file").await.unwrap());
    let found = files.stat("large/file-01234").await.unwrap();
    assert_eq!(found.1.mode, 0o600);
    files.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_walk_over_a_tree_larger_than_the_bound_stays_within_it() {
    const DIRECTORIES: usize = 60;
    const FILES: usize = 50;
    let host = Host::new(&["alice"]);
    let files = mount(&host, "alice", LITTLE).await;
    let directory = |number: usize| format!("directory-{number}");
    for number in 0..DIRECTORIES {
        files.make_directory(directory(number)).await.unwrap();
        make_files(&files, &directory(number), FILES).await;
        // Changes that are not durable must stay in memory.
        files.sync().await.unwrap();
        assert!(files.status().tree_bytes <= 2 * LITTLE, "{}", files.status().tree_bytes);
    }
    for number in (0..DIRECTORIES).chain(0..DIRECTORIES) {
        assert_eq!(files.list(directory(number)).await.unwrap().len(), FILES);
        assert!(files.status().tree_bytes <= 2 * LITTLE, "{}", files.status().tree_bytes);
    }
    files.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_without_a_name_goes_when_it_is_closed_though_much_was_forgotten_meanwhile() {
    let host = Host::new(&["alice"]);
    let files = mount(&host, "alice", LITTLE).await;
    files.write("file", &Bytes::new()).await.unwrap();
    let file = files.open_file("file").await.unwrap();
    let with_file = files.status().usage.nodes;
    files.remove("file").await.unwrap();
    files.make_directory("other").await.unwrap();
    make_files(&files, "other", 1000).await;
    files.sync().await.unwrap();
    assert_eq!(files.status().usage.nodes, with_file + 1001, "it is still open");
    drop(file);
    assert_eq!(files.status().usage.nodes, with_file + 1000);
    files.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_directory_larger_than_the_bound_is_sent_whole() {
    const DIRECTORIES: usize = 40;
    const FILES: usize = 25;
    let host = Host::new(&["alice", "bob"]);
    let files = mount(&host, "alice", LITTLE).await;
    files.make_directory("present").await.unwrap();
    for number in 0..DIRECTORIES {
        let part = format!("present/part-{number}");
        files.make_directory(&part).await.unwrap();
        make_files(&files, &part, FILES).await;
    }
    files.sync().await.unwrap();
    files.finish().await.unwrap();

    let files = mount(&host, "alice", LITTLE).await;
    files.rename("present", "outbox/bob/present").await.unwrap();
    files.finish().await.unwrap();
    let waiting = host.waiting(&name("bob")).await;
    let items: Vec<usize> = waiting.iter().map(|head| head.items as usize).collect();
    assert_eq!(items, [1 + DIRECTORIES * (1 + FILES)]);
}

//! The client's memory for a tree is bounded, and everything works within the bound.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use xfer_client::client::{Client, Found, New, Options, State};
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::RenameMode;
use xfer_protocol::{Errno, Ino, Name};
use xfer_store::MetaStore;
use xfer_tests::peers::{Host, OWNER, Peer, Wiring, name, roomy};

/// Room for a few hundred files.
const LITTLE: usize = 128 << 10;

async fn mount(host: &Host, user: &str, tree_bytes: usize) -> Arc<Client> {
    let options = Options { tree_bytes, ..roomy(user) };
    let Peer { client, .. } =
        host.mount_with(user, Purpose::Mount, options, Wiring::default()).await.unwrap();
    client
}

async fn make(client: &Arc<Client>, parent: Ino, file: &str, new: New) -> Ino {
    let file = name(file);
    let make = move |s: &mut State| Ok(s.make(parent, &file, &new, OWNER)?.0);
    client.call(make).await.unwrap()
}

async fn make_files(client: &Arc<Client>, parent: Ino, count: usize) {
    for number in 0..count {
        make(client, parent, &format!("file-{number:05}"), New::File { mode: 0o644 }).await;
    }
}

async fn lookup(client: &Arc<Client>, parent: Ino, file: &str) -> Option<Found> {
    let file = name(file);
    client.call(move |s: &mut State| s.lookup(parent, &file)).await.unwrap()
}

/// The names in a directory, as one listing shows them.
async fn list(client: &Arc<Client>, directory: Ino) -> Vec<Vec<u8>> {
    let open = move |s: &mut State| s.open_directory(directory);
    let handle = client.call(open).await.unwrap();
    let (mut names, mut place) = (Vec::new(), 0);
    loop {
        let listed = client.call(move |s: &mut State| s.list(handle, place)).await.unwrap();
        let Some(last) = listed.last() else { break };
        place = last.next;
        names.extend(listed.into_iter().map(|entry| entry.name));
    }
    let close = move |s: &mut State| {
        s.close(handle);
        Ok(())
    };
    client.call(close).await.unwrap();
    names
}

#[tokio::test(start_paused = true)]
async fn a_directory_larger_than_the_bound_is_listed_whole_and_forgotten_again() {
    const FILES: usize = 3000;
    let host = Host::new(&["alice"]);
    let client = mount(&host, "alice", LITTLE).await;
    let large = make(&client, Ino::ROOT, "large", New::Directory { mode: 0o755 }).await;
    make_files(&client, large, FILES).await;
    client.finish().await.unwrap();

    let client = mount(&host, "alice", LITTLE).await;
    let large = lookup(&client, Ino::ROOT, "large").await.unwrap().0;
    let names = list(&client, large).await;
    let expected: BTreeSet<Vec<u8>> =
        (0..FILES).map(|number| format!("file-{number:05}").into_bytes()).collect();
    assert_eq!(names.len(), FILES + 2, "a name is missing or listed twice");
    assert!(expected.is_subset(&names.into_iter().collect()));
    assert!(client.standing().tree_bytes <= LITTLE, "{} bytes", client.standing().tree_bytes);
    assert_eq!(lookup(&client, large, "no such file").await, None);
    let found = lookup(&client, large, "file-01234").await.unwrap();
    assert_eq!(found.1.mode, 0o644);
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_walk_over_a_tree_larger_than_the_bound_stays_within_it() {
    const DIRECTORIES: usize = 60;
    const FILES: usize = 50;
    let host = Host::new(&["alice"]);
    let client = mount(&host, "alice", LITTLE).await;
    for number in 0..DIRECTORIES {
        let new = New::Directory { mode: 0o755 };
        let directory = make(&client, Ino::ROOT, &format!("directory-{number}"), new).await;
        make_files(&client, directory, FILES).await;
        // Changes that are not durable must stay in memory.
        client.settle().await.unwrap();
        assert!(client.standing().tree_bytes <= 2 * LITTLE, "{}", client.standing().tree_bytes);
    }
    for number in (0..DIRECTORIES).chain(0..DIRECTORIES) {
        let directory = lookup(&client, Ino::ROOT, &format!("directory-{number}")).await.unwrap().0;
        assert_eq!(list(&client, directory).await.len(), FILES + 2);
        assert!(client.standing().tree_bytes <= 2 * LITTLE, "{}", client.standing().tree_bytes);
    }
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_without_a_name_goes_when_it_is_closed_though_much_was_forgotten_meanwhile() {
    let host = Host::new(&["alice"]);
    let client = mount(&host, "alice", LITTLE).await;
    let file = make(&client, Ino::ROOT, "file", New::File { mode: 0o644 }).await;
    let with_file = client.standing().usage.nodes;
    let unlink = |s: &mut State| s.unlink(Ino::ROOT, &name("file"));
    client.call(unlink).await.unwrap();
    let other = make(&client, Ino::ROOT, "other", New::Directory { mode: 0o755 }).await;
    make_files(&client, other, 1000).await;
    client.settle().await.unwrap();
    assert_eq!(client.standing().usage.nodes, with_file + 1001, "it is still open");
    let forget = move |s: &mut State| {
        s.forget(file, 1);
        Ok(())
    };
    client.call(forget).await.unwrap();
    assert_eq!(client.standing().usage.nodes, with_file + 1000);
    client.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_directory_larger_than_the_bound_is_sent_whole() {
    const DIRECTORIES: usize = 40;
    const FILES: usize = 25;
    let host = Host::new(&["alice", "bob"]);
    let client = mount(&host, "alice", LITTLE).await;
    let new = New::Directory { mode: 0o755 };
    let present = make(&client, Ino::ROOT, "present", new.clone()).await;
    for number in 0..DIRECTORIES {
        let part = make(&client, present, &format!("part-{number}"), new.clone()).await;
        make_files(&client, part, FILES).await;
    }
    client.settle().await.unwrap();
    client.finish().await.unwrap();

    let client = mount(&host, "alice", LITTLE).await;
    let mailbox = lookup(&client, Ino::OUTBOX, "bob").await.unwrap().0;
    let (from, to): ((Ino, Name), (Ino, Name)) =
        ((Ino::ROOT, name("present")), (mailbox, name("present")));
    let send = move |s: &mut State| s.rename(&from, &to, RenameMode::Replace);
    assert_eq!(client.call(send).await, Ok::<(), Errno>(()));
    client.finish().await.unwrap();
    let bob = host.meta.account(&name("bob")).unwrap().unwrap();
    let waiting = host.meta.waiting_after(bob.id, 0, usize::MAX).unwrap();
    let items: Vec<usize> = waiting.iter().map(|(_, head)| head.items as usize).collect();
    assert_eq!(items, [1 + DIRECTORIES * (1 + FILES)]);
}

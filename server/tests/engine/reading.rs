//! Questions on read links.

use xfer_link::receive;
use xfer_protocol::limits::READ_BYTES_MAX;
use xfer_protocol::message::{Answer, Ask, Opened, Page, ReadError, Refusal, Secret};
use xfer_protocol::{ContentId, Ino, Name, Seq};

use crate::client::Reads;
use crate::world::{World, name};

async fn list(reads: &mut Reads, seq: Seq, directory: Ino, after: Option<Name>) -> Vec<Page> {
    match reads.ask(seq, Ask::List { directory, after }).await.0 {
        Ok(Answer::Pages(pages)) => pages,
        other => panic!("{other:?}"),
    }
}

fn names(page: &Page) -> Vec<String> {
    page.entries.iter().map(|entry| entry.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_the_op_it_is_after() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mut reads = world.reads(&alice.grant).await;
    let ino = Ino(alice.grant.ids[0].first);
    let late = reads.say(Seq(1), Ask::Node(ino)).await;
    let early = reads.say(Seq(0), Ask::Node(ino)).await;
    let (first, _) = reads.next().await;
    assert_eq!((first.id, first.answer), (early, Ok(Answer::Node(None))));
    alice.create(Ino::ROOT, "file").await;
    let (second, _) = reads.next().await;
    assert_eq!(second.id, late);
    assert!(matches!(second.answer, Ok(Answer::Node(Some(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_shows_what_is_applied_and_not_only_what_is_durable() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let directory = alice.mkdir(Ino::ROOT, "directory").await;
    for file in ["a", "b", "c"] {
        alice.create(directory, file).await;
    }
    alice.logout().await;
    let mut alice = world.login("alice").await;
    let mut reads = world.reads(&alice.grant).await;
    alice.unlink(directory, "b").await;
    alice.create(directory, "bb").await;
    let grown = alice.create(directory, "d").await;
    alice.write(grown, 0, b"12345").await;
    let pages = list(&mut reads, alice.seq, directory, None).await;
    assert_eq!(names(&pages[0]), ["a", "bb", "c", "d"]);
    assert!(pages[0].last);
    assert_eq!(pages[0].entries[3].node.file().unwrap().size, 5);
    let pages = list(&mut reads, alice.seq, directory, Some(name("bb"))).await;
    assert_eq!(names(&pages[0]), ["c", "d"]);
    let (file, _) = reads.ask(alice.seq, Ask::List { directory: grown, after: None }).await;
    assert_eq!(file, Err(ReadError::NoDirectory));
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_within_come_along() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let outer = alice.mkdir(Ino::ROOT, "outer").await;
    let inner = alice.mkdir(outer, "inner").await;
    alice.create(inner, "file").await;
    let mut reads = world.reads(&alice.grant).await;
    let pages = list(&mut reads, alice.seq, Ino::ROOT, None).await;
    let directories: Vec<Ino> = pages.iter().map(|page| page.directory).collect();
    assert_eq!(directories[0], Ino::ROOT);
    assert!(directories.contains(&outer) && directories.contains(&inner));
    assert!(pages.iter().all(|page| page.last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_comes_in_pages_whole_and_in_order() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let directory = alice.mkdir(Ino::ROOT, "large").await;
    let expected: Vec<String> = (0..6_000).map(|file| format!("file{file:05}")).collect();
    for file in &expected[..5_000] {
        alice.create(directory, file).await;
    }
    alice.logout().await;
    let mut alice = world.login("alice").await;
    for file in &expected[5_000..] {
        alice.create(directory, file).await;
    }
    let mut reads = world.reads(&alice.grant).await;
    let (mut found, mut after, mut count) = (Vec::new(), None, 0);
    loop {
        let pages = list(&mut reads, alice.seq, directory, after).await;
        found.extend(names(&pages[0]));
        after = pages[0].entries.last().map(|entry| entry.name.clone());
        count += 1;
        if pages[0].last {
            break;
        }
    }
    assert_eq!(found, expected);
    assert!(count > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_those_of_the_node_that_is_asked_about() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mut reads = world.reads(&alice.grant).await;
    let ino = alice.create(Ino::ROOT, "file").await;
    let content = alice.write(ino, 0, b"0123456789").await;
    let read = |content, offset, len| Ask::Read { ino, content, offset, len };
    let seq = alice.seq;
    let (answer, data) = reads.ask(seq, read(content, 3, 4)).await;
    assert_eq!((answer, &*data), (Ok(Answer::Data), &b"3456"[..]));
    let (answer, data) = reads.ask(seq, read(content, 8, 2)).await;
    assert_eq!((answer, &*data), (Ok(Answer::Data), &b"89"[..]));
    let (answer, _) = reads.ask(seq, read(content, 8, 3)).await;
    assert_eq!(answer, Err(ReadError::OtherContent), "past the end");
    let (answer, _) = reads.ask(seq, read(ContentId(content.0 + 1), 0, 1)).await;
    assert_eq!(answer, Err(ReadError::OtherContent));
    let (answer, _) = reads.ask(seq, read(content, 0, READ_BYTES_MAX as u32 + 1)).await;
    assert_eq!(answer, Err(ReadError::Invalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_link_needs_the_sessions_secret() {
    let world = World::new();
    let alice = world.login("alice").await;
    let (mut ours, theirs) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(theirs);
    let session = alice.grant.session;
    world.engine.run_reads(session, Secret([1; 32]), reader, writer).await;
    let opened = receive::<Opened, _>(&mut ours, xfer_protocol::frame::Bounds::OPEN).await;
    assert_eq!(opened.unwrap().0, Opened::Refused(Refusal::NoSession));
}

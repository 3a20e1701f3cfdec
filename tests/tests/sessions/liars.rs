//! A malicious server can't keep the client busy for ever.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{DuplexStream, duplex, split};
use xfer_client::connect::{
    Begin, Credentials, Dial, Dialling, EndpointError, LogLink, NewSession, Reader, Writer,
};
use xfer_client::core::Core;
use xfer_client::drive::Client;
use xfer_link::{receive, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    Answer, Ask, Grant, Page, PageEntry, Request, Response, Secret, Silence, ToClient,
};
use xfer_protocol::tree::{Kind, Node, Quota, Room, SpecialKind, Usage, Xattrs};
use xfer_protocol::{Epoch, Errno, IdRange, Ino, Name, Seq, SessionId, Timestamp};
use xfer_tests::peers::{name, roomy};

const DIRECTORY: Ino = Ino(2000);

fn node(kind: Kind, xattrs: Xattrs) -> Node {
    let time = Timestamp::default();
    let (mode, uid, gid, nlink) = (0o755, 0, 0, 2);
    Node { kind, mode, uid, gid, nlink, atime: time, mtime: time, ctime: time, xattrs, sent: None }
}

fn directory(entries: u64) -> Node {
    node(Kind::Directory { parent: Ino::ROOT, entries, name_bytes: 0 }, Xattrs::None)
}

/// Answers every question with a lie.
async fn answer(link: DuplexStream, lie: fn(&Ask) -> Answer) {
    let (mut reader, mut writer) = split(link);
    while let Ok((Request { id, ask, .. }, _)) = receive(&mut reader, Bounds::OPEN).await {
        let response = Response { id, answer: Ok(lie(&ask)) };
        if send(&mut writer, &response, &[], Bounds::OPEN).await.is_err() {
            return;
        }
    }
}

/// A client of a server that answers with `lie`.
fn client_of(lie: fn(&Ask) -> Answer) -> Arc<Client> {
    let grant = Grant {
        session: SessionId([0; 16]),
        secret: Secret([0; 32]),
        resume: Secret([0; 32]),
        epoch: Epoch(1),
        applied: Seq(0),
        user: name("alice"),
        silence: Silence::default(),
        ids: vec![IdRange { first: 1 << 30, end: (1 << 30) + 1000 }],
        usage: Usage::default(),
        quota: Quota::UNLIMITED,
        disk: Room { bytes: 1 << 40, files: 1 << 20 },
        limit: Room { bytes: 1 << 30, files: 1 << 20 },
        users: Vec::new(),
        deliveries: Vec::new(),
    };
    let (ours, theirs) = duplex(1 << 20);
    tokio::spawn(async move {
        let (_reader, mut writer) = split(theirs);
        while send(&mut writer, &ToClient::Pong, &[], Bounds::OPEN).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (reader, writer) = split(ours);
    let (reader, writer) = (Box::new(reader) as Reader, Box::new(writer) as Writer);
    let link = LogLink { grant, missed: None, reader, writer };
    let session = NewSession { link, dial: Arc::new(Liar(lie)) };
    Client::start(session, roomy("alice"))
}

/// Opens read links on which everything is answered with a lie.
struct Liar(fn(&Ask) -> Answer);

impl Dial for Liar {
    fn log_link(&self, _begin: Begin) -> Dialling<'_, LogLink> {
        Box::pin(std::future::ready(Err(EndpointError::NothingThere)))
    }

    fn read_link(&self, _credentials: Credentials) -> Dialling<'_, (Reader, Writer)> {
        let (ours, theirs) = duplex(1 << 20);
        tokio::spawn(answer(theirs, self.0));
        let (reader, writer) = split(ours);
        Box::pin(std::future::ready(Ok((Box::new(reader) as Reader, Box::new(writer) as Writer))))
    }
}

/// Each page starts after the previous one, and none is the last.
fn endless(ask: &Ask) -> Answer {
    match ask {
        Ask::Node(DIRECTORY) => Answer::Node(Some(directory(10_000))),
        Ask::Node(_) => Answer::Node(Some(directory(1))),
        Ask::List { directory, after } => {
            let last = after.as_ref().map_or(0, |name| name.to_string().parse::<u64>().unwrap());
            let entries = (last + 1..=last + 1000).map(|number| PageEntry {
                name: Name::new(format!("{number:020}").as_bytes()).unwrap(),
                ino: Ino(10_000 + number),
                node: node(Kind::Special(SpecialKind::Fifo), Xattrs::None),
            });
            let (directory, entries) = (*directory, entries.collect());
            Answer::Pages(vec![Page { directory, entries, last: false }])
        }
        _ => Answer::Node(None),
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_without_an_end_is_an_error() {
    let client = client_of(endless);
    let open = client.call(|state: &mut Core| state.open_directory(DIRECTORY)).await.unwrap();
    let listed = client.call(move |state: &mut Core| state.list(open, 0).map(drop));
    let listed = tokio::time::timeout(Duration::from_secs(600), listed).await;
    assert_eq!(listed, Ok(Err(Errno::EIO)));
    let errors = client.status().errors;
    assert!(errors.iter().any(|error| error.contains("a listing that ends")), "{errors:?}");
}

/// Leaves attributes out in every answer.
fn evasive(ask: &Ask) -> Answer {
    match ask {
        Ask::Node(DIRECTORY) => {
            let kind = Kind::Directory { parent: Ino::ROOT, entries: 0, name_bytes: 0 };
            Answer::Node(Some(node(kind, Xattrs::LeftOut { bytes: 5000 })))
        }
        _ => Answer::Node(None),
    }
}

#[tokio::test(start_paused = true)]
async fn attributes_that_never_come_are_an_error() {
    let client = client_of(evasive);
    let asked = client.call(|state: &mut Core| state.xattr(DIRECTORY, b"user.x"));
    let asked = tokio::time::timeout(Duration::from_secs(600), asked).await;
    assert_eq!(asked, Ok(Err(Errno::EIO)));
}

/// Numbers that no tree can reach.
fn huge(ask: &Ask) -> Answer {
    match ask {
        Ask::Node(_) => Answer::Node(Some(directory(u64::MAX))),
        _ => Answer::Node(None),
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_of_more_entries_than_can_be_counted_is_none() {
    let client = client_of(huge);
    let opened = client.call(|state: &mut Core| state.open_directory(DIRECTORY).map(drop)).await;
    assert_eq!(opened, Err(Errno::ESTALE));
}

//! Fixtures shared by the tests of the stores: short ways to make values.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};

use xfer_protocol::message::{DeviceKey, PublicKey};
use xfer_protocol::tree::{
    Delivery, Extents, FileData, Item, ItemKind, Kind, Node, Quota, Usage, Xattrs,
};
use xfer_protocol::{ContentId, DeliveryId, Epoch, Ino, Name, Seq, SessionId, Timestamp};
use xfer_store::embedded::SqliteStore;
use xfer_store::{
    AccountId, Batch, Beginner, Committed, Placements, Resumable, Resumption, SecretHash, Trims,
};

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn time(secs: i64) -> Timestamp {
    Timestamp::new(secs, 123_456_789).unwrap()
}

/// The total size of the deliveries that wait in an account's inbox; 0 if there is no account.
pub fn waiting(store: &SqliteStore, account: AccountId) -> Usage {
    let all = store.accounts().unwrap();
    all.iter().find(|one| one.id == account).map_or(Usage::default(), |one| one.waiting)
}

/// Whether a batch is durable, with any decisions.
pub fn is_durable(committed: &Committed) -> bool {
    matches!(committed, Committed::Durable(_))
}

pub fn account(store: &SqliteStore, user: &str) -> AccountId {
    let quota = Quota { bytes: 1 << 30, nodes: 1000 };
    store.create_account(&name(user), "$argon2id$", quota, Quota::UNLIMITED, time(1)).unwrap()
}

pub fn node(kind: Kind) -> Node {
    Node {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        nlink: 1,
        atime: time(-5),
        mtime: time(1_700_000_000),
        ctime: time(i64::MAX),
        xattrs: Xattrs::None,
        sent: None,
    }
}

pub fn file(content: u64, size: u64) -> Node {
    node(Kind::File(FileData {
        size,
        content: Some(ContentId(content)),
        sealed: false,
        extents: Extents::Dense,
    }))
}

pub fn xattrs(of: &[(&'static str, usize)]) -> Xattrs {
    let one = |(name, len): &(&'static str, usize)| {
        (Bytes::from_static(name.as_bytes()), Bytes::from(vec![b'v'; *len]))
    };
    Xattrs::of(Arc::new(of.iter().map(one).collect::<BTreeMap<_, _>>()))
}

/// A batch of the account's first session, without any changes yet.
pub fn batch(account: AccountId, applied: u64) -> Batch {
    Batch {
        account,
        epoch: Epoch(0),
        applied: Seq(applied),
        usage: Usage { bytes: applied * 4096, nodes: 3 },
        next_id: 0,
        nodes: Vec::new(),
        entries: Vec::new(),
        references: Vec::new(),
        trims: Trims::default(),
        deliveries: Vec::new(),
        placements: Placements::default(),
        unrecorded: Vec::new(),
        time: time(100),
    }
}

/// A record's node, for the delivery `id`.
pub fn record(id: u64) -> Node {
    Node { kind: Kind::File(FileData::default()), sent: Some(DeliveryId(id)), ..file(1, 5) }
}

/// A batch that adds one file to the root.
pub fn file_batch(account: AccountId, applied: u64, ino: u64) -> Batch {
    let mut batch = batch(account, applied);
    batch.nodes.push((Ino(ino), Some(Arc::new(file(ino + 1, 5)))));
    batch.entries.push((Ino::ROOT, name(&format!("f{ino}")), Some(Ino(ino))));
    batch.references.push((ContentId(ino + 1), 1));
    batch
}

/// A delivery of a directory with one file and one link in it.
pub fn delivery(id: u64, content: u64) -> Delivery {
    let item = |parent, text, kind| Item {
        parent,
        name: name(text),
        kind,
        mode: 0o755,
        mtime: time(7),
        xattrs: xattrs(&[("user.a", 3)]),
    };
    let size = 5000;
    let content = Some(ContentId(content));
    Delivery {
        id: DeliveryId(id),
        from: name("alice"),
        sent: time(50),
        items: vec![
            item(0, "album", ItemKind::Directory),
            item(0, "photo", ItemKind::File { size, content, extents: Extents::Dense }),
            item(0, "latest", ItemKind::Symlink { target: Bytes::from_static(b"photo") }),
        ],
    }
}

/// A session for a client to resume, which was given a secret with this hash.
pub fn resumable(session: u8, secret: u8) -> Resumable {
    let secret = SecretHash([secret; 32]);
    Resumable {
        session: session_id(session),
        key: PublicKey([session; 32]),
        secret,
        shown: secret,
        host: "host".to_owned(),
        address: "address".to_owned(),
        since: time(7),
        attempt: 0,
        device: None,
    }
}

/// The key of a device, which was enrolled at this time.
pub fn device_key(device: u8, secs: i64) -> DeviceKey {
    let (label, enrolled) = (format!("device {device}"), time(secs));
    DeviceKey { key: device_id(device), label, enrolled, used: None, expires: None }
}

pub fn device_id(device: u8) -> PublicKey {
    PublicKey([device; 32])
}

pub fn session_id(session: u8) -> SessionId {
    SessionId([session; 16])
}

/// The beginning of a session that replaces none.
pub fn client(session: Resumable) -> Beginner {
    Beginner::Client { session, replaces: None }
}

/// A request to resume a session, with the hashes of the secret shown and of the next one. Each is
/// later than those before.
pub fn resumption(session: u8, shown: u8, next: u8) -> Resumption {
    Resumption {
        session: session_id(session),
        shown: SecretHash([shown; 32]),
        next: SecretHash([next; 32]),
        address: "another address".to_owned(),
        attempt: ATTEMPTS.fetch_add(1, Ordering::Relaxed),
    }
}

static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

//! A recipient of a file that the sender had truncated can read only the bytes that were sent, even
//! with a client that was written to get at more.
//!
//! Alice's file begins with `SHOWN` and continues with `SECRET`. She truncates it where the secret
//! begins.

use std::sync::Arc;

use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::message::{Answer, Ask};
use xfer_protocol::tree::{Action, FallocateMode, FileData, RenameMode};
use xfer_protocol::{ContentId, DeliveryId, Ino};
use xfer_server::engine::Engine;

use xfer_store::embedded;

use crate::client::{Client, OWNER, Reads};
use crate::world::{World, name};

const SHOWN: u8 = 0x11;
const SECRET: u8 = 0x5A;
const BLOCKS: u64 = 20;
const WHOLE: u64 = BLOCKS * BLOCK_BYTES;

/// The ways in which alice makes the file that she sends.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// A copy of the whole file, truncated, and a copy of that.
    CopyCutCopy,
    /// A copy of the whole file in the mailbox, truncated there.
    CopyCut,
    /// A file truncated and moved, in one commit.
    CutMove,
    /// The same, in two commits.
    CutSyncMove,
    /// A file truncated, grown again beyond the cut part, and moved.
    CutGrowMove,
    /// A file truncated and copied by bytes into a longer file.
    CutCopyInto,
    /// A file with its rest punched out.
    PunchMove,
}

const ALL: [Made; 7] = [
    Made::CopyCutCopy,
    Made::CopyCut,
    Made::CutMove,
    Made::CutSyncMove,
    Made::CutGrowMove,
    Made::CutCopyInto,
    Made::PunchMove,
];

/// Whether each of alice's steps is committed separately, and whether the server is restarted.
#[derive(Clone, Copy, Debug)]
struct Way {
    synced: bool,
    restarted: bool,
}

async fn resize(client: &mut Client, ino: Ino, size: u64) {
    let mut action = crate::log::truncate(ino, size);
    if let Action::SetAttr { fresh, .. } = &mut action {
        *fresh = ContentId(client.id());
    }
    client.act(vec![action], &[]).await;
}

async fn copy(client: &mut Client, from: Ino, to: Ino, len: u64) {
    let fresh = ContentId(client.id());
    let action = Action::CopyRange { from, from_offset: 0, to, to_offset: 0, len, fresh };
    client.act(vec![action], &[]).await;
}

async fn allocate(client: &mut Client, ino: Ino, offset: u64, mode: FallocateMode) {
    let fresh = ContentId(client.id());
    let action = Action::Fallocate { ino, offset, len: WHOLE - offset, mode, fresh };
    client.act(vec![action], &[]).await;
}

/// Moves `work` from the root into the mailbox, as `file`.
async fn move_there(client: &mut Client, mailbox: Ino) {
    let (from, to) = ((Ino::ROOT, name("work")), (mailbox, name("file")));
    client.act(vec![Action::Rename { from, to, mode: RenameMode::Replace }], &[]).await;
}

/// Makes `outbox/bob/file`, of which the first `cut` bytes may be seen.
async fn make(alice: &mut Client, mailbox: Ino, made: Made, way: Way, cut: u64) {
    let mut bytes = vec![SECRET; WHOLE as usize];
    bytes[..cut as usize].fill(SHOWN);
    let full = alice.create(Ino::ROOT, "work").await;
    alice.write(full, 0, &bytes).await;
    alice.sync().await;
    match made {
        Made::CopyCutCopy => {
            let sample = alice.create(Ino::ROOT, "sample").await;
            copy(alice, full, sample, WHOLE).await;
            pause(alice, way).await;
            resize(alice, sample, cut).await;
            pause(alice, way).await;
            let file = alice.create(mailbox, "file").await;
            copy(alice, sample, file, cut).await;
        }
        Made::CopyCut => {
            let file = alice.create(mailbox, "file").await;
            copy(alice, full, file, WHOLE).await;
            pause(alice, way).await;
            resize(alice, file, cut).await;
        }
        Made::CutMove | Made::CutSyncMove => {
            resize(alice, full, cut).await;
            if let Made::CutSyncMove = made {
                alice.sync().await;
            }
            move_there(alice, mailbox).await;
        }
        Made::CutGrowMove => {
            resize(alice, full, cut).await;
            pause(alice, way).await;
            resize(alice, full, cut + 10).await;
            alice.write(full, cut + 20, &[SHOWN]).await;
            move_there(alice, mailbox).await;
        }
        Made::CutCopyInto => {
            resize(alice, full, cut).await;
            pause(alice, way).await;
            let file = alice.create(mailbox, "file").await;
            alice.write(file, 0, &[SHOWN; 3 * BLOCK_BYTES as usize]).await;
            copy(alice, full, file, cut).await;
        }
        Made::PunchMove => {
            allocate(alice, full, cut, FallocateMode::PunchHole).await;
            pause(alice, way).await;
            move_there(alice, mailbox).await;
        }
    }
    pause(alice, way).await;
}

async fn pause(client: &mut Client, way: Way) {
    if way.synced {
        client.sync().await;
    }
}

/// The tricks by which bob tries to read more of a file that he accepted.
#[derive(Clone, Copy, Debug)]
enum Trick {
    Nothing,
    Grow,
    GrowAndWrite,
    WriteAtTheEnd,
    WriteFarBeyond,
    Allocate,
    AllocateBeyond,
    GrowAndCopy,
    CopyGrowAndWrite,
    SendOn,
}

const TRICKS: [Trick; 10] = [
    Trick::Nothing,
    Trick::Grow,
    Trick::GrowAndWrite,
    Trick::WriteAtTheEnd,
    Trick::WriteFarBeyond,
    Trick::Allocate,
    Trick::AllocateBeyond,
    Trick::GrowAndCopy,
    Trick::CopyGrowAndWrite,
    Trick::SendOn,
];

/// Plays a trick with `ino`. Returns the node that has the resulting bytes.
async fn play(bob: &mut Client, ino: Ino, size: u64, trick: Trick) -> Ino {
    match trick {
        Trick::Nothing => {}
        Trick::Grow => resize(bob, ino, WHOLE).await,
        Trick::GrowAndWrite => {
            resize(bob, ino, WHOLE).await;
            bob.write(ino, 0, b"x").await;
        }
        Trick::WriteAtTheEnd => drop(bob.write(ino, size, b"x").await),
        Trick::WriteFarBeyond => drop(bob.write(ino, WHOLE - 1, b"x").await),
        Trick::Allocate => allocate(bob, ino, 0, FallocateMode::Allocate).await,
        Trick::AllocateBeyond => {
            allocate(bob, ino, 0, FallocateMode::AllocateKeepSize).await;
            resize(bob, ino, WHOLE).await;
        }
        Trick::GrowAndCopy => {
            resize(bob, ino, WHOLE).await;
            let other = bob.create(Ino::ROOT, "other").await;
            bob.write(other, WHOLE, b"x").await;
            copy(bob, ino, other, WHOLE).await;
            return other;
        }
        Trick::CopyGrowAndWrite => {
            let other = bob.create(Ino::ROOT, "other").await;
            copy(bob, ino, other, size).await;
            resize(bob, other, WHOLE).await;
            bob.write(other, 0, b"x").await;
            return other;
        }
        Trick::SendOn => {
            let mailbox = bob.mailbox("alice").await;
            let other = bob.create(mailbox, "on").await;
            copy(bob, ino, other, size).await;
            let (from, delivery) = (bob.grant.user.clone(), DeliveryId(bob.id()));
            let (to, name) = (name("alice"), name("on"));
            bob.act(vec![Action::Send { to, name, from, delivery }], &[]).await;
            return other;
        }
    }
    ino
}

async fn file(client: &Client, reads: &mut Reads, ino: Ino) -> FileData {
    let (answer, _) = reads.ask(client.seq, Ask::Node(ino)).await;
    let Ok(Answer::Node(Some(node))) = answer else { panic!("{answer:?}") };
    node.file().unwrap().clone()
}

/// Returns all bytes of a node's content that the server answers, asking in every way. Also checks
/// that the node's own data is among them.
async fn everything(client: &Client, reads: &mut Reads, ino: Ino) -> Vec<u8> {
    let data = file(client, reads, ino).await;
    let Some(content) = data.content else { return Vec::new() };
    let mut seen = Vec::new();
    let blocks = (0..BLOCKS + 2).map(|block| block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES);
    let tails = [1, 7, BLOCK_BYTES].map(|len| data.size..data.size + len);
    let own = data.extents.data_in(data.size, 0..data.size);
    for range in blocks.chain(tails).chain(std::iter::once(0..WHOLE)).chain(own.clone()) {
        let len = (range.end - range.start) as u32;
        let ask = Ask::Read { ino, content, offset: range.start, len };
        let (answer, bytes) = reads.ask(client.seq, ask).await;
        assert!(answer == Ok(Answer::Data) || !own.contains(&range), "{range:?}: {answer:?}");
        seen.extend(bytes);
    }
    seen
}

async fn check(made: Made, way: Way, cut: u64, trick: Trick) {
    let what = format!("{made:?} {way:?} {cut} {trick:?}");
    let mut world = World::new();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("bob").await;
    make(&mut alice, mailbox, made, way, cut).await;
    let delivery = DeliveryId(alice.id());
    let (to, from) = (name("bob"), alice.grant.user.clone());
    alice.act(vec![Action::Send { to, name: name("file"), from, delivery }], &[]).await;
    alice.sync().await;
    if way.restarted {
        alice.logout().await;
        let (meta, contents) = world.reopen();
        world = world
            .over_again(Engine::new(embedded::over(Arc::new(meta), Arc::new(contents)), 64 << 20));
    }
    let mut bob = world.login("bob").await;
    let mut reads = world.reads(&bob.grant).await;
    let first = Ino(bob.id());
    let (parent, name) = (Ino::INBOX, name("file"));
    bob.act(vec![Action::Accept { delivery, parent, name, first, owner: OWNER }], &[]).await;
    let before = file(&bob, &mut reads, first).await;
    assert!(everything(&bob, &mut reads, first).await.contains(&SHOWN), "{what}");
    let ino = play(&mut bob, first, before.size, trick).await;
    for synced in [false, true] {
        if synced {
            bob.sync().await;
        }
        let seen = everything(&bob, &mut reads, ino).await;
        let secret = seen.iter().filter(|byte| **byte == SECRET).count();
        assert_eq!(secret, 0, "{what}: of {} bytes", seen.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_gets_at_nothing_that_the_sender_cut_off() {
    for (index, trick) in TRICKS.into_iter().enumerate() {
        for (offset, made) in ALL.into_iter().enumerate() {
            // Whole and partial blocks, with and without commits in between, in all combinations.
            let (synced, restarted) = ((index + offset) % 2 == 0, offset % 3 == 0);
            let cut = [BLOCK_BYTES, BLOCK_BYTES + 100][(index / 2 + offset) % 2];
            check(made, Way { synced, restarted }, cut, trick).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_grows_over_is_zeros_whatever_was_cut_off_there() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mut reads = world.reads(&alice.grant).await;
    for (index, grow) in [
        Trick::Grow,
        Trick::GrowAndWrite,
        Trick::WriteFarBeyond,
        Trick::Allocate,
        Trick::AllocateBeyond,
    ]
    .into_iter()
    .enumerate()
    {
        let ino = alice.create(Ino::ROOT, &format!("file{index}")).await;
        alice.write(ino, 0, &[SECRET; 2 * BLOCK_BYTES as usize]).await;
        resize(&mut alice, ino, 100).await;
        play(&mut alice, ino, 100, grow).await;
        let data = file(&alice, &mut reads, ino).await;
        let content = data.content.unwrap();
        let ask = Ask::Read { ino, content, offset: 0, len: BLOCK_BYTES as u32 };
        let (_, bytes) = reads.ask(alice.seq, ask).await;
        assert_eq!(bytes.len() as u64, BLOCK_BYTES, "{grow:?}");
        assert!(bytes[1..100].iter().all(|byte| *byte == SECRET), "{grow:?}");
        assert!(bytes[100..].iter().all(|byte| *byte != SECRET), "{grow:?}");
    }
}

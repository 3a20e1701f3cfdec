//! Deliveries from one user to another.

use bytes::Bytes;
use xfer_protocol::message::{Answer, Ask, DeliveryState, Purpose, ReadError, ToClient, ToServer};
use xfer_protocol::tree::{Action, Limit, Quota, XattrMode};

use xfer_protocol::{ContentId, DeliveryId, Errno, Ino, Seq};

use crate::client::{Client, Lost, OWNER, Reads};
use crate::resume::restarted;
use crate::world::{World, name, time};

async fn settled(client: &mut Client) -> (DeliveryId, DeliveryState) {
    client
        .until(|message| match message {
            ToClient::Settled { delivery, state } => Some((*delivery, state.clone())),
            _ => None,
        })
        .await
}

async fn arrived(client: &mut Client) -> DeliveryId {
    client
        .until(|message| match message {
            ToClient::Arrived(head) => Some(head.id),
            _ => None,
        })
        .await
}

async fn accept(client: &mut Client, delivery: DeliveryId, file: &str) {
    let first = Ino(client.id());
    let (parent, name) = (Ino::INBOX, name(file));
    let action = Action::Accept { delivery, parent, name, first, owner: OWNER };
    client.act(vec![action], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_arrives_is_accepted_and_its_sender_hears_of_it() {
    let world = World::new();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let mailbox = alice.mailbox("bob").await;
    let sent = alice.send_file("bob", mailbox, "letter").await;
    assert_eq!(arrived(&mut bob).await, sent);
    let mut reads = world.reads(&bob.grant).await;
    let (items, _) = reads.ask(Seq(0), Ask::Delivery { id: sent, from: 0 }).await;
    let Ok(Answer::Items { items, last: true }) = items else { panic!("{items:?}") };
    assert_eq!(items[0].name, name("letter"));
    accept(&mut bob, sent, "letter").await;
    bob.sync().await;
    let (delivery, state) = settled(&mut alice).await;
    assert_eq!(delivery, sent);
    assert!(matches!(state, DeliveryState::Received(_)));
    let (entry, _) = reads.ask(bob.seq, Ask::Entry(Ino::INBOX, name("letter"))).await;
    let Ok(Answer::Entry(Some((ino, node)))) = entry else { panic!("{entry:?}") };
    let content = node.content().unwrap();
    let read = Ask::Read { ino, content, offset: 0, len: 7 };
    assert_eq!(reads.ask(bob.seq, read).await, (Ok(Answer::Data), b"for you".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_waits_for_a_recipient_who_is_away() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("bob").await;
    let sent = alice.send_file("bob", mailbox, "letter").await;
    alice.sync().await;
    let mut bob = world.login("bob").await;
    assert_eq!(bob.grant.deliveries.iter().map(|head| head.id).collect::<Vec<_>>(), [sent]);
    bob.act(vec![Action::Decline { delivery: sent }], &[]).await;
    bob.sync().await;
    assert!(matches!(settled(&mut alice).await.1, DeliveryState::Refused(_)));
    bob.logout().await;
    assert!(world.login("bob").await.grant.deliveries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_accepted_once() {
    let world = World::new();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let mailbox = alice.mailbox("bob").await;
    let sent = alice.send_file("bob", mailbox, "letter").await;
    arrived(&mut bob).await;
    accept(&mut bob, sent, "one").await;
    accept(&mut bob, sent, "two").await;
    let errno = bob.until(|message| match message {
        ToClient::Diverged { errno, .. } => Some(*errno),
        _ => None,
    });
    assert_eq!(errno.await, Errno::ENOENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_holds_no_more_than_its_budget() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mut reads = world.reads(&alice.grant).await;
    let reserve =
        |to: &str, ino| Ask::Reserve { to: name(to), ino: Ino(ino), bytes: 4096, items: 1 };
    let (unknown, _) = reads.ask(Seq(0), reserve("nobody", 1)).await;
    assert_eq!(unknown, Err(ReadError::NoUser));
    for ino in [1, 2, 2] {
        assert_eq!(reads.ask(Seq(0), reserve("bob", ino)).await.0, Ok(Answer::Reserved));
    }
    assert_eq!(reads.ask(Seq(0), reserve("bob", 3)).await.0, Err(ReadError::InboxFull));
    let mailbox = alice.mailbox("bob").await;
    alice.send_file("bob", mailbox, "one").await;
    alice.send_file("bob", mailbox, "two").await;
    alice.sync().await;
    assert_eq!(reads.ask(Seq(0), reserve("bob", 3)).await.0, Err(ReadError::InboxFull));
    let beyond = alice.send_file("bob", mailbox, "three").await;
    let (delivery, state) = settled(&mut alice).await;
    assert_eq!(delivery, beyond);
    assert!(matches!(state, DeliveryState::NoRoom(_)));
    let (asked, _) = reads.ask(Seq(0), Ask::State(beyond)).await;
    assert_eq!(asked, Ok(Answer::State(state)));
    let bob = world.login("bob").await;
    assert_eq!(bob.grant.deliveries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_in_anothers_name() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("bob").await;
    alice.grant.user = name("bob");
    alice.send_file("bob", mailbox, "letter").await;
    let errno = alice.until(|message| match message {
        ToClient::Diverged { errno, .. } => Some(*errno),
        _ => None,
    });
    assert_eq!(errno.await, Errno::EINVAL);
}

/// More deliveries than one client's queue holds, and than its grant names.
const MANY: usize = 2_400;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_held_to_read_what_others_have_to_say() {
    let world = World::new();
    let carol = name("carol");
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, Quota::UNLIMITED, time()).unwrap();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("carol").await;
    let from = alice.grant.user.clone();
    for file in 0..MANY {
        let (name, ino, delivery) =
            (name(&format!("{file}")), Ino(alice.id()), DeliveryId(alice.id()));
        let (parent, mode, to) = (mailbox, 0o644, carol.clone());
        let create = Action::Create { parent, name: name.clone(), ino, mode, owner: OWNER };
        let send = Action::Send { to, name, from: from.clone(), delivery };
        alice.act(vec![create, send], &[]).await;
    }
    alice.sync().await;
    let mut carol = world.try_login_over(4096, "carol", Purpose::Mount).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for _ in 0..20 {
        carol.say(&ToServer::Ping { limit: Limit::default() }, &[]).await;
    }
    for _ in carol.grant.deliveries.len()..MANY {
        arrived(&mut carol).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_sees_nothing_beside_what_was_sent() {
    let world = World::new();
    let (mut alice, mut bob) = (world.login("alice").await, world.login("bob").await);
    let mailbox = alice.mailbox("bob").await;
    let (long, cut) = (alice.create(Ino::ROOT, "long").await, alice.create(mailbox, "cut").await);
    let content = alice.write(long, 0, &[7; 3 * 4096]).await;
    let (from, from_offset, to, to_offset, len) = (long, 0, cut, 0, 3 * 4096);
    let fresh = ContentId(alice.id());
    let share = Action::CopyRange { from, from_offset, to, to_offset, len, fresh };
    let delivery = DeliveryId(alice.id());
    let (to, user) = (name("bob"), alice.grant.user.clone());
    let send = Action::Send { to, name: name("cut"), from: user, delivery };
    alice.act(vec![share, crate::log::truncate(cut, 4096), send], &[]).await;
    arrived(&mut bob).await;
    accept(&mut bob, delivery, "cut").await;
    let mut reads = world.reads(&bob.grant).await;
    let (entry, _) = reads.ask(bob.seq, Ask::Entry(Ino::INBOX, name("cut"))).await;
    let Ok(Answer::Entry(Some((ino, node)))) = entry else { panic!("{entry:?}") };
    assert_eq!(node.content(), Some(content), "it is shared");
    let read = |offset, len| Ask::Read { ino, content, offset, len };
    assert_eq!(reads.ask(bob.seq, read(0, 4096)).await, (Ok(Answer::Data), vec![7; 4096]));
    for beside in [read(4096, 4096), read(0, 4097), read(2 * 4096, 1)] {
        assert_eq!(reads.ask(bob.seq, beside).await, (Err(ReadError::OtherContent), vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_send_leaves_the_room_that_a_large_one_reserved() {
    let world = World::new();
    let (carol, inbox) = (name("carol"), Quota { bytes: 1 << 30, nodes: 100 });
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, inbox, time()).unwrap();
    let mut alice = world.login("alice").await;
    let bob = world.login("bob").await;
    let mut reads = world.reads(&alice.grant).await;
    let mut others = world.reads(&bob.grant).await;
    let reserve = |ino, bytes| Ask::Reserve { to: name("carol"), ino: Ino(ino), bytes, items: 1 };
    assert_eq!(reads.ask(Seq(0), reserve(1, 1 << 29)).await.0, Ok(Answer::Reserved));
    let mailbox = alice.mailbox("carol").await;
    alice.send_file("carol", mailbox, "small").await;
    alice.sync().await;
    let beside = (1 << 29) + 1;
    assert_eq!(others.ask(Seq(0), reserve(1, beside)).await.0, Err(ReadError::InboxFull));
    alice.logout().await;
    assert_eq!(others.ask(Seq(0), reserve(1, beside)).await.0, Ok(Answer::Reserved));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_reserves_all_of_an_inbox_keeps_half_of_it_from_others_at_most() {
    let world = World::new();
    let (carol, inbox) = (name("carol"), Quota { bytes: 1 << 30, nodes: 100 });
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, inbox, time()).unwrap();
    let alice = world.login("alice").await;
    let mut bob = world.login("bob").await;
    let mut reads = world.reads(&alice.grant).await;
    let reserve = Ask::Reserve { to: carol.clone(), ino: Ino(1), bytes: 1 << 30, items: 100 };
    assert_eq!(reads.ask(Seq(0), reserve).await.0, Ok(Answer::Reserved));
    let mailbox = bob.mailbox("carol").await;
    let sent = bob.send_file("carol", mailbox, "letter").await;
    bob.sync().await;
    let carol = world.login("carol").await;
    let waiting: Vec<_> = carol.grant.deliveries.iter().map(|head| head.id).collect();
    assert_eq!(waiting, [sent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_names_count_in_an_inbox() {
    let world = World::new();
    let (carol, inbox) = (name("carol"), Quota { bytes: 1 << 20, nodes: 100 });
    world.meta.create_account(&carol, "hash", Quota::UNLIMITED, inbox, time()).unwrap();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("carol").await;
    let mut states = Vec::new();
    for number in 0..20 {
        let file = format!("{number:02}{}", "x".repeat(98));
        let ino = alice.create(mailbox, &file).await;
        let value = Bytes::from(vec![0; 60_000]);
        let name_of = |text: &'static [u8]| Bytes::from_static(text);
        let mode = XattrMode::Create;
        let set = Action::SetXattr { ino, name: name_of(b"user.large"), value, mode };
        let delivery = DeliveryId(alice.id());
        let (to, from) = (name("carol"), alice.grant.user.clone());
        let send = Action::Send { to, name: name(&file), from, delivery };
        alice.act(vec![set, send], &[]).await;
        alice.sync().await;
        states.push(
            world
                .meta
                .delivery_state(world.meta.account(&name("alice")).unwrap().unwrap().id, delivery)
                .unwrap(),
        );
    }
    let sent = states.iter().filter(|state| matches!(state, DeliveryState::Sent(_))).count();
    assert_eq!(sent as u64, (1 << 20) / (60_000 + 10 + 100));
    assert!(states[sent..].iter().all(|state| matches!(state, DeliveryState::NoRoom(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_delivery_is_forgotten_with_its_record() {
    let world = World::new();
    let mut alice = world.login("alice").await;
    let from = world.meta.account(&name("alice")).unwrap().unwrap().id;
    let mailbox = alice.mailbox("bob").await;
    let (kept, gone) = (
        alice.send_file("bob", mailbox, "kept").await,
        alice.send_file("bob", mailbox, "gone").await,
    );
    alice.unlink(mailbox, "gone").await;
    alice.sync().await;
    let state = |id| world.meta.delivery_state(from, id).unwrap();
    // The record has no name any more, but a program may still have it open.
    assert!(matches!(state(gone), DeliveryState::Sent(_)));
    alice.logout().await;
    let alice = world.login("alice").await;
    let mut bob = world.login("bob").await;
    for id in [kept, gone] {
        bob.act(vec![Action::Decline { delivery: id }], &[]).await;
    }
    bob.sync().await;
    assert!(matches!(state(kept), DeliveryState::Refused(_)));
    assert_eq!(state(gone), DeliveryState::Unknown);
    drop(alice);
}

/// The bytes that may wait in carol's inbox.
const ROOM: u64 = 1 << 20;

/// What alice sends, which takes up nearly half of that.
const LARGE: usize = 500 << 10;

/// Asks for room for a send to carol.
async fn ask_for(reads: &mut Reads, ino: Ino, bytes: u64) -> Result<Answer, ReadError> {
    reads.ask(Seq(0), Ask::Reserve { to: name("carol"), ino, bytes, items: 1 }).await.0
}

/// Sends a file to carol, and returns what the store has decided about it.
async fn send_to_carol(world: &World, client: &mut Client, file: &str) -> DeliveryState {
    let delivery = DeliveryId(client.id());
    let (to, from) = (name("carol"), client.grant.user.clone());
    let sender = world.meta.account(&from).unwrap().unwrap().id;
    client.act(vec![Action::Send { to, name: name(file), from, delivery }], &[]).await;
    client.sync().await;
    world.meta.delivery_state(sender, delivery).unwrap()
}

/// Bob sends files to carol until there is no room for another. Returns how many there was room for.
async fn fill(world: &World, bob: &mut Client) -> usize {
    let mailbox = bob.mailbox("carol").await;
    for count in 0..1000 {
        let file = format!("{count}");
        let ino = bob.create(mailbox, &file).await;
        bob.write(ino, 0, &[5; 16 << 10]).await;
        match send_to_carol(world, bob, &file).await {
            DeliveryState::Sent(_) => {}
            DeliveryState::NoRoom(_) => return count,
            other => panic!("{other:?}"),
        }
    }
    unreachable!("an inbox has a bound")
}

/// The room that carol's inbox has left beside what waits there.
fn left_for_carol(world: &World) -> u64 {
    let carol = world.meta.account(&name("carol")).unwrap().unwrap();
    carol.inbox.bytes - carol.waiting.bytes
}

/// A world in which alice has reserved half of carol's inbox for a file, and has lost her link.
async fn reserved_and_lost() -> (World, Ino, Lost) {
    let world = World::new();
    let inbox = Quota { bytes: ROOM, nodes: 1000 };
    world.meta.create_account(&name("carol"), "hash", Quota::UNLIMITED, inbox, time()).unwrap();
    let mut alice = world.login("alice").await;
    let mailbox = alice.mailbox("carol").await;
    let ino = alice.create(mailbox, "large").await;
    alice.write(ino, 0, &[7; LARGE]).await;
    alice.sync().await;
    let mut reads = world.reads(&alice.grant).await;
    assert_eq!(ask_for(&mut reads, ino, ROOM / 2).await, Ok(Answer::Reserved));
    let lost = alice.lose_link();
    world.until_away("alice").await;
    (world, ino, lost)
}

/// Carol takes what waits for her. Then one sender can reserve all of her inbox, and another still half.
async fn empty_again(world: &World, senders: [&mut Reads; 2]) {
    let mut carol = world.login("carol").await;
    for head in carol.grant.deliveries.clone() {
        carol.act(vec![Action::Decline { delivery: head.id }], &[]).await;
    }
    carol.sync().await;
    assert_eq!(left_for_carol(world), ROOM);
    for (reads, all) in senders.into_iter().zip([ROOM, ROOM / 2]) {
        assert_eq!(ask_for(reads, Ino(1), all + 1).await, Err(ReadError::InboxFull));
        assert_eq!(ask_for(reads, Ino(1), all).await, Ok(Answer::Reserved));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_was_reserved_is_kept_while_the_link_is_broken_and_is_not_counted_twice() {
    let (world, large, lost) = reserved_and_lost().await;
    let mut bob = world.login("bob").await;
    let filled = fill(&world, &mut bob).await;
    assert!(filled > 10, "half of the room was bob's, and he sent {filled}");
    assert!(left_for_carol(&world) >= ROOM / 2, "bob got at what was alice's");
    let mut alice = world.resume(lost).await;
    let mut reads = world.reads(&alice.grant).await;
    // Clients ask again, since they don't know whether it is the same server.
    for _ in 0..2 {
        assert_eq!(ask_for(&mut reads, large, ROOM / 2).await, Ok(Answer::Reserved));
    }
    let state = send_to_carol(&world, &mut alice, "large").await;
    assert!(matches!(state, DeliveryState::Sent(_)), "{state:?}");
    let mut others = world.reads(&bob.grant).await;
    let left = left_for_carol(&world);
    assert_eq!(ask_for(&mut others, Ino(1), left + 1).await, Err(ReadError::InboxFull));
    assert_eq!(ask_for(&mut others, Ino(1), left).await, Ok(Answer::Reserved));
    bob.logout().await;
    let bob = world.login("bob").await;
    let mut others = world.reads(&bob.grant).await;
    empty_again(&world, [&mut reads, &mut others]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_again_has_kept_no_room_and_says_so_if_it_is_full_by_then() {
    let (world, large, lost) = reserved_and_lost().await;
    let world = restarted(world).await;
    let mut bob = world.login("bob").await;
    fill(&world, &mut bob).await;
    assert!(left_for_carol(&world) < ROOM / 4, "something was kept for alice");
    let mut alice = world.resume(lost).await;
    let mut reads = world.reads(&alice.grant).await;
    assert_eq!(ask_for(&mut reads, large, ROOM / 2).await, Err(ReadError::InboxFull));
    // What is sent nevertheless is not admitted, and counts nowhere.
    let before = left_for_carol(&world);
    let state = send_to_carol(&world, &mut alice, "large").await;
    assert!(matches!(state, DeliveryState::NoRoom(_)), "{state:?}");
    assert_eq!(left_for_carol(&world), before);
    let mut others = world.reads(&bob.grant).await;
    empty_again(&world, [&mut reads, &mut others]).await;
}

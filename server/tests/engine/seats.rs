//! Seats that sessions of one account hand to each other, take from each other, and come back to.

use std::time::Duration;

use tokio::time::timeout;
use xfer_protocol::message::{
    Answer, Ask, Changed, EndReason, Purpose, Refusal, Return, Terms, ToClient, ToServer, Wish,
};
use xfer_protocol::{Ino, Seq};

use crate::client::{Client, Lost};
use crate::world::{World, name};

/// The terms of a client that hands its seat over, or does not.
fn handoff(handoff: bool) -> Terms {
    Terms { handoff, ..Terms::default() }
}

/// A client that gives its seat up.
async fn yielded(mut client: Client) -> Lost {
    client.say(&ToServer::Yield, &[]).await;
    assert_eq!(client.ended().await, EndReason::Yielded);
    client.lose_link()
}

/// Comes back after others have changed the tree.
async fn back(world: &World, lost: &Lost) -> Return {
    world.try_return(lost.request(), lost.binding).await.unwrap().0
}

async fn refused(world: &World, lost: &Lost, wish: Wish) -> Refusal {
    let request = xfer_protocol::message::Resume { wish, ..lost.request() };
    world.try_resume(request, lost.binding).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gave_its_seat_up_comes_back_and_learns_what_others_have_changed() {
    let world = World::new();
    let mut first = world.login("alice").await;
    let (kept, changed) =
        (first.create(Ino::ROOT, "kept").await, first.create(Ino::ROOT, "changed").await);
    let gone = first.create(Ino::ROOT, "gone").await;
    first.sync().await;
    let base = first.seq;
    let lost = yielded(first).await;
    let mut second = world.login("alice").await;
    second.write(changed, 0, b"text").await;
    second.unlink(Ino::ROOT, "gone").await;
    second.sync().await;
    let made = second.create(Ino::ROOT, "made").await;
    let last = second.seq;
    assert_eq!(second.logout().await, EndReason::LoggedOut);
    let Return { grant, base: told, changed: nodes } = back(&world, &lost).await;
    assert_eq!((told, grant.applied, grant.session), (base, last, lost.grant.session));
    let Changed::Nodes(nodes) = nodes else { panic!("everything has changed") };
    assert_eq!(nodes, [Ino::ROOT, changed, gone, made]);
    assert!(!nodes.contains(&kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_missed_nothing_goes_on_as_if_its_link_had_broken() {
    let world = World::new();
    let mut first = world.login("alice").await;
    first.create(Ino::ROOT, "file").await;
    first.sync().await;
    let (applied, next) = (first.seq, first.next_id);
    let lost = yielded(first).await;
    let second = world.login("alice").await;
    assert_eq!(second.logout().await, EndReason::LoggedOut);
    let mut first = world.resume(lost).await;
    assert_eq!(first.grant.applied, applied);
    assert!(first.grant.ids.iter().any(|range| range.first <= next && next < range.end));
    first.create(Ino::ROOT, "next").await;
    first.sync().await;
}

/// What it had open without a name counts until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_lost_the_seat_and_never_comes_back_ends_with_the_present_one() {
    let world = World::new();
    let alice = || world.meta.account(&name("alice")).unwrap().unwrap();
    let before = alice().usage;
    let mut first = world.login("alice").await;
    let file = first.create(Ino::ROOT, "file").await;
    first.write(file, 0, &[b'x'; 9000]).await;
    first.unlink(Ino::ROOT, "file").await;
    first.sync().await;
    let lost = yielded(first).await;
    for _ in 0..2 {
        let second = world.login("alice").await;
        assert_ne!(alice().usage, before, "it may come back");
        assert_eq!(second.logout().await, EndReason::LoggedOut);
    }
    assert!(world.engine.end(&name("alice"), EndReason::Administrator).await);
    assert!(
        !world.engine.end(&name("alice"), EndReason::Administrator).await,
        "there is none left"
    );
    world.login("alice").await.logout().await;
    assert_eq!(alice().usage, before);
    assert_eq!(refused(&world, &lost, Wish::Now).await, Refusal::NoSession);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_whose_answer_was_lost_is_told_again() {
    let world = World::new();
    let lost = yielded(world.login("alice").await).await;
    let mut second = world.login("alice").await;
    second.create(Ino::ROOT, "file").await;
    second.sync().await;
    second.logout().await;
    let base = back(&world, &lost).await.base;
    world.until_away("alice").await;
    // The client has not received the secret of that answer.
    let again = back(&world, &lost).await;
    assert_eq!(again.base, base);
    world.until_away("alice").await;
    // Now it has.
    let lost = Lost { grant: again.grant, ..lost };
    world.try_resume(lost.request(), lost.binding).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_looks_whether_the_seat_is_free_takes_it_from_nobody() {
    let world = World::new();
    let lost = yielded(world.login("alice").await).await;
    let mut second = world.login("alice").await;
    let in_use = refused(&world, &lost, Wish::IfFree).await;
    assert!(matches!(in_use, Refusal::InUse { .. }), "{in_use}");
    // Without a handoff, nor does one for which a program waits.
    let in_use = refused(&world, &lost, Wish::Now).await;
    assert!(matches!(in_use, Refusal::InUse { .. }), "{in_use}");
    second.create(Ino::ROOT, "file").await;
    second.sync().await;
    // Nor while the holder is away.
    second.lose_link();
    world.until_away("alice").await;
    let in_use = refused(&world, &lost, Wish::IfFree).await;
    assert!(matches!(in_use, Refusal::InUse { .. }), "{in_use}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_to_hand_its_seat_over_if_both_do_that() {
    let world = World::new();
    let lost = yielded(world.login("alice").await).await;
    let third = world.login("alice").await;
    let third = yielded(third).await;
    // The one that has the seat came back with a handoff.
    let resumed = xfer_protocol::message::Resume { terms: handoff(true), ..third.request() };
    let (grant, stream) = world.try_resume(resumed, third.binding).await.unwrap();
    let mut holder = third.with_link(grant, stream);
    let request = xfer_protocol::message::Resume { terms: handoff(true), ..lost.request() };
    let asking = world.try_resume(request, lost.binding);
    let answering = async {
        holder.until(|message| matches!(message, ToClient::Wanted { .. }).then_some(())).await;
        yielded(holder).await
    };
    let (asked, holder) = tokio::join!(asking, answering);
    asked.unwrap();
    // One that can't let go keeps the seat, and the other hears of that.
    let request = xfer_protocol::message::Resume { terms: handoff(false), ..holder.request() };
    let refused = timeout(Duration::from_secs(20), world.try_resume(request, holder.binding)).await;
    assert!(matches!(refused, Ok(Err(Refusal::InUse { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_leaves_the_other_client_its_claim() {
    let world = World::new();
    let mut first = world.login("alice").await;
    let file = first.create(Ino::ROOT, "file").await;
    first.sync().await;
    let lost = first.lose_link();
    world.until_away("alice").await;
    let mut second = world.try_login("alice", Purpose::TakeOver).await.unwrap();
    second.unlink(Ino::ROOT, "file").await;
    second.sync().await;
    second.logout().await;
    let (back, _stream) = world.try_return(lost.request(), lost.binding).await.unwrap();
    let mut reads = world.reads(&back.grant).await;
    // A program may have it open there. It goes with the last client that may.
    let (answer, _) = reads.ask(Seq::default(), Ask::Node(file)).await;
    assert!(matches!(answer, Ok(Answer::Node(Some(_)))), "{answer:?}");
}

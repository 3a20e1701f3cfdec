//! Two machines of one account: the seat is taken over, and then handed over from turn to turn.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use xfer_client::core::Trace;
use xfer_client::drive::{Rescue, Writing};
use xfer_client::files::Files;
use xfer_protocol::message::{Purpose, Refusal};
use xfer_tests::peers::{Peer, name};

use super::{LOG, READS, Round, Scene, until};

/// How often each machine has its turn.
const TURNS: usize = 3;

pub(super) const SCENE: Scene = Scene::on(2, 120, |round| Box::pin(play(round)));

/// Keeps rescued changes in memory.
#[derive(Default)]
struct Rescued(Mutex<Vec<Trace>>);

impl Rescue for Rescued {
    fn keep(&self, _: String, changes: Vec<Trace>) -> Writing<'_> {
        self.0.lock().unwrap().extend(changes);
        Box::pin(async { Ok(()) })
    }
}

async fn play(round: Arc<Round>) {
    let rescued = Arc::new(Rescued::default());
    let mut host = Round::host(&["alice"]).await;
    host.rescue_to(rescued.clone());
    let Peer { client, .. } = round.mount(0, &host, Purpose::Mount).await;
    let first = Files::of(client);
    first.write("lines", &Bytes::new()).await.unwrap();
    first.sync().await.unwrap();
    first.write("unsynced", &Bytes::from_static(b"text")).await.unwrap();
    let refusal = round.refused(1, &host).await;
    assert!(matches!(refusal, Refusal::InUse { .. }), "{refusal}");
    let Peer { client, .. } = round.mount(1, &host, Purpose::TakeOver).await;
    let second = Files::of(client);
    // Until its link is back, a machine can't know that the tree was taken from it.
    until(async || !first.status().has_seat).await;
    let machines = [second, first];
    let mut lines = String::new();
    for turn in 0..2 * TURNS {
        take_turn(&machines[turn % 2], turn, &mut lines).await;
        assert!(!machines[1 - turn % 2].status().has_seat, "two have the seat in turn {turn}");
    }
    let [second, first] = machines;
    // Of a program that did not sync, all is there or all is rescued, and nothing twice.
    let is_there = first.exists("unsynced").await.unwrap();
    let is_rescued = !rescued.0.lock().unwrap().is_empty();
    assert_ne!(is_there, is_rescued, "lost, or made twice");
    assert!(!is_there || first.read("unsynced").await.unwrap() == b"text");
    // The one that does not have the seat does not come back.
    second.finish().await.unwrap();
    let last = first.status().last;
    first.finish().await.unwrap();
    let Peer { client, applied, .. } = round.look_afterwards(&host).await;
    assert_eq!(applied, last);
    let files = Files::of(client);
    assert_eq!(files.read("lines").await.unwrap(), lines.as_bytes());
    let count = files.list("").await.unwrap().len();
    assert_eq!(count, 3 + usize::from(is_there), "nothing is left over");
    files.finish().await.unwrap();
}

/// A program adds a line to what the one on the other machine wrote.
async fn take_turn(files: &Files, turn: usize, lines: &mut String) {
    let read = files.read("lines").await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), *lines, "turn {turn} saw something stale");
    *lines += &format!("{turn}\n");
    files.write("new", &Bytes::from(lines.clone())).await.unwrap();
    files.rename("new", "lines").await.unwrap();
    files.sync().await.unwrap();
    let names: Vec<_> = files.list("").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&name("lines")) && !names.contains(&name("new")), "{names:?}");
}

#[test]
fn the_machine_that_has_the_seat_first_may_lose_its_log_link_after_any_byte() {
    SCENE.cut_each(0, LOG);
}

#[test]
fn the_machine_that_takes_the_seat_over_may_lose_its_log_link_after_any_byte() {
    SCENE.cut_each(1, LOG);
}

#[test]
fn the_machine_that_has_the_seat_first_may_lose_its_read_links_after_any_byte() {
    SCENE.cut_each(0, READS);
}

#[test]
fn the_machine_that_takes_the_seat_over_may_lose_its_read_links_after_any_byte() {
    SCENE.cut_each(1, READS);
}

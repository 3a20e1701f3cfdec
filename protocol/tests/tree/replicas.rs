//! The client's replica and the server's tree are equal, bit for bit, whatever is loaded, unloaded
//! or late on either side.

use proptest::prelude::*;
use xfer_protocol::Ino;
use xfer_protocol::tree::{Loaded, Rows};

use crate::pair::{Pair, View};
use crate::steps::{Step, step};

#[derive(Clone, Debug)]
enum Event {
    Step(Step),
    Apply(usize),
    Commit,
    Settle,
    Ask(u64, View),
    Deliver(usize),
    UnloadAtClient(u64),
    UnloadAtServer(u64),
    TrimClient(usize),
    TrimServer(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let ino = || prop_oneof![Just(1u64), Just(1), 1024..1060u64];
    let view = || prop::sample::select(vec![View::Committed, View::Applied]);
    prop_oneof![
        12 => step().prop_map(Event::Step),
        3 => (0..6usize).prop_map(Event::Apply),
        2 => Just(Event::Commit),
        2 => Just(Event::Settle),
        2 => (ino(), view()).prop_map(|(ino, view)| Event::Ask(ino, view)),
        2 => any::<usize>().prop_map(Event::Deliver),
        1 => ino().prop_map(Event::UnloadAtClient),
        1 => ino().prop_map(Event::UnloadAtServer),
        1 => (0..4000usize).prop_map(Event::TrimClient),
        1 => (0..4000usize).prop_map(Event::TrimServer),
    ]
}

fn run(pair: &mut Pair, event: &Event) {
    match event {
        Event::Step(step) => pair.step(step),
        Event::Apply(count) => pair.apply(*count),
        Event::Commit => pair.commit(),
        Event::Settle => pair.settle(),
        Event::Ask(ino, view) => pair.ask(Ino(*ino), *view),
        Event::Deliver(which) => pair.deliver(*which),
        Event::UnloadAtClient(ino) => pair.client.unload(Ino(*ino)),
        Event::UnloadAtServer(ino) => pair.server.table.unload(Ino(*ino)),
        Event::TrimClient(bytes_max) => pair.client.trim(*bytes_max),
        Event::TrimServer(bytes_max) => pair.server.table.trim(*bytes_max),
    }
}

proptest! {
    #![proptest_config(crate::cases(600))]

    #[test]
    fn replica_and_server_are_equal_after_any_sequence(
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut pair = Pair::new();
        events.iter().for_each(|event| run(&mut pair, event));
        prop_assert_eq!(pair.compare(), Ok(()));
        // Once all is unloaded, the count of loaded rows must be back at zero.
        for table in [&mut pair.client, &mut pair.server.table] {
            table.trim(0);
            prop_assert_eq!((table.len(), table.bytes()), (0, 0));
        }
    }
}

fn create(name: u8) -> Event {
    Event::Step(Step::Create(vec![name], 0o644))
}

/// A listing is requested; the directory changes; the change is settled and unloaded; then the answer comes.
fn a_listing_that_is_late(pair: &mut Pair) -> Result<(), String> {
    let before = [create(b'a'), Event::Apply(9), Event::Commit, Event::Settle];
    let late = [Event::Ask(1, View::Applied), create(b'b'), Event::Apply(9), Event::Commit];
    let after = [Event::Settle, Event::TrimClient(0), Event::Deliver(0)];
    before.iter().chain(&late).chain(&after).for_each(|event| run(pair, event));
    pair.compare()
}

#[test]
fn a_listing_from_before_an_unloading_is_not_filled_in() {
    assert_eq!(a_listing_that_is_late(&mut Pair::new()), Ok(()));
}

#[test]
fn a_replica_that_trusts_late_answers_is_seen() {
    let mut pair = Pair::new();
    pair.trusts_late_answers = true;
    assert!(a_listing_that_is_late(&mut pair).is_err());
}

#[test]
fn a_row_that_the_store_lost_is_seen() {
    let mut pair = Pair::new();
    run(&mut pair, &create(b'a'));
    assert_eq!(pair.compare(), Ok(()));
    pair.server.store.nodes.remove(&Ino(pair.next_id));
    assert!(pair.compare().is_err());
}

#[test]
fn a_listing_never_overrides_what_the_client_changed() {
    let mut pair = Pair::new();
    let unlink = Event::Step(Step::Unlink(b"a".to_vec()));
    for event in [create(b'a'), Event::Apply(9), Event::Commit, Event::Settle] {
        run(&mut pair, &event);
    }
    pair.client.trim(0);
    for event in [Event::Ask(1, View::Applied), unlink, create(b'b'), Event::Deliver(0)] {
        run(&mut pair, &event);
    }
    let known = pair.client.children(Ino::ROOT).expect("the listing was filled in");
    let names: Vec<&[u8]> = known.iter().map(|(name, _)| name.as_bytes()).collect();
    assert_eq!(names, [b"b".as_slice(), b"inbox", b"outbox"]);
}

#[test]
fn a_removed_node_stays_absent_whatever_answers_are_late() {
    let mut pair = Pair::new();
    let mkdir = Event::Step(Step::Mkdir(b"a".to_vec(), 0o755));
    let inside = Event::Step(Step::Create(b"ab".to_vec(), 0o644));
    for event in [mkdir, inside, Event::Apply(9), Event::Commit] {
        run(&mut pair, &event);
    }
    let directory = Ino(pair.next_id - 1);
    let Loaded::Present(late) = pair.client.node(directory) else { panic!("it was not made") };
    let gone = [Step::Unlink(b"ab".to_vec()), Step::Rmdir(b"a".to_vec())];
    gone.into_iter().for_each(|step| run(&mut pair, &Event::Step(step)));
    run(&mut pair, &Event::Settle);
    assert_eq!(pair.client.node(directory), Loaded::Absent);
    run(&mut pair, &Event::Apply(9));
    run(&mut pair, &Event::Commit);
    run(&mut pair, &Event::Settle);
    assert_eq!(pair.compare(), Ok(()));
    let before = pair.client.unloadings();
    pair.client.fill_node(directory, Some((*late).clone()));
    assert_eq!(pair.client.node(directory), Loaded::Absent);
    assert_eq!(pair.client.unloadings(), before);
    // The answer must not be filled in any more once that is forgotten.
    pair.client.trim(0);
    assert_eq!(pair.client.node(directory), Loaded::Unknown);
    assert_eq!(pair.client.known_entries(directory, None).count(), 0);
    assert!(pair.client.unloadings() > before);
}

#[test]
fn a_client_remembers_some_removed_nodes_and_not_all() {
    const REMOVED: usize = 10_000;
    let mut pair = Pair::new();
    let (before, len) = (pair.client.unloadings(), pair.client.len());
    for _ in 0..REMOVED {
        for event in [create(b'a'), Event::Step(Step::Unlink(b"a".to_vec()))] {
            run(&mut pair, &event);
        }
        for event in [Event::Apply(9), Event::Commit, Event::Settle] {
            run(&mut pair, &event);
        }
    }
    assert!(pair.client.len() - len < REMOVED / 2, "{} rows", pair.client.len());
    let unloadings = pair.client.unloadings() - before;
    assert!((1..10).contains(&unloadings), "{unloadings}");
}

#[test]
fn trimming_counts_entries_and_keeps_only_those_that_are_not_settled() {
    let mut pair = Pair::new();
    for event in [create(b'a'), create(b'b'), Event::Apply(9), Event::Commit, create(b'c')] {
        run(&mut pair, &event);
    }
    run(&mut pair, &Event::Apply(9));
    let table = &mut pair.server.table;
    table.trim(0);
    let names: Vec<_> = table.known_entries(Ino::ROOT, None).map(|(name, _)| name).collect();
    assert_eq!(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), [b"c"]);
    assert!(!table.is_complete(Ino::ROOT));
    assert_eq!(table.len(), 3, "the entry, its node and its directory");
    assert_eq!(pair.compare(), Ok(()));
}

#[test]
fn an_empty_directory_stays_known_until_the_server_has_it() {
    let mut pair = Pair::new();
    run(&mut pair, &Event::Step(Step::Mkdir(b"d".to_vec(), 0o755)));
    let directory = Ino(pair.next_id);
    pair.client.trim(0);
    assert!(pair.client.is_complete(directory));
    for event in [Event::Apply(9), Event::Commit, Event::Settle] {
        run(&mut pair, &event);
    }
    pair.client.trim(0);
    assert!(pair.client.is_empty() && !pair.client.is_complete(directory));
    assert_eq!(pair.compare(), Ok(()));
}

#[test]
fn names_that_are_gone_from_the_store_are_forgotten_beside_it() {
    let mut pair = Pair::new();
    for event in [create(b'a'), Event::Apply(9), Event::Commit] {
        run(&mut pair, &event);
    }
    pair.server.table.trim(0);
    for event in [Event::Step(Step::Unlink(b"a".to_vec())), Event::Apply(9), Event::Commit] {
        run(&mut pair, &event);
    }
    assert!(!pair.server.table.is_complete(Ino::ROOT));
    assert_eq!(pair.server.table.known_entries(Ino::ROOT, None).count(), 0);
    assert_eq!(pair.compare(), Ok(()));
}

/// A client with three known directories of one file each, all settled; and their numbers.
fn three_directories() -> (Pair, [Ino; 3]) {
    let mut pair = Pair::new();
    let directories = [b'a', b'b', b'c'].map(|letter| {
        run(&mut pair, &Event::Step(Step::Mkdir(vec![letter], 0o755)));
        let directory = Ino(pair.next_id);
        run(&mut pair, &Event::Step(Step::Create(vec![letter, b'a'], 0o644)));
        directory
    });
    for event in [Event::Apply(9), Event::Commit, Event::Settle] {
        run(&mut pair, &event);
    }
    (pair, directories)
}

#[test]
fn what_was_looked_at_since_the_last_trimming_is_unloaded_last() {
    let (mut pair, [a, b, c]) = three_directories();
    let all = [Ino::ROOT, a, b, c];
    let trim = |pair: &mut Pair| pair.client.trim(pair.client.bytes() - 1);
    // All had been read, so any of them may go; afterwards none counts as read any more.
    trim(&mut pair);
    let left = all.into_iter().find(|ino| pair.client.is_complete(*ino)).expect("a fourth goes");
    let _ = pair.client.children(left);
    for directory in all.into_iter().filter(|ino| *ino != left) {
        pair.ask(directory, View::Committed);
        run(&mut pair, &Event::Deliver(0));
    }
    trim(&mut pair);
    assert!(pair.client.is_complete(left));
    assert_eq!(pair.compare(), Ok(()));
}

#[test]
fn a_listing_that_is_pinned_stays_whatever_is_unloaded() {
    let (mut pair, [a, b, _]) = three_directories();
    pair.client.pin(a);
    pair.client.pin(a);
    pair.client.unpin(a);
    pair.client.trim(0);
    pair.client.unload(a);
    assert!(pair.client.is_complete(a) && !pair.client.is_complete(b));
    assert_eq!(pair.client.len(), 2, "the directory that is pinned, and the entry in it");
    pair.client.unpin(a);
    pair.client.trim(0);
    assert!(pair.client.is_empty());
    assert_eq!(pair.compare(), Ok(()));
}

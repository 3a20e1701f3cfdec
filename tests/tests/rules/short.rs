//! All short histories, with a crash of the server at every call that it makes to its store: before
//! the call has an effect, and after it. The disk forgets what was not synced, or tears it.
//!
//! If the client goes on, every op has happened once. If its machine crashes too, what was synced is
//! there, and the tree is that of a prefix of the log.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use xfer_client::core::{CopyRange, New};
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::{Quota, RenameMode};
use xfer_protocol::{Errno, Ino, Name};
use xfer_tests::cable::Cable;
use xfer_tests::links::wayward::Bug;
use xfer_tests::peers::{Host, name};
use xfer_tests::{Random, scale};

use crate::history::Post;
use crate::model::Flaw;
use crate::plant;
use crate::program::Program;
use crate::user::User;

/// The longest histories, in steps. `XFER_SHORT_STEPS` sets another number.
const STEPS_MAX: usize = 3;

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Makes a file with data.
    Create,
    /// Writes over a part of that data, in place.
    Overwrite,
    MakeDirectory,
    /// Moves the file into the directory, or gives it another name if there is none.
    Rename,
    /// Copies the file's data on the server.
    Copy,
    Remove,
    /// Waits until everything is durable.
    Sync,
}

const STEPS: [Step; 7] = [
    Step::Create,
    Step::Overwrite,
    Step::MakeDirectory,
    Step::Rename,
    Step::Copy,
    Step::Remove,
    Step::Sync,
];

/// What becomes of the client when the server crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    GoesOn,
    CrashesToo,
}

async fn take(program: &Program, step: Step) -> Result<(), Errno> {
    let at = |text: &str| (Ino::ROOT, name(text));
    let (file, copy) = (at("a"), at("b"));
    match step {
        Step::Create => {
            let ((ino, _), handle) = program.create(&file, 0o644).await?;
            let written = program.write(ino, 0, Bytes::from(vec![1; 9_000]), false).await;
            program.close(ino, handle).await?;
            program.forget(ino).await;
            written
        }
        Step::Overwrite => {
            let Some(ino) = find(program, &file.1).await? else { return Ok(()) };
            let written = program.write(ino, 3_000, Bytes::from(vec![2; 3_000]), false).await;
            program.forget(ino).await;
            written
        }
        Step::MakeDirectory => {
            let (ino, _) = program.make(&at("d"), &New::Directory { mode: 0o755 }).await?;
            program.forget(ino).await;
            Ok(())
        }
        Step::Rename => {
            let directory = find(program, &name("d")).await?;
            let to = directory.map_or(copy, |directory| (directory, name("a")));
            let renamed = program.rename(&file, &to, RenameMode::Replace).await;
            if let Some(directory) = directory {
                program.forget(directory).await;
            }
            renamed
        }
        Step::Copy => {
            let Some(from) = find(program, &file.1).await? else { return Ok(()) };
            let ((to, _), handle) = program.create(&copy, 0o644).await?;
            let range = CopyRange { from, from_offset: 0, to, to_offset: 0, len: 9_000 };
            let copied = program.copy(range, false).await;
            program.close(to, handle).await?;
            program.forget(from).await;
            program.forget(to).await;
            copied
        }
        Step::Remove => program.unlink(&file).await,
        Step::Sync => program.client().sync().await,
    }
}

/// A node in the root, held.
async fn find(program: &Program, name: &Name) -> Result<Option<Ino>, Errno> {
    Ok(program.lookup(&(Ino::ROOT, name.clone())).await?.map(|(ino, _)| ino))
}

/// Takes the steps, and syncs. One that is refused is in the notes.
fn work(program: Program, history: Vec<Step>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for step in history.into_iter().chain([Step::Sync]) {
            let _ = take(&program, step).await;
        }
    })
}

/// Lives a history whose server crashes at a moment of its work. False if it ends before that.
async fn live(history: &[Step], moment: usize, client: Client, flaw: Flaw) -> bool {
    let mut random = Random::new(moment as u64);
    let mut post = Post::default();
    let mut host = Host::simulated(&["alice"], Quota::UNLIMITED, 64 << 20).await;
    let simulated = host.simulated.clone().expect("it is in memory");
    plant(flaw, &simulated);
    let mut alice = User::new(&host, name("alice"), Quota::UNLIMITED, flaw).await;
    alice.begin(&host, Purpose::Mount, &mut random, &mut post).await;
    alice.settle().await;
    host.die_at(moment);
    let program = alice.program().expect("it is mounted");
    let working = work(program.clone(), history.to_vec());
    while !host.is_dead() && !working.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    let is_crashed = host.is_dead();
    if !is_crashed {
        host.live_on();
    } else {
        host.kill();
        alice.cables().for_each(Cable::cut);
        simulated.disk.lose_power(&mut random).await;
        if client == Client::CrashesToo {
            alice.pull();
            alice.lose(&host, &mut random, &mut post).await;
        }
        host.reopen(64 << 20);
    }
    working.await.expect("a program does not fail");
    if alice.mounted.is_some() {
        alice.settle().await;
        alice.walk().await;
        alice.catch_up(&mut post);
        alice.end(&host).await;
    }
    // One that knows only what the server has.
    alice.begin(&host, Purpose::Mount, &mut random, &mut post).await;
    alice.walk().await;
    alice.settle().await;
    alice.catch_up(&mut post);
    alice.history.audit();
    simulated.rows.wait_for_all().await;
    let account = host.account(&alice.name).await;
    let whole = (alice.history.at(), alice.history.whole().usage());
    assert_eq!((account.applied, account.usage), whole);
    alice.end(&host).await;
    is_crashed
}

/// Lives a history once for each moment at which its server can crash.
fn live_through(history: &[Step], client: Client, flaw: Flaw) -> usize {
    let mut moment = 0;
    loop {
        let lived = std::panic::catch_unwind(|| {
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
            runtime.block_on(live(history, moment, client, flaw))
        });
        let Ok(is_crashed) = lived else {
            panic!("{history:?}, crash at moment {moment}, the client {client:?}, {flaw:?}");
        };
        if !is_crashed {
            return moment;
        }
        moment += 1;
    }
}

/// All histories of so many steps.
fn histories(steps: usize) -> impl Iterator<Item = Vec<Step>> {
    let count = STEPS.len().pow(steps as u32);
    (0..count).map(move |mut number| {
        let step = |_| {
            let step = STEPS[number % STEPS.len()];
            number /= STEPS.len();
            step
        };
        (0..steps).map(step).collect()
    })
}

fn live_all(client: Client) {
    // A crash of both leaves bytes that were written over in place as any disk would.
    let is_fit =
        |history: &Vec<Step>| client == Client::GoesOn || !history.contains(&Step::Overwrite);
    let steps = 1..=scale::count("XFER_SHORT_STEPS", STEPS_MAX);
    let all = steps.flat_map(histories).filter(is_fit);
    let moments: usize = all.map(|history| live_through(&history, client, Flaw::None)).sum();
    println!("{moments} moments");
    assert!(moments > 3_000, "only {moments} moments");
}

#[test]
fn a_server_that_crashes_at_any_moment_of_any_short_history_makes_every_change_once() {
    live_all(Client::GoesOn);
}

#[test]
fn machines_that_crash_at_any_moment_of_any_short_history_keep_what_was_synced_and_a_prefix() {
    live_all(Client::CrashesToo);
}

#[track_caller]
fn must_be_found(flaw: Flaw) {
    for client in [Client::GoesOn, Client::CrashesToo] {
        let history = [Step::Create, Step::Sync, Step::MakeDirectory];
        let live = || live_through(&history, client, flaw);
        assert!(std::panic::catch_unwind(live).is_err(), "nobody noticed: {flaw:?}, {client:?}");
    }
}

#[test]
fn the_short_histories_see_a_sync_that_was_skipped() {
    must_be_found(Flaw::SkipsSyncs);
}

#[test]
fn the_short_histories_see_a_commit_that_was_acknowledged_early() {
    must_be_found(Flaw::OfRows(Bug::AcknowledgesEarly));
}

#[test]
fn the_short_histories_see_a_late_commit_of_a_session_that_has_gone_on() {
    must_be_found(Flaw::OfRows(Bug::ForgetsEpochs));
}

//! All short histories, with a crash at every call that the server makes to its store: before the
//! call has an effect, and after it. If the server crashes, its disk forgets what was not synced, or
//! tears it.
//!
//! If the client goes on, every op has happened once. If its machine crashes, what was synced is
//! there, and the tree is that of a prefix of the log.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use xfer_client::core::{CopyRange, New, NewAttributes};
use xfer_protocol::message::Purpose;
use xfer_protocol::tree::{FallocateMode, Quota, RenameMode, XattrMode};
use xfer_protocol::{Errno, Ino};
use xfer_tests::cable::Cable;
use xfer_tests::links::wayward::Bug;
use xfer_tests::peers::{Host, Simulated, name};
use xfer_tests::{Random, scale};

use crate::history::Post;
use crate::model::Flaw;
use crate::plant;
use crate::program::{Place, Program};
use crate::user::User;

/// The longest histories, in steps, of the few kinds of steps. `XFER_SHORT_STEPS` sets another number.
const STEPS_MAX: usize = 3;

/// The longest histories of all kinds of steps. `XFER_SHORT_ALL_STEPS` sets another number.
const ALL_STEPS_MAX: usize = 2;

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
    /// Copies the file's data on the server, over the other file if there is one.
    Copy,
    Remove,
    /// Waits until everything is durable.
    Sync,
    /// Cuts the file off.
    Truncate,
    SetMode,
    /// Gives the file a second name, in the directory if there is one.
    Link,
    Symlink,
    RemoveDirectory,
    /// Exchanges the two files.
    Exchange,
    SetXattr,
    /// Makes a hole in the file's data.
    Punch,
    /// Sends another user a file.
    Send,
}

/// All kinds.
const ALL: [Step; 16] = [
    Step::Create,
    Step::Overwrite,
    Step::MakeDirectory,
    Step::Rename,
    Step::Copy,
    Step::Remove,
    Step::Sync,
    Step::Truncate,
    Step::SetMode,
    Step::Link,
    Step::Symlink,
    Step::RemoveDirectory,
    Step::Exchange,
    Step::SetXattr,
    Step::Punch,
    Step::Send,
];

/// The longest histories are of so many kinds, the first ones.
const FEW: usize = 7;

/// The tree in which a history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Empty,
    /// Both files and the directory are there, and durable.
    Furnished,
}

/// Where a history begins, what happens in it, and what crashes.
#[derive(Clone, Debug)]
struct Story {
    start: Start,
    steps: Vec<Step>,
    crash: Crash,
    flaw: Flaw,
}

/// What crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// The server, and its disk loses its power; the client goes on.
    Server,
    /// The client's machine too.
    Both,
    /// The client's machine; the server goes on.
    Client,
}

async fn take(program: &Program, step: Step) -> Result<(), Errno> {
    let at = |text: &str| (Ino::ROOT, name(text));
    let (file, other, directory) = (at("a"), at("b"), at("d"));
    match step {
        Step::Create => make_file(program, &file, &[1; 9_000]).await,
        Step::MakeDirectory => make(program, &directory, &New::Directory { mode: 0o755 }).await,
        Step::Symlink => make(program, &other, &New::Symlink { target: "a".into() }).await,
        Step::Rename => {
            let (held, to) = beside(program, &file, &other).await?;
            let renamed = program.rename(&file, &to, RenameMode::Replace).await;
            release(program, held).await;
            renamed
        }
        Step::Exchange => program.rename(&file, &other, RenameMode::Exchange).await,
        Step::Copy => copy(program, &file, &other).await,
        Step::Remove => program.unlink(&file).await,
        Step::RemoveDirectory => program.rmdir(&directory).await,
        Step::Sync => program.client().sync().await,
        Step::Send => {
            let outbox = find(program, &at("outbox")).await?.ok_or(Errno::ENOENT)?;
            let mailbox = find(program, &(outbox, name("bob"))).await;
            program.forget(outbox).await;
            let mailbox = mailbox?.ok_or(Errno::ENOENT)?;
            let sent = make_file(program, &(mailbox, name("a")), &[3; 5_000]).await;
            program.forget(mailbox).await;
            sent
        }
        Step::Overwrite
        | Step::Truncate
        | Step::SetMode
        | Step::Link
        | Step::SetXattr
        | Step::Punch => {
            let Some(ino) = find(program, &file).await? else { return Ok(()) };
            let changed = change(program, ino, step).await;
            program.forget(ino).await;
            changed
        }
    }
}

/// Takes a step that changes the file.
async fn change(program: &Program, ino: Ino, step: Step) -> Result<(), Errno> {
    let unset = NewAttributes::default();
    match step {
        Step::Overwrite => program.write(ino, 3_000, Bytes::from(vec![2; 3_000]), false).await,
        Step::Truncate => {
            let new = NewAttributes { size: Some(4_500), ..unset };
            program.set_attributes(ino, &new).await.map(drop)
        }
        Step::SetMode => {
            let new = NewAttributes { mode: Some(0o600), ..unset };
            program.set_attributes(ino, &new).await.map(drop)
        }
        Step::Link => {
            let at = |text: &str| (Ino::ROOT, name(text));
            let (held, to) = beside(program, &at("a"), &at("b")).await?;
            let linked = program.link(ino, &to).await;
            // The new name is looked up with it.
            release(program, linked.as_ref().ok().map(|(ino, _)| *ino)).await;
            release(program, held).await;
            linked.map(drop)
        }
        Step::SetXattr => {
            let (key, value) = (Bytes::from("user.x"), Bytes::from("value"));
            program.set_xattr(ino, key, value, XattrMode::Either).await
        }
        Step::Punch => program.fallocate(ino, 2_000..7_000, FallocateMode::PunchHole, false).await,
        other => panic!("{other:?} does not change a file"),
    }
}

/// Makes a file with data, and closes it, which sends one in a mailbox.
async fn make_file(program: &Program, place: &Place, data: &'static [u8]) -> Result<(), Errno> {
    let ((ino, _), handle) = program.create(place, 0o644).await?;
    let written = program.write(ino, 0, Bytes::from_static(data), false).await;
    let closed = program.close(ino, handle).await;
    program.forget(ino).await;
    written.and(closed)
}

async fn make(program: &Program, place: &Place, new: &New) -> Result<(), Errno> {
    let (ino, _) = program.make(place, new).await?;
    program.forget(ino).await;
    Ok(())
}

/// Copies a file's data over another, which is made if it is not there.
async fn copy(program: &Program, from: &Place, to: &Place) -> Result<(), Errno> {
    let Some(source) = find(program, from).await? else { return Ok(()) };
    // If it is there, this is refused, as the rules must say.
    let _ = make(program, to, &New::File { mode: 0o644 }).await;
    let copied = match find(program, to).await {
        Ok(Some(target)) => {
            let range =
                CopyRange { from: source, from_offset: 0, to: target, to_offset: 0, len: 9_000 };
            let copied = program.copy(range, false).await;
            program.forget(target).await;
            copied
        }
        other => other.map(drop),
    };
    program.forget(source).await;
    copied
}

/// A place for the file under another name: in the directory, which is then held, if there is one.
async fn beside(
    program: &Program,
    file: &Place,
    other: &Place,
) -> Result<(Option<Ino>, Place), Errno> {
    let directory = find(program, &(Ino::ROOT, name("d"))).await?;
    let place = directory.map_or(other.clone(), |directory| (directory, file.1.clone()));
    Ok((directory, place))
}

/// Releases a node if it is held.
async fn release(program: &Program, held: Option<Ino>) {
    if let Some(ino) = held {
        program.forget(ino).await;
    }
}

/// The node at a place, held.
async fn find(program: &Program, place: &Place) -> Result<Option<Ino>, Errno> {
    Ok(program.lookup(place).await?.map(|(ino, _)| ino))
}

/// Takes the steps, and syncs. One that is refused is in the notes.
fn work(program: Program, steps: Vec<Step>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for step in steps.into_iter().chain([Step::Sync]) {
            let _ = take(&program, step).await;
        }
    })
}

/// The parts of a story while it is lived.
struct Life {
    host: Host,
    simulated: Simulated,
    alice: User,
    post: Post,
    random: Random,
}

impl Life {
    async fn begin(story: &Story, moment: usize) -> Life {
        let mut random = Random::new(moment as u64);
        let mut post = Post::default();
        let host = Host::simulated(&["alice", "bob"], Quota::UNLIMITED, 64 << 20).await;
        let simulated = host.simulated.clone().expect("it is in memory");
        plant(story.flaw, &simulated);
        let mut alice = User::new(&host, name("alice"), Quota::UNLIMITED, story.flaw).await;
        alice.begin(&host, Purpose::Mount, &mut random, &mut post).await;
        if story.start == Start::Furnished {
            let program = alice.program().expect("it is mounted");
            for step in [Step::Create, Step::Copy, Step::MakeDirectory] {
                take(&program, step).await.expect("there is nothing yet");
            }
        }
        alice.settle().await;
        alice.catch_up(&mut post);
        Life { host, simulated, alice, post, random }
    }

    /// Works until the moment of the crash. False if the work is done before that.
    async fn work(&self, story: &Story, moment: usize) -> (JoinHandle<()>, bool) {
        let Life { host, alice, .. } = self;
        let (program, cable) = (alice.program(), alice.cable());
        let (program, cable) = (program.expect("it is mounted"), cable.expect("it has a cable"));
        match story.crash {
            Crash::Server | Crash::Both => host.die_at(moment),
            Crash::Client => {
                let (program, cable) = (program.clone(), cable.clone());
                host.act_at(
                    moment,
                    Box::new(move || {
                        program.doom();
                        cable.pull();
                    }),
                );
            }
        }
        let working = work(program, story.steps.clone());
        let is_crashed = || host.is_dead() || !cable.is_whole();
        while !is_crashed() && !working.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        (working, is_crashed())
    }

    async fn crash(&mut self, crash: Crash) {
        let Life { host, simulated, alice, post, random } = self;
        if crash != Crash::Client {
            host.kill();
            alice.cables().for_each(Cable::cut);
            simulated.disk.lose_power(random).await;
            alice.catch_up_with_store(host, post).await;
            alice.audit_store(host).await;
        }
        if crash != Crash::Server {
            alice.pull();
            alice.lose(host, random, post).await;
        }
        if crash != Crash::Client {
            host.reopen(64 << 20);
        }
    }

    /// Ends the client, if it goes on, and looks at all that is there with one that knows only that.
    async fn end(mut self) {
        let Life { host, simulated, alice, post, random } = &mut self;
        if alice.mounted.is_some() {
            alice.settle().await;
            alice.walk().await;
            alice.catch_up(post);
            alice.end(host).await;
        }
        alice.begin(host, Purpose::Mount, random, post).await;
        alice.walk().await;
        alice.settle().await;
        alice.catch_up(post);
        alice.history.audit();
        simulated.rows.wait_for_all().await;
        let account = host.account(&alice.name).await;
        let whole = (alice.history.at(), alice.history.whole().usage());
        assert_eq!((account.applied, account.usage), whole);
        let bob = name("bob");
        let waiting = host.waiting(&bob).await.into_iter().map(|head| head.id);
        assert_eq!(waiting.collect::<Vec<_>>(), post.waiting(&bob));
        alice.end(host).await;
    }
}

/// Lives a story that has its crash at a moment of the server's work. False if it ends before that.
async fn live(story: &Story, moment: usize) -> bool {
    let mut life = Life::begin(story, moment).await;
    let (working, is_crashed) = life.work(story, moment).await;
    match is_crashed {
        true => life.crash(story.crash).await,
        false => life.host.live_on(),
    }
    working.await.expect("a program does not fail");
    life.end().await;
    is_crashed
}

/// Lives a story once for each moment at which it can have its crash.
fn live_through(story: &Story) -> usize {
    let mut moment = 0;
    loop {
        let lived = std::panic::catch_unwind(|| {
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build().expect("a runtime");
            runtime.block_on(live(story, moment))
        });
        let Ok(is_crashed) = lived else { panic!("{story:?}, crash at moment {moment}") };
        if !is_crashed {
            return moment;
        }
        moment += 1;
    }
}

/// All histories of up to so many steps of these kinds.
fn histories(kinds: &[Step], most: usize) -> impl Iterator<Item = Vec<Step>> {
    let of = move |steps: usize| {
        (0..kinds.len().pow(steps as u32)).map(move |mut number| {
            let step = |_| {
                let step = kinds[number % kinds.len()];
                number /= kinds.len();
                step
            };
            (0..steps).map(step).collect()
        })
    };
    (1..=most).flat_map(of)
}

fn live_all(crash: Crash, few: usize) {
    let few = histories(&ALL[..FEW], scale::count("XFER_SHORT_STEPS", few));
    let all = histories(&ALL, scale::count("XFER_SHORT_ALL_STEPS", ALL_STEPS_MAX));
    let from = |start| move |steps| Story { start, steps, crash, flaw: Flaw::None };
    let stories = few.map(from(Start::Empty)).chain(all.map(from(Start::Furnished)));
    let (mut count, mut moments) = (0, 0);
    for story in stories {
        moments += live_through(&story);
        count += 1;
    }
    println!("{count} stories, {moments} moments");
    assert!(moments > 5 * count, "only {moments} moments of {count} stories");
}

#[test]
fn a_server_that_crashes_at_any_moment_of_any_short_history_makes_every_change_once() {
    live_all(Crash::Server, STEPS_MAX);
}

#[test]
fn machines_that_crash_at_any_moment_of_any_short_history_keep_what_was_synced_and_a_prefix() {
    live_all(Crash::Both, STEPS_MAX);
}

#[test]
fn a_client_that_crashes_at_any_moment_of_any_short_history_leaves_what_was_synced_and_a_prefix() {
    live_all(Crash::Client, STEPS_MAX - 1);
}

#[track_caller]
fn must_be_found(flaw: Flaw, crash: Crash, start: Start, steps: &[Step]) {
    let story = Story { start, steps: steps.to_vec(), crash, flaw };
    let live = || live_through(&story);
    assert!(std::panic::catch_unwind(live).is_err(), "nobody noticed: {story:?}");
}

/// A flaw of the store, which its crash brings to light.
#[track_caller]
fn must_be_found_after_crashes(flaw: Flaw) {
    for crash in [Crash::Server, Crash::Both] {
        let steps = [Step::Create, Step::Sync, Step::MakeDirectory];
        must_be_found(flaw, crash, Start::Empty, &steps);
    }
}

#[test]
fn the_short_histories_see_a_sync_that_was_skipped() {
    must_be_found_after_crashes(Flaw::SkipsSyncs);
}

#[test]
fn the_short_histories_see_a_commit_that_was_acknowledged_early() {
    must_be_found_after_crashes(Flaw::OfRows(Bug::AcknowledgesEarly));
}

#[test]
fn the_short_histories_see_a_late_commit_of_a_session_that_has_gone_on() {
    must_be_found_after_crashes(Flaw::OfRows(Bug::ForgetsEpochs));
}

#[test]
fn the_short_histories_see_a_file_that_was_sent_twice() {
    let flaw = Flaw::OfRows(Bug::AppliesTwice);
    must_be_found(flaw, Crash::Server, Start::Furnished, &[Step::Send]);
}

#[test]
fn the_short_histories_see_a_synced_op_that_got_lost_with_its_client() {
    must_be_found(Flaw::LosesAnOp, Crash::Client, Start::Furnished, &[Step::SetMode, Step::Sync]);
}

//! Links that end in the middle of a message, at each byte of what they carry: they are closed, or fall
//! silent. Every change is made exactly once, nothing that a program is shown is wrong, and the account
//! can be used at once.
//!
//! A [`Scene`] is what happens on one or two machines, and a [`Round`] is one time of it. In the first
//! round no link ends. In each other one, one link ends once: after as many bytes as that round is
//! about. Here is how; the scenes are in [`session`], [`reads`], [`openings`], [`seats`], [`endings`] and
//! [`accounts`].
#![allow(clippy::unwrap_used)]

mod session;
mod reads;
mod openings;
mod seats;
mod endings;
mod accounts;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};
use xfer_client::connect::EndpointError;
use xfer_client::core::{Core, Options};
use xfer_client::files::Files;
use xfer_protocol::limits::LEASE_ASKED_MS;
use xfer_protocol::message::{Purpose, Refusal};
use xfer_protocol::tree::Quota;
use xfer_tests::Random;
use xfer_tests::cable::{Cable, Cut, Lane, LinkKind, Way, Wiring};
use xfer_tests::links::kinds::{self, Kind, Seen};
use xfer_tests::peers::{Host, Machine, Peer, roomy};

/// The longest time that a round may take on its own clock.
const ROUND_MAX: Duration = Duration::from_secs(3600);

/// How long the server keeps the seat of a client that is gone once another one asks for it: until it
/// finds that its last words are not acknowledged, and then for as long as that client may be away. A
/// login asks each second.
const SEAT_MAX: Duration = Duration::from_millis(10_000 + LEASE_ASKED_MS + 1000);

/// The bytes that a lane may carry more in one round than in another: two sides that run on one thread
/// still do not always put as much into one message.
const LEEWAY: u64 = 64;

const LOG: [Lane; 2] =
    [Lane { kind: LinkKind::Log, way: Way::Up }, Lane { kind: LinkKind::Log, way: Way::Down }];
const READS: [Lane; 2] =
    [Lane { kind: LinkKind::Read, way: Way::Up }, Lane { kind: LinkKind::Read, way: Way::Down }];

/// What happens in each round.
struct Scene {
    /// The machines whose links may be cut.
    machines: usize,
    /// How their cables are wired.
    wiring: fn() -> Wiring,
    /// In about how many places a lane is cut, unless `XFER_CUTS=all` asks for each.
    places: u64,
    play: fn(Arc<Round>) -> Played,
}

type Played = Pin<Box<dyn Future<Output = ()>>>;

/// All scenes.
const SCENES: [Scene; 6] =
    [session::SCENE, reads::SCENE, openings::SCENE, seats::SCENE, endings::SCENE, accounts::SCENE];

/// Where a link is cut.
#[derive(Clone, Copy)]
struct Place {
    machine: usize,
    lane: Lane,
    after: u64,
    how: Cut,
}

/// One time that a scene is played.
struct Round {
    /// One for each machine.
    cables: Vec<Cable>,
    cut: Option<Place>,
}

impl Scene {
    /// A scene on so many machines, with ordinary cables.
    const fn on(machines: usize, places: u64, play: fn(Arc<Round>) -> Played) -> Scene {
        Scene { machines, wiring: Wiring::default, places, play }
    }

    /// Plays the scene. A link may be cut once.
    fn play(&self, seen: &Seen, cut: Option<Place>) -> Arc<Round> {
        let wiring = || Wiring { seen: Some(seen.clone()), ..(self.wiring)() };
        let cables = (0..self.machines).map(|_| Cable::new(wiring())).collect();
        let round = Arc::new(Round { cables, cut });
        if let Some(Place { machine, lane, after, how }) = cut {
            round.cables[machine].end_after(lane, after, how);
        }
        runtime().block_on(async {
            let played = timeout(ROUND_MAX, (self.play)(round.clone())).await;
            played.expect("it goes on for ever");
        });
        round
    }

    /// Cuts each of these lanes of a machine's links, after each byte that it carries or, if they are
    /// many, after some.
    fn cut_each(&self, machine: usize, lanes: [Lane; 2]) {
        let mut random = Random::new(Random::seed());
        let mut cuts = 0;
        for lane in lanes {
            let whole = self.play(&Seen::default(), None).cables[machine].carried(lane);
            assert!(whole > 100, "{lane:?} carries only {whole} bytes");
            let step = if every_place() { 1 } else { prime_from(whole / self.places) };
            for after in (random.below(step)..whole).step_by(step as usize) {
                let ways = [Cut::Closed, Cut::Silent];
                let one = [ways[random.below(2) as usize]];
                for how in if every_place() { &ways[..] } else { &one[..] } {
                    let told = Told(Place { machine, lane, after, how: *how });
                    let round = self.play(&Seen::default(), Some(told.0));
                    assert!(round.was_cut() || after + LEEWAY > whole, "it was not cut");
                    cuts += usize::from(round.was_cut());
                }
            }
        }
        println!("{cuts} cuts");
    }
}

/// A runtime of its own for each round, so that nothing of one lives on in the next.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn every_place() -> bool {
    std::env::var("XFER_CUTS").is_ok_and(|text| text == "all")
}

/// The first prime from a number on, so that the cuts fall on all parts of messages.
fn prime_from(number: u64) -> u64 {
    let is_prime = |n: &u64| (2..*n).all(|divisor| !n.is_multiple_of(divisor));
    (number.max(1)..).find(is_prime).unwrap()
}

/// Says where the link was cut if the round fails.
struct Told(Place);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it failed with a cut {}", self.0);
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { machine, lane: Lane { kind, way }, after, how } = self;
        write!(
            f,
            "({how:?}) after {after} bytes of the {kind:?} links of machine {machine}, {way:?}"
        )
    }
}

impl Round {
    /// Whether a link was cut.
    fn was_cut(&self) -> bool {
        self.cut.is_some_and(|Place { machine, lane, .. }| self.cables[machine].was_cut(lane))
    }

    /// Logs alice in on a machine of which the server knows nothing, after she has logged out
    /// everywhere. If the server did not hear of that, it soon finds out that she is gone.
    async fn look_afterwards(&self, host: &Host) -> Peer {
        let asked = Instant::now();
        loop {
            match host.mount("alice", Purpose::Mount).await {
                Ok(peer) => return peer,
                Err(refused) => {
                    assert!(self.was_cut() && asked.elapsed() < SEAT_MAX, "{refused:?}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// A server with these accounts.
    async fn host(users: &[&str]) -> Host {
        let mut host = Host::simulated(users, Quota::UNLIMITED, 64 << 20).await;
        host.guard().await;
        host
    }

    /// Logs alice in on a machine. If the link is cut meanwhile, she is let in when she tries again
    /// at once, as a user does.
    async fn mount(&self, machine: usize, host: &Host, purpose: Purpose) -> Peer {
        match self.try_mount(machine, host, purpose).await {
            Ok(peer) => return peer,
            Err(EndpointError::Broken(..) | EndpointError::TimedOut(_)) => {}
            Err(error) => panic!("{error}"),
        }
        self.try_mount(machine, host, purpose).await.unwrap_or_else(|error| {
            panic!("a login that was cut off keeps its own user out: {error}")
        })
    }

    async fn try_mount(
        &self,
        machine: usize,
        host: &Host,
        purpose: Purpose,
    ) -> Result<Peer, EndpointError> {
        let (cable, machine) = (&self.cables[machine], Machine::default());
        host.mount_over(cable, &machine, "alice", purpose, options()).await
    }

    /// Has alice's login refused. If the link is cut meanwhile, she tries again.
    async fn refused(&self, machine: usize, host: &Host) -> Refusal {
        for _ in 0..2 {
            match self.try_mount(machine, host, Purpose::Mount).await {
                Err(EndpointError::Refused(refusal)) => return refusal,
                Err(EndpointError::Broken(..) | EndpointError::TimedOut(_)) => {}
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("she was let in"),
            }
        }
        panic!("the link was cut twice")
    }
}

/// The options of all clients: two of an account hand the seat over, and nothing times out.
fn options() -> Options {
    Options { handoff: true, wait: None, ..roomy("test") }
}

/// Waits until a condition holds, whatever the links do.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        sleep(Duration::from_millis(50)).await;
    }
}

/// The state of what a user has sent, for people.
async fn state(files: &Files, path: &str) -> String {
    let ino = files.stat(path).await.unwrap().0;
    let state = move |core: &mut Core| core.xattr(ino, b"user.xfer.state");
    String::from_utf8(files.client().call(state).await.unwrap().into()).unwrap()
}

async fn until_there(files: &Files, path: &str) {
    until(async || files.exists(path).await.unwrap()).await;
}

/// The kinds of messages that are on no link that is cut, by the reason. Each is part of a message of
/// which another kind is.
const ELSEWHERE: &[(&str, &[Kind])] = &[
    (
        "the session ends anyway, since the two sides disagree or the storage has failed",
        &[
            ("ToClient", "Diverged"),
            ("EndReason", "Protocol"),
            ("EndReason", "Storage"),
            ("Refusal", "Internal"),
            ("ReadError", "Invalid"),
            ("ReadError", "Storage"),
            ("ReadError", "Damaged"),
        ],
    ),
    (
        "it is the last word on a link that its client has left or that carries nothing",
        &[("EndReason", "Continued"), ("EndReason", "Silent"), ("ReadError", "Ended")],
    ),
    (
        "a link is refused before it has begun, in words that others are refused with, too",
        &[
            ("ServerHello", "Incompatible"),
            ("ServerHello", "Busy"),
            ("Refusal", "Busy"),
            ("Refusal", "Blocked"),
            ("Refusal", "RolledBack"),
            ("Refusal", "KeysOnly"),
            ("Refusal", "Disabled"),
            ("Refusal", "TooManyKeys"),
        ],
    ),
    (
        "a question and a change, or a break, must cross on their ways",
        &[
            ("ReadError", "OtherContent"),
            ("ReadError", "NoDirectory"),
            ("DeliveryState", "Unknown"),
        ],
    ),
    (
        "a password is hashed, which takes too long for so many rounds; to set it twice does no harm",
        &[
            ("Task", "SetPassword"),
            ("KeysThen", "Stay"),
            ("KeysThen", "AreRevokedBut"),
            ("Done", "PasswordSet"),
        ],
    ),
    ("10,000 nodes must change, and it is shorter than their list", &[("Changed", "All")]),
];

#[test]
fn every_kind_of_message_is_on_a_link_that_is_cut() {
    let seen = Seen::default();
    SCENES.iter().for_each(|scene| drop(scene.play(&seen, None)));
    let all: BTreeSet<Kind> = kinds::ALL.iter().copied().collect();
    let elsewhere: BTreeSet<Kind> =
        ELSEWHERE.iter().flat_map(|(_, kinds)| *kinds).copied().collect();
    let missed: Vec<_> = all.difference(&(&seen.kinds() | &elsewhere)).copied().collect();
    assert!(missed.is_empty(), "no link is cut while it carries {missed:?}");
    let found: Vec<_> = seen.kinds().intersection(&elsewhere).copied().collect();
    assert!(found.is_empty(), "{found:?} are not exceptions");
}

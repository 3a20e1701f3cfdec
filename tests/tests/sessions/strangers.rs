//! Idle connections and password guessers keep no user out: real TLS, a real server, and strangers
//! who reconnect whenever they are turned away.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::path::PathBuf;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use xfer_client::connect::{
    ConnectError, Credentials, Identity, KnownHosts, Login, Target, TrustMode, TrustPolicy, reach,
};
use xfer_mount::command::terminal::OnTerminal;
use xfer_protocol::Name;
use xfer_protocol::message::{Password, Purpose, Terms};
use xfer_server::listener::half_open::PLACES;
use xfer_tests::strangers::{Manner, Origin, Strangers};
use xfer_tests::{World, accounts};

/// More than a server has places for.
const STRANGERS: usize = 2 * PLACES + 50;

/// The number of concurrent logins.
const LOGINS: usize = 32;

/// The number of links that a session opens against each kind of stranger.
const LINKS: usize = 6;

/// The number of concurrent guessers.
const GUESSERS: usize = 40;

/// The manners of strangers who don't guess passwords.
const IDLE: [Manner; 3] = [Manner::Silent, Manner::HalfHandshake, Manner::Encrypted];

/// The address that logins come from.
const HERE: Origin = Origin::Here(Ipv4Addr::LOCALHOST);

fn user(number: usize) -> Name {
    Name::new(format!("user-{number:03}").as_bytes()).unwrap()
}

/// A user's way of connecting to a server.
struct Way {
    target: Target,
    mode: TrustMode,
    known_hosts: PathBuf,
}

impl Way {
    fn of(world: &World, user: &Name) -> Way {
        Way {
            target: format!("{user}@{}", world.server.address).parse().unwrap(),
            mode: TrustMode::Fingerprint(world.server.fingerprint.parse().unwrap()),
            known_hosts: world.outside().join("known_hosts"),
        }
    }

    async fn login(self) -> Result<Login, ConnectError> {
        let Way { target, mode, known_hosts } = self;
        let contact = reach(&target, &mode).await?;
        let policy = TrustPolicy { mode, known_hosts: KnownHosts::new(known_hosts) };
        let peer = contact.trust(&policy, &mut OnTerminal)?;
        peer.login(
            Identity::Password(Password(accounts::PASSWORD.into())),
            Purpose::Mount,
            None,
            Terms::default(),
        )
        .await
    }
}

/// Lets all users log in at once; none may be kept out.
fn all_log_in(world: &World, runtime: &Runtime) {
    runtime.block_on(async {
        let mut logins: JoinSet<_> =
            (0..LOGINS).map(|number| Way::of(world, &user(number)).login()).collect();
        let (mut inside, mut refused) = (Vec::new(), Vec::new());
        while let Some(login) = logins.join_next().await {
            match login.unwrap() {
                Ok(login) => inside.push(login),
                Err(error) => refused.push(error.to_string()),
            }
        }
        assert!(refused.is_empty(), "{} of {LOGINS} were refused: {refused:#?}", refused.len());
        assert_eq!(inside.len(), LOGINS);
    });
}

fn world_of_many() -> (World, Runtime) {
    let users: Vec<Name> = (0..LOGINS).map(user).collect();
    (World::of_many(&users), Runtime::new().unwrap())
}

#[test]
fn idle_connections_of_its_own_address_keep_no_login_out() {
    for manner in IDLE {
        let (world, runtime) = world_of_many();
        let strangers = Strangers::come(world.server.address, STRANGERS, manner, HERE);
        all_log_in(&world, &runtime);
        drop(strangers);
    }
}

#[test]
fn idle_connections_from_everywhere_keep_no_login_out() {
    for manner in IDLE {
        let (world, runtime) = world_of_many();
        let strangers =
            Strangers::come(world.server.address, STRANGERS, manner, Origin::Everywhere);
        all_log_in(&world, &runtime);
        drop(strangers);
    }
}

#[test]
fn idle_connections_keep_no_link_of_a_session_out() {
    let (world, runtime) = world_of_many();
    let login = runtime.block_on(Way::of(&world, &user(0)).login()).unwrap();
    let mut links = Vec::new();
    for manner in IDLE {
        let strangers =
            Strangers::come(world.server.address, STRANGERS, manner, Origin::Everywhere);
        for _ in 0..LINKS {
            // On a busy machine one attempt may time out.
            let attach =
                || login.session.dial.read_link(Credentials::new(&login.session.link.grant));
            let mut dials = (0..3).map(|_| runtime.block_on(attach()));
            links.push(dials.find_map(Result::ok).unwrap_or_else(|| panic!("{manner:?}: no link")));
        }
        drop(strangers);
    }
}

#[test]
fn a_mount_gets_in_though_strangers_come_from_everywhere() {
    let world = World::new(&["alice"]);
    for manner in IDLE {
        let address = world.server.address;
        let strangers = Strangers::come(address, STRANGERS, manner, Origin::Everywhere);
        let mount = world.mount("alice");
        mount.shell("echo hello > file && cat file");
        mount.unmount();
        drop(strangers);
    }
}

#[test]
fn a_mount_gets_in_though_passwords_are_guessed_from_everywhere() {
    let world = World::new(&["alice"]);
    let address = world.server.address;
    let strangers = Strangers::come(address, GUESSERS, Manner::Guesses, Origin::Everywhere);
    let mount = world.mount("alice");
    mount.unmount();
    drop(strangers);
}

//! The opening of connections, up to a login: over a pipe in memory, on a clock that jumps ahead,
//! with a real store and real hashes.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use xfer_link::{LinkError, receive, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    Binding, ClientHello, Credential, Opened, Opening, Password, PublicKey, Purpose, Refusal,
    Secret, ServerHello, Terms, VERSION,
};
use xfer_protocol::tree::Quota;
use xfer_protocol::{Name, SessionId, Timestamp};
use xfer_server::listener::half_open::{HalfOpen, PLACES, Slot, Step};
use xfer_server::login::lockout::Lockouts;
use xfer_server::login::opening::{Admitted, Door, NotAdmitted};
use xfer_server::login::password;
use xfer_server::login::source::Source;
use xfer_store::embedded::SqliteStore;

const HERE: &str = "192.0.2.1";
const ELSEWHERE: &str = "192.0.2.2";

/// A door to a store that has the user alice, whose password is "right".
struct House {
    store: tempfile::TempDir,
    door: Arc<Door>,
    half_open: Arc<HalfOpen>,
}

fn door(rows: SqliteStore) -> Arc<Door> {
    let register = xfer_store::embedded::register_over(Arc::new(rows));
    Arc::new(Door::new(register))
}

impl House {
    fn new() -> House {
        let store = tempfile::tempdir().unwrap();
        let meta = SqliteStore::open(store.path()).unwrap();
        let hash = password::hash(b"right").unwrap();
        let (quota, time) = (Quota::UNLIMITED, Timestamp::default());
        for user in ["alice", "bob"] {
            let name = Name::new(user.as_bytes()).unwrap();
            meta.create_account(&name, &hash, quota, quota, time).unwrap();
        }
        let door = door(meta);
        House { store, door, half_open: Arc::default() }
    }

    /// The same store behind the door of a restarted server.
    fn restarted(self) -> House {
        let meta = SqliteStore::open(self.store.path()).unwrap();
        House { door: door(meta), ..self }
    }

    fn knock(&self, from: &str) -> (DuplexStream, JoinHandle<Result<Admitted, NotAdmitted>>) {
        let (client, mut server) = tokio::io::duplex(64 << 10);
        let (door, address): (_, IpAddr) = (self.door.clone(), from.parse().unwrap());
        let (place, deadline) = (self.place(from), Instant::now() + Duration::from_secs(10));
        let opening = async move {
            door.open(&mut server, Binding::default(), address, place, deadline).await
        };
        (client, tokio::spawn(opening))
    }

    /// A place for a connection that is already encrypted.
    fn place(&self, from: &str) -> Slot {
        let mut place = self.half_open.enter(Source::of(from.parse().unwrap()));
        place.advance(Step::Opening);
        place
    }

    /// As many other connections as there are places, from many sources.
    fn crowd(&self) -> Vec<Slot> {
        (0..PLACES).map(|n| self.place(&format!("198.51.100.{}", n % 256))).collect()
    }

    /// Logs in and returns the bytes of the answer. There are none if the door left the answer to
    /// the engine.
    async fn login(&self, user: &str, password: &[u8], from: &str) -> (Vec<u8>, Option<Refusal>) {
        let (mut client, opening) = self.knock(from);
        greet(&mut client).await;
        say(&mut client, &login(user, password)).await;
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        match opening.await.unwrap() {
            Ok(Admitted::Log(who)) => {
                assert_eq!(who.user.as_bytes(), user.as_bytes());
                (bytes, None)
            }
            Err(NotAdmitted::Refused { refusal, .. }) => {
                let mut frame = &bytes[..];
                let (opened, _) = receive::<Opened, _>(&mut frame, Bounds::OPENING).await.unwrap();
                assert_eq!(opened, Opened::Refused(refusal.clone()));
                (bytes, Some(refusal))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn try_password(&self, user: &str, password: &[u8], from: &str) -> Option<Refusal> {
        self.login(user, password, from).await.1
    }

    async fn guess(&self, user: &str, times: usize) {
        for _ in 0..times {
            let refusal = self.try_password(user, b"wrong", HERE).await;
            assert_eq!(refusal, Some(Refusal::WrongPassword));
        }
    }
}

fn login(user: &str, password: &[u8]) -> Opening {
    Opening::Login {
        user: user.to_owned(),
        credential: Credential::Password(Password(password.to_vec())),
        purpose: Purpose::Mount,
        host: "laptop".to_owned(),
        key: PublicKey([0; 32]),
        replaces: None,
        terms: Terms::default(),
    }
}

async fn say<T: serde::Serialize>(client: &mut DuplexStream, message: &T) {
    send(client, message, &[], Bounds::OPENING).await.unwrap();
}

async fn greet(client: &mut DuplexStream) {
    say(client, &ClientHello::new("test")).await;
    let (hello, _) = receive::<ServerHello, _>(client, Bounds::OPENING).await.unwrap();
    assert!(matches!(hello, ServerHello::Welcome { version: VERSION, .. }));
}

#[tokio::test]
async fn the_right_password_is_handed_to_the_engine_without_an_answer() {
    let house = House::new();
    let (mut client, opening) = house.knock("::ffff:192.0.2.9");
    greet(&mut client).await;
    say(&mut client, &login("alice", b"right")).await;
    let Ok(Admitted::Log(who)) = opening.await.unwrap() else { panic!("not admitted") };
    assert_eq!(who.user.as_bytes(), b"alice");
    assert_eq!((who.host.as_str(), who.address.as_str()), ("laptop", "192.0.2.9"));
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn a_link_that_joins_a_session_is_handed_on_with_its_secret() {
    let house = House::new();
    let (mut client, opening) = house.knock(HERE);
    greet(&mut client).await;
    let (session, secret) = (SessionId([3; 16]), Secret([4; 32]));
    say(&mut client, &Opening::Attach { session, secret: secret.clone() }).await;
    let Ok(Admitted::Read { session: s, secret: x }) = opening.await.unwrap() else { panic!() };
    assert!(s == session && x == secret);
}

#[tokio::test]
async fn a_stranger_is_told_nothing() {
    let house = House::new();
    let (mut client, opening) = house.knock(HERE);
    let hello = ClientHello { magic: *b"http", ..ClientHello::new("test") };
    say(&mut client, &hello).await;
    assert!(matches!(opening.await.unwrap(), Err(NotAdmitted::Stranger)));
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.is_empty());
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_link() {
    let house = House::new();
    let (mut client, opening) = house.knock(HERE);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let ended = opening.await.unwrap();
    assert!(matches!(ended, Err(NotAdmitted::Link(LinkError::Frame(_)))), "{ended:?}");
}

#[tokio::test]
async fn a_client_of_another_version_is_told_ours() {
    let house = House::new();
    let (mut client, opening) = house.knock(HERE);
    let hello = ClientHello { version_min: 7, version_max: 9, ..ClientHello::new("test") };
    say(&mut client, &hello).await;
    let (answer, _) = receive::<ServerHello, _>(&mut client, Bounds::OPENING).await.unwrap();
    assert_eq!(answer, ServerHello::Incompatible { version_min: VERSION, version_max: VERSION });
    assert!(matches!(opening.await.unwrap(), Err(NotAdmitted::Incompatible { .. })));
}

#[tokio::test]
async fn a_newer_client_that_speaks_our_version_too_is_welcome() {
    let house = House::new();
    let (mut client, _opening) = house.knock(HERE);
    say(&mut client, &ClientHello { version_max: 9, ..ClientHello::new("test") }).await;
    let (answer, _) = receive::<ServerHello, _>(&mut client, Bounds::OPENING).await.unwrap();
    assert!(matches!(answer, ServerHello::Welcome { version: VERSION, .. }));
}

#[tokio::test]
async fn a_frame_beyond_the_bounds_is_refused_by_its_header() {
    let house = House::new();
    for (message_len, payload_len) in [(4097u32, 0u32), (u32::MAX, 0), (10, 1), (0, 0)] {
        let (mut client, opening) = house.knock(HERE);
        greet(&mut client).await;
        client.write_all(&message_len.to_le_bytes()).await.unwrap();
        client.write_all(&payload_len.to_le_bytes()).await.unwrap();
        let ended = opening.await.unwrap();
        assert!(matches!(ended, Err(NotAdmitted::Link(LinkError::Frame(_)))), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_opening_ends_after_ten_seconds_however_slowly_it_goes_on() {
    let house = House::new();
    let start = Instant::now();
    let (mut client, opening) = house.knock(HERE);
    let trickle = tokio::spawn(async move {
        while client.write_all(&[1]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    });
    assert!(matches!(opening.await.unwrap(), Err(NotAdmitted::Silent)));
    assert_eq!(start.elapsed().as_secs(), 10);
    trickle.await.unwrap();

    let start = Instant::now();
    let (mut client, opening) = house.knock(HERE);
    tokio::time::sleep(Duration::from_secs(7)).await;
    greet(&mut client).await;
    assert!(matches!(opening.await.unwrap(), Err(NotAdmitted::Silent)));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_makes_room_for_others_is_told_that_the_server_is_busy() {
    let house = House::new();
    let (mut before, opening_before) = house.knock(HERE);
    let (mut after, opening_after) = house.knock(HERE);
    greet(&mut after).await;
    // After this time both count as slow, so they make room before the others.
    tokio::time::advance(Duration::from_secs(5)).await;
    let _others = house.crowd();
    let (hello, _) = receive::<ServerHello, _>(&mut before, Bounds::OPENING).await.unwrap();
    assert_eq!(hello, ServerHello::Busy);
    let (opened, _) = receive::<Opened, _>(&mut after, Bounds::OPENING).await.unwrap();
    assert_eq!(opened, Opened::Refused(Refusal::Busy));
    for opening in [opening_before, opening_after] {
        assert!(matches!(opening.await.unwrap(), Err(NotAdmitted::Crowded)));
    }
}

#[tokio::test]
async fn one_that_waits_for_its_password_to_be_checked_needs_no_place() {
    let house = House::new();
    let (mut client, opening) = house.knock(HERE);
    greet(&mut client).await;
    say(&mut client, &login("alice", b"right")).await;
    let crowds = tokio::spawn({
        let half_open = house.half_open.clone();
        async move {
            loop {
                let _others: Vec<_> = (0..2 * PLACES)
                    .map(|_| half_open.enter(Source::of(ELSEWHERE.parse().unwrap())))
                    .collect();
                tokio::task::yield_now().await;
            }
        }
    });
    assert!(matches!(opening.await.unwrap(), Ok(Admitted::Log(_))));
    crowds.abort();
}

#[tokio::test]
async fn a_client_that_hangs_up_gives_up_its_turn() {
    let house = House::new();
    let mut clients = Vec::new();
    for n in 0..20 {
        let (mut client, opening) = house.knock(&format!("198.51.100.{n}"));
        greet(&mut client).await;
        say(&mut client, &login("nobody", b"wrong")).await;
        clients.push((client, opening));
    }
    while house.door.waiting() < 18 {
        tokio::task::yield_now().await;
    }
    let (clients, openings): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    drop(clients);
    let mut hung_up = 0;
    for opening in openings {
        let ended = opening.await.unwrap();
        hung_up += usize::from(matches!(ended, Err(NotAdmitted::Link(LinkError::Io(_)))));
    }
    assert!(hung_up >= 16, "only {hung_up}");
    assert_eq!(house.door.waiting(), 0);
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_get_the_same_bytes() {
    let house = House::new();
    let (wrong, refusal) = house.login("alice", b"wrong", HERE).await;
    assert_eq!(refusal, Some(Refusal::WrongPassword));
    for user in ["nobody", "", "Not A Name\n", &"long".repeat(500)] {
        assert_eq!(house.login(user, b"wrong", ELSEWHERE).await.0, wrong, "{user:?}");
    }
}

#[tokio::test]
async fn passwords_that_are_empty_or_too_long_are_wrong_and_not_hashed() {
    let house = House::new();
    for _ in 0..100 {
        for password in [&b""[..], &[b'x'; 1025]] {
            let refusal = house.try_password("alice", password, HERE).await;
            assert_eq!(refusal, Some(Refusal::WrongPassword));
        }
    }
    // If these had been checked, they would have counted as wrong passwords.
    assert_eq!(house.try_password("alice", b"right", HERE).await, None);
}

#[tokio::test(start_paused = true)]
async fn five_wrong_passwords_block_and_the_user_is_told_for_how_long() {
    let house = House::new();
    house.guess("alice", 5).await;
    let blocked = |seconds| Some(Refusal::Blocked { seconds });
    assert_eq!(house.try_password("alice", b"right", HERE).await, blocked(30));
    tokio::time::advance(Duration::from_secs(12)).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, blocked(18));
    tokio::time::advance(Duration::from_secs(18)).await;
    house.guess("alice", 1).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, blocked(60));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, None);
    house.guess("alice", 4).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_block_is_for_one_account_from_one_address() {
    let house = House::new();
    house.guess("alice", 5).await;
    assert_eq!(house.try_password("alice", b"right", ELSEWHERE).await, None);
    assert_eq!(house.try_password("bob", b"right", HERE).await, None);
    house.guess("nobody", 5).await;
    let refusal = house.try_password("nobody", b"x", HERE).await;
    assert_eq!(refusal, Some(Refusal::Blocked { seconds: 30 }));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_guesses_at_many_accounts_is_blocked_for_all() {
    let house = House::new();
    for n in 0..20 {
        house.guess(&format!("user{n}"), 1).await;
    }
    let blocked = Some(Refusal::Blocked { seconds: 30 });
    assert_eq!(house.try_password("alice", b"right", HERE).await, blocked);
    assert_eq!(house.try_password("alice", b"right", ELSEWHERE).await, None);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, None);
    // A correct password does not clear the address's wrong ones.
    house.guess("user77", 1).await;
    let blocked = Some(Refusal::Blocked { seconds: 60 });
    assert_eq!(house.try_password("alice", b"right", HERE).await, blocked);
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_are_forgotten_though_others_of_the_address_log_in_all_the_time() {
    let house = House::new();
    for n in 0..19 {
        house.guess(&format!("user{n}"), 1).await;
    }
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(210)).await;
        assert_eq!(house.try_password("bob", b"right", HERE).await, None);
    }
    house.guess("user1", 2).await;
    assert_eq!(house.try_password("alice", b"right", HERE).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_in_one_ipv6_network_is_the_same_guesser() {
    let house = House::new();
    for n in 1..=5 {
        house.try_password("alice", b"wrong", &format!("2001:db8::{n}")).await;
    }
    let refusal = house.try_password("alice", b"right", "2001:db8::ffff:6").await;
    assert_eq!(refusal, Some(Refusal::Blocked { seconds: 30 }));
    assert_eq!(house.try_password("alice", b"right", "2001:db8:0:1::1").await, None);
}

#[tokio::test]
async fn guesses_at_the_same_time_are_no_more_than_one_after_the_other() {
    let house = Arc::new(House::new());
    let guesses = (0..15).map(|_| {
        let house = house.clone();
        tokio::spawn(async move { house.try_password("alice", b"wrong", HERE).await })
    });
    let mut tried = 0;
    for guess in guesses.collect::<Vec<_>>() {
        tried += usize::from(guess.await.unwrap() == Some(Refusal::WrongPassword));
    }
    assert_eq!(tried, 5);
}

#[tokio::test]
async fn blocks_survive_a_restart() {
    let house = House::new();
    house.guess("alice", 5).await;
    let house = house.restarted();
    let refusal = house.try_password("alice", b"right", HERE).await;
    assert!(matches!(refusal, Some(Refusal::Blocked { seconds: 1..=30 })), "{refusal:?}");
}

#[tokio::test]
async fn a_server_that_ends_while_it_checks_passwords_does_not_count_them_as_wrong() {
    let store = tempfile::tempdir().unwrap();
    let source = Source::of(HERE.parse().unwrap());
    for _ in 0..30 {
        let rows = Arc::new(SqliteStore::open(store.path()).unwrap());
        let lockouts = Lockouts::new(xfer_store::embedded::register_over(rows).failures);
        assert!(lockouts.begin("alice", source).await.is_ok());
    }
}

#[tokio::test]
async fn a_password_that_could_not_be_checked_does_not_count_as_wrong() {
    let house = House::new();
    let meta = SqliteStore::open(house.store.path()).unwrap();
    let (carol, quota) = (Name::new(b"carol").unwrap(), Quota::UNLIMITED);
    meta.create_account(&carol, "no hash", quota, quota, Timestamp::default()).unwrap();
    for _ in 0..6 {
        let refusal = house.try_password("carol", b"right", HERE).await;
        assert_eq!(refusal, Some(Refusal::Internal));
    }
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_lengthen_a_block() {
    let house = House::new();
    house.guess("alice", 5).await;
    let meta = SqliteStore::open(house.store.path()).unwrap();
    let mut failures = meta.failures("alice", HERE).unwrap().unwrap();
    assert_eq!(failures.count, 5);
    let ahead = 365 * 24 * 3600;
    failures.last = Timestamp::new(failures.last.secs() + ahead, 0).unwrap();
    failures.blocked_until = Timestamp::new(failures.last.secs() + 30, 0).unwrap();
    meta.set_failures(&[failures]).unwrap();
    let refusal = house.restarted().try_password("alice", b"right", HERE).await;
    assert!(matches!(refusal, Some(Refusal::Blocked { seconds: 29..=30 })), "{refusal:?}");
}

#[tokio::test]
async fn a_store_that_somebody_else_writes_for_long_does_not_keep_others_from_being_checked() {
    let house = Arc::new(House::new());
    let other = rusqlite::Connection::open(house.store.path().join("xfer.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = {
        let house = house.clone();
        tokio::spawn(async move { house.try_password("alice", b"wrong", HERE).await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = house.try_password("bob", b"right", ELSEWHERE);
    // Shorter than the store waits for the other.
    let second = tokio::time::timeout(Duration::from_secs(25), second).await;
    assert_eq!(second.expect("it waited for the store"), None);
    assert!(!first.is_finished());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(first.await.unwrap(), Some(Refusal::WrongPassword));
}

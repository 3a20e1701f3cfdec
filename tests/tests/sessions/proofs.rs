//! What a client proves to continue a session, or to log in by a machine's key, holds for one connection: real
//! TLS and a real server, and a client that speaks by hand. A key costs the server no work on passwords.
#![allow(clippy::unwrap_used)]

use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xfer_link::proof::SigningKey;
use xfer_link::{receive, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    BINDING_LABEL, Binding, ClientHello, Credential, Done, Grant, Opened, Opening, Password,
    Purpose, Refusal, Resume, ServerHello, Task, Terms, Wish,
};
use xfer_protocol::{Name, Seq};
use xfer_tests::accounts::Hashing;
use xfer_tests::load::Usage;
use xfer_tests::memory::MIB;
use xfer_tests::{World, accounts, strangers};

/// A connection that has not said yet what it is for.
struct Connection(TlsStream<TcpStream>);

impl Connection {
    async fn new(world: &World) -> Connection {
        let tcp = TcpStream::connect(world.server.address).await.unwrap();
        let connector = TlsConnector::from(strangers::config());
        let host = "localhost".try_into().unwrap();
        let mut stream = connector.connect(host, tcp).await.unwrap();
        send(&mut stream, &ClientHello::new("test"), &[], Bounds::OPENING).await.unwrap();
        let (hello, _) = receive::<ServerHello, _>(&mut stream, Bounds::OPENING).await.unwrap();
        assert!(matches!(hello, ServerHello::Welcome { .. }), "{hello:?}");
        Connection(stream)
    }

    /// What stands for this connection in a proof.
    fn binding(&self) -> Binding {
        let tls = self.0.get_ref().1;
        Binding(tls.export_keying_material([0; 32], BINDING_LABEL, None).unwrap())
    }

    async fn open(&mut self, opening: Opening) -> Opened {
        send(&mut self.0, &opening, &[], Bounds::OPENING).await.unwrap();
        receive(&mut self.0, Bounds::OPEN).await.unwrap().0
    }

    async fn log_in(&mut self, key: &SigningKey) -> Grant {
        match self.open(login(password(), key)).await {
            Opened::Session(grant) => *grant,
            other => panic!("{other:?}"),
        }
    }

    /// Works on the account.
    async fn ask(&mut self, credential: Credential, task: Task) -> Opened {
        self.open(Opening::Account { user: "alice".to_owned(), credential, task }).await
    }

    /// Returns the grant, if the session goes on.
    async fn resume(&mut self, request: &Resume) -> Result<Grant, Refusal> {
        match self.open(Opening::Resume(Box::new(request.clone()))).await {
            Opened::Resumed(grant) => Ok(*grant),
            Opened::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

fn password() -> Credential {
    Credential::Password(Password(accounts::PASSWORD.into()))
}

/// A login for a session with this key.
fn login(credential: Credential, key: &SigningKey) -> Opening {
    Opening::Login {
        user: "alice".to_owned(),
        credential,
        purpose: Purpose::TakeOver,
        host: "laptop".to_owned(),
        key: key.public(),
        replaces: None,
        terms: Terms::default(),
    }
}

/// The request for the session of a grant over the connection with this binding.
fn request(grant: &Grant, key: &SigningKey, binding: Binding, attempt: u64) -> Resume {
    Resume {
        user: "alice".to_owned(),
        session: grant.session,
        secret: grant.resume.clone(),
        epoch: grant.epoch,
        durable: Seq::default(),
        attempt,
        wish: Wish::Now,
        terms: Terms::default(),
        proof: key.prove_session(grant.session, binding),
    }
}

#[test]
fn a_resume_that_was_stolen_or_recorded_is_worthless_on_any_other_connection() {
    let world = World::of_many(&[Name::new(b"alice").unwrap()]);
    Runtime::new().unwrap().block_on(async {
        let (key, other_key) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let grant = Connection::new(&world).await.log_in(&key).await;
        // A request that never arrives: its secret is still the right one, and it is the first.
        let cut_off = Connection::new(&world).await.binding();
        let stolen = request(&grant, &key, cut_off, 1);
        let mut thief = Connection::new(&world).await;
        assert_ne!(thief.binding(), cut_off, "two connections have one binding");
        assert_eq!(thief.resume(&stolen).await.unwrap_err(), Refusal::NoSession);
        // The secret alone, with a key of the thief's own.
        let mut thief = Connection::new(&world).await;
        let forged = request(&grant, &other_key, thief.binding(), 1);
        assert_eq!(thief.resume(&forged).await.unwrap_err(), Refusal::NoSession);
        // The client itself, whose request is recorded.
        let mut owner = Connection::new(&world).await;
        let recorded = request(&grant, &key, owner.binding(), 1);
        let grant = owner.resume(&recorded).await.unwrap();
        for attempt in [1, 2] {
            let again = Resume { attempt, ..recorded.clone() };
            let refusal = Connection::new(&world).await.resume(&again).await.unwrap_err();
            assert_eq!(refusal, Refusal::NoSession, "attempt {attempt}");
        }
        // Nothing of that has disturbed the session.
        let mut owner = Connection::new(&world).await;
        let next = request(&grant, &key, owner.binding(), 2);
        let next = owner.resume(&next).await.unwrap();
        assert_eq!((next.session, next.epoch.0), (grant.session, grant.epoch.0 + 1));
    });
}

#[test]
fn a_login_by_a_machines_key_that_was_recorded_is_worthless_on_any_other_connection() {
    let world = World::of_many(&[Name::new(b"alice").unwrap()]);
    Runtime::new().unwrap().block_on(async {
        let (device, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let session = SigningKey::generate().unwrap();
        let by_device = |key: &SigningKey, signer: &SigningKey, binding: Binding| {
            let proof = signer.prove_device("alice", binding);
            Credential::Device { key: key.public(), proof }
        };
        let mut owner = Connection::new(&world).await;
        let (key, label) = (device.public(), "laptop".to_owned());
        let proof = device.prove_device("alice", owner.binding());
        let enrol = Task::Enrol { key, proof, label, password: None };
        let enrolled = owner.ask(password(), enrol.clone()).await;
        assert!(matches!(enrolled, Opened::Done(Done::Enrolled { .. })), "{enrolled:?}");
        let refused = Opened::Refused(Refusal::UnknownKey);
        // The client itself, whose logins are recorded.
        let mut owner = Connection::new(&world).await;
        let recorded = by_device(&device, &device, owner.binding());
        let opened = owner.open(login(recorded.clone(), &session)).await;
        let Opened::Session(grant) = opened else { panic!("{opened:?}") };
        let mut asking = Connection::new(&world).await;
        let asked = by_device(&device, &device, asking.binding());
        let keys = asking.ask(asked.clone(), Task::Keys).await;
        assert!(matches!(keys, Opened::Done(Done::Keys(_))), "{keys:?}");
        for credential in [recorded, asked] {
            let mut thief = Connection::new(&world).await;
            let opened = thief.open(login(credential.clone(), &other)).await;
            assert_eq!(opened, refused, "a recorded login was taken");
            for task in [Task::Keys, Task::Revoke(device.public())] {
                let mut thief = Connection::new(&world).await;
                assert_eq!(thief.ask(credential.clone(), task).await, refused);
            }
        }
        // The public half of the key alone, with a key of the thief's own.
        let mut thief = Connection::new(&world).await;
        let forged = by_device(&device, &other, thief.binding());
        assert_eq!(thief.open(login(forged, &other)).await, refused);
        // Nor is a recorded key enrolled again by who knows the password.
        let mut thief = Connection::new(&world).await;
        let again = thief.ask(password(), enrol).await;
        assert!(matches!(again, Opened::Refused(_)), "{again:?}");
        // Nothing of that has taken the session over.
        let mut owner = Connection::new(&world).await;
        let next = request(&grant, &session, owner.binding(), 1);
        assert_eq!(owner.resume(&next).await.unwrap().session, grant.session);
    });
}

/// How often a machine logs in by its key.
const LOGINS: usize = 20;

#[test]
fn logins_by_a_machines_key_cost_the_server_less_than_one_check_of_a_password() {
    let alice = Name::new(b"alice").unwrap();
    let mut world = World::with_hashing(&[alice], Hashing::Costly);
    let target = format!("alice@{}", world.server.address);
    let password = world.password_file("alice");
    let fingerprint = world.server.fingerprint.clone();
    let run = |world: &World, arguments: &[&str]| {
        world.xfer(&[arguments, &["--fingerprint", &fingerprint]].concat()).succeeded();
    };
    let before = Usage::of(world.server.pid());
    run(&world, &["login", &target, "--password-file", password.to_str().unwrap()]);
    let once = Usage::of(world.server.pid()) - before;
    assert!(once.resident_max >= 64 * MIB, "{once:?}");
    // Only a new process forgets its peak.
    assert_eq!(world.server.terminate(), Some(0));
    world.server.restart();
    let before = Usage::of(world.server.pid());
    for _ in 0..LOGINS {
        run(&world, &["ls", &format!("{target}:")]);
    }
    let all = Usage::of(world.server.pid()) - before;
    println!("a password: {once:?}; {LOGINS} keys: {all:?}");
    assert!(all.cpu < once.cpu && all.resident_max < 64 * MIB, "{all:?}, not below {once:?}");
}

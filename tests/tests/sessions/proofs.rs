//! What a client proves to continue a session holds for one connection: real TLS and a real server, and
//! a client that speaks by hand.
#![allow(clippy::unwrap_used)]

use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xfer_link::proof::SigningKey;
use xfer_link::{receive, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    BINDING_LABEL, Binding, ClientHello, Credential, Grant, Opened, Opening, Password, Purpose,
    Refusal, Resume, ServerHello, Terms, Wish,
};
use xfer_protocol::{Name, Seq};
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
        let opened = self.open(Opening::Login {
            user: "alice".to_owned(),
            credential: Credential::Password(Password(accounts::PASSWORD.into())),
            purpose: Purpose::Mount,
            host: "laptop".to_owned(),
            key: key.public(),
            replaces: None,
            terms: Terms::default(),
        });
        match opened.await {
            Opened::Session(grant) => *grant,
            other => panic!("{other:?}"),
        }
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

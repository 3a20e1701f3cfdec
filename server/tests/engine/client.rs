//! A scripted client, which keeps no state but numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::DuplexStream;
use xfer_link::proof::SigningKey;
use xfer_link::{receive, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{
    Answer, Ask, Binding, EndReason, Grant, ReadError, Request, Response, Resume, Terms, ToClient,
    ToServer, Wish,
};
use xfer_protocol::tree;
use xfer_protocol::tree::{Action, Op, Owner};
use xfer_protocol::{ContentId, DeliveryId, Ino, Seq};

use crate::world::{name, time};

const PATIENCE: Duration = Duration::from_secs(30);

pub const OWNER: Owner = Owner { uid: 1000, gid: 1000 };

pub struct Client {
    pub grant: Grant,
    pub seq: Seq,
    pub stream: DuplexStream,
    /// Proves that the session is this client's.
    pub key: SigningKey,
    /// The last op that the server acknowledged.
    pub durable: Seq,
    pub next_id: u64,
}

impl Client {
    pub fn new(grant: Grant, stream: DuplexStream, key: SigningKey) -> Client {
        let (seq, next_id) = (grant.applied, grant.ids[0].first);
        Client { seq, next_id, durable: seq, grant, stream, key }
    }

    /// Loses the link, and everything that was not read from it.
    pub fn lose_link(self) -> Lost {
        let Client { grant, key, durable, next_id, .. } = self;
        Lost { grant, key, durable, next_id, binding: Binding([7; 32]) }
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub async fn say(&mut self, message: &ToServer, payload: &[u8]) {
        send(&mut self.stream, message, payload, Bounds::OPEN).await.unwrap();
    }

    /// Sends ops in one frame.
    pub async fn act(&mut self, actions: Vec<Action>, payload: &[u8]) {
        let first = self.seq.next();
        self.seq = Seq(self.seq.0 + actions.len() as u64);
        let ops = actions.into_iter().map(|action| Op { time: time(), action }).collect();
        self.say(&ToServer::Ops { first, ops }, payload).await;
    }

    pub async fn create(&mut self, parent: Ino, file: &str) -> Ino {
        let ino = Ino(self.id());
        let name = name(file);
        self.act(vec![Action::Create { parent, name, ino, mode: 0o644, owner: OWNER }], &[]).await;
        ino
    }

    pub async fn mkdir(&mut self, parent: Ino, directory: &str) -> Ino {
        let ino = Ino(self.id());
        let name = name(directory);
        self.act(vec![Action::Mkdir { parent, name, ino, mode: 0o755, owner: OWNER }], &[]).await;
        ino
    }

    /// Writes to a file. Returns the content that the file now has, if it had none before.
    pub async fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> ContentId {
        let fresh = ContentId(self.id());
        let len = data.len() as u32;
        self.act(vec![Action::Write { ino, offset, len, clear_set_id: false, fresh }], data).await;
        fresh
    }

    pub async fn unlink(&mut self, parent: Ino, file: &str) {
        self.act(vec![Action::Unlink { parent, name: name(file) }], &[]).await;
    }

    /// Puts a file into a mailbox and sends it.
    pub async fn send_file(&mut self, to: &str, mailbox: Ino, file: &str) -> DeliveryId {
        let ino = self.create(mailbox, file).await;
        self.write(ino, 0, b"for you").await;
        let delivery = DeliveryId(self.id());
        let from = self.grant.user.clone();
        self.act(vec![Action::Send { to: name(to), name: name(file), from, delivery }], &[]).await;
        delivery
    }

    pub async fn mailbox(&mut self, user: &str) -> Ino {
        let ino = Ino(self.id());
        self.act(vec![Action::Mailbox { user: name(user), ino, owner: OWNER }], &[]).await;
        ino
    }

    pub async fn next(&mut self) -> ToClient {
        loop {
            let received = receive::<ToClient, _>(&mut self.stream, Bounds::OPEN);
            let (message, _) = tokio::time::timeout(PATIENCE, received).await.unwrap().unwrap();
            if let ToClient::Durable { seq, .. } = message {
                self.durable = seq;
            }
            if message != ToClient::Pong {
                return message;
            }
        }
    }

    /// Waits for the first message that `pick` accepts, and skips others.
    pub async fn until<T>(&mut self, pick: impl Fn(&ToClient) -> Option<T>) -> T {
        loop {
            let message = self.next().await;
            match (pick(&message), &message) {
                (Some(picked), _) => return picked,
                (None, ToClient::Ended(reason)) => panic!("ended: {reason}"),
                (None, _) => {}
            }
        }
    }

    /// Shows that it knows of its session, as a client does at once.
    pub async fn greet(&mut self) {
        let limit = tree::Limit { room: self.grant.limit, ..tree::Limit::default() };
        self.say(&ToServer::Ping { limit }, &[]).await;
        self.until(|message| matches!(message, ToClient::Durable { .. }).then_some(())).await;
    }

    /// Waits until all ops that were sent are durable.
    pub async fn sync(&mut self) {
        if self.durable == self.seq {
            return;
        }
        self.say(&ToServer::Barrier { upto: self.seq }, &[]).await;
        let seq = self.seq;
        self.until(|message| match message {
            ToClient::Durable { seq: durable, .. } => (*durable >= seq).then_some(()),
            _ => None,
        })
        .await;
    }

    pub async fn ended(&mut self) -> EndReason {
        self.until(|message| match message {
            ToClient::Ended(reason) => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub async fn logout(mut self) -> EndReason {
        self.say(&ToServer::Logout, &[]).await;
        self.ended().await
    }
}

/// The number of the next request to resume a session.
static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

/// A client that has lost its link.
pub struct Lost {
    pub grant: Grant,
    pub key: SigningKey,
    pub durable: Seq,
    /// Stands for the connection over which it resumes the session.
    pub binding: Binding,
    pub next_id: u64,
}

impl Lost {
    /// The request to resume the session.
    pub fn request(&self) -> Resume {
        Resume {
            user: self.grant.user.to_string(),
            session: self.grant.session,
            secret: self.grant.resume.clone(),
            epoch: self.grant.epoch,
            durable: self.durable,
            attempt: ATTEMPTS.fetch_add(1, Ordering::Relaxed),
            wish: Wish::Now,
            terms: Terms::default(),
            proof: self.key.prove_session(self.grant.session, self.binding),
        }
    }

    /// The client again, over a new link.
    pub fn with_link(self, grant: Grant, stream: DuplexStream) -> Client {
        let Lost { key, durable, next_id, .. } = self;
        Client { seq: grant.applied, grant, stream, key, durable, next_id }
    }
}

pub struct Reads {
    stream: DuplexStream,
    next_id: u32,
}

impl Reads {
    pub fn new(stream: DuplexStream) -> Reads {
        Reads { stream, next_id: 1 }
    }

    pub async fn ask(&mut self, after: Seq, ask: Ask) -> (Result<Answer, ReadError>, Vec<u8>) {
        let id = self.say(after, ask).await;
        let (response, payload) = self.next().await;
        assert_eq!(response.id, id);
        (response.answer, payload)
    }

    pub async fn say(&mut self, after: Seq, ask: Ask) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        send(&mut self.stream, &Request { id, after, ask }, &[], Bounds::OPEN).await.unwrap();
        id
    }

    pub async fn next(&mut self) -> (Response, Vec<u8>) {
        let received = receive(&mut self.stream, Bounds::OPEN);
        let (response, payload) = tokio::time::timeout(PATIENCE, received).await.unwrap().unwrap();
        (response, payload.to_vec())
    }
}

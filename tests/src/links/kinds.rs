//! The kinds of messages that links carry: all that the protocol has, and those that were seen.
//!
//! **Invariant:** each enum of the protocol's messages is listed whole, since a `match` without a
//! wildcard is made from the list: a new kind of message is not forgotten.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use xfer_protocol::codec::decode;
use xfer_protocol::frame::{Bounds, HEADER_BYTES, Header};
use xfer_protocol::message::{
    Answer, Ask, Changed, ClientHello, Credential, DeliveryState, Done, EndReason, KeysThen,
    Opened, Opening, Purpose, ReadError, Refusal, Request, Response, ServerHello, Task, ToClient,
    ToServer, Wish,
};

use super::cable::{Lane, LinkKind, Way};

/// A kind of message, or of a part of one: the enum's name and the variant's.
pub type Kind = (&'static str, &'static str);

/// Names the variant of a value.
trait Named {
    fn kind(&self) -> Kind;
}

macro_rules! kinds {
    ($($of:ident { $($kind:ident)* })*) => {
        $(impl Named for $of {
            fn kind(&self) -> Kind {
                match self {
                    $($of::$kind { .. } => (stringify!($of), stringify!($kind)),)*
                }
            }
        })*

        /// All kinds that the protocol has.
        pub const ALL: &[Kind] = &[$($((stringify!($of), stringify!($kind)),)*)*];
    };
}

kinds! {
    ServerHello { Welcome Incompatible Busy }
    Opening { Login Resume Attach Account }
    Credential { Password Device Invitation }
    Task { Enrol Keys Revoke SetPassword }
    KeysThen { Stay AreRevokedBut }
    Purpose { Mount TakeOver }
    Wish { IfFree Now Never }
    Opened { Session Resumed Returned Attached Done Refused }
    Done { Enrolled Keys Revoked PasswordSet }
    Refusal {
        WrongPassword Blocked InUse NoSession Stopping Busy Internal Claimed RolledBack UnknownKey
        KeysOnly UsedInvitation PasswordNeeded TooManyKeys Disabled
    }
    Changed { Nodes All }
    ToServer { Ops Barrier Ping Room MoreIds Logout Yield }
    ToClient {
        Durable Room Diverged Arrived Settled Users Quota Ids Pong Drain Wanted Ended
    }
    EndReason {
        LoggedOut Yielded TakenOver Continued Administrator Stopping DiskFull Silent Protocol
        Storage
    }
    Ask { Node Entry List Read Delivery State Reserve }
    Answer { Node Entry Pages Data Items State Reserved }
    ReadError {
        OtherContent NoDirectory NoUser InboxFull Invalid Storage Ended Damaged
    }
    DeliveryState { Unknown Sent Received Refused NoRoom }
}

/// The kinds of the messages that links have carried whole.
#[derive(Clone, Default, Debug)]
pub struct Seen(Arc<Mutex<BTreeSet<Kind>>>);

/// Listens to one direction of one link, which begins as on a real server.
pub(super) struct Ear {
    seen: Seen,
    lane: Lane,
    /// What was heard of the frame that has begun.
    begun: Vec<u8>,
    /// How many frames were heard.
    frames: u64,
}

impl Seen {
    /// The kinds that were seen so far.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, part: &dyn Named) {
        self.0.lock().unwrap().insert(part.kind());
    }

    fn note_opening(&self, opening: &Opening) {
        self.note(opening);
        match opening {
            Opening::Login { purpose, credential, .. } => {
                self.note(purpose);
                self.note(credential);
            }
            Opening::Account { credential, task, .. } => {
                self.note(credential);
                self.note(task);
                if let Task::SetPassword { keys, .. } = task {
                    self.note(keys);
                }
            }
            Opening::Resume(request) => self.note(&request.wish),
            Opening::Attach { .. } => {}
        }
    }

    fn note_opened(&self, opened: &Opened) {
        self.note(opened);
        match opened {
            Opened::Returned(back) => self.note(&back.changed),
            Opened::Refused(refusal) => self.note(refusal),
            Opened::Done(done) => self.note(done),
            Opened::Session(_) | Opened::Resumed(_) | Opened::Attached => {}
        }
    }

    fn note_news(&self, news: &ToClient) {
        self.note(news);
        match news {
            ToClient::Settled { state, .. } => self.note(state),
            ToClient::Drain { reason, .. } | ToClient::Ended(reason) => self.note(reason),
            ToClient::Durable { .. }
            | ToClient::Room { .. }
            | ToClient::Diverged { .. }
            | ToClient::Arrived(_)
            | ToClient::Users(_)
            | ToClient::Quota(_)
            | ToClient::Ids(_)
            | ToClient::Pong
            | ToClient::Wanted { .. } => {}
        }
    }

    fn note_response(&self, response: &Response) {
        match &response.answer {
            Ok(answer) => self.note(answer),
            Err(error) => self.note(error),
        }
        if let Ok(Answer::State(state)) = &response.answer {
            self.note(state);
        }
    }
}

impl Ear {
    pub(super) fn new(seen: Seen, lane: Lane) -> Ear {
        Ear { seen, lane, begun: Vec::new(), frames: 0 }
    }

    /// Hears the next bytes.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.begun.extend(bytes);
        while let Some(header) = self.begun.first_chunk::<HEADER_BYTES>() {
            let Header { message_len, payload_len } = Header::parse(*header, Bounds::OPEN).unwrap();
            let end = HEADER_BYTES + message_len + payload_len;
            if self.begun.len() < end {
                return;
            }
            let frame: Vec<u8> = self.begun.drain(..end).collect();
            self.note(&frame[HEADER_BYTES..HEADER_BYTES + message_len]);
            self.frames += 1;
        }
    }

    fn note(&self, message: &[u8]) {
        let Lane { kind, way } = self.lane;
        match (self.frames, way, kind) {
            (0, Way::Up, _) => drop(decode::<ClientHello>(message).unwrap()),
            (0, Way::Down, _) => self.seen.note(&decode::<ServerHello>(message).unwrap()),
            (1, Way::Up, _) => self.seen.note_opening(&decode(message).unwrap()),
            (1, Way::Down, _) => self.seen.note_opened(&decode(message).unwrap()),
            (_, Way::Up, LinkKind::Log) => self.seen.note(&decode::<ToServer>(message).unwrap()),
            (_, Way::Down, LinkKind::Log) => self.seen.note_news(&decode(message).unwrap()),
            (_, Way::Up, LinkKind::Read) => {
                self.seen.note(&decode::<Request>(message).unwrap().ask);
            }
            (_, Way::Down, LinkKind::Read) => self.seen.note_response(&decode(message).unwrap()),
        }
    }
}

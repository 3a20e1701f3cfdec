//! Read links: questions, and answers in any order.

use serde::{Deserialize, Serialize};

use crate::tree::{Item, Node};
use crate::{ContentId, DeliveryId, Ino, Name, Seq, Timestamp};

/// A question, from the client. Answered by one [`Response`] with the same number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The client's number for it; not in use for another question that waits.
    pub id: u32,
    /// Answer only when the ops up to this one are applied (durable or not).
    pub after: Seq,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A node by its number. Answered by [`Answer::Node`].
    Node(Ino),
    /// One entry and the node it refers to. Answered by [`Answer::Entry`].
    Entry(Ino, Name),
    /// Entries of a directory with their nodes, in order of names, after the name given. Answered
    /// by [`Answer::Pages`]. The server may add pages of directories within it, to save questions.
    List {
        /// The directory.
        directory: Ino,
        /// The last name of the page before, or nothing for the first page.
        after: Option<Name>,
    },
    /// Bytes of a content. Answered by [`Answer::Data`], with the bytes as the frame's payload:
    /// fewer than asked only at the content's end, past which all is zeros.
    Read {
        /// A node that has this content.
        ino: Ino,
        /// The content.
        content: ContentId,
        /// The first byte.
        offset: u64,
        /// How many bytes; at most [`crate::limits::READ_BYTES_MAX`].
        len: u32,
    },
    /// Items of a delivery to this user, from this place on. Answered by [`Answer::Items`].
    Delivery {
        /// The delivery.
        id: DeliveryId,
        /// The place of the first item wanted.
        from: u32,
    },
    /// What became of a delivery from this user. Answered by [`Answer::State`].
    State(DeliveryId),
    /// Whether something fits another user's inbox. The room is kept for a while, as far as one
    /// sender may have others wait; what is kept for the same node already is part of it. Answered
    /// by [`Answer::Reserved`].
    Reserve {
        /// The other user.
        to: Name,
        /// What is to be sent.
        ino: Ino,
        /// How many bytes.
        bytes: u64,
        /// How many items.
        items: u32,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Response {
    /// The request's number.
    pub id: u32,
    /// The answer.
    pub answer: Result<Answer, ReadError>,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The node, if it exists.
    Node(Option<Node>),
    /// What the entry refers to, if it exists.
    Entry(Option<(Ino, Node)>),
    /// Pages of listings: the one asked for first, then such as the server adds.
    Pages(Vec<Page>),
    /// The frame's payload is the data.
    Data,
    /// Items of a delivery; none if there is no such delivery (any more).
    Items {
        /// The items, in order.
        items: Vec<Item>,
        /// Whether these are the last.
        last: bool,
    },
    /// What became of a delivery.
    State(DeliveryState),
    /// There is room.
    Reserved,
}

/// Some entries of a directory, in order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The directory.
    pub directory: Ino,
    /// The entries.
    pub entries: Vec<PageEntry>,
    /// Whether the directory has no entries after these.
    pub last: bool,
}

/// An entry, and the node it refers to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageEntry {
    /// The entry's name.
    pub name: Name,
    /// The node's number.
    pub ino: Ino,
    /// The node.
    pub node: Node,
}

/// What became of a delivery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeliveryState {
    /// The server does not have it (yet).
    Unknown,
    /// It waits for the recipient.
    Sent(Timestamp),
    /// The recipient has it.
    Received(Timestamp),
    /// It was turned away by the recipient, or there is no such user any more.
    Refused(Timestamp),
    /// The recipient's inbox had no room for it: it may be sent again.
    NoRoom(Timestamp),
}

/// Why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum ReadError {
    /// The node does not have this content (any more).
    #[error("the node has another content")]
    OtherContent,
    /// What should be listed is not there (any more), or no directory.
    #[error("no such directory")]
    NoDirectory,
    /// No such user to send to.
    #[error("no such user")]
    NoUser,
    /// The other user's inbox has no room for it.
    #[error("the inbox is full")]
    InboxFull,
    /// The question itself is wrong: a bound exceeded.
    #[error("not a valid question")]
    Invalid,
    /// The server's storage failed.
    #[error("the server's storage failed")]
    Storage,
    /// The session is over.
    #[error("the session is over")]
    Ended,
    /// The server no longer has what it was given.
    #[error("the server lost part of this file; the server's log names it")]
    Damaged,
}

//! Read links: questions, and answers in any order.

use serde::{Deserialize, Serialize};

use crate::tree::{Item, Node};
use crate::{ContentId, DeliveryId, Ino, Name, Seq, Timestamp};

/// A question from the client. The server answers with one [`Response`] of the same number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; no other unanswered question of the link has it.
    pub id: u32,
    /// The answer waits until the ops up to this one are applied. They need not be durable.
    pub after: Seq,
    /// The question itself.
    pub ask: Ask,
}

/// The questions of a read link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Asks for a node by its number. Answered by [`Answer::Node`].
    Node(Ino),
    /// Asks for one entry and the node that it refers to. Answered by [`Answer::Entry`].
    Entry(Ino, Name),
    /// Asks for a directory's entries after a name, in order of names, with their nodes. Answered
    /// by [`Answer::Pages`]. The server may add pages of subdirectories to save further questions.
    List {
        /// The number of the directory.
        directory: Ino,
        /// The last name of the previous page; `None` for the first page.
        after: Option<Name>,
    },
    /// Asks for bytes of a content. Answered by [`Answer::Data`]; the frame's payload is the bytes.
    /// It is shorter than asked only at the content's end, past which everything is zeros. A range
    /// that is not all data of the node is refused with [`ReadError::OtherContent`].
    Read {
        /// A node that has this content, and has data in the whole range; the server checks both.
        ino: Ino,
        /// The content to read from.
        content: ContentId,
        /// The first byte, counted from the content's start.
        offset: u64,
        /// The number of bytes, at most [`crate::limits::READ_BYTES_MAX`].
        len: u32,
    },
    /// Asks for items of a delivery to this user. Answered by [`Answer::Items`].
    Delivery {
        /// The delivery's number, from its announcement.
        id: DeliveryId,
        /// The index of the first item wanted.
        from: u32,
    },
    /// Asks for the state of a delivery from this user. Answered by [`Answer::State`].
    State(DeliveryId),
    /// Asks for room in another user's inbox. The server keeps it for a while, within what one
    /// sender may have reserved at a time. Room already kept for the same node counts towards it.
    /// Answered by [`Answer::Reserved`].
    Reserve {
        /// The recipient's name.
        to: Name,
        /// The node that will be sent.
        ino: Ino,
        /// Its size in an inbox, in bytes.
        bytes: u64,
        /// Its number of items.
        items: u32,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Response {
    /// The number of the request that it answers.
    pub id: u32,
    /// The answer, or why there is none.
    pub answer: Result<Answer, ReadError>,
}

/// The answers of a read link, each named after its question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The node, if it exists.
    Node(Option<Node>),
    /// The entry's node, if the entry exists.
    Entry(Option<(Ino, Node)>),
    /// Pages of listings: first the one that was asked for, then any that the server adds.
    Pages(Vec<Page>),
    /// The bytes, which are the frame's payload.
    Data,
    /// Items of a delivery; none if the delivery does not exist (any more).
    Items {
        /// The items, in order, from the index that was asked for.
        items: Vec<Item>,
        /// Whether these are the last items of the delivery.
        last: bool,
    },
    /// The state of a delivery.
    State(DeliveryState),
    /// The room is reserved.
    Reserved,
}

/// Some entries of a directory, in order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The directory that they are in.
    pub directory: Ino,
    /// The entries with their nodes.
    pub entries: Vec<PageEntry>,
    /// Whether the directory has no entries after these.
    pub last: bool,
}

/// An entry, and the node it refers to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageEntry {
    /// The entry's name.
    pub name: Name,
    /// The number of the node that it refers to.
    pub ino: Ino,
    /// That node's row; large extended attributes may be left out.
    pub node: Node,
}

/// The state of a delivery, as the sender sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeliveryState {
    /// The server does not have it (yet).
    Unknown,
    /// It waits for the recipient, since this moment.
    Sent(Timestamp),
    /// The recipient accepted it, at this moment.
    Received(Timestamp),
    /// The recipient declined it, or is no longer a user.
    Refused(Timestamp),
    /// The recipient's inbox had no room for it; it may be sent again.
    NoRoom(Timestamp),
}

/// Why a question could not be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum ReadError {
    /// The node does not have this content, or not all of the range is data of the node.
    #[error("the node has another content")]
    OtherContent,
    /// There is no such directory (any more).
    #[error("no such directory")]
    NoDirectory,
    /// There is no user of this name to send to.
    #[error("no such user")]
    NoUser,
    /// The other user's inbox has no room for this.
    #[error("the inbox is full")]
    InboxFull,
    /// The question exceeds a bound.
    #[error("not a valid question")]
    Invalid,
    /// The server's storage failed.
    #[error("the server's storage failed")]
    Storage,
    /// The session is over.
    #[error("the session is over")]
    Ended,
    /// The server has lost bytes that it had acknowledged.
    #[error("the server lost part of this file; the server's log names it")]
    Damaged,
}

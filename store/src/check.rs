//! What a look through a store finds: rows that contradict each other, and bytes that are missing.

use xfer_protocol::{ContentId, Ino, Name};

/// Something in a store that its rules do not allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What it is about.
    pub place: Place,
    /// The rule that is broken.
    pub rule: Rule,
    /// What is there, and what ought to be.
    pub what: String,
}

/// What a fault is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The store as a whole.
    Store,
    /// An account.
    Account(Name),
    /// A file, directory or link of an account.
    Node {
        /// The account.
        account: Name,
        /// Its number.
        ino: Ino,
        /// The names on the way to it; `None` if no way leads there.
        path: Option<Vec<Name>>,
    },
    /// A content that several may share.
    Content(ContentId),
}

/// The rules of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// The database is one, and its indices have what its tables have.
    Database,
    /// Each row can be read.
    Row,
    /// A tree has a root, which is a directory.
    Root,
    /// An entry leads from a directory to something.
    Entry,
    /// Everything has as many names as it counts.
    Links,
    /// A directory has the entries that it counts.
    Entries,
    /// A directory has one name, and it is in the directory that it says it is in.
    Parent,
    /// A way leads from the root to each directory.
    Reach,
    /// What an account takes up is what its files do.
    Usage,
    /// What waits in an inbox is what was counted.
    Inbox,
    /// A content has as many owners as it counts, and does not count as garbage then.
    Owners,
    /// Only a sealed content has several owners.
    Sealed,
    /// No number is in use that was never granted.
    Number,
    /// A file's bytes are there.
    Bytes,
}

impl Rule {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Database => "database",
            Rule::Row => "row",
            Rule::Root => "root",
            Rule::Entry => "entry",
            Rule::Links => "links",
            Rule::Entries => "entries",
            Rule::Parent => "parent",
            Rule::Reach => "reach",
            Rule::Usage => "usage",
            Rule::Inbox => "inbox",
            Rule::Owners => "owners",
            Rule::Sealed => "sealed",
            Rule::Number => "number",
            Rule::Bytes => "bytes",
        }
    }
}

/// How much was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Accounts.
    pub accounts: u64,
    /// Files, directories and links.
    pub nodes: u64,
    /// Contents.
    pub contents: u64,
    /// Faults that were found.
    pub faults: u64,
}

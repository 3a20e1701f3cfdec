//! Many accounts at once, added to the store itself before its server starts: all have one password,
//! which is hashed once.

use std::path::Path;
use std::time::SystemTime;

use xfer_protocol::Name;
use xfer_protocol::tree::Quota;
use xfer_server::password;
use xfer_store::{MetaStore, SqliteStore};

/// The password of all of them.
pub const PASSWORD: &str = "the password of all of them";

/// [`PASSWORD`], hashed with 8 KiB of memory in one pass: the least that Argon2 takes.
const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$vn2E/UPpUQHdKqgPzxtGxQ$\
                     Tsm1b76nixktSJliDqN0UIt5dADQfTXJLxPItPcQjtc";

/// What checking the password takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashing {
    /// What it takes for real users: about a tenth of a second of a core for each login.
    Real,
    /// Next to nothing, for tests that are about something else.
    Cheap,
}

/// Adds accounts that have all the room they want.
pub fn add(store: &Path, names: &[Name], hashing: Hashing) {
    let meta = SqliteStore::open(store).unwrap();
    let hash = match hashing {
        Hashing::Real => password::hash(PASSWORD.as_bytes()).unwrap(),
        Hashing::Cheap => CHEAP.to_owned(),
    };
    let inbox = Quota { bytes: 1 << 30, nodes: 10_000 };
    for name in names {
        let time = SystemTime::now().into();
        meta.create_account(name, &hash, Quota::UNLIMITED, inbox, time).unwrap();
    }
}

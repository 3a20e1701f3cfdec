//! Many accounts at once, added to the store before its server starts. All share one password, which
//! is hashed only once.

use std::path::Path;
use std::time::SystemTime;

use xfer_protocol::Name;
use xfer_protocol::tree::Quota;
use xfer_server::login::password;
use xfer_store::embedded::SqliteStore;

/// The password of all these accounts.
pub const PASSWORD: &str = "the password of all of them";

/// The hash of [`PASSWORD`] with 8 KiB of memory and one pass: the minimum of Argon2.
const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$vn2E/UPpUQHdKqgPzxtGxQ$\
                     Tsm1b76nixktSJliDqN0UIt5dADQfTXJLxPItPcQjtc";

/// The same with 64 MiB and 40 passes: more than a second of a core.
const COSTLY: &str = "$argon2id$v=19$m=65536,t=100,p=1$e4y0cN08fZqow7jPXuzUnQ$\
                      Kp7Q2Y0211Xe3dZG1Zp3p3wHDP2LVdrnmB/AMfB4jGY";

/// The cost of checking the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashing {
    /// As for real users: about a tenth of a second of a core for each login.
    Real,
    /// Almost none, for tests of other things.
    Cheap,
    /// Several seconds, for tests of what must not check it.
    Costly,
}

/// Adds accounts without a quota.
pub fn add(store: &Path, names: &[Name], hashing: Hashing) {
    let meta = SqliteStore::open(store).unwrap();
    let hash = match hashing {
        Hashing::Real => password::hash(PASSWORD.as_bytes()).unwrap(),
        Hashing::Cheap => CHEAP.to_owned(),
        Hashing::Costly => COSTLY.to_owned(),
    };
    let inbox = Quota { bytes: 1 << 30, nodes: 10_000 };
    for name in names {
        let time = SystemTime::now().into();
        meta.create_account(name, &hash, Quota::UNLIMITED, inbox, time).unwrap();
    }
}

//! While the link is down: how long operations wait, what is kept on this machine's disk, and how
//! the machine sleeps.

mod patience;
mod journal;
mod asleep;

pub use journal::{Journal, Writing};
pub(super) use patience::Patience;

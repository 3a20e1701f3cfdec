//! While the link is down: how long operations wait, and what is kept on this machine's disk.

mod patience;
mod journal;

pub use journal::{Journal, Writing};
pub(super) use patience::Patience;

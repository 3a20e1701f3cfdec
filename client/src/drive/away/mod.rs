//! While the link is down: how long operations wait, what is kept on this machine's disk, and how
//! the machine sleeps. How the seat is given to other clients of the account, and what becomes of changes
//! that can't reach the server any more.

mod patience;
mod journal;
mod asleep;
mod answering;
mod handing_over;
mod rescuing;

pub(super) use answering::{Answer, Answers};
pub use journal::{Journal, Writing};
pub(super) use patience::Patience;
pub use rescuing::Rescue;

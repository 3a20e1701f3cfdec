//! Work while the link is down, and after.
//!
//! Reading order: [`resuming`] (a link that is lost, and the next), [`trace`] (what is not durable,
//! told without the replica), [`offline`] (what is kept on this machine's disk meanwhile); [`seat`] (other
//! clients of the account), [`returning`] (after they have changed the tree).

mod resuming;
mod trace;
mod offline;
mod seat;
mod returning;

pub(crate) use offline::JournalStep;
pub(in crate::core) use offline::Kept;
pub use offline::Spill;
pub use returning::Position;
pub use seat::Holder;
pub(in crate::core) use seat::Seat;
pub use trace::{Change, Place, Subject, Subjects, Trace, Whereabouts};

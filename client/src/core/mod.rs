//! The client's core: a replica of the tree, the log of its changes, and the caches, as one state
//! machine without tokio, clocks or randomness.
//!
//! Reading order: [`state`] (the parts), [`pause`] (why an attempt did not finish), [`link`] (how a
//! session ends), [`change`] (how a change is made), [`away`] (work while
//! the link is down), then the parts: [`tree`] (rows and names),
//! [`data`] (bytes), [`uplink`] (the log link), [`outbox`] and [`inbox`] (deliveries); [`notice`]
//! and [`outdated`] (messages to the kernel), [`status`] (the state for display).

mod time;
mod options;
mod state;
mod pause;
mod link;
mod change;
mod away;
mod tree;
mod data;
mod uplink;
mod outbox;
mod inbox;
mod notice;
mod outdated;
mod status;
#[cfg(feature = "planted-bugs")]
mod planted;
#[cfg(test)]
mod tests;

pub(crate) use away::JournalStep;
pub(crate) use data::FetchOrder;
pub(crate) use outbox::OutboxDue;
pub(crate) use state::Effects;
pub(crate) use tree::Unexpected;
pub(crate) use uplink::{Group, Outgoing, Then, can_be_granted};

pub use away::{Change, Holder, Place, Position, Spill, Subject, Subjects, Trace, Whereabouts};
pub use data::{CopyRange, Seek};
pub use link::{Ending, Link, LinkLoss};
pub use notice::Notice;
pub use options::{Options, Owners};
pub use outbox::{Order, Unsents};
pub use pause::{Pause, Reservation, Stop};
#[cfg(feature = "planted-bugs")]
pub use planted::Bug;
pub use state::Core;
pub use status::Status;
pub use time::Now;
pub use tree::{Found, HandleId, Listed, New, NewAttributes, Space};

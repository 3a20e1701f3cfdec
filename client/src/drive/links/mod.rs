//! The session's links to the server.

mod keeping;
mod log_link;
mod read_link;
mod read_links;
mod traffic;

pub(super) use keeping::{Attention, GOOD_LINK, HASTE};
pub(super) use read_link::Answered;
pub(super) use read_links::{ReadLinks, Unanswered};
pub use traffic::Traffic;

//! Links: what a connection is once it was admitted, from the answer to its opening to its end.

mod serving;
mod log_link;
pub(crate) mod answer_room;

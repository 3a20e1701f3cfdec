//! Links: admitted connections, from the answer to their opening to their end.

mod serving;
mod log_link;
pub(crate) mod reading;
pub(crate) mod answer_room;

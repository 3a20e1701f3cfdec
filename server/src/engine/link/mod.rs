//! Links: admitted connections, from the answer to their opening until their end.

mod serving;
mod log_link;
pub(crate) mod reading;
pub(crate) mod answer_room;

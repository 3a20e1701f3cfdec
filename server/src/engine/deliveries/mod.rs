//! Deliveries between users.

pub(crate) mod post;
pub(crate) mod inbox;

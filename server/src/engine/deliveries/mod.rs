//! Deliveries between users.

pub(crate) mod exchange;

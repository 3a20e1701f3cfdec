//! The xfer server: keeps users' trees and applies their sessions' logs to a store.
//!
//! Reading order: [`cli`] and [`program`] (start and end), [`listener`] and [`login`] (until the
//! client is identified), then [`engine`] (sessions), on the stores of `xfer-store`. [`transfer`]
//! moves whole trees in and out without a client, and [`figures`] are what a server tells of itself in
//! numbers.

pub mod cli;
pub mod program;
pub mod listener;
pub mod login;
pub mod engine;
pub mod transfer;
pub mod figures;
pub mod moment;

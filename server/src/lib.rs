//! The xfer server: keeps users' trees and applies their sessions' logs to a store.
//!
//! Reading order: [`cli`] and [`serve`] (start and end), [`listener`] and [`opening`] (until the
//! client is identified), then [`engine`] (sessions), on the stores of `xfer-store`.

pub mod exit;

pub mod moment;

pub mod source;

pub mod log;

pub mod identity;

pub mod tls;

pub mod password;

pub mod blocks;

pub mod half_open;

pub mod turns;

pub mod opening;

pub mod listener;

pub mod engine;

pub mod control;

pub mod transfer;

pub mod watch;

pub mod upkeep;

pub mod rights;

pub mod serve;

pub mod cli;

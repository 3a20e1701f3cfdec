//! Clients that are away from their server: links that break, work offline, and what is rescued.

mod cuts;
mod breaks;
mod addresses;
mod stopped;
mod month;
mod offline;
mod offline_power;
mod sleep;
mod rescue;
mod rescue_again;
mod rescue_in_place;

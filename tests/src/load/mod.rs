//! A load of many sessions at once on one real server, driven without FUSE, and its figures.
//!
//! Each session is the client's own core, over TLS and TCP to a server in a separate process. Its
//! operations are those that a mount would pass to it. Each operation is timed, has a deadline, and
//! has its result checked.
//!
//! Reading order: `crowd` (the server and its users), `mix` (one session's work), `run` (all sessions
//! through a whole run), `figures` and `usage` (the measurements), `table` (their output).

mod crowd;
mod mix;
mod run;
mod figures;
mod usage;
mod table;

pub use crowd::Crowd;
pub use figures::{Figures, Kind};
pub use run::{Outcome, Plan, Report, Until};
pub use table::print;
pub use usage::{Usage, raise_descriptor_limit};

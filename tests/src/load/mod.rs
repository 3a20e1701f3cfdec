//! Many sessions at work at once on one real server, driven without FUSE: a load, and its figures.
//!
//! Each session is the client's own core, over TLS and TCP to a server in a process of its own.
//! Its operations are those that a mount would hand to it; each is timed, has a deadline, and what
//! it gives is compared with what it must be.
//!
//! Reading order: `crowd` (the server and its users), `driver` (one session's operations), `mix`
//! (which of them, and in what order), `run` (all sessions through a whole run), `figures` and
//! `usage` (what is measured), `table` (how it is shown).

mod crowd;

mod driver;

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

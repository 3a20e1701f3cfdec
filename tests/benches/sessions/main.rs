//! Measures how many users a server can serve at once, and how fast: one run for each number of
//! sessions, each on a server of its own. It shows failures, and fails if there are any.
//!
//! `XFER_LOAD_SESSIONS` (numbers separated by commas), `XFER_LOAD_SECONDS` and
//! `XFER_LOAD_PAUSE_MS` (the pause after each of a session's rounds) change the work; `TMPDIR`
//! selects the disk.
#![allow(clippy::unwrap_used, reason = "a measurement that can't be made fails by panicking")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use xfer_tests::Random;
use xfer_tests::accounts::Hashing;
use xfer_tests::load::{self, Crowd, Plan, Report, Until};
use xfer_tests::scale::count;

fn main() -> ExitCode {
    load::raise_descriptor_limit();
    let numbers = std::env::var("XFER_LOAD_SESSIONS").unwrap_or("1,10,50,100,500".to_owned());
    let plan = Plan {
        until: Until::Over(Duration::from_secs(count("XFER_LOAD_SECONDS", 20) as u64)),
        pause: Duration::from_millis(count("XFER_LOAD_PAUSE_MS", 0) as u64),
        seed: Random::seed(),
    };
    let reports: Vec<Report> =
        numbers.split(',').map(|number| measure(number.trim().parse().unwrap(), &plan)).collect();
    load::print(&reports);
    if reports.iter().all(|report| report.failed() == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn measure(sessions: usize, plan: &Plan) -> Report {
    println!("{sessions} sessions");
    Arc::new(Crowd::new(sessions, Hashing::Real)).run(plan)
}

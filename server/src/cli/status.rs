//! `xfer-server status`: how the server that runs on the store is, once or each second.
//!
//! Rates are those of the second between two answers, so one answer alone shows none.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xfer_protocol::shown::Shown;
use xfer_protocol::size;

use super::here::Here;
use super::running::{Server, nonsense};
use super::{output, screen, table};
use crate::engine::{Counts, Latencies};
use crate::figures::{Figures, Lockout, Queued, Storing};
use crate::moment;
use crate::program::control::{Answer, Command, Session, Status};
use crate::program::exit::Failure;

/// How long after an answer the next one is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// How the status is shown.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Shape {
    /// Print JSON, with everything that is measured; with --watch, a line each second
    #[arg(long)]
    json: bool,
    /// Go on until Ctrl-C, each second; on a terminal, in place
    #[arg(long)]
    watch: bool,
}

/// Shows how the server is.
pub fn show(server: &Server, shape: Shape) -> Result<(), Failure> {
    match shape {
        Shape { json: true, watch: false } => {
            output::print_json(&mut Here::default(), &fetch(server)?)
        }
        Shape { json: true, watch: true } => {
            each_second(server, |_, status| output::offer_json(status))
        }
        Shape { json: false, watch: false } => {
            let before = fetch(server)?;
            std::thread::sleep(EVERY);
            output::print_line(page(server.store(), &before, &fetch(server)?).trim_end())
        }
        Shape { json: false, watch: true } if io::stdout().is_terminal() => {
            let asked = server.clone();
            screen::watch(
                EVERY,
                move || fetch(&asked),
                |before, now| page(server.store(), before, now),
            )
        }
        Shape { json: false, watch: true } => each_second(server, |before, status| {
            output::offer_line(&page(server.store(), before, status))
        }),
    }
}

/// Asks the server.
fn fetch(server: &Server) -> Result<Status, Failure> {
    match server.ask(&Command::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(nonsense()),
    }
}

/// Prints something of each answer and the one before, until its reader has read enough.
fn each_second(
    server: &Server,
    offer: impl Fn(&Status, &Status) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut before = fetch(server)?;
    loop {
        std::thread::sleep(EVERY);
        let status = fetch(server)?;
        if !offer(&before, &status)? {
            return Ok(());
        }
        before = status;
    }
}

/// The status for people: what it is now, and what changed since the answer before.
fn page(store: &Path, before: &Status, now: &Status) -> String {
    let Status { address, fingerprint, figures, sessions, lockouts } = now;
    let Figures { build, process, queued, commits, store: storing, .. } = figures;
    let mut page = String::new();
    let mut line = |heading: &str, text: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(page, "{heading:10}{text}");
    };
    let started = process.started_secs;
    let span = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let (since, runs) = (moment::display(started as i64), moment::span((span - started) as u64));
    line("server", &format!("xfer-server {}, since {since} ({runs})", build.version));
    line("address", &format!("{address}, fingerprint {fingerprint}"));
    line("store", &format!("{}{}", Shown(&store.display().to_string()), stored(storing.as_ref())));
    if let Some(storing) = storing {
        let Storing { disk_free_bytes, disk_bytes, accounts, .. } = storing;
        let (free, all) = (size::display(*disk_free_bytes), size::display(*disk_bytes));
        line("disk", &format!("{free} free of {all}"));
        let (count, bytes) = (storing.deliveries_waiting, storing.deliveries_waiting_bytes);
        let bytes = size::display(bytes);
        line("accounts", &format!("{accounts}; deliveries that wait: {count} ({bytes})"));
    }
    let (attached, away) = (figures.sessions.attached, figures.sessions.away);
    let (log, read) = (figures.sessions.log_links, figures.sessions.read_links);
    line("sessions", &format!("{attached} connected, {away} away; links: {log} log, {read} read"));
    let rate = commits.batch.count.saturating_sub(before.figures.commits.batch.count);
    line("commits", &format!("{rate}/s{}", percentiles(&commits.batch)));
    let moved = Moved::between(&before.figures.counts, &figures.counts);
    let (received, sent) = (size::display(moved.received), size::display(moved.sent));
    line("rates", &format!("{} changes/s, {received}/s received, {sent}/s sent", moved.ops));
    let Queued { batches, messages, ops_not_durable, passwords } = queued;
    let waiting = [(batches, "batch"), (messages, "message"), (passwords, "password")];
    let waiting = waiting.map(|(number, one)| size::count(*number, one)).join(", ");
    line("queued", &format!("{waiting}; not durable: {}", size::count(*ops_not_durable, "change")));
    let memory = process.resident_bytes.map_or("unknown".to_owned(), size::display);
    let open = process.open_descriptors.map_or("unknown".to_owned(), |open| open.to_string());
    line("process", &format!("{memory} of memory, open descriptors: {open}"));
    tables(&mut page, (before, sessions), lockouts);
    page
}

/// What a store has and takes.
fn stored(storing: Option<&Storing>) -> String {
    let Some(Storing { database_bytes, contents, contents_bytes, .. }) = storing else {
        return ": it does not answer".to_owned();
    };
    let contents = match contents.zip(*contents_bytes) {
        Some((count, bytes)) => format!("{} in {count} contents", size::display(bytes)),
        None => "its contents are being counted".to_owned(),
    };
    format!(": {contents}, database {}", size::display(*database_bytes))
}

fn percentiles(of: &Latencies) -> String {
    let millis = |secs: f64| format!("{:.1} ms", secs * 1000.0);
    match of.p50_secs.zip(of.p99_secs) {
        None => String::new(),
        Some((p50, p99)) => {
            format!("; durable after {} (p50), {} (p99)", millis(p50), millis(p99))
        }
    }
}

/// What was done between two answers.
struct Moved {
    ops: u64,
    received: u64,
    sent: u64,
}

impl Moved {
    fn between(before: &Counts, now: &Counts) -> Moved {
        Moved {
            ops: now.ops.saturating_sub(before.ops),
            received: now.bytes_in.saturating_sub(before.bytes_in),
            sent: now.bytes_out.saturating_sub(before.bytes_out),
        }
    }
}

fn tables(page: &mut String, (before, sessions): (&Status, &[Session]), lockouts: &[Lockout]) {
    if !sessions.is_empty() {
        let heading = ["USER", "HOST", "ADDRESS", "SINCE", "AWAY", "CHANGES/S", "IN/S", "OUT/S"];
        let rows: Vec<_> = sessions.iter().map(|session| session_row(before, session)).collect();
        page.push('\n');
        table::lines(heading, &rows).iter().for_each(|line| *page += &format!("{line}\n"));
    }
    if !lockouts.is_empty() {
        let row = |lockout: &Lockout| {
            let all = lockout.user.is_empty();
            let user = if all { "(all users)".to_owned() } else { lockout.user.clone() };
            let until = moment::display(lockout.until_secs);
            [user, lockout.address.clone(), lockout.count.to_string(), until]
        };
        let rows: Vec<_> = lockouts.iter().map(row).collect();
        page.push('\n');
        let heading = ["LOCKED OUT", "ADDRESS", "WRONG PASSWORDS", "UNTIL"];
        table::lines(heading, &rows).iter().for_each(|line| *page += &format!("{line}\n"));
    }
}

fn session_row(before: &Status, session: &Session) -> [String; 8] {
    // The counters begin anew with each epoch.
    let is_same = |other: &&Session| other.user == session.user && other.epoch == session.epoch;
    let earlier = before.sessions.iter().find(is_same).map(|other| other.counts);
    let moved = Moved::between(&earlier.unwrap_or_default(), &session.counts);
    [
        session.user.clone(),
        session.host.clone(),
        session.address.clone(),
        moment::display(session.since_secs),
        session.away_secs.map_or("-".to_owned(), moment::span),
        moved.ops.to_string(),
        size::display(moved.received),
        size::display(moved.sent),
    ]
}

//! Which way leads to a tree, and taking leave of it: through a mount of this user on this machine, if
//! there is one, or else by a session that lasts as long as the command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use xfer_client::connect::Target;
use xfer_client::core::{Link, Options, Owners};
use xfer_client::drive::Client;
use xfer_client::files::Files;
use xfer_protocol::message::Silence;

use super::mounts;
use super::place::Place;
use super::report::Report;
use super::tree::{Changes, Session, Tree, not_durable};
use crate::beginning::{Beginning, note_session};
use crate::command::config::{PasswordSource, trust_mode};
use crate::command::file_lines::AccessLine;
use crate::command::options::Retry;
use crate::command::settings;
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;
use crate::process::signals::Signals;
use crate::session_note::SessionNote;

/// Memory for data that was read, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Memory for changes that are on their way, in bytes.
const LOG_BYTES: usize = 64 << 20;

/// Memory for names and attributes, in bytes.
const TREE_BYTES: usize = 256 << 20;

/// How long an operation waits for a server that can't be reached, as on a mount.
const WAIT: Duration = Duration::from_secs(30);

/// The longest wait for deliveries that were there when the session began.
const ARRIVALS_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether they are placed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a session that the user has interrupted may still take to end well.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// A tree that a command works on.
pub(super) struct Opened {
    pub(super) tree: Box<dyn Tree>,
    pub(super) report: Arc<Report>,
    /// `user@host:port`.
    pub(super) label: String,
    way: Way,
}

/// The way that leads to a tree.
enum Way {
    /// The mount at this mount point.
    Mount(PathBuf),
    /// A session of this process.
    Session { client: Arc<Client>, runtime: Runtime, _note: Option<SessionNote> },
}

/// The time after which a session that a signal does not end has missed it.
const MISSED_AFTER: Duration = FAREWELL_MAX.saturating_add(Duration::from_millis(500));

/// Tells a session of a signal that came before it caught them.
static MISSED: Notify = Notify::const_new();

/// Whether there is a session, which ends the process if a signal says so.
static HAS_SESSION: AtomicBool = AtomicBool::new(false);

impl Opened {
    /// Opens the tree of an account.
    ///
    /// # Errors
    /// If the account can't be reached, or is mounted elsewhere.
    pub(super) fn open(account: &Target, access: AccessLine) -> Result<Opened, Failure> {
        let label = account.to_string();
        match mounts::find(&label, access.takeover)? {
            Some(found) => Ok(Opened::through(found, label)),
            None => {
                mounts::warn_of_dead(&label);
                by_session(account, label, access)
            }
        }
    }

    /// Opens the tree of an account if it is mounted on this machine by this user.
    ///
    /// # Errors
    /// If the mount does not have the tree.
    pub(super) fn if_mounted(account: &Target) -> Result<Option<Opened>, Failure> {
        let label = account.to_string();
        let found = mounts::find(&label, false)?;
        Ok(found.map(|found| Opened::through(found, label)))
    }

    fn through((tree, mountpoint): mounts::Found, label: String) -> Opened {
        Opened { tree, report: Arc::new(Report::new()), label, way: Way::Mount(mountpoint) }
    }

    /// Where the tree is mounted, if a mount is the way to it.
    pub(super) fn mountpoint(&self) -> Option<&Path> {
        match &self.way {
            Way::Mount(mountpoint) => Some(mountpoint),
            Way::Session { .. } => None,
        }
    }

    /// A number that rises whenever something may have arrived in the inbox. Waits until it is another
    /// than `seen`.
    ///
    /// # Errors
    /// If the mount or the session has ended.
    pub(super) fn inbox_news(&self, seen: Option<u64>) -> Result<u64, Failure> {
        match &self.way {
            Way::Mount(mountpoint) => mounts::news(mountpoint, seen),
            Way::Session { client, runtime, .. } => {
                let news = runtime.block_on(client.inbox_news(seen));
                news.ok_or_else(|| {
                    let why = self.ending().unwrap_or_else(|| "its session is over".to_owned());
                    Failure::new(Exit::Other, format!("{}: {why}", self.label))
                })
            }
        }
    }

    /// Opens the tree that all of these places are in.
    ///
    /// # Errors
    /// As [`Place::parse_all`] and [`Opened::open`].
    pub(super) fn of(
        texts: &[OsString],
        access: AccessLine,
    ) -> Result<(Vec<Place>, Opened), Failure> {
        let places = Place::parse_all(texts)?;
        let first = places.first().ok_or_else(|| Failure::usage("nothing is given"))?;
        let opened = Opened::open(&first.account, access).map_err(|failure| {
            // It may be the wrong port that was asked.
            let is_of_port = matches!(failure.exit, Exit::Unreachable | Exit::NotXfer);
            let hint = places.iter().find_map(Place::as_port).filter(|_| is_of_port);
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            Failure { line: failure.line + &hint, ..failure }
        })?;
        Ok((places, opened))
    }

    /// Takes leave of the tree, with all changes on the server's disk.
    ///
    /// # Errors
    /// If they are not, or if something failed before, of which a line has told.
    pub(super) fn close(self, changes: Changes) -> Result<(), Failure> {
        self.wait_if_interrupted();
        let ending = self.ending();
        let finished = match self.report.is_unanswered() && self.is_disconnected() {
            true => self.give_up(changes),
            false => self.tree.finish(changes),
        };
        self.wait_if_interrupted();
        if let Way::Session { .. } = self.way {
            HAS_SESSION.store(false, Ordering::SeqCst);
        }
        finished.map_err(|(exit, why)| Failure::new(exit, format!("{}: {why}", self.label)))?;
        let outcome = self.report.outcome();
        match ending.filter(|_| outcome.is_err()) {
            // It has failed for that.
            Some(ending) => Err(Failure::new(Exit::Other, format!("{}: {ending}", self.label))),
            None => outcome,
        }
    }

    /// Takes leave after something that can have failed as a whole, such as since the session is over, which then is
    /// said, too.
    ///
    /// # Errors
    /// If that failed, and as [`Opened::close`].
    pub(super) fn close_after(
        self,
        done: Result<(), Failure>,
        changes: Changes,
    ) -> Result<(), Failure> {
        match done {
            Err(failure) if self.ending().is_some() => {
                self.report.fail_line(&failure.line);
                self.close(changes)
            }
            done => done.and(self.close(changes)),
        }
    }

    /// Why the session of this command is over, or is about to end, if it is.
    fn ending(&self) -> Option<String> {
        match &self.way {
            Way::Mount(_) => None,
            Way::Session { client, .. } => client.status().trouble().map(ToString::to_string),
        }
    }

    /// Whether the mount or the session has no connection to the server now.
    fn is_disconnected(&self) -> bool {
        match &self.way {
            Way::Mount(_) => mounts::is_disconnected(&self.label),
            Way::Session { client, .. } => matches!(client.status().link, Link::Down { .. }),
        }
    }

    /// Takes leave without waiting for the server again. A mount goes on trying.
    fn give_up(&self, changes: Changes) -> Result<(), (Exit, String)> {
        if let Way::Session { client, runtime, .. } = &self.way {
            runtime.block_on(client.abandon());
        }
        match changes {
            Changes::None => Ok(()),
            Changes::Made => Err((Exit::Lost, not_durable(Errno::TIMEDOUT))),
        }
    }

    /// Waits for the end of the process, if the task that caught the signal is about to end it.
    fn wait_if_interrupted(&self) {
        while self.report.is_interrupted() {
            std::thread::park();
        }
    }
}

/// Ends the process when a signal says so and there is no session, whose end that would be. To be called
/// once a session has caught the signals.
pub(super) fn end_on_signals() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(other)?;
    let mut signals = runtime.block_on(async { Signals::catch() }).map_err(other)?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            let caught = Instant::now();
            while HAS_SESSION.load(Ordering::SeqCst) {
                // It began after the signal, which was for this process all the same.
                if caught.elapsed() > MISSED_AFTER {
                    MISSED.notify_one();
                }
                sleep(LOOK_EVERY).await;
            }
        });
        complain("xfer: interrupted");
        std::process::exit(Exit::Interrupted.code().into());
    });
    Ok(())
}

fn by_session(account: &Target, label: String, mut access: AccessLine) -> Result<Opened, Failure> {
    settings::complete_access(account, &mut access.server, &mut access.password)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(other)?;
    let options = options(&label);
    let beginning = Beginning {
        target: account,
        trust: &trust_mode(access.server.trust)?,
        known_hosts: access.server.known_hosts,
        password: &PasswordSource::from(access.password),
        takeover: access.takeover,
        options: options.clone(),
        retry: Retry::default(),
    };
    let login = beginning.login(&runtime)?;
    // From now on there is a session to be ended.
    let signals = runtime.block_on(async { Signals::catch() }).map_err(other)?;
    HAS_SESSION.store(true, Ordering::SeqCst);
    let note = note_session(&label, login.session.link.grant.session);
    let report = Arc::new(Report::new());
    let (interrupt, interrupted) = watch::channel(false);
    let client = runtime.block_on(async {
        let client = Client::start(login.session, options);
        tokio::spawn(until_interrupted(signals, client.clone(), interrupt, report.clone()));
        // If there is no room for a mailbox, every later change tries again.
        let _ = client.make_mailboxes().await;
        settle_arrivals(&client).await;
        client
    });
    let files = Files::of(client.clone());
    let session = Session::new(files, runtime.handle().clone(), interrupted);
    let way = Way::Session { client, runtime, _note: note };
    Ok(Opened { tree: Box::new(session), report, label, way })
}

fn options(label: &str) -> Options {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    Options {
        cache_bytes: CACHE_BYTES,
        log_bytes: LOG_BYTES,
        tree_bytes: TREE_BYTES,
        // As a mount shows them.
        owners: match uid.is_root() {
            true => Owners::Stored,
            false => Owners::Mounter { uid: uid.as_raw(), gid: gid.as_raw() },
        },
        wait: Some(WAIT),
        offline_bytes: None,
        handoff: false,
        silence: Silence::default(),
        label: label.to_owned(),
    }
}

/// Waits until the deliveries that the session began with are in the inbox, so that the command finds them.
async fn settle_arrivals(client: &Client) {
    let end = Instant::now() + ARRIVALS_MAX;
    loop {
        let status = client.status();
        if status.waiting <= status.waiting_for_room || Instant::now() > end {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Ends the process soon after a signal. What was done until then stays, and can be resumed.
async fn until_interrupted(
    mut signals: Signals,
    client: Arc<Client>,
    interrupt: watch::Sender<bool>,
    report: Arc<Report>,
) {
    tokio::select! {
        () = signals.next() => {}
        () = MISSED.notified() => {}
    }
    report.interrupt();
    interrupt.send_replace(true);
    let is_ended = tokio::select! {
        ended = timeout(FAREWELL_MAX, client.finish()) => ended.is_ok(),
        () = signals.next() => false,
    };
    if !is_ended {
        client.abandon().await;
    }
    complain("xfer: interrupted");
    std::process::exit(Exit::Interrupted.code().into());
}

fn other(error: std::io::Error) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}

//! Which way leads to a tree, and taking leave of it: through a mount of this user on this machine, if
//! there is one, or else by a session that lasts as long as the command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use xfer_client::connect::Target;
use xfer_client::core::{Options, Owners};
use xfer_client::drive::Client;
use xfer_client::files::Files;
use xfer_protocol::message::Silence;
use xfer_protocol::shown::Shown;

use super::place::Place;
use super::report::Report;
use super::tree::{Changes, Mounted, Session, Tree};
use crate::beginning::{Beginning, note_session};
use crate::command::config::{PasswordSource, trust_mode};
use crate::command::file_lines::AccessLine;
use crate::command::options::Retry;
use crate::command::settings;
use crate::control::{self, DORMANT};
use crate::mountpoint::{mountinfo, stale};
use crate::process::exit::{Exit, Failure};
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
    _session: Option<(Runtime, Option<SessionNote>)>,
}

impl Opened {
    /// Opens the tree of an account.
    ///
    /// # Errors
    /// If the account can't be reached, or is mounted elsewhere.
    pub(super) fn open(account: &Target, access: AccessLine) -> Result<Opened, Failure> {
        let label = account.to_string();
        match mounted(&label, access.takeover)? {
            Some(mount) => {
                let report = Arc::new(Report::new());
                Ok(Opened { tree: Box::new(mount), report, label, _session: None })
            }
            None => by_session(account, label, access),
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
        let finished = self.tree.finish(changes);
        self.wait_if_interrupted();
        finished.map_err(|(exit, why)| Failure::new(exit, format!("{}: {why}", self.label)))?;
        self.report.outcome()
    }

    /// Waits for the end of the process, if the task that caught the signal is about to end it.
    fn wait_if_interrupted(&self) {
        while self.report.is_interrupted() {
            std::thread::park();
        }
    }
}

/// This user's mount of an account, if there is one that works.
fn mounted(label: &str, takeover: bool) -> Result<Option<Mounted>, Failure> {
    let namespace = mountinfo::namespace().unwrap_or_default();
    for status in control::of_account(label) {
        if status.elsewhere || status.is_lost() || status.namespace != namespace {
            continue;
        }
        if status.state == DORMANT {
            if takeover {
                continue;
            }
            let other = status.other.as_deref().unwrap_or("another machine");
            let place = &status.mountpoint;
            let line = format!(
                "{label}: mounted at {place}, but the mount on {other} has the tree; use that one, or \
                 take the tree from it with --takeover"
            );
            return Err(Failure::new(Exit::InUse, line));
        }
        let mount = Mounted::open(&PathBuf::from(&status.mountpoint));
        if let Ok(mount) = mount
            && mount.device().ok() == status.device
        {
            return Ok(Some(mount));
        }
    }
    warn_of_dead_mounts(label);
    Ok(None)
}

/// Says which mounts of the account no process serves any more.
fn warn_of_dead_mounts(label: &str) {
    let mut entries = mountinfo::all().unwrap_or_default();
    entries.retain(|entry| entry.source == label && stale::is_own(entry));
    for entry in entries.iter().filter(|entry| stale::is_stale(entry)) {
        let place = entry.mountpoint.display().to_string();
        eprintln!(
            "xfer: warning: {0}: no process serves this mount any more; remove it with: xfer unmount {0}",
            Shown(&place)
        );
    }
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
    let session = Session::new(Files::of(client), runtime.handle().clone(), interrupted);
    Ok(Opened { tree: Box::new(session), report, label, _session: Some((runtime, note)) })
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
    signals.next().await;
    report.interrupt();
    interrupt.send_replace(true);
    let is_ended = tokio::select! {
        ended = timeout(FAREWELL_MAX, client.finish()) => ended.is_ok(),
        () = signals.next() => false,
    };
    if !is_ended {
        client.abandon().await;
    }
    eprintln!("xfer: interrupted");
    std::process::exit(Exit::Interrupted.code().into());
}

fn other(error: std::io::Error) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}

//! `xfer-mount` from its command line to its end: the order of steps, and how a mount ends.
//!
//! The steps themselves are in other modules. A mount ends when the kernel has unmounted it, or
//! when a signal or `xfer unmount` asks for it. In every case all changes are made durable first,
//! if the server is still there. A lost session leaves the mount in place, with errors, until it is
//! unmounted: if it disappeared, programs would go on writing to the directory beneath it.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::interval;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use xfer_client::client::{self, Client, Standing};
use xfer_client::connect::{self, KnownHosts, Login, TrustPolicy};
use xfer_protocol::message::Purpose;
use xfer_protocol::shown::{Shown, shown};

use crate::background::{self, Attached, Forked, WaitError};
use crate::config::Config;
use crate::control::{Control, Mounted, Status, Waiting};
use crate::exit::{Exit, Failure};
use crate::mountinfo::{self, Entry};
use crate::options::{IdsOption, MountOptions};
use crate::terminal::OnTerminal;
use crate::unmounting::{self, Lies, UnmountError};
use crate::{fuse, mountpoint, password, syslog};

/// How often to check whether the session was lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs `xfer-mount`; returns the exit code.
pub fn run(config: Config) -> u8 {
    if config.options.remount {
        return code(mountpoint::remount(&config.mountpoint, &config.options));
    }
    if config.foreground {
        return code(mount(&config, None));
    }
    match background::fork() {
        Ok(Forked::Child(attached)) => code(mount(&config, Some(attached))),
        Ok(Forked::Parent(waiting)) => match waiting.wait() {
            Ok(ended) => ended,
            Err(WaitError::Interrupted) => {
                code(Err(Failure::new(Exit::Interrupted, "interrupted")))
            }
            Err(error) => code(Err(Failure::new(Exit::Other, error.to_string()))),
        },
        Err(error) => code(Err(other(error))),
    }
}

/// The exit code of a result. Prints a failure's line; no other place does.
pub fn code(result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(failure) => {
            report(&failure.line);
            failure.exit.code()
        }
    }
}

/// Prints to the terminal, or to the system's log once in the background.
fn report(line: &str) {
    let line = Shown(line);
    match background::is_detached() {
        true => syslog::say(&line.to_string()),
        false => eprintln!("xfer-mount: {line}"),
    }
}

/// Sets up the log for troubleshooting; `XFER_LOG=debug` shows more.
fn log(foreground: bool) {
    // fuser warns of every mount that it did not unmount itself.
    let quiet = || EnvFilter::new("warn,fuser=error");
    let filter = EnvFilter::try_from_env("XFER_LOG").unwrap_or_else(|_| quiet());
    let colours = foreground && io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // Spans have level `trace`, so enabling them means that their durations are wanted.
    log.with_span_events(FmtSpan::CLOSE).with_writer(|| Outlet).init();
}

/// The log's output: the terminal, or the system's log once in the background.
struct Outlet;

impl io::Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !background::is_detached() {
            return io::stderr().write(line);
        }
        syslog::say(&shown(String::from_utf8_lossy(line).trim_end()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn other(error: io::Error) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}

fn mount(config: &Config, attached: Option<Attached>) -> Result<(), Failure> {
    mountpoint::check_fuse(&config.options)?;
    let place = mountpoint::prepare(&config.mountpoint)?;
    log(config.foreground);
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(other)?;
    let result = login(config, &runtime)
        .and_then(|login| runtime.block_on(serve(config, login, &place, attached)));
    // Threads that resolve names can't be interrupted, so don't wait for them.
    runtime.shutdown_background();
    result
}

/// Logs in, asking on the terminal where needed.
fn login(config: &Config, runtime: &Runtime) -> Result<Login, Failure> {
    let known_hosts = config.known_hosts.clone().or_else(KnownHosts::default_path);
    let known_hosts = known_hosts.ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory for known hosts; give --known-hosts")
    })?;
    let policy =
        TrustPolicy { mode: config.trust.clone(), known_hosts: KnownHosts::new(known_hosts) };
    let contact = runtime.block_on(connect::reach(&config.target, &policy.mode))?;
    let peer = contact.trust(&policy, &mut OnTerminal)?;
    let obtained = password::obtain(&config.password, peer.label())?;
    obtained.warning.iter().for_each(|warning| report(&format!("warning: {warning}")));
    let purpose = if config.takeover { Purpose::TakeOver } else { Purpose::Mount };
    let login = runtime.block_on(peer.login(obtained.password, purpose))?;
    login.warnings.iter().for_each(|warning| report(&format!("warning: {warning}")));
    Ok(login)
}

/// Mounts, and returns when the mount has ended.
async fn serve(
    config: &Config,
    login: Login,
    place: &Path,
    attached: Option<Attached>,
) -> Result<(), Failure> {
    let user = login.session.grant.user.to_string();
    let label = config.target.to_string();
    let mut signals = Signals::catch().map_err(other)?;
    let client = Client::start(login.session, client_options(config, &label));
    // If there is no room for a mailbox, every later change tries again.
    let (_, root) = tokio::join!(client.make_mailboxes(), client.keep_root());
    if let Err(errno) = root {
        let line = format!("{label}: the server does not tell of the root directory: {errno}");
        return Err(Failure::new(Exit::ServerTrouble, line));
    }
    // If two processes mount at one place, the second one finds here that the first has mounted.
    let mount = tokio::task::block_in_place(|| {
        let claim = mountpoint::claim(place)?;
        let mount = fuse::mount(&client, place, &fuse_options(&config.options, &label))
            .map_err(|error| Failure::new(Exit::NoFuse, error.to_string().trim_end()))?;
        mountpoint::keep_alone(mount.entry())?;
        Ok((mount, claim))
    });
    let (mount, claim) = match mount {
        Ok(mounted) => mounted,
        Err(failure) => {
            let _ = client.finish().await;
            return Err(failure);
        }
    };
    let running = Arc::new(Running {
        client,
        mount,
        server: config.target.endpoint(),
        user,
        place: place.to_owned(),
        namespace: mountinfo::namespace().unwrap_or_default(),
        released: Notify::new(),
        ended: watch::Sender::new(None),
    });
    let control = Control::serve(running.clone(), place, &running.mount.entry().device)
        .inspect_err(|error| report(&format!("warning: `xfer` can't reach this mount: {error}")))
        .ok();
    drop(claim);
    if let Some(attached) = attached {
        attached.detach().map_err(other)?;
    }
    running.until_unmounted(&mut signals).await;
    let result = running.finish(&mut signals).await;
    if let Some(control) = control {
        control.close().await;
    }
    result
}

fn client_options(config: &Config, label: &str) -> client::Options {
    client::Options {
        cache_bytes: usize::try_from(config.cache_bytes).unwrap_or(usize::MAX),
        log_bytes: usize::try_from(config.log_bytes).unwrap_or(usize::MAX),
        tree_bytes: usize::try_from(config.tree_bytes).unwrap_or(usize::MAX),
        ids: ids(&config.options),
        label: label.to_owned(),
    }
}

fn fuse_options(options: &MountOptions, label: &str) -> fuse::Options {
    fuse::Options {
        allow_other: options.allow_other,
        access: options.access,
        umask: options.umask,
        sync: options.sync,
        source: options.source.clone().unwrap_or_else(|| label.to_owned()),
    }
}

/// The owners that nodes show. A mount by root shows the stored ones, as any filesystem does for
/// root: otherwise `cp -a` and `tar` could not set them.
fn ids(options: &MountOptions) -> client::Ids {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let owners = options.owners;
    let is_plain = (owners.uid, owners.gid) == (None, None);
    match owners.ids {
        Some(IdsOption::Stored) => client::Ids::Stored,
        None if uid.is_root() && is_plain => client::Ids::Stored,
        Some(IdsOption::Mounter) | None => client::Ids::Mounter {
            uid: owners.uid.unwrap_or(uid.as_raw()),
            gid: owners.gid.unwrap_or(gid.as_raw()),
        },
    }
}

/// The signals that end a mount.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// A running mount.
struct Running {
    client: Arc<Client>,
    mount: fuse::Mount,
    server: String,
    user: String,
    /// Where it was mounted; it may have been moved since.
    place: PathBuf,
    /// The mount namespace of this process.
    namespace: String,
    /// Notified when `xfer unmount` has unmounted it. The kernel reports an unmount only once no
    /// copy is left, and another mount namespace may keep one.
    released: Notify,
    /// The session's outcome, once it has ended.
    ended: watch::Sender<Option<Result<(), Failure>>>,
}

impl Running {
    /// Waits until the kernel's mount is gone, or a signal asks for it to go.
    async fn until_unmounted(&self, signals: &mut Signals) {
        let mut look = interval(LOOK_EVERY);
        let mut lost = false;
        loop {
            tokio::select! {
                () = self.mount.unmounted() => return,
                () = self.released.notified() => return,
                () = signals.next() => break,
                _ = look.tick(), if !lost => {
                    let standing = self.client.standing();
                    lost = standing.trouble.is_some() && !standing.draining;
                    if lost {
                        let place = self.place();
                        report(&format!("{}: {}", place.display(), loss(&standing, &place)));
                    }
                }
            }
        }
        // Settle while programs can still read; after the unmount nothing is left to wait for.
        tokio::select! {
            _ = self.client.settle() => {}
            () = signals.next() => {}
        }
        // The kernel may need answers from this very process before it releases the mount.
        tokio::task::block_in_place(|| self.leave());
    }

    /// Unmounts because a signal told the process to end. A busy mount is at least detached, along with
    /// the mounts inside it, which would be out of reach anyway. A covered mount stays in place,
    /// without a process.
    fn leave(&self) {
        let entry = self.mount.entry();
        let place = self.place();
        let left = match unmounting::unmount(entry) {
            Err(UnmountError::InUse(_)) => unmounting::detach(entry),
            Err(UnmountError::InTheWay(obstacle)) if obstacle.lies == Lies::In => {
                let within = obstacle.entry;
                let left = unmounting::detach_with_all_in_it(entry);
                left.inspect(|()| {
                    report(&format!(
                        "{}: unmounted, since a signal said so, and with it {} ({}), which was mounted at {}",
                        place.display(),
                        within.source,
                        within.kind,
                        within.mountpoint.display(),
                    ));
                })
            }
            left @ (Ok(()) | Err(UnmountError::InTheWay(_) | UnmountError::Refused(_))) => left,
        };
        if let Err(error) = left {
            report(&format!(
                "{0}: ended, but still mounted: {error}; then remove it with: xfer unmount {0}",
                place.display()
            ));
        }
    }

    /// Makes everything durable and logs out. Another signal means at once, whatever is lost.
    async fn finish(&self, signals: &mut Signals) -> Result<(), Failure> {
        let result = tokio::select! {
            finished = self.client.finish() => finished.map_err(|lost| lost.to_string()),
            () = signals.next() => {
                let standing = self.client.standing();
                Err(format!(
                    "ended at once; {} changes ({} bytes) are not on the server",
                    standing.pending_ops, standing.pending_bytes
                ))
            }
        };
        let result = result.map_err(|why| Failure::new(Exit::Lost, why));
        self.ended.send_replace(Some(result.clone()));
        result.map_err(|Failure { exit, line }| {
            Failure::new(exit, format!("{}: {line}", self.place.display()))
        })
    }
}

fn loss(standing: &Standing, place: &Path) -> String {
    let reason = standing.trouble.as_deref().unwrap_or("unknown");
    let lost = match (standing.pending_ops, standing.pending_bytes) {
        (0, _) => "everything is on the server".to_owned(),
        (ops, bytes) => format!("{ops} changes ({bytes} bytes) are not on the server"),
    };
    format!(
        "the session is over: {reason}; {lost}; programs get errors until it is unmounted: \
         xfer unmount {}",
        place.display(),
    )
}

impl Mounted for Running {
    fn status(&self) -> Status {
        let standing = self.client.standing();
        let state = match standing.trouble {
            None => "connected".to_owned(),
            Some(_) if standing.draining => "draining".to_owned(),
            Some(why) => format!("lost: {why}"),
        };
        Status {
            server: self.server.clone(),
            user: self.user.clone(),
            mountpoint: self.place().display().to_string(),
            namespace: self.namespace.clone(),
            device: Some(self.mount.entry().device.clone()).filter(|_| !self.mount.has_ended()),
            state,
            elsewhere: !self.mount.has_ended() && matches!(self.entry(), Ok(None)),
            pending_ops: standing.pending_ops as u64,
            pending_bytes: standing.pending_bytes as u64,
            durable_seq: standing.durable.0,
            applied_seq: standing.last.0,
            used_bytes: standing.usage.bytes,
            quota_bytes: standing.quota.bytes,
            used_nodes: standing.usage.nodes,
            quota_nodes: standing.quota.nodes,
            cache_bytes: standing.cache_bytes as u64,
            tree_bytes: standing.tree_bytes as u64,
            rtt_ms: standing.round_trip.map(|time| time.as_secs_f64() * 1000.0),
            deliveries_waiting: standing.waiting as u64,
            deliveries_without_room: standing.waiting_for_room as u64,
            unsent_waiting: standing.unsent.waiting as u64,
            unsent_failed: standing.unsent.failed as u64,
            unsent_held: standing.unsent.held as u64,
            unsent: standing.unsent_files,
            errors: standing.errors,
        }
    }

    fn settle(&self) -> Waiting<'_> {
        Box::pin(async { self.client.settle().await.map_err(|_| self.why_not_durable()) })
    }

    fn unmount(&self) -> Waiting<'_> {
        Box::pin(async {
            // Settle before unmounting, so that a busy mount is left working if this fails. A lost
            // session can only be unmounted; its outcome says what is lost.
            let _ = self.client.settle().await;
            let taken_away =
                tokio::task::block_in_place(|| unmounting::unmount(self.mount.entry()));
            taken_away.map_err(|error| Failure::new(Exit::Other, error.to_string()))?;
            // Everything is durable; copies in other namespaces end with this process.
            self.released.notify_one();
            let mut ended = self.ended.subscribe();
            let ended = ended.wait_for(Option::is_some).await;
            ended.ok().and_then(|result| result.clone()).unwrap_or(Ok(()))
        })
    }
}

impl Running {
    /// The mount's present entry. If it has none and the kernel has not released it, another mount
    /// namespace or programs that use it keep it.
    fn entry(&self) -> io::Result<Option<Entry>> {
        self.mount.entry().now()
    }

    /// The place where it is now, or where it was last known to be.
    fn place(&self) -> PathBuf {
        self.entry().ok().flatten().map_or_else(|| self.place.clone(), |entry| entry.mountpoint)
    }

    fn why_not_durable(&self) -> Failure {
        let standing = self.client.standing();
        match (&standing.trouble, standing.pending_ops) {
            (Some(_), 0) => Failure::new(Exit::Other, loss(&standing, &self.place())),
            (Some(_), _) => Failure::new(Exit::Lost, loss(&standing, &self.place())),
            (None, _) => Failure::new(Exit::Other, "the server does not answer in time; try again"),
        }
    }
}

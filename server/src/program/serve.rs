//! A server from start to end: it opens the store and the port, and shuts everything down in order.
//!
//! On SIGTERM or SIGINT the port closes, clients make durable what they have sent, and the process
//! ends within ten seconds, even if some do not answer.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use xfer_protocol::message::Silence;
use xfer_store::embedded::Serving;
use xfer_store::{Store, StoreError, Use};

use crate::engine::{Engine, Settings};
use crate::figures::Source;
use crate::figures::web::{Place, Stage, Web};
use crate::listener::identity::{Fingerprint, Identity, IdentityError};
use crate::listener::tls;
use crate::listener::{self, Listener};
use crate::login::opening::Door;
use crate::program::control::{About, AdminSocket, Control, Manage, Served};
use crate::program::exit::{Exit, Failure};
use crate::program::log;
use crate::program::rights::Own;
use crate::program::store_location::StoreLocation;
use crate::program::systemd;

/// The time that sessions have to become durable once the server stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(7);

/// How often the accounts of sessions are looked at, to see whether they have expired.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

/// The extra time for each later step of the shutdown.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The configuration of a server.
pub struct Config {
    /// The store's directory.
    pub store: StoreLocation,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// A certificate to use instead of the store's own.
    pub files: Option<CertificateFiles>,
    /// Memory for the rows that sessions keep loaded, in bytes.
    pub tree_bytes: usize,
    /// The shortest silence of a link that clients may ask for.
    pub silence: Silence,
    /// Where metrics can be read.
    pub metrics: Place,
    /// Where users may be managed by others than the store's owner.
    pub admin_socket: AdminSocket,
    /// What carries out their commands.
    pub manage: Manage,
    /// How the store is served.
    pub serving: Serving,
}

/// A certificate and its key, in PEM.
pub struct CertificateFiles {
    /// The certificates, leaf first.
    pub cert: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// Runs a server until it is told to stop.
///
/// # Errors
/// If it can't start, or its store disappeared while it ran.
pub fn run(config: &Config) -> Result<(), Failure> {
    log::start();
    let started = SystemTime::now();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        Failure::new(Exit::Other, format!("cannot start threads ({error}); check the limits"))
    })?;
    let served = runtime.block_on(async {
        let (stage, pages) = pages(config)?;
        let opened = xfer_store::open(&config.store.location, Use::Serve(config.serving)).await;
        let store = opened.map_err(|error| taken(error, config))?;
        let identity = identity(config)?;
        let fingerprint = identity.fingerprint();
        let tls = tls::server_config(identity).map_err(|error| {
            Failure::new(
                Exit::Tls,
                format!("the certificate and key cannot be used ({error}); check them"),
            )
        })?;
        let served = serve(config, store, tls, (&fingerprint, &stage, started)).await;
        drop(pages);
        served
    });
    // Threads that hang on the disk must not keep the process alive.
    runtime.shutdown_timeout(STOP_GRACE);
    served
}

async fn serve(
    config: &Config,
    store: Store,
    tls: Arc<ServerConfig>,
    (fingerprint, stage, started): (&Fingerprint, &watch::Sender<Stage>, SystemTime),
) -> Result<(), Failure> {
    let port = bind(config.listen).map_err(|error| unheard(&error, config))?;
    let settings = Settings { silence: config.silence, ..Settings::new(config.tree_bytes) };
    let engine = Engine::with(store.clone(), settings);
    let address = port.local_addr().map_err(|error| unheard(&error, config))?;
    let door = Door::new(store.register());
    let listener = Arc::new(Listener::new(tls, door, engine.clone()));
    let source = Source::new(engine.clone(), listener.clone(), store.clone(), started);
    let served = Arc::new(Served {
        engine: engine.clone(),
        source: source.clone(),
        about: About { address, fingerprint: fingerprint.clone(), store: config.store.clone() },
        register: store.register(),
        manage: config.manage,
    });
    let control = Control::in_store(served.clone()).map_err(no_control)?;
    let stop = stop_signal()?;
    // Before the line that scripts wait for: they may ask next whether it is ready.
    stage.send_replace(Stage::Serving(source.clone()));
    if store.is_new {
        tracing::info!(store = %config.store.location, "made a new store");
    }
    announce(address, fingerprint);
    let mut control: JoinSet<()> = [Some(control), for_admins(&config.admin_socket, served)]
        .into_iter()
        .flatten()
        .map(Control::serve)
        .collect();
    let watchdog = tokio::spawn(systemd::feed_watchdog());
    let expiry = tokio::spawn(end_expired(engine.clone()));
    let mut trouble = None;
    let stop = async {
        let error = tokio::select! {
            () = stop => return tracing::info!("stopping"),
            error = store.keeper.failed() => error,
        };
        tracing::error!("{error}: all sessions end");
        trouble = Some(error);
    };
    let connections = listener.serve(port, stop).await;
    stage.send_replace(Stage::Stopping(source));
    systemd::notify_stopping();
    // The engine turns away connections that are still being admitted; the sessions drain.
    let end = async {
        match &trouble {
            Some(error) => engine.abandon(error, DRAIN_DEADLINE).await,
            None => engine.stop(DRAIN_DEADLINE).await,
        }
    };
    if tokio::time::timeout(DRAIN_DEADLINE + STOP_GRACE, end).await.is_err() {
        tracing::warn!("sessions did not end in time");
    }
    control.abort_all();
    finish(connections).await;
    watchdog.abort();
    expiry.abort();
    Ok(store.keeper.close().await?)
}

/// Opens the pages for those who watch the server, if they are wanted, before anything else. They end when
/// the set is dropped.
fn pages(config: &Config) -> Result<(watch::Sender<Stage>, JoinSet<()>), Failure> {
    let stage = watch::Sender::new(Stage::Starting);
    let mut pages = JoinSet::new();
    if let Place::Loopback(address) | Place::Public(address) = config.metrics {
        let bound = Own::regain()
            .map_err(Into::into)
            .and_then(|_own| Web::bind(address, stage.subscribe()));
        let web = bound.map_err(|error| {
            let line = format!(
                "cannot listen on {address} for metrics ({error}); choose another --metrics"
            );
            Failure::new(Exit::Listen, line)
        })?;
        pages.spawn(web.serve());
    }
    Ok((stage, pages))
}

/// Opens the admin socket, if it is wanted. A server that can't have it serves its clients all the same.
fn for_admins(place: &AdminSocket, served: Arc<Served>) -> Option<Control> {
    let AdminSocket::At(path) = place else { return None };
    // Only root may make it in a directory like /run.
    let bound = Own::regain()
        .map_err(std::io::Error::from)
        .and_then(|_own| Control::for_admins(path, served));
    bound
        .inspect_err(|error| {
            let advice = match error.kind() {
                ErrorKind::NotFound => {
                    "make its directory, or set admin-socket to another place or to off"
                }
                _ => "set admin-socket to another place or to off",
            };
            tracing::error!("cannot make the admin socket {} ({error}); {advice}", path.display());
        })
        .ok()
}

/// Ends the sessions of accounts as they expire.
async fn end_expired(engine: Arc<Engine>) {
    let mut looks = tokio::time::interval(EXPIRY_EVERY);
    loop {
        looks.tick().await;
        engine.end_expired().await;
    }
}

/// Takes the port that the service manager opened, or opens it; only root may do that for low ports.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    if let Some(port) = systemd::given_port()? {
        port.set_nonblocking(true)?;
        return TcpListener::from_std(port);
    }
    let _own = Own::regain()?;
    listener::bind(address)
}

/// Lets connections finish, then aborts them.
async fn finish(mut connections: JoinSet<()>) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE / 2, all).await.is_err() {
        // A task that waits for the disk does not react to being aborted.
        let aborted = tokio::time::timeout(STOP_GRACE / 2, connections.shutdown()).await;
        if aborted.is_err() {
            tracing::warn!("connections did not end in time");
        }
    }
}

fn identity(config: &Config) -> Result<Identity, Failure> {
    let identity = match &config.files {
        Some(CertificateFiles { cert, key }) => Identity::load(cert, key),
        None => Identity::of_store(&config.store.dir),
    };
    identity.map_err(|error| match error {
        IdentityError::File { path, error } if error.kind() == ErrorKind::StorageFull => {
            StoreError::io(path.display().to_string(), error).into()
        }
        IdentityError::File { .. } | IdentityError::Content { .. } => {
            Failure::new(Exit::Tls, format!("cannot use the certificate ({error}); check the file"))
        }
        IdentityError::Make(_) => Failure::new(Exit::Tls, format!("{error}; use --cert and --key")),
    })
}

fn taken(error: StoreError, config: &Config) -> Failure {
    match error {
        StoreError::InUse { .. } => {
            let store = &config.store.location;
            Failure::new(Exit::StoreInUse, format!("{error} ({store}); stop it, or check --store"))
        }
        other => other.into(),
    }
}

fn unheard(error: &std::io::Error, config: &Config) -> Failure {
    let address = config.listen;
    let line = match config.metrics {
        Place::Loopback(of_metrics) | Place::Public(of_metrics)
            if error.kind() == ErrorKind::AddrInUse && of_metrics.port() == address.port() =>
        {
            format!(
                "cannot listen on {address}, since --metrics has that port; choose another for one"
            )
        }
        Place::Off | Place::Loopback(_) | Place::Public(_) => {
            format!("cannot listen on {address} ({error}); choose another --listen")
        }
    };
    Failure::new(Exit::Listen, line)
}

fn no_control(error: std::io::Error) -> Failure {
    let line = format!("cannot make the store's control.sock ({error}); check the store's owner");
    Failure::new(Exit::Store, line)
}

/// Resolves at the first SIGTERM or SIGINT from now on.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let on = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(
                Exit::Other,
                format!("cannot wait for signals ({error}); check the limits"),
            )
        })
    };
    let (mut terminate, mut interrupt) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Announces that clients can connect. A script that starts the server may wait for this line.
fn announce(address: SocketAddr, fingerprint: &Fingerprint) {
    let mut out = std::io::stdout();
    let said = writeln!(out, "listening on {address}, fingerprint {fingerprint}");
    if let Err(error) = said.and_then(|()| out.flush()) {
        tracing::warn!(%error, "standard output does not take the line that clients can connect");
    }
    tracing::info!(%address, %fingerprint, "listening");
    systemd::notify_ready(&format!("listening on {address}"));
}

/// Each client has several connections, so the usual soft limit of 1024 is quickly exhausted.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_hangs_in_the_disk_does_not_keep_the_server_from_ending() {
        let mut connections = JoinSet::new();
        let (hung, hangs) = tokio::sync::oneshot::channel();
        connections.spawn(async move {
            let _ = hung.send(());
            std::thread::sleep(3 * STOP_GRACE);
        });
        let start = std::time::Instant::now();
        let _ = hangs.await;
        finish(connections).await;
        assert!(start.elapsed() < 2 * STOP_GRACE);
    }
}

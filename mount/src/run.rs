//! `xfer-mount` from its command line to its end: the order of steps, and how a mount ends.
//!
//! The steps themselves are in other modules. A mount ends when the kernel has unmounted it, or
//! when a signal or `xfer unmount` asks for it. In every case all changes are made durable first,
//! if the server is still there. A lost session leaves the mount in place, with errors, until it is
//! unmounted: if it disappeared, programs would go on writing to the directory beneath it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Builder;
use xfer_client::connect::Login;
use xfer_client::core::{Options, Owners, Spill};
use xfer_client::drive::{Client, Journal, Rescue, Surroundings};
use xfer_client::offline::{Place, SpillFiles};

use crate::beginning::{Beginning, note_session};
use crate::command::config::Config;
use crate::command::options::{IdsOption, MountOptions, Wait};
use crate::control::Control;
use crate::mountpoint::permission;
use crate::process::background::{self, Attached, Forked, WaitError};
use crate::process::exit::{Exit, Failure};
use crate::process::notify;
use crate::process::report::{code, log, report};
use crate::process::signals::Signals;
use crate::rescue::{self, Keeper};
use crate::running::{Account, Running};
use crate::{fuse, mountpoint};

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

fn other(error: io::Error) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}

fn mount(config: &Config, attached: Option<Attached>) -> Result<(), Failure> {
    permission::check_fuse(&config.options)?;
    let place = mountpoint::prepare(&config.mountpoint)?;
    if !config.options.nonempty && mountpoint::hides_something(&place) {
        let place = place.display();
        report(&format!(
            "warning: {place} is not empty; what is in it is hidden until it is unmounted"
        ));
    }
    log(config.foreground);
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(other)?;
    let beginning = Beginning {
        target: &config.target,
        trust: &config.trust,
        known_hosts: config.known_hosts.clone(),
        password: &config.password,
        takeover: config.takeover,
        options: client_options(config, &config.target.to_string()),
        retry: config.options.retry,
    };
    let result = beginning
        .login(&runtime)
        .and_then(|login| runtime.block_on(serve(config, login, &place, attached)));
    // Threads that resolve names can't be interrupted, so don't wait for them.
    runtime.shutdown_background();
    result
}

/// Mounts, and returns when the mount has ended.
async fn serve(
    config: &Config,
    login: Login,
    place: &Path,
    attached: Option<Attached>,
) -> Result<(), Failure> {
    let (user, key) = (login.session.link.grant.user.to_string(), login.device);
    let label = config.target.to_string();
    let _note = note_session(&label, login.session.link.grant.session);
    let mut signals = Signals::catch().map_err(other)?;
    let kept = offline_place(config, &login, &label);
    let journal = kept.clone().map(|place| Arc::new(place) as Arc<dyn Journal>);
    let spill = kept.as_ref().map(|place| Arc::new(SpillFiles::within(place.path())));
    let spill = spill.map(|files| files as Arc<dyn Spill>);
    let keeper = Keeper::new(label.clone(), place.display().to_string());
    let rescue: Option<Arc<dyn Rescue>> = Some(Arc::new(keeper.clone()));
    let surroundings = Surroundings { journal, spill, rescue, ..Surroundings::real() };
    let client = Client::start_in(login.session, client_options(config, &label), surroundings);
    // If there is no room for a mailbox, every later change tries again.
    let (_, root) = tokio::join!(client.make_mailboxes(), client.keep_root());
    if let Err(errno) = root {
        let line = format!("{label}: cannot read the root directory of the tree: {errno}");
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
    let account = Account { server: config.target.endpoint(), user, key };
    let running = Running::new(client, mount, account, place.to_owned(), keeper, kept);
    let running = Arc::new(running);
    let control = Control::serve(running.clone(), place, running.device())
        .inspect_err(|error| report(&format!("warning: `xfer` cannot reach this mount: {error}")))
        .ok();
    drop(claim);
    notify::ready();
    if rescue::count(&label) > 0 {
        let what = "changes of earlier mounts, which did not reach the server, are kept";
        report(&format!("{label}: {what} on this machine; see: xfer rescue list"));
    }
    if let Some(attached) = attached {
        attached.detach().map_err(other)?;
    }
    tokio::select! {
        () = running.until_unmounted(&mut signals) => {}
        () = running.follow_sleep() => {}
    }
    let result = running.finish(&mut signals).await;
    if let Some(control) = control {
        control.close().await;
    }
    result
}

/// The place on this machine's disk where an offline mount keeps what it needs after a crash.
fn offline_place(config: &Config, login: &Login, label: &str) -> Option<Place> {
    config.options.offline_bytes?;
    let place = Place::create(label, login.session.link.grant.session, login.key.clone());
    let place = place.inspect_err(|error| {
        report(&format!(
            "warning: nothing can be kept on this machine, so offline is off: {error}"
        ));
    });
    place.ok()
}

fn client_options(config: &Config, label: &str) -> Options {
    Options {
        cache_bytes: usize::try_from(config.cache_bytes).unwrap_or(usize::MAX),
        log_bytes: usize::try_from(config.log_bytes).unwrap_or(usize::MAX),
        tree_bytes: usize::try_from(config.tree_bytes).unwrap_or(usize::MAX),
        owners: owners(&config.options),
        wait: match config.options.wait {
            Wait::AtMost(wait) => Some(wait),
            Wait::Forever => None,
        },
        offline_bytes: config
            .options
            .offline_bytes
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        handoff: config.options.handoff,
        silence: config.options.silence,
        label: label.to_owned(),
    }
}

fn fuse_options(options: &MountOptions, label: &str) -> fuse::Options {
    fuse::Options {
        allow_other: options.allow_other,
        access: options.access,
        masks: options.masks,
        sync: options.sync,
        source: options.source.clone().unwrap_or_else(|| label.to_owned()),
    }
}

/// The owners that nodes show. A mount by root shows the stored ones, as any filesystem does for
/// root: otherwise `cp -a` and `tar` could not set them.
fn owners(options: &MountOptions) -> Owners {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let wanted = options.owners;
    let is_plain = (wanted.uid, wanted.gid) == (None, None);
    match wanted.ids {
        Some(IdsOption::Stored) => Owners::Stored,
        None if uid.is_root() && is_plain => Owners::Stored,
        Some(IdsOption::Mounter) | None => Owners::Mounter {
            uid: wanted.uid.unwrap_or(uid.as_raw()),
            gid: wanted.gid.unwrap_or(gid.as_raw()),
        },
    }
}

//! A mount that runs: until when, how it ends, and what is told of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use xfer_client::core::{Ending, Link, Order, Trace};
use xfer_client::drive::{Client, Farewell, Lost};
use xfer_client::files::Files;
use xfer_client::offline::Place;

use xfer_protocol::message::PublicKey;
use xfer_protocol::{Errno, Timestamp, size};

use crate::control::{DORMANT, Disconnected, Mounted, News, OfNode, Stats, Status, Waiting};
use crate::fuse;
use crate::losses::{Rest, displaced, loss, missing, was_put_back};
use crate::mountpoint::mountinfo::{self, Entry};
use crate::mountpoint::unmounting::{self, Lies, UnmountError};
use crate::process::exit::{Exit, Failure};
use crate::process::report::report;
use crate::process::signals::Signals;
use crate::process::sleep;
use crate::rescue::{self, Keeper};

/// The account that is mounted.
pub struct Account {
    /// Its server, as `host:port`.
    pub server: String,
    /// Its name.
    pub user: String,
    /// This machine's key, if that began the session.
    pub key: Option<PublicKey>,
}

/// A mount that runs.
pub struct Running {
    client: Arc<Client>,
    mount: fuse::Mount,
    account: Account,
    /// Where it was mounted. It may have been moved since.
    place: PathBuf,
    /// The mount namespace of this process.
    namespace: String,
    /// Told when the mount was unmounted as it was asked for. The kernel says so only once no copy
    /// is left, and there may be one in another mount namespace.
    released: Notify,
    /// How the session ended, once it has.
    ended: watch::Sender<Option<Result<(), Failure>>>,
    /// How long the end of the mount may still wait.
    farewell: Mutex<Farewell>,
    /// What keeps changes that another mount's have displaced.
    keeper: Keeper,
    /// How often that had been so when the mount began to end.
    kept_before: Mutex<Option<usize>>,
    /// Where the changes are rescued that did not reach the server.
    kept: Mutex<Option<PathBuf>>,
    /// Where changes are kept while the server can't be reached, if the mount works offline.
    offline: Option<Place>,
}

impl Running {
    /// A mount at `place`, of this account.
    pub fn new(
        client: Arc<Client>,
        mount: fuse::Mount,
        account: Account,
        place: PathBuf,
        keeper: Keeper,
        offline: Option<Place>,
    ) -> Running {
        let namespace = mountinfo::namespace().unwrap_or_default();
        let (released, ended) = (Notify::new(), watch::Sender::new(None));
        let (farewell, kept_before, kept) = Default::default();
        Running {
            client,
            mount,
            account,
            place,
            namespace,
            released,
            ended,
            farewell,
            keeper,
            kept_before,
            kept,
            offline,
        }
    }

    /// The kernel's number of the mount's device.
    pub fn device(&self) -> &str {
        &self.mount.entry().device
    }

    /// Has the client follow the sleep of this machine. Never completes.
    pub async fn follow_sleep(&self) {
        sleep::follow(self.client.clone()).await;
        std::future::pending().await
    }

    /// Waits until the kernel's mount is gone, or a signal says that it has to go.
    pub async fn until_unmounted(&self, signals: &mut Signals) {
        let mut lost = false;
        loop {
            tokio::select! {
                () = self.mount.unmounted() => return,
                () = self.released.notified() => return,
                () = signals.next() => break,
                () = self.client.wait_over(), if !lost => {
                    lost = true;
                    let (status, place) = (self.client.status(), self.place());
                    report(&format!("{}: {}", place.display(), loss(&status, &place)));
                    if let Some(rest) = self.settle_rest(false) {
                        report(&format!("{}: what is not on the server {rest}", place.display()));
                    }
                }
            }
        }
        // While programs can still read; then nothing is left to wait for once they can't.
        tokio::select! {
            () = self.sync_before_end() => {}
            () = signals.next() => {}
        }
        // The kernel may want something of this very process before it lets go.
        tokio::task::block_in_place(|| self.leave());
    }

    /// Unmounts since the process was told to end: what is busy goes out of sight at least, and
    /// with it what is mounted in it, which nobody could reach any more. What is covered stays, without
    /// a process.
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
                        "{}: unmounted by a signal, together with {} ({}), which was mounted at {}",
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
                "{0}: xfer-mount has ended, but the mount is still there: {error}; remove it with: xfer unmount {0}",
                place.display()
            ));
        }
    }

    async fn sync_before_end(&self) {
        self.kept_before_end();
        let mut farewell = self.farewell.lock().clone();
        self.client.sync_before_end(&mut farewell).await;
        *self.farewell.lock() = farewell;
    }

    /// How often changes had been displaced when the mount began to end, which is now at the latest.
    fn kept_before_end(&self) -> usize {
        *self.kept_before.lock().get_or_insert_with(|| self.keeper.times())
    }

    /// Fails if changes were displaced since they had been so often, or if the server was put back to a
    /// backup.
    fn must_be_whole(&self, kept_before: usize) -> Result<(), Failure> {
        if let Some(path) = self.keeper.kept_since(kept_before) {
            return Err(displaced(&path));
        }
        let status = self.client.status();
        match status.ending() {
            Some(ending) if was_put_back(&status) => {
                Err(Failure::new(Exit::Lost, format!("{ending}; {}", missing(&status))))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn finish_client(&self) -> Result<(), Lost> {
        let mut farewell = self.farewell.lock().clone();
        self.client.finish_after(&mut farewell).await
    }

    /// Unmounts, unless it is busy, or what is not durable can't be kept.
    async fn take_away(&self) -> Result<(), Failure> {
        self.sync_before_end().await;
        self.client.wait_kept().await;
        self.must_be_keepable(&self.client.unkept_trace())?;
        let taken_away = tokio::task::block_in_place(|| unmounting::unmount(self.mount.entry()));
        taken_away.map_err(|error| Failure::new(Exit::Other, error.to_string()))
    }

    /// Makes all durable and logs out. Another signal means now, whatever is lost.
    pub async fn finish(&self, signals: &mut Signals) -> Result<(), Failure> {
        // Nobody follows the sleep of this machine any more.
        self.client.wake_up();
        let kept_before = self.kept_before_end();
        let result = tokio::select! {
            finished = self.finish_client() => finished.map_err(|lost| lost.to_string()),
            () = signals.next() => {
                let status = self.client.status();
                self.client.abandon().await;
                Err(format!("ended at once; {}", missing(&status)))
            }
        };
        let result = match (result, self.settle_rest(true)) {
            (Err(why), Some(rest)) => Err(format!("{why}; all of that {rest}")),
            (result, _) => result,
        };
        let result = result.map_err(|why| Failure::new(Exit::Lost, why));
        let result = result.and_then(|()| self.must_be_whole(kept_before));
        self.ended.send_replace(Some(result.clone()));
        result.map_err(|Failure { exit, line }| {
            Failure::new(exit, format!("{}: {line}", self.place.display()))
        })
    }
}

impl Running {
    /// Keeps what did not reach the server on this machine, once, if the session is over. Returns
    /// what becomes of it. At the end of this process, what fits is better than nothing.
    fn keep_rest(&self, is_end: bool) -> Option<Rest> {
        let status = self.client.status();
        let ending = status.ending().filter(|_| status.pending_ops > 0)?;
        let waits = matches!(ending, Ending::LinkLost(_)) && status.some_kept;
        if waits && status.all_kept {
            return Some(Rest { waits, ..Rest::default() });
        }
        let mut kept = self.kept.lock();
        if let Some(path) = &*kept {
            return Some(Rest { waits, rescued: Some(path.clone()), lost: None });
        }
        let trace = if waits { self.client.unkept_trace() } else { self.client.trace() };
        let (account, why) = (self.label(), ending.to_string());
        let keeping = match is_end {
            true => rescue::keep_what_fits(&account, &why, &trace),
            false => rescue::keep(&account, &why, &trace).map(|path| (path, 0)),
        };
        let (rescued, lost) = match keeping {
            Ok((path, left_out)) => {
                *kept = Some(path.clone());
                let lost = size::count(left_out as u64, "change") + " at the end did not fit";
                (Some(path), Some(lost).filter(|_| left_out > 0))
            }
            // It is tried again when it is asked for again.
            Err(error) => (None, Some(error.to_string())),
        };
        Some(Rest { waits, rescued, lost })
    }

    /// Keeps the rest, and returns what becomes of it, as a line without its subject. Removes what the
    /// mount kept offline and does not need any more.
    fn settle_rest(&self, is_end: bool) -> Option<String> {
        let rest = tokio::task::block_in_place(|| self.keep_rest(is_end));
        if let Some(offline) = &self.offline
            && !rest.as_ref().is_some_and(Rest::needs_journal)
            && let Err(error) = offline.remove()
        {
            report(&format!("{}: {error}", offline.path().display()));
        }
        rest.map(|rest| rest.to_string())
    }

    /// Fails if these changes, which are not durable, can't be kept when the mount is ended: it stays
    /// then. Who asked names the mount.
    fn must_be_keepable(&self, trace: &[Trace]) -> Result<(), Failure> {
        let count = trace.iter().filter_map(Trace::change).count();
        if count == 0 {
            return Ok(());
        }
        let kept = tokio::task::block_in_place(|| match self.client.status().ending() {
            None => rescue::must_fit(trace),
            Some(_) => self.keep_rest(false).and_then(|rest| rest.lost).map_or(Ok(()), Err),
        });
        kept.map_err(|why| {
            let place = self.place().display().to_string();
            let line = format!(
                "it stays mounted, since what is not on the server ({}) cannot be kept: {why}; \
                 to keep only what fits: umount {place}",
                size::count(count as u64, "change")
            );
            Failure::new(Exit::Other, line)
        })
    }
}

fn disconnected(link: &Link) -> Option<Disconnected> {
    let Link::Down { since, loss, trouble, next_try } = link else { return None };
    let now = Instant::now();
    let next_try = next_try.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
    Some(Disconnected {
        seconds: now.saturating_duration_since(*since).as_secs_f64(),
        why: loss.to_string(),
        last_try: trouble.clone(),
        next_try_seconds: next_try.as_secs_f64(),
    })
}

impl Mounted for Running {
    fn status(&self) -> Status {
        let status = self.client.status();
        let state = match (&status.link, &status.draining) {
            (Link::Over(ending), _) => format!("lost: {ending}"),
            (Link::Up | Link::Down { .. }, Some(_)) => "draining".to_owned(),
            (Link::Up | Link::Down { .. }, None) if !status.has_seat => DORMANT.to_owned(),
            (Link::Up, None) => "connected".to_owned(),
            (Link::Down { .. }, None) => "disconnected".to_owned(),
        };
        Status {
            disconnected: disconnected(&status.link),
            server: self.account.server.clone(),
            user: self.account.user.clone(),
            by_key: self.account.key.is_some(),
            key: self.account.key.map(|key| hex::encode(key.0)),
            mountpoint: self.place().display().to_string(),
            namespace: self.namespace.clone(),
            device: Some(self.mount.entry().device.clone()).filter(|_| !self.mount.has_ended()),
            state,
            other: status.other.map(|other| format!("{} ({})", other.host, other.address)),
            elsewhere: !self.mount.has_ended() && matches!(self.entry(), Ok(None)),
            pending_ops: status.pending_ops as u64,
            pending_bytes: status.pending_bytes as u64,
            waits_for_room: status.is_stuck,
            kept_here_since: status.kept_here_since.map(Timestamp::to_rfc3339),
            durable_seq: status.durable.0,
            applied_seq: status.last.0,
            used_bytes: status.usage.bytes,
            quota_bytes: status.quota.bytes,
            used_nodes: status.usage.nodes,
            quota_nodes: status.quota.nodes,
            cache_bytes: status.cache_bytes as u64,
            tree_bytes: status.tree_bytes as u64,
            rtt_ms: status.round_trip.map(|time| time.as_secs_f64() * 1000.0),
            deliveries_waiting: status.waiting as u64,
            deliveries_without_room: status.waiting_for_room as u64,
            unsent_waiting: status.unsent.waiting as u64,
            unsent_failed: status.unsent.failed as u64,
            unsent_held: status.unsent.held as u64,
            unsent: status.unsent_files,
            // Counted by whoever asks, since that reads a disk, which may hang.
            rescues: 0,
            errors: status.errors,
        }
    }

    fn inbox_news(&self, seen: Option<u64>) -> News<'_> {
        Box::pin(self.client.inbox_news(seen))
    }

    fn attribute(&self, path: PathBuf, name: String) -> OfNode<'_, Option<String>> {
        let files = Files::of(self.client.clone());
        Box::pin(async move {
            match files.attribute(path, &name).await {
                Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
                Err(Errno::ENODATA) => Ok(None),
                Err(errno) => Err(errno),
            }
        })
    }

    fn order(&self, path: PathBuf, order: Order) -> OfNode<'_, ()> {
        let files = Files::of(self.client.clone());
        Box::pin(async move { files.order(path, order).await })
    }

    fn stats(&self) -> Stats {
        let traffic = self.client.traffic();
        let stats = Stats {
            sent_bytes: traffic.sent(),
            received_bytes: traffic.received(),
            reconnects: traffic.reconnects(),
            rate_bytes_per_s: self.client.status().rate,
            ..Stats::default()
        };
        stats.with_operations(self.mount.operations()).with_status(&self.status())
    }

    fn sync(&self) -> Waiting<'_> {
        Box::pin(async {
            let kept_before = self.keeper.times();
            self.client.sync().await.map_err(|_| match self.keeper.kept_since(kept_before) {
                Some(path) => displaced(&path),
                None => self.why_not_durable(),
            })
        })
    }

    fn abandon(&self) -> Waiting<'_> {
        Box::pin(async {
            self.must_be_keepable(&self.client.trace())?;
            self.client.abandon().await;
            let kept = tokio::task::block_in_place(|| self.keep_rest(false));
            if let Some(why) = kept.and_then(|rest| rest.lost) {
                let line = format!(
                    "it stays mounted, since what is not on the server cannot be kept: {why}"
                );
                return Err(Failure::new(Exit::Lost, line));
            }
            tokio::task::block_in_place(|| self.leave());
            self.released.notify_one();
            Ok(())
        })
    }

    fn unmount(&self) -> Waiting<'_> {
        Box::pin(async {
            let parting = Parting(self);
            // Before the mount goes, so that one that is busy is still good; a session that is lost
            // can only be unmounted, and its end says what is lost.
            self.take_away().await?;
            std::mem::forget(parting);
            // What other namespaces have of it ends with this process.
            self.released.notify_one();
            let mut ended = self.ended.subscribe();
            let ended = ended.wait_for(Option::is_some).await;
            ended.ok().and_then(|result| result.clone()).unwrap_or(Ok(()))
        })
    }
}

/// An end that may not come: dropped before, the mount goes on, and its end is yet to come.
struct Parting<'a>(&'a Running);

impl Drop for Parting<'_> {
    fn drop(&mut self) {
        *self.0.farewell.lock() = Farewell::default();
        *self.0.kept_before.lock() = None;
    }
}

impl Running {
    /// The mount as it is now. One that is not there any more, and that the kernel has not let go
    /// of either, is kept by another mount namespace, or by programs that use it.
    fn entry(&self) -> io::Result<Option<Entry>> {
        self.mount.entry().now()
    }

    /// `user@host:port`.
    fn label(&self) -> String {
        format!("{}@{}", self.account.user, self.account.server)
    }

    /// Where it is now, or was last known to be.
    fn place(&self) -> PathBuf {
        self.entry().ok().flatten().map_or_else(|| self.place.clone(), |entry| entry.mountpoint)
    }

    fn why_not_durable(&self) -> Failure {
        let status = self.client.status();
        match (status.ending(), status.pending_ops) {
            (Some(_), 0) if !was_put_back(&status) => {
                Failure::new(Exit::Other, loss(&status, &self.place()))
            }
            (Some(_), _) => Failure::new(Exit::Lost, loss(&status, &self.place())),
            (None, _) if status.is_stuck => Failure::new(
                Exit::Other,
                "the server's disk is full, so not everything is durable; \
                 xfer sends the rest as soon as there is room",
            ),
            (None, _) if !status.has_seat => Failure::new(
                Exit::Other,
                "another client has the tree, so not everything is durable; xfer sends the rest once \
                 it has the tree again",
            ),
            (None, _) => Failure::new(
                Exit::Other,
                "the server cannot be reached now, so not everything is durable; xfer goes on trying",
            ),
        }
    }
}

//! The mount's side of control: answers questions on the socket.
//!
//! A client that goes away, or does not read, never holds anything up: its answers are dropped, an
//! abandoned sync stops, and an unmount goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep, timeout};

use crate::process::exit::{Exit, Failure};

use super::{Answer, Ask, LINE_BYTES_MAX, Mounted, Status, Waiting, directory, node};

/// The most clients served at once; more have to wait.
const ASKERS_MAX: usize = 16;

/// The most of them that wait for news beside those; more are refused.
const FOLLOWERS_MAX: usize = 16;

/// The longest time for a client to send its question, or to read a line.
const ASKER_MAX: Duration = Duration::from_secs(5);

/// The interval between progress reports.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The longest wait for the last answers once the mount is gone. It is gone for this process before the
/// unmounting process sees that: the latter waits until the kernel has released every node that it knew.
const CLOSE_MAX: Duration = Duration::from_secs(60);

/// The control socket of a running mount.
pub struct Control {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Control {
    /// Starts answering questions about the mount made at `mountpoint` (absolute, free of links)
    /// with this device number.
    ///
    /// # Errors
    /// If no directory for the socket is usable, or a live process has it.
    pub fn serve(
        mounted: Arc<dyn Mounted>,
        mountpoint: &Path,
        device: &str,
    ) -> io::Result<Control> {
        let name = directory::socket_name(mountpoint, device);
        directory::bind_in_first(|place| Self::serve_at(mounted.clone(), place.join(&name)))
    }

    fn serve_at(mounted: Arc<dyn Mounted>, path: PathBuf) -> io::Result<Control> {
        remove_dead(&path)?;
        // Renamed into place once it listens: `xfer` takes a socket that refuses for a dead one.
        let unnamed = path.with_extension(format!("new-{}", std::process::id()));
        let _ = fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed)?;
        fs::rename(&unnamed, &path)?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listen(listener, mounted, stopped));
        Ok(Control { path, stop, task })
    }

    /// Stops listening. Clients that wait still get their answers, within `CLOSE_MAX`.
    pub async fn close(self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Removes a socket left behind by a killed process.
fn remove_dead(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => fs::remove_file(path),
    }
}

async fn listen(
    listener: UnixListener,
    mounted: Arc<dyn Mounted>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (mut askers, mut followers) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept(), if askers.len() < ASKERS_MAX => match accepted {
                Ok((stream, _)) => {
                    let mounted = mounted.clone();
                    askers.spawn(async move { answer(stream, &*mounted).await });
                }
                // Most likely out of descriptors: wait for some to be closed.
                Err(_) => sleep(PROGRESS_EVERY).await,
            },
            Some(answered) = askers.join_next() => {
                let Ok(Some(follower)) = answered else { continue };
                let (mounted, has_place) = (mounted.clone(), followers.len() < FOLLOWERS_MAX);
                followers.spawn(async move { tell_news(follower, has_place, &*mounted).await });
            }
            Some(_) = followers.join_next() => {}
        }
    }
    drop(followers);
    let _ = timeout(CLOSE_MAX, async { while askers.join_next().await.is_some() {} }).await;
}

/// A client that waits for news of the inbox.
struct Follower {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    seen: Option<u64>,
}

/// Answers one question, unless the client is one that waits for news.
async fn answer(stream: UnixStream, mounted: &dyn Mounted) -> Option<Follower> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX));
    let Ok(Ok(_)) = timeout(ASKER_MAX, reader.read_line(&mut line)).await else { return None };
    match serde_json::from_str(&line) {
        Ok(Ask::InboxNews(seen)) => {
            let reader = reader.into_inner().into_inner();
            return Some(Follower { reader, writer, seen });
        }
        Ok(Ask::Status) => {
            let _ = say(&mut writer, &Answer::Status(Box::new(mounted.status()))).await;
        }
        Ok(Ask::Stats) => {
            let _ = say(&mut writer, &Answer::Stats(Box::new(mounted.stats()))).await;
        }
        Ok(Ask::Attribute { path, name }) => {
            let _ = say(&mut writer, &node::tell(mounted, &path, name).await).await;
        }
        Ok(Ask::Order { path, order }) => {
            let _ = say(&mut writer, &node::obey(mounted, &path, &order).await).await;
        }
        Ok(Ask::Sync) => follow(mounted, mounted.sync(), WhenAlone::GiveUp, writer).await,
        Ok(Ask::Abandon) => follow(mounted, mounted.abandon(), WhenAlone::GoOn, writer).await,
        // Whoever interrupts it goes on to use the mount.
        Ok(Ask::Unmount) => follow(mounted, mounted.unmount(), WhenAlone::GiveUp, writer).await,
        Err(_) => {
            let why =
                "its xfer-mount does not know this; mount again with the same version".to_owned();
            let _ = say(&mut writer, &Answer::Failed { why, lost: false }).await;
        }
    }
    None
}

/// Answers a client that waits for news, unless it goes away.
async fn tell_news(follower: Follower, has_place: bool, mounted: &dyn Mounted) {
    let Follower { mut reader, mut writer, seen } = follower;
    let failed = |why: &str| Answer::Failed { why: why.to_owned(), lost: false };
    let answer = match has_place {
        true => tokio::select! {
            news = mounted.inbox_news(seen) => match news {
                Some(news) => Answer::InboxNews(news),
                None => failed("its session is over"),
            },
            _ = reader.read_u8() => return,
        },
        false => failed("too many programs wait for arrivals"),
    };
    let _ = say(&mut writer, &answer).await;
}

/// What happens to a client's work when the client goes away.
enum WhenAlone {
    GiveUp,
    GoOn,
}

/// Reports the progress of `work`, then its outcome.
async fn follow(
    mounted: &dyn Mounted,
    work: Waiting<'_>,
    alone: WhenAlone,
    mut writer: OwnedWriteHalf,
) {
    let mut work = pin!(work);
    let mut progress = interval(PROGRESS_EVERY);
    let mut listening = true;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = progress.tick(), if listening => {
                let Status { pending_ops, pending_bytes, disconnected, .. } = mounted.status();
                let told = Answer::Progress { pending_ops, pending_bytes, disconnected };
                listening = say(&mut writer, &told).await.is_ok();
                match alone {
                    WhenAlone::GiveUp if !listening => return,
                    WhenAlone::GiveUp | WhenAlone::GoOn => {}
                }
            }
        }
    };
    let last = match result {
        Ok(()) => Answer::Done,
        Err(Failure { exit, line }) => Answer::Failed { why: line, lost: exit == Exit::Lost },
    };
    let _ = say(&mut writer, &last).await;
}

async fn say(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(ASKER_MAX, writer.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::{News, OfNode};
    use std::sync::Mutex;
    use tokio::sync::watch;
    use xfer_client::core::Order;
    use xfer_protocol::Errno;

    /// A mount that settles when the test tells it to.
    struct Fake {
        status: Mutex<Status>,
        synced: tokio::sync::Notify,
        unmounted: tokio::sync::Notify,
        news: watch::Sender<u64>,
    }

    impl Mounted for Fake {
        fn stats(&self) -> crate::control::Stats {
            crate::control::Stats::default()
        }

        fn status(&self) -> Status {
            self.status.lock().unwrap().clone()
        }

        fn sync(&self) -> Waiting<'_> {
            Box::pin(async {
                self.synced.notified().await;
                match self.status().state.starts_with("lost") {
                    true => Err(Failure::new(Exit::Lost, "the cable is cut")),
                    false => Ok(()),
                }
            })
        }

        fn abandon(&self) -> Waiting<'_> {
            self.unmount()
        }

        fn inbox_news(&self, seen: Option<u64>) -> News<'_> {
            let mut news = self.news.subscribe();
            Box::pin(async move {
                let new = news.wait_for(|news| Some(*news) != seen).await;
                new.ok().map(|news| *news)
            })
        }

        fn attribute(&self, path: PathBuf, name: String) -> OfNode<'_, Option<String>> {
            Box::pin(async move {
                match path.as_path() == Path::new("outbox/bob/link") {
                    true => Ok(Some(name)),
                    false => Err(Errno::ENOENT),
                }
            })
        }

        fn order(&self, _: PathBuf, order: Order) -> OfNode<'_, ()> {
            Box::pin(async move {
                match order {
                    Order::Send => Err(Errno::EPERM),
                    Order::Cancel => Ok(()),
                }
            })
        }

        fn unmount(&self) -> Waiting<'_> {
            Box::pin(async {
                self.synced.notified().await;
                self.unmounted.notify_one();
                Ok(())
            })
        }
    }

    struct Case {
        _directory: tempfile::TempDir,
        fake: Arc<Fake>,
        control: Control,
    }

    fn case() -> Case {
        let directory = tempfile::tempdir().unwrap();
        let status = Status { pending_ops: 3, state: "connected".to_owned(), ..Status::default() };
        let fake = Arc::new(Fake {
            status: Mutex::new(status),
            synced: tokio::sync::Notify::new(),
            unmounted: tokio::sync::Notify::new(),
            news: watch::Sender::new(7),
        });
        let path = directory.path().join("a.sock");
        // A socket as a killed process leaves it behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let control = Control::serve_at(fake.clone(), path).unwrap();
        Case { _directory: directory, fake, control }
    }

    impl Case {
        async fn ask(&self, line: &str) -> BufReader<UnixStream> {
            let mut stream = UnixStream::connect(&self.control.path).await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
            BufReader::new(stream)
        }
    }

    async fn next(reader: &mut BufReader<UnixStream>) -> Answer {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn status_is_one_line() {
        let case = case();
        let mut reader = case.ask("\"status\"\n").await;
        assert_eq!(next(&mut reader).await, Answer::Status(Box::new(case.fake.status())));
        case.control.close().await;
    }

    #[tokio::test]
    async fn sync_tells_progress_until_it_is_done() {
        let case = case();
        let mut reader = case.ask("\"sync\"\n").await;
        let progress = Answer::Progress { pending_ops: 3, pending_bytes: 0, disconnected: None };
        assert_eq!(next(&mut reader).await, progress);
        assert_eq!(next(&mut reader).await, progress);
        case.fake.synced.notify_one();
        assert_eq!(next(&mut reader).await, Answer::Done);
    }

    #[tokio::test]
    async fn a_lost_session_is_said_to_be() {
        let case = case();
        "lost: the cable is cut".clone_into(&mut case.fake.status.lock().unwrap().state);
        let mut reader = case.ask("\"sync\"\n").await;
        let _ = next(&mut reader).await;
        case.fake.synced.notify_one();
        let failed = Answer::Failed { why: "the cable is cut".to_owned(), lost: true };
        assert_eq!(next(&mut reader).await, failed);
    }

    #[tokio::test]
    async fn those_who_wait_for_news_keep_no_others_waiting_and_hear_of_the_end_at_once() {
        let case = case();
        let mut reader = case.ask("{\"inbox_news\":null}\n").await;
        assert_eq!(next(&mut reader).await, Answer::InboxNews(7));
        // Those who went away have no place any more.
        for _ in 0..2 * FOLLOWERS_MAX {
            drop(case.ask("{\"inbox_news\":7}\n").await);
        }
        let mut followers = Vec::new();
        while followers.len() < FOLLOWERS_MAX {
            let mut follower = case.ask("{\"inbox_news\":7}\n").await;
            // It is refused as long as the others are not noticed to be gone.
            if timeout(PROGRESS_EVERY, follower.fill_buf()).await.is_err() {
                followers.push(follower);
            }
        }
        let mut refused = case.ask("{\"inbox_news\":7}\n").await;
        assert!(matches!(next(&mut refused).await, Answer::Failed { .. }));
        let mut reader = case.ask("\"status\"\n").await;
        assert!(matches!(next(&mut reader).await, Answer::Status(_)));
        case.fake.news.send_replace(8);
        let last = followers.pop().unwrap();
        for mut follower in followers {
            assert_eq!(next(&mut follower).await, Answer::InboxNews(8));
        }
        drop(last);
        let mut follower = case.ask("{\"inbox_news\":8}\n").await;
        let mut reader = case.ask("\"status\"\n").await;
        assert!(matches!(next(&mut reader).await, Answer::Status(_)));
        case.control.close().await;
        assert!(follower.fill_buf().await.unwrap_or_default().is_empty());
    }

    #[tokio::test]
    async fn what_is_asked_of_a_node_is_answered_with_its_error() {
        let case = case();
        let path = hex::encode("outbox/bob/link");
        let other = hex::encode("outbox");
        let state = "\"name\":\"user.xfer.state\"";
        let answers = [
            (format!("attribute\":{{\"path\":\"{path}\",{state}"), Ok(Some("user.xfer.state"))),
            (format!("attribute\":{{\"path\":\"{other}\",{state}"), Err(libc::ENOENT)),
            (format!("attribute\":{{\"path\":\"x\",{state}"), Err(libc::EINVAL)),
            (format!("attribute\":{{\"path\":\"{path}\",\"name\":\"user.x\""), Err(libc::EINVAL)),
            (format!("order\":{{\"path\":\"{path}\",\"order\":\"cancel\""), Ok(None)),
            (format!("order\":{{\"path\":\"{path}\",\"order\":\"send\""), Err(libc::EPERM)),
            (format!("order\":{{\"path\":\"{path}\",\"order\":\"keep\""), Err(libc::EINVAL)),
        ];
        for (question, expected) in answers {
            let mut reader = case.ask(&format!("{{\"{question}}}}}\n")).await;
            let expected = expected.map(|text| text.map(str::to_owned));
            assert_eq!(next(&mut reader).await, Answer::OfNode(expected), "{question}");
        }
    }

    #[tokio::test]
    async fn an_unmount_whose_asker_is_gone_before_all_is_durable_is_none() {
        let case = case();
        drop(case.ask("\"unmount\"\n").await);
        sleep(3 * PROGRESS_EVERY).await;
        case.fake.synced.notify_one();
        let unmounted = timeout(3 * PROGRESS_EVERY, case.fake.unmounted.notified()).await;
        assert!(unmounted.is_err());
        // It can be asked for again.
        let mut reader = case.ask("\"unmount\"\n").await;
        while next(&mut reader).await != Answer::Done {}
        let path = case.control.path.clone();
        case.control.close().await;
        assert!(!path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unmount_that_takes_the_kernel_long_is_still_answered() {
        let Case { _directory, fake, control } = case();
        let mut stream = UnixStream::connect(&control.path).await.unwrap();
        stream.write_all(b"\"unmount\"\n").await.unwrap();
        let mut reader = BufReader::new(stream);
        let progress = next(&mut reader).await;
        assert!(matches!(progress, Answer::Progress { .. }));
        let closing = tokio::spawn(control.close());
        sleep(Duration::from_secs(30)).await;
        fake.synced.notify_one();
        let mut answer = next(&mut reader).await;
        while matches!(answer, Answer::Progress { .. }) {
            answer = next(&mut reader).await;
        }
        assert_eq!(answer, Answer::Done);
        closing.await.unwrap();
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_a_living_socket_is_left_alone() {
        let case = case();
        let mut reader = case.ask("{\"format\":\"c:\"}\n").await;
        assert!(matches!(next(&mut reader).await, Answer::Failed { lost: false, .. }));
        let again = Control::serve_at(case.fake.clone(), case.control.path.clone());
        assert_eq!(again.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    }
}

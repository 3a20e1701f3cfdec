//! Loading rows that attempts wait for, and asking the server in general.
//!
//! **Invariant:** an answer about nodes and entries is filled in only if no rows were unloaded
//! since the question.

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use xfer_link::watch;
use xfer_protocol::limits::DELIVERY_ITEMS_MAX;
use xfer_protocol::message::{Answer, Ask, ReadError};
use xfer_protocol::tree::Need;
use xfer_protocol::{DeliveryId, Errno, Ino, Name, Seq};

use super::Client;
use super::away::Patience;
use super::links::{Answered, Unanswered};
use crate::core::{Core, Unexpected};

/// The longest time that an answer may take while its link is alive. It is enough for as much as
/// one link has in flight at a time, on a slow line.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// The shortest time for which a question is asked again after a read link broke or could not be
/// opened: longer by so much than it takes to notice that the log link is lost too.
const BEYOND_SILENCE: Duration = Duration::from_secs(2);

/// The pause before that.
const RETRY: Duration = Duration::from_secs(1);

/// The result of work that several operations may wait for, once there is one.
pub(super) type Outcome = watch::Receiver<Option<Result<(), Errno>>>;

/// Removes finished work from a map of work in flight, and tells the operations that wait for it.
pub(super) struct Finish<'a, K: Ord> {
    pub(super) map: &'a Mutex<BTreeMap<K, Outcome>>,
    pub(super) key: K,
    pub(super) done: watch::Sender<Option<Result<(), Errno>>>,
}

impl<K: Ord> Finish<'_, K> {
    pub(super) fn with(self, result: Result<(), Errno>) {
        self.map.lock().remove(&self.key);
        self.done.send_replace(Some(result));
    }
}

/// Waits for work in flight.
pub(super) async fn outcome(mut under_way: Outcome) -> Result<(), Errno> {
    match under_way.wait_for(Option::is_some).await {
        Ok(result) => result.unwrap_or(Err(Errno::EIO)),
        Err(_) => Err(Errno::EIO),
    }
}

impl Client {
    /// Loads rows, each only once, even if several operations wait for it.
    pub(super) async fn load(self: &Arc<Self>, needs: Vec<Need>) -> Result<(), Errno> {
        let under_way: Vec<Outcome> = needs.into_iter().map(|need| self.begin_load(need)).collect();
        for load in under_way {
            outcome(load).await?;
        }
        Ok(())
    }

    fn begin_load(self: &Arc<Self>, need: Need) -> Outcome {
        let mut loads = self.loads.lock();
        if let Some(under_way) = loads.get(&need) {
            return under_way.clone();
        }
        let (done, under_way) = watch::channel(None);
        loads.insert(need.clone(), under_way.clone());
        let client = self.clone();
        // By a task, since the operation that asked first may be interrupted while others wait.
        self.operations.spawn(async move {
            let result = client.load_row(&need).await;
            Finish { map: &client.loads, key: need, done }.with(result);
        });
        under_way
    }

    async fn load_row(self: &Arc<Self>, need: &Need) -> Result<(), Errno> {
        match need {
            Need::Node(ino) => {
                let fill = |core: &mut Core, answer| core.fill_node(*ino, answer);
                self.ask_rows(&Ask::Node(*ino), fill).await
            }
            Need::Attributes(ino) => {
                let fill = |core: &mut Core, answer| core.fill_attributes(*ino, answer);
                self.ask_rows(&Ask::Node(*ino), fill).await
            }
            Need::Entry(parent, name) if self.lock().is_large(*parent) => {
                let fill = |core: &mut Core, answer| core.fill_entry(*parent, name, answer);
                self.ask_rows(&Ask::Entry(*parent, name.clone()), fill).await
            }
            Need::Entry(directory, _) | Need::Children(directory) => {
                self.lock().pin(*directory);
                let result = self.load_listing(*directory).await;
                self.lock().unpin(*directory);
                result
            }
            Need::Delivery(id) => self.load_delivery(*id).await,
        }
    }

    /// Loads all entries of a directory, which must be pinned meanwhile. Otherwise a listing of
    /// which a part was unloaded would count as complete in the end.
    ///
    /// It begins again if others have changed the tree meanwhile: then the first part is forgotten.
    async fn load_listing(self: &Arc<Self>, directory: Ino) -> Result<(), Errno> {
        let mut after: Option<Name> = None;
        let (mut limit, mut tenure) = {
            let core = self.lock();
            (core.listing_limit(directory), core.tenure())
        };
        while !self.lock().is_listed(directory) {
            let now = self.lock().tenure();
            if std::mem::replace(&mut tenure, now) != now {
                (after, limit) = (None, self.lock().listing_limit(directory));
            }
            let ask = Ask::List { directory, after: after.clone() };
            let fill = |core: &mut Core, answer| match core.tenure() == tenure {
                true => core.fill_listing(directory, after.as_ref(), &mut limit, answer),
                false => Ok(None),
            };
            after = match self.ask_rows(&ask, fill).await {
                // This client removed the directory meanwhile. The attempt finds that out when it
                // is made again.
                Err(Errno::ENOENT) if !self.lock().is_directory(directory) => return Ok(()),
                Err(Errno::ENOENT) => return Err(self.unexpected(Unexpected("a listing"))),
                asked => asked?,
            };
        }
        Ok(())
    }

    /// Loads a delivery that was announced, so that it can be accepted.
    pub(super) async fn load_delivery(self: &Arc<Self>, id: DeliveryId) -> Result<(), Errno> {
        let head = self.lock().waiting_delivery(id).ok_or(Errno::ENOENT)?;
        let tenure = self.lock().tenure();
        let mut items = Vec::new();
        loop {
            let ask = Ask::Delivery { id, from: items.len() as u32 };
            let (Answer::Items { items: more, last }, _) = self.ask(Seq::default(), ask).await?
            else {
                return Err(self.unexpected(Unexpected("a delivery")));
            };
            let stuck = more.is_empty() && !last;
            items.extend(more);
            if stuck || items.len() > DELIVERY_ITEMS_MAX {
                return Err(self.unexpected(Unexpected("the items of a delivery")));
            }
            if last {
                break;
            }
        }
        let mut core = self.lock();
        // Others may have accepted it.
        if core.tenure() != tenure {
            return Err(Errno::ENOENT);
        }
        core.fill_delivery(head, items);
        Ok(())
    }

    /// Asks for rows and fills them in. If rows were unloaded meanwhile, it asks again: those may
    /// have been newer than the answer.
    async fn ask_rows<T>(
        self: &Arc<Self>,
        ask: &Ask,
        mut fill: impl FnMut(&mut Core, Answer) -> Result<T, Unexpected>,
    ) -> Result<T, Errno> {
        loop {
            let unloadings = self.lock().unloadings();
            let (answer, _) = self.ask(Seq::default(), ask.clone()).await?;
            let mut core = self.lock();
            if core.unloadings() == unloadings {
                let filled = fill(&mut core, answer);
                core.trim_rows();
                drop(core);
                return filled.map_err(|unexpected| self.unexpected(unexpected));
            }
        }
    }

    /// Asks the server a question, over the next link if this one is lost before the answer. It is
    /// given up when the session ends, or the link is down for longer than an operation may wait.
    pub(super) async fn ask(&self, after: Seq, ask: Ask) -> Result<Answered, Errno> {
        let (mut patience, mut first_trouble) = (Patience::default(), None);
        let answered = loop {
            if let Err(errno) = self.wait_up(&mut patience).await {
                break Err(if errno == Errno::EIO {
                    Unanswered::Over
                } else {
                    Unanswered::Unreachable
                });
            }
            match self.ask_once(after, &ask).await {
                // What broke a read link has mostly broken the log link too. If it has not, another
                // read link may do.
                Err(why) if why.is_of_link() => {
                    if matches!(why, Unanswered::Late) {
                        self.links.close();
                    }
                    let since = *first_trouble.get_or_insert_with(Instant::now);
                    let is_lost = timeout(RETRY, self.wait_down()).await.is_ok();
                    let noticed = self.links.silence().time() + BEYOND_SILENCE;
                    let wait = self.options.wait.map(|wait| wait.max(noticed));
                    if !is_lost && wait.is_some_and(|wait| since.elapsed() >= wait) {
                        break Err(why);
                    }
                }
                answered => break answered,
            }
        };
        answered.map_err(|why| {
            self.note_unanswered(&why, &ask);
            why.errno()
        })
    }

    async fn ask_once(&self, after: Seq, ask: &Ask) -> Result<Answered, Unanswered> {
        tokio::select! {
            biased;
            () = self.wait_over() => Err(Unanswered::Over),
            answered = timeout(ANSWER_MAX, self.links.ask(after, ask.clone())) => {
                answered.unwrap_or(Err(Unanswered::Late))
            }
            () = self.wait_down() => Err(Unanswered::Broken),
        }
    }

    fn note_unanswered(&self, why: &Unanswered, ask: &Ask) {
        match why {
            Unanswered::Refused(ReadError::Invalid | ReadError::Storage | ReadError::Damaged) => {
                self.lock().note_error(format!("a question was not answered: {why} ({ask:?})"));
            }
            // The session's end tells the reason.
            Unanswered::NoLink(_)
            | Unanswered::Broken
            | Unanswered::Late
            | Unanswered::Unreachable
            | Unanswered::Over
            | Unanswered::Refused(ReadError::Ended) => {
                tracing::warn!("a question was not answered: {why}");
            }
            Unanswered::Refused(
                ReadError::OtherContent
                | ReadError::NoDirectory
                | ReadError::NoUser
                | ReadError::InboxFull,
            ) => {}
        }
    }

    /// Notes that the server's answer does not fit the question.
    pub(super) fn unexpected(&self, Unexpected(what): Unexpected) -> Errno {
        self.lock().note_error(format!("the server's answer is not {what}"));
        Errno::EIO
    }
}

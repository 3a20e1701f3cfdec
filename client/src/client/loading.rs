//! Fetching what attempts need: rows, bytes, room, and what became of deliveries.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use xfer_protocol::limits::{DELIVERY_ITEMS_MAX, SYMLINK_BYTES_MAX, XATTRS_BYTES_MAX};
use xfer_protocol::message::{Answer, Ask, Page};
use xfer_protocol::tree::{Delivery, Kind, Loaded, Need, Node, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name, Seq};

use super::cache::FetchOrder;
use super::state::{RoomNeed, State};
use super::{Client, Outcome};

/// A directory up to this size is listed whole when one entry of it is looked up: that costs one
/// question too, and the next look-ups cost none.
const LISTED_WHOLE_MAX: u64 = 1000;

/// How many entries a listing may come to: a server that goes on for ever is not followed.
struct ListingLimit {
    /// How many the directory has.
    entries: u64,
    /// The last change that the server had for sure; each since may have removed one, or made one.
    after: Seq,
    /// How many came.
    count: u64,
}

impl ListingLimit {
    fn is_passed(&self, state: &State) -> bool {
        self.count > self.entries + (state.log.last().0 - self.after.0)
    }
}

/// Removes a finished entry of a map of things under way, and tells who waits.
struct Finish<'a, K: std::hash::Hash + Eq> {
    map: &'a Mutex<std::collections::HashMap<K, Outcome>>,
    key: K,
    done: watch::Sender<Option<Result<(), Errno>>>,
}

impl<K: std::hash::Hash + Eq> Finish<'_, K> {
    fn with(self, result: Result<(), Errno>) {
        self.map.lock().remove(&self.key);
        self.done.send_replace(Some(result));
    }
}

async fn outcome(mut under_way: Outcome) -> Result<(), Errno> {
    match under_way.wait_for(Option::is_some).await {
        Ok(result) => result.unwrap_or(Err(Errno::EIO)),
        Err(_) => Err(Errno::EIO),
    }
}

impl Client {
    /// Loads rows, each once however many wait for it.
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
        // A task of its own: who asked first may be gone before it is done.
        self.runtime.spawn(async move {
            let result = client.load_row(&need).await;
            Finish { map: &client.loads, key: need, done }.with(result);
        });
        under_way
    }

    /// Begins to fetch bytes.
    pub(super) fn fetch(self: &Arc<Self>, ino: Ino, order: FetchOrder) {
        let (done, under_way) = watch::channel(None);
        self.fetches.lock().insert(order.id, under_way);
        let client = self.clone();
        self.runtime.spawn(async move {
            let result = client.fetch_bytes(ino, &order).await;
            Finish { map: &client.fetches, key: order.id, done }.with(result);
        });
    }

    /// Waits until these fetches are done.
    pub(super) async fn fetched(&self, waits: Vec<u64>) -> Result<(), Errno> {
        for id in waits {
            let under_way = self.fetches.lock().get(&id).cloned();
            if let Some(under_way) = under_way {
                outcome(under_way).await?;
            }
        }
        Ok(())
    }

    /// Asks for room in another user's inbox. A separate task does it, so that a grant is noted even
    /// if the program that needed it was interrupted.
    pub(super) async fn ask_room(self: &Arc<Self>, room: RoomNeed) -> Result<(), Errno> {
        let client = self.clone();
        let asked = self.runtime.spawn(async move { client.ask_room_itself(room).await });
        asked.await.unwrap_or(Err(Errno::EIO))
    }

    async fn ask_room_itself(self: &Arc<Self>, room: RoomNeed) -> Result<(), Errno> {
        let RoomNeed { ino, ref to, bytes, items } = room;
        let ask = Ask::Reserve { to: to.clone(), ino, bytes, items };
        match self.ask(Seq::default(), ask).await {
            Ok((Answer::Reserved, _)) => {
                self.lock().grant_room(&room);
                Ok(())
            }
            Ok(_) => Err(self.unexpected("room in an inbox")),
            Err(errno) => {
                self.lock().refuse_room(ino, errno);
                self.tick();
                Err(errno)
            }
        }
    }

    /// Asks what became of a delivery.
    pub(super) async fn ask_state(self: &Arc<Self>, id: DeliveryId) -> Result<(), Errno> {
        match self.ask(Seq::default(), Ask::State(id)).await? {
            (Answer::State(state), _) => {
                self.lock().learn_state(id, state);
                Ok(())
            }
            _ => Err(self.unexpected("the state of a delivery")),
        }
    }

    /// Loads a delivery that was announced, so that it can be accepted.
    pub(super) async fn load_delivery(self: &Arc<Self>, id: DeliveryId) -> Result<(), Errno> {
        let head = self.lock().waiting.iter().find(|head| head.id == id).cloned();
        let head = head.ok_or(Errno::ENOENT)?;
        let mut items = Vec::new();
        loop {
            let ask = Ask::Delivery { id, from: items.len() as u32 };
            let (Answer::Items { items: more, last }, _) = self.ask(Seq::default(), ask).await?
            else {
                return Err(self.unexpected("a delivery"));
            };
            let stuck = more.is_empty() && !last;
            items.extend(more);
            if stuck || items.len() > DELIVERY_ITEMS_MAX {
                return Err(self.unexpected("the items of a delivery"));
            }
            if last {
                break;
            }
        }
        let there = !items.is_empty();
        let delivery = Delivery { id, from: head.from, sent: head.sent, items };
        self.lock().table.fill_delivery(id, there.then(|| Arc::new(delivery)));
        Ok(())
    }

    async fn load_row(self: &Arc<Self>, need: &Need) -> Result<(), Errno> {
        match need {
            Need::Node(ino) => self.load_node(*ino).await,
            Need::Attributes(ino) => self.load_attributes(*ino).await,
            Need::Entry(parent, name) if self.is_large(*parent) => {
                self.load_entry(*parent, name).await
            }
            Need::Entry(directory, _) | Need::Children(directory) => {
                self.lock().table.pin(*directory);
                let result = self.load_listing(*directory).await;
                self.lock().table.unpin(*directory);
                result
            }
            Need::Delivery(id) => self.load_delivery(*id).await,
        }
    }

    fn is_large(&self, directory: Ino) -> bool {
        match self.lock().table.node(directory) {
            Loaded::Present(node) => node.entries() > LISTED_WHOLE_MAX,
            Loaded::Absent | Loaded::Unknown => true,
        }
    }

    async fn load_node(self: &Arc<Self>, ino: Ino) -> Result<(), Errno> {
        self.ask_rows(&Ask::Node(ino), |state, answer| match answer {
            Answer::Node(node) => {
                state.table.fill_node(ino, node.filter(is_sound));
                Ok(())
            }
            _ => Err("a node"),
        })
        .await
    }

    /// Loads attributes of a node that a listing left out.
    async fn load_attributes(self: &Arc<Self>, ino: Ino) -> Result<(), Errno> {
        self.ask_rows(&Ask::Node(ino), |state, answer| {
            let Answer::Node(node) = answer else { return Err("a node") };
            if let Some(node) = node.filter(is_sound) {
                state.table.fill_xattrs(ino, node.xattrs);
            }
            match state.table.node(ino) {
                Loaded::Present(node) if node.xattrs.all().is_none() => Err("a node's attributes"),
                Loaded::Present(_) | Loaded::Absent | Loaded::Unknown => Ok(()),
            }
        })
        .await
    }

    async fn load_entry(self: &Arc<Self>, parent: Ino, name: &Name) -> Result<(), Errno> {
        self.ask_rows(&Ask::Entry(parent, name.clone()), |state, answer| match answer {
            Answer::Entry(entry) => {
                let entry = entry.filter(|(_, node)| is_sound(node));
                let ino = entry.as_ref().map(|(ino, _)| *ino);
                state.table.fill_entry(parent, name.clone(), ino);
                if let Some((ino, node)) = entry {
                    state.table.fill_node(ino, Some(node));
                }
                Ok(())
            }
            _ => Err("an entry"),
        })
        .await
    }

    /// Loads all entries of a directory. They must be pinned meanwhile: a listing of which a part
    /// was unloaded would be taken for complete in the end.
    async fn load_listing(self: &Arc<Self>, directory: Ino) -> Result<(), Errno> {
        let mut after: Option<Name> = None;
        let mut limit = self.limit_of(directory);
        while !self.lock().table.is_complete(directory) {
            let ask = Ask::List { directory, after: after.clone() };
            let fill = |state: &mut State, answer| match answer {
                Answer::Pages(pages) => state.fill_listing(directory, after.as_ref(), pages),
                _ => Err("a listing"),
            };
            after = match self.ask_rows(&ask, fill).await {
                // Removed meanwhile, by this client's own hand: look again.
                Err(Errno::ENOENT) if !self.is_directory(directory) => return Ok(()),
                Err(Errno::ENOENT) => return Err(self.unexpected("a listing")),
                asked => {
                    let (end, count) = asked?;
                    limit.count += count;
                    end
                }
            };
            if limit.is_passed(&self.lock()) {
                return Err(self.unexpected("a listing that ends"));
            }
        }
        Ok(())
    }

    fn limit_of(&self, directory: Ino) -> ListingLimit {
        let state = self.lock();
        let entries = match state.table.node(directory) {
            Loaded::Present(node) => node.entries(),
            Loaded::Absent | Loaded::Unknown => ENTRIES_MAX,
        };
        // The server may show entries that are removed by changes it does not have yet.
        ListingLimit { entries, after: state.log.durable(), count: 0 }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        matches!(self.lock().table.node(ino), Loaded::Present(node) if node.is_directory())
    }

    /// Asks for rows and fills them in: once more, if rows were unloaded meanwhile, since those may
    /// have been newer than the answer is. `fill` says what the answer should have been.
    async fn ask_rows<T>(
        self: &Arc<Self>,
        ask: &Ask,
        fill: impl Fn(&mut State, Answer) -> Result<T, &'static str>,
    ) -> Result<T, Errno> {
        loop {
            let unloadings = self.lock().table.unloadings();
            let (answer, _) = self.ask(Seq::default(), ask.clone()).await?;
            let mut state = self.lock();
            if state.table.unloadings() == unloadings {
                let filled = fill(&mut state, answer);
                state.trim();
                drop(state);
                return filled.map_err(|what| self.unexpected(what));
            }
        }
    }

    /// Fetches bytes, which the server knows to be the file's as soon as it has applied the ops that
    /// made them so: that the content is there may not be enough, as when a copy goes on with a
    /// content that the file has already. So a question that came too early is asked again.
    async fn fetch_bytes(self: &Arc<Self>, ino: Ino, order: &FetchOrder) -> Result<(), Errno> {
        let mut after = order.after;
        loop {
            let answer = self.ask_bytes(ino, order, after).await;
            let mut state = self.lock();
            let is_stale = matches!(answer, Err(Errno::ESTALE));
            let has_data = state.has_data(ino, order);
            let changed = state.table.changed(ino);
            if is_stale && has_data && changed > after {
                after = changed;
                continue;
            }
            state.cache.arrived(order, answer.as_ref().ok());
            return match answer {
                Ok(_) => Ok(()),
                // The file's data changed meanwhile, by this client's own hand: look again.
                Err(Errno::ESTALE) if !has_data => Ok(()),
                Err(Errno::ESTALE) => {
                    state.note_error("the server does not know what a file has".to_owned());
                    Err(Errno::EIO)
                }
                Err(errno) => Err(errno),
            };
        }
    }

    async fn ask_bytes(
        self: &Arc<Self>,
        ino: Ino,
        order: &FetchOrder,
        after: Seq,
    ) -> Result<Bytes, Errno> {
        // As long as the log takes: no deadline for what was only delayed by it.
        self.call(move |state: &mut State| state.sync_to(after)).await?;
        let (offset, len) = (order.range.start, order.range.end - order.range.start);
        let ask = Ask::Read { ino, content: order.content, offset, len: len as u32 };
        match self.ask(after, ask).await? {
            (Answer::Data, data) if data.len() as u64 <= len => Ok(data),
            _ => Err(self.unexpected("bytes")),
        }
    }

    fn unexpected(&self, what: &str) -> Errno {
        self.lock().note_error(format!("the server's answer is not {what}"));
        Errno::EIO
    }
}

/// Whether a node that the server sent can be one: the rest of the client relies on it.
fn is_sound(node: &Node) -> bool {
    if node.xattrs.bytes() > XATTRS_BYTES_MAX as u64 || node.nlink > NLINK_MAX {
        return false;
    }
    match &node.kind {
        Kind::Symlink { target } => !target.is_empty() && target.len() <= SYMLINK_BYTES_MAX,
        Kind::File(data) => data.size <= xfer_protocol::limits::FILE_BYTES_MAX,
        Kind::Directory { entries, name_bytes, .. } => (*entries).max(*name_bytes) <= ENTRIES_MAX,
        Kind::Fifo | Kind::Socket | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => true,
    }
}

/// More names of a node, and entries of a directory or bytes of their names, than any tree can have: a server that says so
/// lies, and the rules need not count so far.
const NLINK_MAX: u32 = u32::MAX / 2;
const ENTRIES_MAX: u64 = u64::MAX / 4;

impl State {
    /// Fills in pages of a listing that was asked for from `after` on, and gives the name that
    /// the next one follows, and how many entries came.
    fn fill_listing(
        &mut self,
        directory: Ino,
        after: Option<&Name>,
        pages: Vec<Page>,
    ) -> Result<(Option<Name>, u64), &'static str> {
        let first = pages.first().filter(|page| page.directory == directory);
        let first = first.ok_or("a listing without a page")?;
        let end = first.entries.last().map(|entry| entry.name.clone());
        let count = first.entries.len() as u64;
        // A server that names the same entries again would keep us here for ever.
        if !first.last && (end.is_none() || end.as_ref() <= after) {
            return Err("a listing that does not advance");
        }
        pages.into_iter().for_each(|page| self.fill_page(page));
        Ok((end, count))
    }

    fn fill_page(&mut self, page: Page) {
        for entry in page.entries {
            if is_sound(&entry.node) {
                self.table.fill_entry(page.directory, entry.name, Some(entry.ino));
                self.table.fill_node(entry.ino, Some(entry.node));
            }
        }
        // Pages that the server adds begin at the start of their directory, as the first did if
        // this is its last: either way all entries have come.
        if page.last {
            self.table.fill_complete(page.directory);
        }
    }

    /// Whether the file still has the content, with data in all of the range.
    fn has_data(&self, ino: Ino, order: &FetchOrder) -> bool {
        let Loaded::Present(node) = self.table.node(ino) else { return false };
        node.file().filter(|data| data.content == Some(order.content)).is_some_and(|data| {
            data.extents.data_in(data.size, order.range.clone()).first() == Some(&order.range)
        })
    }
}

//! A store as one server sees it: once that server is killed, its calls have no effect and never
//! return.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use xfer_protocol::message::{DeliveryHead, DeliveryState};
use xfer_protocol::tree::Need;
use xfer_protocol::{ContentId, DeliveryId, Epoch, IdRange, Ino, Name, SessionId};
use xfer_store::{
    AccountId, Answer, Batch, Beginner, Begun, Committed, Contents, Deliveries, Disk, Effect, Fate,
    Found, Later, Left, Listing, Part, Placements, Reservation, Reserved, Resumable, Resumed,
    Resumption, Stop, Store, StoreError, Trees, Undone,
};

/// The life of a server.
#[derive(Clone, Default)]
pub struct Life(Arc<Lived>);

#[derive(Default)]
struct Lived {
    has_ended: AtomicBool,
    /// The moments so far: each call to the store has two, before its effect and after it.
    moments: AtomicUsize,
    /// The moment at which the server dies by itself, or something else happens; 0 if there is none.
    last: AtomicUsize,
    /// What happens then, if it is not the server's death.
    instead: Mutex<Option<Act>>,
}

/// Something that happens at a moment of a server's work.
pub type Act = Box<dyn FnOnce() + Send>;

impl Life {
    /// Kills the server.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }

    /// Has the server die by itself at a moment from now on; 0 is the next.
    pub fn end_at(&self, moment: usize) {
        let now = self.0.moments.load(Ordering::Relaxed);
        self.0.last.store(now + 1 + moment, Ordering::Relaxed);
    }

    /// Has something else happen then, and the server live on.
    pub fn act_at(&self, moment: usize, act: Act) {
        *self.0.instead.lock().unwrap() = Some(act);
        self.end_at(moment);
    }

    /// Has the server not die by itself any more.
    pub fn end_never(&self) {
        self.0.last.store(0, Ordering::Relaxed);
        *self.0.instead.lock().unwrap() = None;
    }

    /// Lets a moment pass, which may be the last.
    fn pass(&self) {
        let moment = 1 + self.0.moments.fetch_add(1, Ordering::Relaxed);
        if moment == self.0.last.load(Ordering::Relaxed) {
            let instead = self.0.instead.lock().unwrap().take();
            instead.map_or_else(|| self.end(), |act| act());
        }
    }

    /// The store for a server with this life.
    pub fn lived_over(&self, store: &Store) -> Store {
        Store {
            trees: Arc::new(Mortal(store.trees.clone(), self.clone())),
            contents: Arc::new(Mortal(store.contents.clone(), self.clone())),
            deliveries: Arc::new(Mortal(store.deliveries.clone(), self.clone())),
            ..store.clone()
        }
    }

    /// Whether the server is dead.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    /// The result of a call, unless the server is killed before it is there.
    fn within<'a, T: Send + 'a>(&'a self, call: impl FnOnce() -> Later<'a, T>) -> Later<'a, T> {
        self.pass();
        if self.has_ended() {
            return Box::pin(std::future::pending());
        }
        let result = call();
        self.pass();
        Box::pin(async move {
            let result = result.await;
            if self.has_ended() {
                std::future::pending::<()>().await;
            }
            result
        })
    }
}

/// A waist of the store.
struct Mortal<T: ?Sized>(Arc<T>, Life);

impl Trees for Mortal<dyn Trees> {
    fn begin(&self, account: AccountId, by: Beginner) -> Answer<'_, Begun> {
        self.1.within(|| self.0.begin(account, by))
    }

    fn resumable(&self, account: AccountId) -> Answer<'_, Option<Resumable>> {
        self.1.within(|| self.0.resumable(account))
    }

    fn session_of(&self, account: AccountId, session: SessionId) -> Answer<'_, Option<Resumable>> {
        self.1.within(|| self.0.session_of(account, session))
    }

    fn give_up(&self, account: AccountId, session: SessionId) -> Answer<'_, ()> {
        self.1.within(|| self.0.give_up(account, session))
    }

    fn forget_dormant(&self, account: AccountId) -> Answer<'_, usize> {
        self.1.within(|| self.0.forget_dormant(account))
    }

    fn resume(&self, account: AccountId, with: Resumption) -> Answer<'_, Option<Resumed>> {
        self.1.within(|| self.0.resume(account, with))
    }

    fn load(&self, account: AccountId, needs: Vec<Need>) -> Answer<'_, Found> {
        self.1.within(|| self.0.load(account, needs))
    }

    fn list(&self, account: AccountId, parts: Vec<Part>) -> Answer<'_, Vec<Listing>> {
        self.1.within(|| self.0.list(account, parts))
    }

    fn path(&self, account: AccountId, ino: Ino) -> Answer<'_, Option<Vec<Name>>> {
        self.1.within(|| self.0.path(account, ino))
    }

    fn grant_ids(&self, account: AccountId, count: u64) -> Answer<'_, IdRange> {
        self.1.within(|| self.0.grant_ids(account, count))
    }

    fn commit(&self, batches: Vec<Batch>) -> Answer<'_, Vec<Result<Committed, StoreError>>> {
        self.1.within(|| self.0.commit(batches))
    }

    fn end(&self, account: AccountId, epoch: Epoch, left: Left, fate: Fate) -> Answer<'_, ()> {
        self.1.within(|| self.0.end(account, epoch, left, fate))
    }

    fn forget(&self, account: AccountId, epoch: Epoch) -> Answer<'_, ()> {
        self.1.within(|| self.0.forget(account, epoch))
    }
}

impl Contents for Mortal<dyn Contents> {
    fn perform_until(&self, effects: Vec<Effect>, stop: Stop) -> Later<'_, Result<(), Undone>> {
        self.1.within(|| self.0.perform_until(effects, stop))
    }

    fn read(&self, content: ContentId, range: Range<u64>) -> Answer<'_, Vec<u8>> {
        self.1.within(|| self.0.read(content, range))
    }

    fn make_durable(
        &self,
        sets: Vec<Vec<ContentId>>,
    ) -> Answer<'_, Vec<Result<Placements, StoreError>>> {
        self.1.within(|| self.0.make_durable(sets))
    }

    fn reclaim(&self) -> Answer<'_, ()> {
        self.1.within(|| self.0.reclaim())
    }

    fn disk(&self) -> Answer<'_, Disk> {
        self.1.within(|| self.0.disk())
    }
}

impl Deliveries for Mortal<dyn Deliveries> {
    fn waiting(
        &self,
        to: AccountId,
        after: u64,
        count: usize,
    ) -> Answer<'_, Vec<(u64, DeliveryHead)>> {
        self.1.within(|| self.0.waiting(to, after, count))
    }

    fn count_waiting(&self) -> Answer<'_, u64> {
        self.1.within(|| self.0.count_waiting())
    }

    fn without_room(&self, from: AccountId) -> Answer<'_, Vec<(DeliveryId, DeliveryState)>> {
        self.1.within(|| self.0.without_room(from))
    }

    fn state(&self, from: AccountId, id: DeliveryId) -> Answer<'_, DeliveryState> {
        self.1.within(|| self.0.state(from, id))
    }

    fn reserve(&self, reservation: Reservation) -> Answer<'_, Reserved> {
        self.1.within(|| self.0.reserve(reservation))
    }

    fn release(&self, from: AccountId) -> Answer<'_, ()> {
        self.1.within(|| self.0.release(from))
    }
}

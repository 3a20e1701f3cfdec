//! Bounds the connections that are not logged in yet, and decides which one to close for a new one.
//!
//! A stranger costs memory and time until it is identified; this bounds both. Admitted connections
//! no longer count.
//!
//! A new connection always gets a place. If all are taken, another connection loses its place: one
//! of the source that has the most, so that a source with many does not keep out those with few. It
//! is the oldest of these if that one is unusually slow, and a random one otherwise. If it were
//! always the oldest, a burst of connections would each be closed shortly before being admitted.
//!
//! **Invariant:** each [`Step`] has its own places, so silent connections take none from those that
//! proceed. Sources with a running session have their own, too, so strangers can't affect them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::login::source::{Counts, Source};

/// The most connections of one kind at one step.
pub const PLACES: usize = 128;

/// The usual longest time for a step. A slower connection is closed first.
pub const USUAL: Duration = Duration::from_secs(2);

/// The progress of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// It has not sent anything.
    Silent,
    /// It has begun the TLS handshake.
    Handshake,
    /// It is encrypted, and has not said what it is for.
    Opening,
}

/// The connection lost its place to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crowded;

/// All connections that are not admitted yet.
#[derive(Default)]
pub struct HalfOpen {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    queues: HashMap<Kind, Queue>,
    /// The number of running sessions of each source.
    known: Counts,
    next: u64,
}

/// Connections compete for places only with others of their kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Kind {
    step: Step,
    /// Whether the source has a running session.
    is_known: bool,
}

#[derive(Default)]
struct Queue {
    /// By ascending numbers, so the oldest comes first.
    taken: BTreeMap<u64, Taken>,
    by_source: Counts,
}

struct Taken {
    source: Source,
    since: Instant,
    /// Dropping this takes the place away; the connection sees that on its receiver.
    _holder: oneshot::Sender<()>,
}

/// The place of a connection that is not admitted yet; dropping it frees the place.
pub struct Slot {
    of: Arc<HalfOpen>,
    kind: Kind,
    number: u64,
    lost: oneshot::Receiver<()>,
}

/// Marks a source as having a running session, until this is dropped.
pub struct Known {
    of: Arc<HalfOpen>,
    source: Source,
}

impl HalfOpen {
    /// Takes a place for a new connection from this source.
    pub fn enter(self: &Arc<Self>, source: Source) -> Slot {
        let (holder, lost) = oneshot::channel();
        let mut places = self.lock();
        let kind = Kind { step: Step::Silent, is_known: places.known.of(source) > 0 };
        let number = places.add(kind, source, holder);
        Slot { of: self.clone(), kind, number, lost }
    }

    /// Notes that this source has a running session.
    pub fn know(self: &Arc<Self>, source: Source) -> Known {
        self.lock().known.add(source);
        Known { of: self.clone(), source }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // No change made under this lock can panic halfway.
        self.places.lock()
    }
}

impl Places {
    fn add(&mut self, kind: Kind, source: Source, holder: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        let queue = self.queues.entry(kind).or_default();
        queue.taken.insert(number, Taken { source, since: Instant::now(), _holder: holder });
        queue.by_source.add(source);
        if queue.taken.len() > PLACES {
            queue.make_room_for(number);
        }
        number
    }

    fn remove(&mut self, kind: Kind, number: u64) -> Option<Taken> {
        self.queues.get_mut(&kind)?.remove(number)
    }
}

impl Queue {
    /// Takes one place away, but not the newcomer's.
    fn make_room_for(&mut self, newcomer: u64) {
        let most = self.by_source.most();
        let has_most = |(number, taken): &(&u64, &Taken)| {
            **number != newcomer && self.by_source.of(taken.source) == most
        };
        let candidates: Vec<_> = self.taken.iter().filter(has_most).collect();
        let lot = usize::try_from(RandomState::new().hash_one(newcomer) >> 1).unwrap_or(0);
        let chosen = match candidates.first() {
            Some((number, oldest)) if oldest.since.elapsed() >= USUAL => Some(**number),
            Some(_) => candidates.get(lot % candidates.len()).map(|(number, _)| **number),
            None => None,
        };
        chosen.and_then(|number| self.remove(number));
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let taken = self.taken.remove(&number)?;
        self.by_source.remove(taken.source);
        Some(taken)
    }
}

impl Slot {
    /// Moves the connection to its next step.
    pub fn advance(&mut self, step: Step) {
        let mut places = self.of.lock();
        // A connection that lost its place learns that at its next `keep`.
        let Some(Taken { source, _holder: holder, .. }) = places.remove(self.kind, self.number)
        else {
            return;
        };
        self.kind = Kind { step, ..self.kind };
        self.number = places.add(self.kind, source, holder);
    }

    /// Runs the work of the present step.
    ///
    /// # Errors
    /// If the connection loses its place meanwhile; the caller must close it.
    pub async fn keep<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Crowded> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            // This channel carries no message; it only closes.
            _ = &mut self.lost => Err(Crowded),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.lock().remove(self.kind, self.number);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.of.lock().known.remove(self.source);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    fn source(n: usize) -> Source {
        Source::of(Ipv4Addr::from_bits(n as u32).into())
    }

    fn is_lost(place: &mut Slot) -> bool {
        place.lost.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn lost(places: &mut [Slot]) -> usize {
        places.iter_mut().filter_map(|place| is_lost(place).then_some(())).count()
    }

    fn taken(half_open: &HalfOpen) -> usize {
        half_open.lock().queues.values().map(|queue| queue.taken.len()).sum()
    }

    fn crowd(half_open: &Arc<HalfOpen>, count: usize, sources: usize, step: Step) -> Vec<Slot> {
        let enter = |n: usize| {
            let mut place = half_open.enter(source(n % sources));
            place.advance(step);
            place
        };
        (0..count).map(enter).collect()
    }

    #[test]
    fn a_newcomer_always_gets_a_place_and_their_number_is_bounded() {
        let half_open = Arc::new(HalfOpen::default());
        for sources in [1, 7, 10 * PLACES] {
            let mut places = crowd(&half_open, 3 * PLACES, sources, Step::Silent);
            assert_eq!(taken(&half_open), PLACES);
            assert_eq!(lost(&mut places), 2 * PLACES);
            assert!(!is_lost(places.last_mut().unwrap()));
            drop(places);
            assert_eq!(taken(&half_open), 0);
            assert!(half_open.lock().queues.values().all(|queue| queue.by_source.is_empty()));
        }
    }

    #[test]
    fn sources_with_many_connections_make_room_for_those_with_few() {
        let half_open = Arc::new(HalfOpen::default());
        let mut many = crowd(&half_open, PLACES, 8, Step::Silent);
        let mut few: Vec<_> = (100..120).map(|n| half_open.enter(source(n))).collect();
        let mut more = crowd(&half_open, 10 * PLACES, 8, Step::Silent);
        assert_eq!(lost(&mut few), 0);
        assert_eq!(lost(&mut many) + lost(&mut more), 10 * PLACES + few.len());
    }

    #[test]
    fn those_who_say_nothing_take_no_place_from_those_who_go_on() {
        let half_open = Arc::new(HalfOpen::default());
        let mut shaking = crowd(&half_open, PLACES, 1, Step::Handshake);
        let mut opening = crowd(&half_open, PLACES, 1, Step::Opening);
        let _silent = crowd(&half_open, 10 * PLACES, 1000, Step::Silent);
        assert_eq!(lost(&mut shaking) + lost(&mut opening), 0);
        opening[0].advance(Step::Handshake);
        assert_eq!(lost(&mut shaking) + lost(&mut opening), 1);
    }

    #[test]
    fn strangers_take_no_place_from_sources_of_which_a_session_runs() {
        let half_open = Arc::new(HalfOpen::default());
        let known = half_open.know(source(1));
        for step in [Step::Silent, Step::Handshake, Step::Opening] {
            let mut of_session = half_open.enter(source(1));
            of_session.advance(step);
            let _strangers = crowd(&half_open, 10 * PLACES, 10 * PLACES, step);
            assert!(!is_lost(&mut of_session), "{step:?}");
        }
        drop(known);
        assert!(half_open.lock().known.is_empty());
        assert!(!half_open.enter(source(1)).kind.is_known);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_first_once_it_takes_long() {
        let half_open = Arc::new(HalfOpen::default());
        let mut places = crowd(&half_open, PLACES, 1, Step::Silent);
        tokio::time::advance(USUAL).await;
        let _newcomer = half_open.enter(source(1));
        assert_eq!(places[0].keep(std::future::pending::<()>()).await, Err(Crowded));
        assert_eq!(lost(&mut places[1..]), 0);
    }

    #[test]
    fn of_many_that_come_at_once_it_is_not_the_order_that_says_who_goes() {
        let half_open = Arc::new(HalfOpen::default());
        let mut places = crowd(&half_open, 2 * PLACES, 1, Step::Silent);
        // If the oldest were always chosen, the whole older half would be gone.
        assert!((1..PLACES).contains(&lost(&mut places[..PLACES])));
    }
}

//! How many connections may be on their way in at a time, in all and from one source.
//!
//! A stranger costs memory and time until it is known who is there; this bounds both. Connections
//! that were let in no longer count.
//!
//! When all places are taken, a newcomer takes that of the oldest: who only holds places, and says
//! nothing, does not keep others out. It is turned away itself where taking places would just make
//! many that come at once throw each other out, so that none gets through.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::source::Source;

/// The most connections on their way in.
pub const ALL_MAX: usize = 256;

/// The most of them from one source.
pub const SOURCE_MAX: usize = 16;

/// How long a connection is left in peace by newcomers whose source has as many places: most are
/// let in by then.
pub const YOUNG: Duration = Duration::from_secs(2);

/// Counts connections on their way in.
#[derive(Default)]
pub struct HalfOpen {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// By numbers that only rise: the oldest is the first.
    taken: BTreeMap<u64, Taken>,
    by_source: HashMap<Source, usize>,
    next: u64,
}

struct Taken {
    source: Source,
    since: Instant,
    /// Dropped when the place is taken away, which its holder notices.
    _holder: oneshot::Sender<()>,
}

/// The place of one connection on its way in; given back when dropped.
pub struct Place {
    of: Arc<HalfOpen>,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl HalfOpen {
    /// A place for a connection from this source, if there is one or one can be taken away.
    pub fn enter(self: &Arc<Self>, source: Source) -> Option<Place> {
        let now = Instant::now();
        let mut places = self.lock();
        if let Some(crowd) = places.crowd(source) {
            let oldest = places.taken.iter().find(|(_, taken)| taken.source == crowd);
            let (number, oldest) = oldest?;
            // By more than one, or two sources would take the same place from each other for ever.
            let is_fair = places.count(crowd) > places.count(source) + 1;
            if !is_fair && now - oldest.since < YOUNG {
                return None;
            }
            let number = *number;
            places.remove(number);
        }
        let (number, lost) = places.add(source, now);
        Some(Place { of: self.clone(), number, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing in here panics half way through a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn count(&self, source: Source) -> usize {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    /// The source that has to give up a place for another one to this source; none if there is room.
    fn crowd(&self, source: Source) -> Option<Source> {
        if self.count(source) >= SOURCE_MAX {
            return Some(source);
        }
        if self.taken.len() < ALL_MAX {
            return None;
        }
        let most = self.by_source.values().copied().max();
        // In the order of age, so that of several with as many it is the one that came first.
        let mut sources = self.taken.values().map(|taken| taken.source);
        sources.find(|source| Some(self.count(*source)) == most)
    }

    fn add(&mut self, source: Source, since: Instant) -> (u64, oneshot::Receiver<()>) {
        let (holder, lost) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, Taken { source, since, _holder: holder });
        *self.by_source.entry(source).or_default() += 1;
        (number, lost)
    }

    fn remove(&mut self, number: u64) {
        let Some(Taken { source, .. }) = self.taken.remove(&number) else { return };
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Place {
    /// Completes when the place is taken away: the connection is to be closed.
    pub async fn lost(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    fn source(n: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(n).into())
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_source_does_not_take_all_places() {
        let half_open = Arc::new(HalfOpen::default());
        let places: Vec<_> = (0..SOURCE_MAX).map(|_| half_open.enter(source(1)).unwrap()).collect();
        assert!(half_open.enter(source(1)).is_none());
        assert!(half_open.enter(source(2)).is_some());
        drop(places);
        assert!(half_open.enter(source(1)).is_some());
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let half_open = Arc::new(HalfOpen::default());
        let enter = |n: usize| half_open.enter(source(n as u32));
        let places: Vec<_> = (0..ALL_MAX).map(|n| enter(n).unwrap()).collect();
        assert!(enter(0).is_none(), "all are young, and nobody has more");
        drop(places);
        assert!(half_open.lock().taken.is_empty());
        assert!(half_open.lock().by_source.is_empty());
    }

    #[test]
    fn sources_that_hold_all_places_do_not_keep_others_out() {
        let half_open = Arc::new(HalfOpen::default());
        let enter = |n: usize| half_open.enter(source(n as u32));
        let mut crowd: Vec<_> = (0..ALL_MAX).map(|n| enter(n % 16).unwrap()).collect();
        let mut newcomers: Vec<_> = (100..120).map(|n| enter(n).unwrap()).collect();
        assert_eq!(half_open.lock().taken.len(), ALL_MAX);
        assert!(is_lost(&mut crowd[0]) && !is_lost(&mut crowd[ALL_MAX - 1]));
        assert_eq!(crowd.iter_mut().filter_map(|one| is_lost(one).then_some(())).count(), 20);
        assert!(!newcomers.iter_mut().any(is_lost));
        drop((crowd, newcomers));
        assert!(half_open.lock().by_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_long_makes_room_for_another_of_the_same_source() {
        let half_open = Arc::new(HalfOpen::default());
        let mut places: Vec<_> =
            (0..SOURCE_MAX).map(|_| half_open.enter(source(1)).unwrap()).collect();
        tokio::time::advance(YOUNG).await;
        let _newcomer = half_open.enter(source(1)).unwrap();
        places[0].lost().await;
        assert!(!is_lost(&mut places[1]));
        assert_eq!(half_open.lock().count(source(1)), SOURCE_MAX);
    }
}

//! How many connections may be on their way in at a time, in all and from one source.
//!
//! A stranger costs memory and time until it is known who is there; this bounds both. Connections
//! that were let in no longer count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::source::Source;

/// The most connections on their way in.
pub const ALL_MAX: usize = 256;

/// The most of them from one source.
pub const SOURCE_MAX: usize = 16;

/// Counts connections on their way in.
#[derive(Default)]
pub struct HalfOpen {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_source: HashMap<Source, usize>,
}

/// The place of one connection on its way in; given back when dropped.
pub struct Place {
    of: Arc<HalfOpen>,
    source: Source,
}

impl HalfOpen {
    /// A place for a connection from this source, if there is one.
    pub fn enter(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut counts = self.lock();
        let from_source = counts.by_source.get(&source).copied().unwrap_or(0);
        if counts.all >= ALL_MAX || from_source >= SOURCE_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_source.insert(source, from_source + 1);
        Some(Place { of: self.clone(), source })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here panics half way through a change.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.by_source.remove(&self.source);
            }
        }
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
        assert!(enter(1000).is_none());
        drop(places);
        assert_eq!(half_open.lock().all, 0);
        assert!(half_open.lock().by_source.is_empty());
    }
}

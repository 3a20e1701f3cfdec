//! A queue for a limited number of turns, fair to the sources of the callers.
//!
//! Callers are served in order of arrival, but each is set back by a full queue length for each
//! caller of its source that already waits. So a source with many requests delays only itself, and
//! every caller is served in the end. When the queue is full, a newcomer replaces the last caller of
//! the source that has the most, if its own source has fewer. If all sources have about as many, the
//! newcomer is turned away.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::login::source::{Counts, Source};

/// The queue, and the number of free turns.
pub struct Turns {
    waiting_max: usize,
    line: Mutex<Line>,
}

struct Line {
    free: usize,
    waiting: BTreeMap<Key, Caller>,
    by_source: Counts,
    next: u64,
}

/// The order in which callers are served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    /// The arrival number plus the places by which the caller was set back.
    due: u64,
    number: u64,
}

struct Caller {
    source: Source,
    call: oneshot::Sender<()>,
}

/// A turn, which ends when this is dropped.
pub struct Turn {
    of: Arc<Turns>,
}

/// There is no place in the queue for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// A caller's place in the queue, given up when this is dropped.
struct Waiter {
    of: Arc<Turns>,
    key: Key,
    called: oneshot::Receiver<()>,
}

impl Turns {
    /// At most `turns` turns at a time, and `waiting_max` waiting callers.
    pub fn new(turns: usize, waiting_max: usize) -> Arc<Turns> {
        let (waiting, by_source) = (BTreeMap::new(), Counts::default());
        let line = Mutex::new(Line { free: turns, waiting, by_source, next: 0 });
        Arc::new(Turns { waiting_max, line })
    }

    /// Waits for a turn. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// If there is no place in the queue, or another caller takes it.
    pub async fn wait(self: &Arc<Self>, source: Source) -> Result<Turn, Full> {
        if let Some(mut waiter) = self.enter(source)? {
            (&mut waiter.called).await.map_err(|_| Full)?;
        }
        Ok(Turn { of: self.clone() })
    }

    /// The number of callers in the queue.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Takes a place in the queue; `None` if a turn was free, which the caller then has.
    fn enter(self: &Arc<Self>, source: Source) -> Result<Option<Waiter>, Full> {
        let mut line = self.lock();
        if line.free > 0 {
            line.free -= 1;
            return Ok(None);
        }
        if line.waiting.len() >= self.waiting_max {
            line.make_room_for(source)?;
        }
        let (key, called) = line.add(source, self.waiting_max);
        Ok(Some(Waiter { of: self.clone(), key, called }))
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // No change made under this lock can panic halfway.
        self.line.lock()
    }
}

impl Line {
    /// Turns away the last caller of the source that has the most.
    fn make_room_for(&mut self, newcomer: Source) -> Result<(), Full> {
        let most = self.by_source.most();
        // More than one ahead, or two sources would take the same place from each other for ever.
        if most <= self.by_source.of(newcomer) + 1 {
            return Err(Full);
        }
        let mut from_last = self.waiting.iter().rev();
        let last = from_last.find(|(_, caller)| self.by_source.of(caller.source) == most);
        let last = last.map(|(key, _)| *key).ok_or(Full)?;
        self.remove(last);
        Ok(())
    }

    fn add(&mut self, source: Source, set_back: usize) -> (Key, oneshot::Receiver<()>) {
        let (call, called) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        let due = number + (self.by_source.of(source) * set_back) as u64;
        let key = Key { due, number };
        self.waiting.insert(key, Caller { source, call });
        self.by_source.add(source);
        (key, called)
    }

    fn remove(&mut self, key: Key) -> Option<Caller> {
        let caller = self.waiting.remove(&key)?;
        self.by_source.remove(caller.source);
        Some(caller)
    }

    /// Passes a finished turn to the next caller in the queue.
    fn hand_on(&mut self) {
        while let Some((key, _)) = self.waiting.first_key_value() {
            let key = *key;
            if self.remove(key).is_some_and(|caller| caller.call.send(()).is_ok()) {
                return;
            }
        }
        self.free += 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.of.lock().hand_on();
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut line = self.of.lock();
        // It may have been called without having taken the turn yet.
        if line.remove(self.key).is_none() && self.called.try_recv().is_ok() {
            line.hand_on();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::task::JoinHandle;

    const LINE: usize = 8;

    fn source(n: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(n).into())
    }

    /// A caller that is queued when this returns, or was turned away.
    async fn call(turns: &Arc<Turns>, from: u32) -> JoinHandle<Option<u32>> {
        let before = turns.lock().next;
        let caller = turns.clone();
        let waiting = tokio::spawn(async move {
            let turn = caller.wait(source(from)).await.ok()?;
            drop(turn);
            Some(from)
        });
        while turns.lock().next == before && !waiting.is_finished() {
            tokio::task::yield_now().await;
        }
        waiting
    }

    async fn taken(turns: &Arc<Turns>) -> Turn {
        turns.wait(source(0)).await.unwrap()
    }

    #[tokio::test]
    async fn a_source_that_asks_often_waits_for_itself_and_not_before_others() {
        let turns = Turns::new(1, LINE);
        let turn = taken(&turns).await;
        let (mut order, mut callers) = (Vec::new(), Vec::new());
        for from in [1, 1, 1, 1, 2, 3, 2] {
            callers.push(call(&turns, from).await);
        }
        let mut keys: Vec<_> =
            turns.lock().waiting.iter().map(|(key, caller)| (*key, caller.source)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        order.extend(keys.into_iter().map(|(_, source)| source));
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1].map(source));
        drop(turn);
        for caller in callers {
            assert!(caller.await.unwrap().is_some());
        }
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn a_full_line_makes_room_for_sources_with_fewer_callers() {
        let turns = Turns::new(1, LINE);
        let turn = taken(&turns).await;
        let mut crowd = Vec::new();
        for _ in 0..LINE {
            crowd.push(call(&turns, 1).await);
        }
        assert_eq!(call(&turns, 1).await.await.unwrap(), None);
        let newcomer = call(&turns, 2).await;
        assert_eq!(crowd.pop().unwrap().await.unwrap(), None);
        drop(turn);
        assert_eq!(newcomer.await.unwrap(), Some(2));
        for caller in crowd {
            assert_eq!(caller.await.unwrap(), Some(1));
        }
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_line_and_passes_the_turn_on() {
        let turns = Turns::new(1, LINE);
        let turn = taken(&turns).await;
        let given_up = turns.enter(source(1)).unwrap().unwrap();
        let called = turns.enter(source(2)).unwrap().unwrap();
        let next = turns.enter(source(3)).unwrap().unwrap();
        drop(given_up);
        drop(turn);
        assert_eq!(turns.lock().free, 0);
        // It was called, and gives up before it notices.
        drop(called);
        assert!(turns.lock().waiting.is_empty() && turns.lock().by_source.is_empty());
        assert_eq!(turns.lock().free, 0);
        drop(next);
        assert_eq!(turns.lock().free, 1);
    }
}

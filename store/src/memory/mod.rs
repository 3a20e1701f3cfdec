//! The engine in memory: all waists over ordered maps, for tests, and for simulations in one thread
//! on a virtual clock.
//!
//! Each call has its answer before its future is first polled. There is no clock, no randomness and
//! no order but that of the maps, so the same calls get the same answers. All data is lost when the
//! store is dropped.
//!
//! **Invariant:** it gives the same answers as the engine for one machine (`tests/agree.rs`).

mod bytes;
mod tables;
mod commit;
mod sessions;
mod trees;
mod contents;
mod deliveries;
mod accounts;
mod failures;
mod keys;

use std::future::ready;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::{Answer, Keeper, Later, Store, StoreError, StoreSize};

use tables::Tables;

/// The engine's state, behind one lock.
#[derive(Default)]
struct Memory {
    state: Mutex<Tables>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.state.lock()
    }
}

/// Makes an empty store.
pub(crate) fn store() -> Store {
    let engine = Arc::new(Memory::default());
    Store {
        trees: engine.clone(),
        contents: engine.clone(),
        deliveries: engine.clone(),
        accounts: engine.clone(),
        failures: engine.clone(),
        keys: engine.clone(),
        keeper: engine,
        is_new: true,
    }
}

/// Wraps a result that is ready at once.
fn answer<'a, T: Send + 'a>(result: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(ready(result))
}

impl Keeper for Memory {
    fn failed(&self) -> Later<'_, StoreError> {
        Box::pin(std::future::pending())
    }

    fn check(&self) -> Answer<'_, ()> {
        answer(Ok(()))
    }

    fn size(&self) -> Answer<'_, StoreSize> {
        answer(Ok(StoreSize::default()))
    }

    fn close(&self) -> Answer<'_, ()> {
        answer(Ok(()))
    }
}

//! The engine in memory: all waists over ordered maps, for tests and for simulations in one thread on a
//! virtual clock.
//!
//! Each call is answered before its future is first polled. It has no clock, no randomness and no order
//! but that of its maps: the same calls have the same answers. It forgets everything when it is dropped.
//!
//! **Invariant:** it answers as the engine for one machine does (`tests/agree.rs`).

mod bytes;
mod tables;
mod commit;
mod trees;
mod contents;
mod deliveries;
mod accounts;
mod failures;

use std::future::ready;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::{Answer, Keeper, Later, Store, StoreError};

use tables::Tables;

/// The engine.
#[derive(Default)]
struct Memory {
    state: Mutex<Tables>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.state.lock()
    }
}

/// An empty store.
pub(crate) fn store() -> Store {
    let engine = Arc::new(Memory::default());
    Store {
        trees: engine.clone(),
        contents: engine.clone(),
        deliveries: engine.clone(),
        accounts: engine.clone(),
        failures: engine.clone(),
        keeper: engine,
    }
}

/// An answer that is there already.
fn answer<'a, T: Send + 'a>(result: Result<T, StoreError>) -> Answer<'a, T> {
    Box::pin(ready(result))
}

impl Keeper for Memory {
    fn failed(&self) -> Later<'_, StoreError> {
        Box::pin(std::future::pending())
    }

    fn close(&self) -> Answer<'_, ()> {
        answer(Ok(()))
    }
}

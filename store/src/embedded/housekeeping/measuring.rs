//! Measures the store when somebody asks: its contents in the background, and at most every ten seconds.
//!
//! **Invariant:** contents are counted by one thread at most, which rests for twenty times as long as it
//! counted. So however often somebody asks, and however many contents there are, this takes a
//! twentieth of a core and of the disk's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use crate::embedded::{FileStore, Parts};
use crate::{ContentsSize, StoreError, StoreSize};

/// The shortest rest between two counts.
const REST_MIN: Duration = Duration::from_secs(10);

/// The rest after a count, as a multiple of the time that it took.
const REST_PART: u32 = 20;

/// What is known of the size of the contents.
#[derive(Clone, Default)]
pub(in crate::embedded) struct Measured(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    contents: Option<ContentsSize>,
    is_counting: bool,
    /// When they may be counted again.
    due: Option<Instant>,
}

/// The size of a store that is served. Needs a tokio runtime.
pub(in crate::embedded) fn size(parts: &Parts) -> Result<StoreSize, StoreError> {
    let database_bytes = parts.rows.bytes()?;
    let Some((watched, _)) = &parts.watched else {
        return Ok(StoreSize { database_bytes, contents: None });
    };
    let contents = parts.measured.look(&watched.files);
    Ok(StoreSize { database_bytes, contents })
}

impl Measured {
    /// What is known; has the contents counted again if that is due.
    fn look(&self, files: &Arc<FileStore>) -> Option<ContentsSize> {
        let mut state = self.0.lock();
        let is_due = state.due.is_none_or(|due| due <= Instant::now());
        if is_due && !state.is_counting {
            state.is_counting = true;
            let (measured, files) = (self.clone(), files.clone());
            spawn_blocking(move || measured.count(&files));
        }
        state.contents
    }

    fn count(&self, files: &FileStore) {
        let start = Instant::now();
        let counted = files.measure();
        let rest = (start.elapsed() * REST_PART).max(REST_MIN);
        let mut state = self.0.lock();
        state.is_counting = false;
        state.due = Some(Instant::now() + rest);
        match counted {
            Ok(size) => state.contents = Some(size),
            // An old size would look like a present one.
            Err(error) => {
                tracing::warn!(%error, "the size of the contents is not known");
                state.contents = None;
            }
        }
    }
}

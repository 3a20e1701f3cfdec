//! Answers on their way to the kernel.
//!
//! An answer is found under the core's lock and given after that. Before the kernel can be told what
//! is out of date, all answers of before must have been given.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

/// How often it is looked whether all answers have been given. Each takes far less time than this,
/// unless the machine is very busy.
const LOOK: Duration = Duration::from_millis(1);

/// An answer that was found, until this is dropped.
pub(in crate::drive) struct Answer(Arc<()>);

/// The answers that were found since the last turn.
#[derive(Default)]
pub(in crate::drive) struct Answers(Mutex<Arc<()>>);

impl Answers {
    /// Notes an answer. To be called with the core locked.
    pub(in crate::drive) fn note(&self) -> Answer {
        Answer(self.0.lock().clone())
    }

    /// Begins a turn. To be called with the core locked. The result waits until all answers that were
    /// noted before have been given.
    pub(in crate::drive) fn turn(&self) -> impl Future<Output = ()> + use<> {
        let before = std::mem::take(&mut *self.0.lock());
        async move {
            while Arc::strong_count(&before) > 1 {
                sleep(LOOK).await;
            }
        }
    }
}

impl Answer {
    /// Ends with the answer.
    pub(in crate::drive) fn given(self) {
        drop(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_turn_waits_for_the_answers_of_before_and_for_no_later_ones() {
        let answers = Answers::default();
        let before = answers.note();
        let turn = answers.turn();
        tokio::pin!(turn);
        let _later = answers.note();
        assert!(timeout(Duration::from_secs(1), &mut turn).await.is_err());
        before.given();
        assert!(timeout(Duration::from_secs(1), turn).await.is_ok());
    }
}

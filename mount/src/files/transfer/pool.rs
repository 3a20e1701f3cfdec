//! Several jobs at once, each on a thread: they wait for the network and the disk in turn.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many jobs are done at once: enough to fill a long line with small files.
const AT_ONCE: usize = 16;

/// Does all jobs, until one says that the others would do no better.
pub(super) fn do_all<T: Sync>(jobs: &[T], work: impl Fn(&T) -> bool + Sync) {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        while !is_over.load(Ordering::Relaxed) {
            let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if !work(job) {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(jobs.len()) {
            scope.spawn(worker);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_done_once_unless_one_ends_it_all() {
        let jobs: Vec<usize> = (0..1000).collect();
        let done: Vec<_> = jobs.iter().map(|_| AtomicUsize::new(0)).collect();
        do_all(&jobs, |job| {
            done[*job].fetch_add(1, Ordering::Relaxed);
            true
        });
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        let count = AtomicUsize::new(0);
        do_all(&jobs, |_| {
            count.fetch_add(1, Ordering::Relaxed);
            false
        });
        assert!(count.load(Ordering::Relaxed) <= AT_ONCE);
    }
}

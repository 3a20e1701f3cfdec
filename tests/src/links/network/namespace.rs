//! A network namespace: a separate machine, as far as the network is concerned.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::PATIENCE;
use crate::run_within;

/// A network namespace, which exists as long as this or any process in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A new namespace, with only its loopback device.
    pub fn new() -> Namespace {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: Rust's library does not rely on the network namespace, and the thread
                // that enters the new one ends here.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                    .expect("network namespaces need root");
                let up = &mut Command::new("ip");
                run_within(up.args(["link", "set", "lo", "up"]), PATIENCE).succeeded();
                File::open("/proc/thread-self/ns/net").unwrap()
            });
            thread.join()
        });
        Namespace(Arc::new(made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    }

    /// Runs a job in it. The job's sockets and programs stay in the namespace; mounts are not
    /// isolated.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                job()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace::new()
    }
}

//! A network namespace: a machine of its own, as far as the network goes.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::PATIENCE;
use crate::run_within;

/// A network namespace, which is there as long as this or any process in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A new one, with nothing in it but its loopback device.
    pub fn new() -> Namespace {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: a namespace of the network is no state that Rust's library relies on, and
                // the thread that enters it ends here.
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

    /// Runs a job in it. Sockets that it opens, and programs that it starts, stay there; mounts are
    /// everybody's.
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

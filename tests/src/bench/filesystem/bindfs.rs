//! bindfs: passes another directory's files through FUSE, which shows the cost of FUSE itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::backing;
use super::{Filesystem, Mounted, Sides};
use crate::bench::timed::{Deadline, Stop};
use crate::bench::usage::{Usage, of_family};
use crate::network::Network;
use crate::programs::Running;

/// A FUSE passthrough.
#[derive(Debug)]
pub struct Bindfs;

struct Bound {
    backing: PathBuf,
    root: PathBuf,
    running: Running,
}

impl Filesystem for Bindfs {
    fn name(&self) -> &'static str {
        "bindfs"
    }

    fn remark(&self) -> &'static str {
        "a directory of the same disk through FUSE, with no network; durable after `sync -f` of it"
    }

    fn counts_requests(&self) -> bool {
        true
    }

    fn mount(&self, _: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let (backing, root) = (backing::make(place, fixture), backing::mount_point(place));
        let mut running = Running::start(Command::new("bindfs").arg("-f").arg(&backing).arg(&root));
        backing::wait_mounted(&mut running, &root);
        Box::new(Bound { backing, root, running })
    }
}

impl Mounted for Bound {
    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        backing::settle(&self.backing, deadline)
    }

    fn usage(&self) -> Sides {
        Sides { client: of_family(self.running.pid()), server: Usage::default() }
    }

    fn stored(&mut self) -> PathBuf {
        self.backing.clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        backing::unmount(&self.root);
    }
}

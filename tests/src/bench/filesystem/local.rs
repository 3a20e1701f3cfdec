//! A directory on the local disk: the baseline for all others.

use std::path::{Path, PathBuf};

use super::backing;
use super::{Filesystem, Mounted, Sides};
use crate::bench::timed::{Deadline, Stop};
use crate::network::Network;

/// The local disk.
#[derive(Debug)]
pub struct Local;

struct Directory(PathBuf);

impl Filesystem for Local {
    fn name(&self) -> &'static str {
        "local disk"
    }

    fn remark(&self) -> &'static str {
        "the directory that all others keep their files in; durable after `sync -f` of it"
    }

    fn mount(&self, _: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        Box::new(Directory(backing::make(place, fixture)))
    }
}

impl Mounted for Directory {
    fn root(&self) -> &Path {
        &self.0
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        backing::settle(&self.0, deadline)
    }

    fn usage(&self) -> Sides {
        Sides::default()
    }

    fn stored(&mut self) -> PathBuf {
        self.0.clone()
    }
}

//! sshfs: each request of the kernel becomes one or more SFTP requests.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::sshd::{self, Sshd};
use super::{Filesystem, Mounted, Sides, backing};
use crate::bench::timed::{Deadline, Stop};
use crate::bench::usage::of_family;
use crate::network::{Network, SERVER};
use crate::programs::Running;

/// sshfs with its default settings.
#[derive(Debug)]
pub struct Sshfs;

struct Mount {
    backing: PathBuf,
    root: PathBuf,
    running: Running,
    sshd: Sshd,
}

impl Filesystem for Sshfs {
    fn name(&self) -> &'static str {
        "sshfs"
    }

    fn remark(&self) -> &'static str {
        "default settings; durable after `sync -f` of the server's directory, run on the server"
    }

    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let (backing, root) = (backing::make(place, fixture), backing::mount_point(place));
        let sshd = Sshd::start(network, place);
        let mut sshfs = Command::new("sshfs");
        sshfs.arg(format!("{}@{SERVER}:{}", sshd::user(), backing.display())).arg(&root);
        sshfs.args(["-f", "-p", sshd::PORT, "-o", "StrictHostKeyChecking=no"]);
        sshfs.args(["-o", "UserKnownHostsFile=/dev/null", "-F", "/dev/null", "-o"]);
        sshfs.arg(format!("IdentityFile={}", sshd.key.display()));
        let mut running = network.client.run(|| Running::start(&mut sshfs));
        backing::wait_mounted(&mut running, &root);
        Box::new(Mount { backing, root, running, sshd })
    }
}

impl Mounted for Mount {
    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        backing::settle(&self.backing, deadline)
    }

    fn usage(&self) -> Sides {
        Sides { client: of_family(self.running.pid()), server: self.sshd.usage() }
    }

    fn stored(&mut self) -> PathBuf {
        self.backing.clone()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        backing::unmount(&self.root);
    }
}

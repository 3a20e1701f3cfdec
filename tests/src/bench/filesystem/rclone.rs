//! rclone mount over SFTP, with a cache on the local disk. It reports a file as written once the
//! cache has it, and uploads it seconds later; the benchmark waits for these uploads.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::sshd::{self, Sshd};
use super::{Filesystem, Mounted, Sides, backing};
use crate::bench::timed::{Deadline, Stop};
use crate::bench::usage::of_family;
use crate::network::{Namespace, Network, SERVER};
use crate::programs::Running;

/// The address of its control interface, on the client's machine.
const CONTROL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 5572);

/// The interval between checks for pending uploads.
const POLL: Duration = Duration::from_millis(5);

/// rclone's mount with a full cache.
#[derive(Debug)]
pub struct Rclone;

struct Mount {
    backing: PathBuf,
    root: PathBuf,
    running: Running,
    sshd: Sshd,
    machine: Namespace,
}

impl Filesystem for Rclone {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn remark(&self) -> &'static str {
        "SFTP, `--vfs-cache-mode full`; it answers before data is remote, so its uploads are waited \
         for (they begin 5 s after a file is closed), then as sshfs"
    }

    fn mount(&self, network: &Network, place: &Path, fixture: &Path) -> Box<dyn Mounted> {
        let (backing, root) = (backing::make(place, fixture), backing::mount_point(place));
        let sshd = Sshd::start(network, place);
        let mut rclone = Command::new("rclone");
        rclone.arg("mount").arg(format!(":sftp:{}", backing.display())).arg(&root);
        rclone.args(["--sftp-port", sshd::PORT, "--sftp-user", &sshd::user()]);
        rclone.arg("--sftp-host").arg(SERVER.to_string()).arg("--sftp-key-file").arg(&sshd.key);
        rclone.args(["--vfs-cache-mode", "full", "--cache-dir"]).arg(place.join("cache"));
        rclone.args(["--rc", "--rc-no-auth", "--rc-addr", &format!("{}:{}", CONTROL.0, CONTROL.1)]);
        rclone.args(["--config", "/dev/null"]);
        let mut running = network.client.run(|| Running::start(&mut rclone));
        backing::wait_mounted(&mut running, &root);
        Box::new(Mount { backing, root, running, sshd, machine: network.client.clone() })
    }
}

impl Mount {
    /// The number of files that are waiting or being uploaded.
    fn uploads(&self) -> std::io::Result<u64> {
        let answer = self.machine.run(|| -> std::io::Result<String> {
            let mut socket = TcpStream::connect(CONTROL)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.write_all(b"POST /vfs/stats HTTP/1.0\r\nContent-Length: 0\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let json = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let stats: Value = serde_json::from_str(json)?;
        let count = |name: &str| stats["diskCache"][name].as_u64();
        let uploads = count("uploadsInProgress").zip(count("uploadsQueued"));
        uploads.map(|(one, other)| one + other).ok_or_else(|| std::io::Error::other(answer))
    }
}

impl Mounted for Mount {
    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&mut self, deadline: Deadline) -> Result<(), Stop> {
        while self.uploads().map_err(|error| Stop::Failed(format!("rclone's stats: {error}")))? > 0
        {
            std::thread::sleep(POLL.min(deadline.left()?));
        }
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

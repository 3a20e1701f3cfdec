//! An SSH server with its own keys, on the server's machine, for sshfs and rclone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::backing::LIMIT;
use crate::bench::usage::{Usage, of_family};
use crate::network::{Network, SERVER};
use crate::programs::Running;
use crate::run_within;

/// Its port; the machine has no other SSH server.
pub const PORT: &str = "2222";

/// A running SSH server that accepts one key.
pub struct Sshd {
    running: Running,
    /// The file with the private key.
    pub key: PathBuf,
}

impl Sshd {
    /// Starts a server and waits until it listens.
    pub fn start(network: &Network, place: &Path) -> Sshd {
        let (key, host_key) = (place.join("key"), place.join("host_key"));
        for file in [&key, &host_key] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file);
            run_within(&mut keygen, LIMIT).succeeded();
        }
        // Its unprivileged process needs this directory, which its service would otherwise create.
        fs::create_dir_all("/run/sshd").unwrap();
        let lines = [
            format!("ListenAddress {SERVER}:{PORT}"),
            format!("HostKey {}", host_key.display()),
            format!("AuthorizedKeysFile {}.pub", key.display()),
            "StrictModes no".to_owned(),
            "PermitRootLogin yes".to_owned(),
            "UseDNS no".to_owned(),
            "PidFile none".to_owned(),
            "Subsystem sftp internal-sftp".to_owned(),
        ];
        let config = place.join("sshd_config");
        fs::write(&config, lines.join("\n") + "\n").unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(config);
        let mut running = network.server.run(|| Running::start(&mut sshd));
        running.line("sshd's address", |line| line.contains("Server listening").then_some(()));
        Sshd { running, key }
    }

    /// The resources used by it and all its sessions.
    pub fn usage(&self) -> Usage {
        of_family(self.running.pid())
    }
}

/// The user that runs the benchmark.
pub fn user() -> String {
    run_within(Command::new("id").arg("-un"), LIMIT).succeeded().stdout.trim().to_owned()
}

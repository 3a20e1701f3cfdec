//! The scripts that come with the programs.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, fcntl_lock};
use xfer_tests::programs::{Finished, Running};
use xfer_tests::{PATIENCE, run_within};

/// A private state of apt, in which all packages of this machine are installed.
struct Apt {
    directory: tempfile::TempDir,
}

impl Apt {
    fn new() -> Apt {
        let apt = Apt { directory: tempfile::tempdir().unwrap() };
        for directory in ["state/lists/partial", "dpkg", "cache/archives/partial", "bin"] {
            fs::create_dir_all(apt.path(directory)).unwrap();
        }
        fs::copy("/var/lib/dpkg/status", apt.path("dpkg/status")).unwrap();
        let at = |path: &str| apt.path(path).display().to_string();
        let config = format!(
            "Dir::State \"{}\";\nDir::State::status \"{}\";\nDir::Cache \"{}\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"/dev/null\";\n",
            at("state"),
            at("dpkg/status"),
            at("cache"),
        );
        fs::write(apt.path("conf"), config).unwrap();
        // Nothing here needs root's rights.
        fs::write(apt.path("bin/sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
        fs::set_permissions(apt.path("bin/sudo"), fs::Permissions::from_mode(0o755)).unwrap();
        apt
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Locks a file as apt and dpkg do.
    fn lock(&self, path: &str) -> File {
        let file = File::create(self.path(path)).unwrap();
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        file
    }

    /// Installs a package that is already there, with the function that the scripts use.
    fn install(&self, wait_max: u32) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", ". packaging/apt.sh; install_packages bash"]);
        command.env("PATH", path).env("APT_CONFIG", self.path("conf")).current_dir(root);
        command.env("APT_WAIT_MAX", wait_max.to_string());
        command
    }

    fn installed(&self, wait_max: u32) -> Finished {
        run_within(&mut self.install(wait_max), PATIENCE)
    }
}

#[test]
fn another_apt_is_waited_for_and_not_for_ever() {
    let apt = Apt::new();
    let free = apt.installed(600).succeeded();
    assert!(!free.stdout.contains("waiting"), "{free}");
    for path in ["state/lists/lock", "dpkg/lock-frontend"] {
        let lock = apt.lock(path);
        let mut waiting = Running::start(&mut apt.install(600));
        waiting.line("that apt is busy", |line| {
            (line.starts_with("waiting up to 600 s") && line.contains(path)).then_some(())
        });
        assert!(waiting.is_running(), "{}", waiting.said());
        drop(lock);
        assert_eq!(waiting.ended_within(PATIENCE), Some(0), "{}", waiting.said());
        let _lock = apt.lock(path);
        let refused = apt.installed(1);
        assert_eq!(refused.code, Some(100), "{refused}");
        assert!(refused.stderr.contains("apt was busy for 1 s; try again"), "{refused}");
    }
}

#[test]
fn what_is_wrong_with_apt_otherwise_is_said_at_once() {
    let apt = Apt::new();
    fs::write(apt.path("dpkg/status"), "").unwrap();
    let refused = apt.installed(600);
    assert_eq!(refused.code, Some(100), "{refused}");
    assert!(refused.stderr.contains("bash"), "{refused}");
    assert!(!refused.stdout.contains("waiting") && !refused.stderr.contains("busy"), "{refused}");
}

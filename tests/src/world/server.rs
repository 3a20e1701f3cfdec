//! A real `xfer-server`, with its own store and port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::programs::{Finished, Running, program, run_within};
use crate::{PATIENCE, wait_until};

/// A running server.
#[derive(Debug)]
pub struct Server {
    store: PathBuf,
    running: Running,
    /// The address where it listens.
    pub address: SocketAddr,
    /// The fingerprint of its certificate, as `--fingerprint` takes it.
    pub fingerprint: String,
}

impl Server {
    /// Starts a server on `store` and waits until it listens.
    pub fn start(store: &Path, listen: &str) -> Server {
        Server::start_with(store, listen, &[])
    }

    /// Like [`Server::start`], with more options of `xfer-server run`.
    pub fn start_with(store: &Path, listen: &str, options: &[&str]) -> Server {
        Server::start_as(Command::new(program("xfer-server")), store, listen, options)
    }

    /// Like [`Server::start_with`], run by another command, such as a tracer.
    pub fn start_as(mut command: Command, store: &Path, listen: &str, options: &[&str]) -> Server {
        command.args(["run", "--listen", listen, "--store"]).arg(store).args(options);
        let mut running = Running::start(&mut command);
        let (address, fingerprint) = running.line("the server's address", parse_listening);
        Server { store: store.to_owned(), running, address, fingerprint }
    }

    /// Its store's directory.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Its whole output.
    pub fn said(&self) -> String {
        self.running.said()
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Kills it, as in a crash.
    pub fn kill(&mut self) {
        self.running.signal(Signal::KILL);
        self.running.ended_within(PATIENCE);
    }

    /// Asks it to stop, and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.running.signal(Signal::TERM);
        self.running.ended_within(PATIENCE)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// Waits until it ends on its own, and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.running.ended_within(PATIENCE)
    }

    /// Starts it again at the same address, after it has ended.
    pub fn restart(&mut self) {
        *self = Server::start(&self.store.clone(), &self.address.to_string());
    }

    /// Starts it on its store, after it has ended, and kills it once it listens, unless it ends before that.
    /// Returns whether it listened.
    pub fn try_once(&self) -> bool {
        let mut command = Command::new(program("xfer-server"));
        command.args(["run", "--listen", "127.0.0.1:0", "--store"]).arg(&self.store);
        let mut running = Running::start(&mut command);
        let listens =
            |running: &Running| running.said().lines().any(|line| parse_listening(line).is_some());
        wait_until("a server that listens or ends", PATIENCE, || {
            listens(&running) || !running.is_running()
        });
        running.signal(Signal::KILL);
        running.ended_within(PATIENCE);
        listens(&running)
    }

    /// Runs a command of `xfer-server` on its store.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Finished {
        command(&self.store, args)
    }
}

/// Runs a command of `xfer-server` on a store.
#[track_caller]
pub fn command(store: &Path, args: &[&str]) -> Finished {
    let mut command = Command::new(program("xfer-server"));
    run_within(command.args(args).arg("--store").arg(store), PATIENCE)
}

/// Parses the address and the fingerprint in `listening on ADDR, fingerprint sha256:HEX`.
fn parse_listening(line: &str) -> Option<(SocketAddr, String)> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, fingerprint) = rest.split_once(", fingerprint ")?;
    Some((address.parse().ok()?, fingerprint.trim().to_owned()))
}

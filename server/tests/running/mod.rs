//! Running the real binary, to its end or as a server.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The result of a command.
pub struct Ended {
    pub code: i32,
    /// The text on standard output.
    pub out: String,
    /// The text on standard error.
    pub err: String,
}

/// Runs a command to its end.
pub fn xfer_server(arguments: &[&str], input: &str) -> Ended {
    let mut child = binary(arguments).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A listening server, which is killed when this is dropped.
pub struct Server {
    child: Child,
    /// The address that it listens on.
    pub address: String,
    /// The fingerprint that it prints.
    pub fingerprint: String,
}

impl Server {
    /// Starts a server on a free port, and waits until it accepts clients.
    pub fn start(store: &Path) -> Server {
        let store = store.to_str().unwrap();
        let arguments = ["run", "--listen", "127.0.0.1:0", "--store", store];
        let mut child = binary(&arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let words =
            line.trim_end().strip_prefix("listening on ").expect("the server did not start");
        let (address, fingerprint) = words.split_once(", fingerprint ").unwrap();
        let (address, fingerprint) = (address.to_owned(), fingerprint.to_owned());
        Server { child, address, fingerprint }
    }

    /// Sends the server a signal and waits for its exit code.
    pub fn end(mut self, signal: Signal) -> i32 {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xfer-server"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env("XFER_LOG", "warn");
    command
}

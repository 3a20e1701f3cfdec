//! Two machines of one user: one has the tree at a time, and both show it exactly.

mod clients;
mod left;
mod dormant;
mod handoff;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use xfer_tests::Mount;

/// Starts a shell script in a directory. Its output can be read.
fn start(at: &Path, script: &str) -> Child {
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", script]).current_dir(at);
    bash.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash starts")
}

/// The output of a script that succeeds.
#[track_caller]
fn output(script: Child) -> String {
    let output = script.wait_with_output().expect("its output can be read");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Whether `xfer status` of a mount shows a line.
fn shows(mount: &Mount, text: &str) -> bool {
    mount.xfer("status", &[]).succeeded().stdout.contains(text)
}

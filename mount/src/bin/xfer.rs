//! `xfer`: looks at mounts, waits for them, and ends them.

use std::process::ExitCode;

use clap::Parser;
use xfer_mount::cli::XferLine;
use xfer_mount::control;

fn main() -> ExitCode {
    match control::run(XferLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xfer: {failure}");
            failure.exit.code().into()
        }
    }
}

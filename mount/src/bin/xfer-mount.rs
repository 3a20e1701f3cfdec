//! `xfer-mount`: mounts a user's storage on an xfer server as a directory.

use std::process::ExitCode;

use clap::Parser;
use xfer_mount::cli::MountLine;
use xfer_mount::config::Config;
use xfer_mount::run;

fn main() -> ExitCode {
    match Config::try_from(MountLine::parse()) {
        Ok(config) => run::run(config).into(),
        Err(failure) => run::code(Err(failure)).into(),
    }
}

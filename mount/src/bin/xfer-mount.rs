//! `xfer-mount`: mounts a user's storage on an xfer server as a directory.

use std::process::ExitCode;

use xfer_mount::cli::{self, MountLine};
use xfer_mount::config::Config;
use xfer_mount::run;

fn main() -> ExitCode {
    match cli::parse::<MountLine>("xfer-mount").and_then(Config::try_from) {
        Ok(config) => run::run(config).into(),
        Err(failure) => run::code(Err(failure)).into(),
    }
}

//! `xfer-mount`: mounts a user's storage on an xfer server as a directory.

use std::process::ExitCode;

use xfer_mount::command::cli::{self, MountLine};
use xfer_mount::command::config::Config;
use xfer_mount::command::helper::{self, HelperLine, Task};
use xfer_mount::command::settings;
use xfer_mount::{process::report, run};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let is_helper = std::env::args_os().next().is_some_and(|name| helper::is_called(&name));
    match is_helper {
        true => helper::mount_code(run_as_helper()).into(),
        false => run_line(cli::parse::<MountLine>()).into(),
    }
}

fn run_as_helper() -> u8 {
    match cli::parse::<HelperLine>().and_then(HelperLine::task) {
        Ok(Task::Mount(line)) => run_line(Ok(*line)),
        Ok(Task::Check(line)) => {
            report::code(settings::complete(*line).and_then(Config::try_from).map(drop))
        }
        Err(failure) => report::code(Err(failure)),
    }
}

fn run_line(line: Result<MountLine, xfer_mount::process::exit::Failure>) -> u8 {
    let line = line.and_then(settings::complete);
    let is_printed = line.as_ref().is_ok_and(|line| line.print_config);
    match line.and_then(Config::try_from) {
        Ok(_) if is_printed => 0,
        Ok(config) => run::run(config),
        Err(failure) => report::code(Err(failure)),
    }
}

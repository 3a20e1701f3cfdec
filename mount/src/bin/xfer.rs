//! `xfer`: shows mounts, waits for them, ends them, looks after what did not reach the server, and works
//! on an account's files without a mount.

use std::process::ExitCode;

use xfer_mount::command::cli;
use xfer_mount::command::xfer_line::XferLine;
use xfer_mount::process::report::complain;
use xfer_mount::xfer;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse::<XferLine>().and_then(|line| xfer::run(line.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.line.is_empty() {
                complain(format_args!("xfer: {failure}"));
            }
            failure.exit.code().into()
        }
    }
}

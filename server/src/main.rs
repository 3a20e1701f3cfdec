//! xfer-server: see [`xfer_server::cli`].

fn main() -> std::process::ExitCode {
    xfer_server::cli::main()
}

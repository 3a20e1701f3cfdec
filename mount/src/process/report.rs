//! What the program says: to the terminal, or to the system's log once it is in the background.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use xfer_protocol::shown::{Shown, shown};
use xfer_terminal::plain;

use super::{background, syslog};
use crate::process::exit::Failure;

/// The exit code of a result; a failure's line is said here and nowhere else.
pub fn code(result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(failure) => {
            say(Level::ERROR, &failure.line);
            failure.exit.code()
        }
    }
}

/// On the terminal, or in the system's log once in the background.
pub fn report(line: &str) {
    say(Level::WARN, line);
}

fn say(level: Level, line: &str) {
    let line = plain(line);
    let line = Shown(&line);
    match background::is_detached() {
        true => syslog::say(level, &line.to_string()),
        false => complain(format_args!("{}: {line}", program())),
    }
}

/// Writes a line to standard error. Unlike `eprintln!`, it does not panic if nobody can read that any more, which
/// must not end a mount, or a command that has more to do.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The name of this program, of the two that there are.
fn program() -> &'static str {
    let name = std::env::args_os().next();
    let is_xfer = name.is_some_and(|name| Path::new(&name).file_name() == Some("xfer".as_ref()));
    if is_xfer { "xfer" } else { "xfer-mount" }
}

/// For whoever looks for a fault; `XFER_LOG=debug` tells more.
pub fn log(foreground: bool) {
    // fuser warns of every mount that went otherwise than by its own hand. The client informs of
    // connections that were lost and are back.
    let quiet = || EnvFilter::new("warn,xfer_client=info,fuser=error");
    let filter = EnvFilter::try_from_env("XFER_LOG").unwrap_or_else(|_| quiet());
    let colours = foreground && io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // Spans are of level `trace`: who asks for them wants to see how long each took.
    let log = log.with_span_events(FmtSpan::CLOSE).with_writer(Outlets);
    // It would panic if standard error can't be written.
    log.log_internal_errors(false).init();
}

/// Gives each event an outlet of its level.
struct Outlets;

impl MakeWriter<'_> for Outlets {
    type Writer = Outlet;

    fn make_writer(&self) -> Outlet {
        Outlet(Level::WARN)
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Outlet {
        Outlet(*event.level())
    }
}

/// Takes what is logged: to the terminal, or to the system's log once in the background.
struct Outlet(Level);

impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let event = plain(&String::from_utf8_lossy(line));
        match background::is_detached() {
            true => syslog::say(self.0, &shown(event.trim_end())),
            false => io::stderr().write_all(event.as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The server's log: lines on standard error, for the journal or a file.
//!
//! In the journal each line has the severity of its event, which its first characters say: sd-daemon(3).
//!
//! **Invariant:** each event is one line. Invisible characters in names and messages are escaped,
//! so a client can't forge a log line or move an administrator's cursor.

use std::io::{self, Write};

use rustix::fs::fstat;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use xfer_protocol::shown::shown;
use xfer_terminal::plain;

/// The variable with the filter for events, like `debug` or `xfer_server::engine=trace,info`.
pub const VARIABLE: &str = "XFER_LOG";

/// Starts the log. Later calls change nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // Spans have level `trace`, so enabling them means that their durations are wanted.
    let log = log.with_span_events(FmtSpan::CLOSE);
    // It would panic if standard error can't be written.
    let log = log.log_internal_errors(false);
    // This fails if a log is already running, which will do.
    let _ = log.with_writer(Escaped { to: io::stderr, is_journal: is_journal() }).try_init();
}

/// What a line of this level begins with in the journal; nothing elsewhere.
pub fn severity(level: Level) -> &'static str {
    if is_journal() { prefix(level) } else { "" }
}

/// Whether standard error is the journal: `$JOURNAL_STREAM` in systemd.exec(5).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The severities of syslog(3).
fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Escapes invisible characters in the output, except the line end.
struct Escaped<M> {
    to: M,
    is_journal: bool,
}

struct Line<W> {
    to: W,
    prefix: &'static str,
}

impl<'a, W: Write, M: MakeWriter<'a, Writer = W>> MakeWriter<'a> for Escaped<M> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line { to: self.to.make_writer(), prefix: "" }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<W> {
        let prefix = if self.is_journal { prefix(*event.level()) } else { "" };
        Line { to: self.to.make_writer(), prefix }
    }
}

impl<W: Write> Write for Line<W> {
    /// Each call writes one event.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(&[self.prefix.as_bytes(), &escape(bytes)].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn escape(bytes: &[u8]) -> Vec<u8> {
    let (event, end) = match bytes.strip_suffix(b"\n") {
        Some(event) => (event, "\n"),
        None => (bytes, ""),
    };
    let mut line = shown(&plain(&String::from_utf8_lossy(event)));
    line.push_str(end);
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &str, line: &str) {
        assert_eq!(String::from_utf8_lossy(&escape(event.as_bytes())), line);
    }

    #[test]
    fn no_event_can_look_like_two_or_move_the_cursor() {
        check("logged in\n", "logged in\n");
        check("user=a\nINFO all is well\n", "user=a\\nINFO all is well\n");
        check("\x1b[2Jé\u{9b}\n", "\\u{1b}[2Jé\\u{9b}\n");
    }
}

//! `xfer-server status --watch` on a terminal: on its second screen, so that the first one is as it was
//! when the program ends or is stopped.
//!
//! A thread asks the server, so that a server that does not answer keeps nobody from Ctrl-C.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::termios::tcgetwinsize;
use xfer_terminal::signals::{self, Caught, Event};

use super::status::{EVERY, fetch, page};
use crate::program::control::Status;
use crate::program::exit::{Exit, Failure};

/// Opens the second screen, and hides the cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";

/// Undoes [`OPEN`].
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows the status each second, until a signal ends it or the server does not answer any more.
pub(super) fn watch(store: &Path) -> Result<(), Failure> {
    // A server that does not run is said where the next prompt is.
    let mut before = fetch(store)?;
    let mut shown = page(store, &before, &before);
    let (answers, ready) = asked_each_second(store).map_err(unusable)?;
    let mut caught = Caught::new(&signals::OF_USERS).map_err(unusable)?;
    let mut screen = Screen::open().map_err(unusable)?;
    loop {
        draw(&shown).map_err(unusable)?;
        match caught.wait(&ready).map_err(unusable)? {
            Event::Signal(signal) if signal == Signal::TSTP.as_raw() => {
                drop(screen);
                // Stopped as if the signal had not been caught.
                drop(caught);
                signals::stop();
                caught = Caught::new(&signals::OF_USERS).map_err(unusable)?;
                screen = Screen::open().map_err(unusable)?;
            }
            Event::Signal(_) => return Ok(()),
            Event::Readable => {
                // The byte says that there is an answer.
                let _ = rustix::io::read(&ready, &mut [0; 1]);
                let Ok(answer) = answers.recv() else { return Ok(()) };
                let status = answer?;
                shown = page(store, &before, &status);
                before = status;
            }
        }
    }
}

/// The answers of the server, and a file that has a byte for each. Ends with the first failure.
fn asked_each_second(store: &Path) -> io::Result<(Receiver<Result<Status, Failure>>, OwnedFd)> {
    let (ready, signal) = pipe_with(PipeFlags::CLOEXEC)?;
    let (sender, answers) = channel();
    let store = store.to_owned();
    std::thread::Builder::new().spawn(move || {
        loop {
            std::thread::sleep(EVERY);
            let answer = fetch(&store);
            let is_last = answer.is_err();
            let is_heard = sender.send(answer).is_ok() && rustix::io::write(&signal, &[0]).is_ok();
            if is_last || !is_heard {
                return;
            }
        }
    })?;
    Ok((answers, ready))
}

/// The second screen, until this is dropped.
struct Screen;

impl Screen {
    fn open() -> io::Result<Screen> {
        say(OPEN)?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = say(CLOSE);
    }
}

/// Draws as much of a page as fits.
fn draw(page: &str) -> io::Result<()> {
    let size = tcgetwinsize(io::stdout())?;
    // A terminal that does not know its size has 0.
    let fits = |size: u16| if size == 0 { usize::MAX } else { usize::from(size) };
    let (columns, rows) = (fits(size.ws_col), fits(size.ws_row));
    let mut drawn = String::from("\x1b[H");
    for (row, line) in page.lines().take(rows).enumerate() {
        if row > 0 {
            drawn.push('\n');
        }
        drawn.extend(line.chars().take(columns));
        drawn += "\x1b[K";
    }
    say(&format!("{drawn}\x1b[J"))
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn unusable(error: io::Error) -> Failure {
    let line = format!("cannot use the terminal ({error}); leave --watch out, or use a pipe");
    Failure::new(Exit::Other, line)
}

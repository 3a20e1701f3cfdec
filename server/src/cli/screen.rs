//! A page that is shown again and again, on the terminal's second screen, so that the first one is as it was
//! when the program ends or is stopped.
//!
//! A thread asks for what is shown, so that Ctrl-C works even if the server does not answer.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::termios::tcgetwinsize;
use xfer_terminal::signals::{self, Caught, Event};

use crate::program::exit::{Exit, Failure};

/// Opens the second screen, and hides the cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";

/// Undoes [`OPEN`].
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows what a page says of an answer and the one before, until a signal ends it or there is no answer any
/// more. The next answer is asked for a while after each.
pub(super) fn watch<T: Send + 'static>(
    every: Duration,
    ask: impl Fn() -> Result<T, Failure> + Send + 'static,
    page: impl Fn(&T, &T) -> String,
) -> Result<(), Failure> {
    // A server that does not run is said where the next prompt is.
    let mut before = ask()?;
    let mut shown = page(&before, &before);
    let (answers, ready) = asked_again(every, ask).map_err(unusable)?;
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
                let now = answer?;
                shown = page(&before, &now);
                before = now;
            }
        }
    }
}

/// The answers so far, and those to come.
type Answers<T> = Receiver<Result<T, Failure>>;

/// The answers, and a file that has a byte for each. Ends with the first failure.
fn asked_again<T: Send + 'static>(
    every: Duration,
    ask: impl Fn() -> Result<T, Failure> + Send + 'static,
) -> io::Result<(Answers<T>, OwnedFd)> {
    let (ready, signal) = pipe_with(PipeFlags::CLOEXEC)?;
    let (sender, answers) = channel();
    std::thread::Builder::new().spawn(move || {
        loop {
            std::thread::sleep(every);
            let answer = ask();
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

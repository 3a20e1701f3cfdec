//! Whether a program did its work: its output is compared, and its files are looked for in the
//! store, after xfer was cut off as if by a crash.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::filesystem::Mounted;
use super::fixtures::Fixtures;
use super::rows::Row;
use super::timed::{Deadline, Said, Stop, run};
use crate::shell;

/// The time limit of a comparison.
const LIMIT: Duration = Duration::from_secs(900);

/// The check to make after a row's program has succeeded.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// It printed the same as on the local disk, after both outputs are normalised.
    Output(fn(&[u8]) -> Vec<Said>),
    /// This file reads correctly; the program's own output was discarded.
    Read(&'static str),
    /// The store has the same files that the program leaves on the local disk.
    Stored,
    /// Like `Stored`, and the user `bob` has this file.
    Sent(&'static str),
}

impl Proof {
    /// The destination of a program's output.
    pub fn stdout(self) -> Stdio {
        match self {
            Proof::Output(_) => Stdio::piped(),
            Proof::Read(_) | Proof::Stored | Proof::Sent(_) => Stdio::null(),
        }
    }

    /// Whether the program changes the store, so that its time includes becoming durable.
    pub fn changes(self) -> bool {
        match self {
            Proof::Output(_) | Proof::Read(_) => false,
            Proof::Stored | Proof::Sent(_) => true,
        }
    }
}

/// Checks the work of a row's program, which printed `output`.
///
/// # Errors
/// If the result differs from that on the local disk.
pub fn check(
    row: &Row,
    fixtures: &Fixtures,
    mounted: &mut dyn Mounted,
    output: &[u8],
    place: &Path,
) -> Result<(), Stop> {
    match row.proof {
        Proof::Output(alike) => {
            let mut command = row.command(fixtures, &fixtures.directory(row.fixture));
            let expected = run(command.stdout(Stdio::piped()), Deadline::after(LIMIT))?;
            let same = alike(&expected) == alike(output);
            same.then_some(()).ok_or_else(|| Stop::Failed("it printed something else".to_owned()))
        }
        Proof::Read(file) => {
            same_file(&fixtures.directory(row.fixture).join(file), &mounted.root().join(file))
        }
        Proof::Stored => same_tree(&model(row, fixtures, place)?, &mounted.stored()),
        Proof::Sent(file) => {
            same_tree(&model(row, fixtures, place)?, &mounted.stored())?;
            let received = mounted.received(file);
            same_file(&fixtures.directory(row.fixture).join(file), &received)
        }
    }
}

/// The files that the program leaves on the local disk.
fn model(row: &Row, fixtures: &Fixtures, place: &Path) -> Result<PathBuf, Stop> {
    let model = place.join("model");
    shell(place, &format!("cp -al '{}' model", fixtures.directory(row.fixture).display()));
    if let Proof::Sent(_) = row.proof {
        shell(&model, "mkdir -p outbox/bob");
    }
    run(row.command(fixtures, &model).stdout(Stdio::null()), Deadline::after(LIMIT))?;
    Ok(model)
}

fn same_tree(expected: &Path, found: &Path) -> Result<(), Stop> {
    let mut diff = Command::new("diff");
    diff.args(["--recursive", "--no-dereference", "--brief"]).arg(expected).arg(found);
    compared(&mut diff, "not durable")
}

fn same_file(expected: &Path, found: &Path) -> Result<(), Stop> {
    compared(Command::new("cmp").arg(expected).arg(found), "other bytes")
}

fn compared(command: &mut Command, what: &str) -> Result<(), Stop> {
    let same = run(command.stdout(Stdio::piped()), Deadline::after(LIMIT));
    same.map(drop).map_err(|stop| Stop::Failed(format!("{what}: {stop:?}")))
}

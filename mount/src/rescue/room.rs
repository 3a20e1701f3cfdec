//! Room for a rescue on this machine's disks, and what is kept if there is too little.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use xfer_client::core::Trace;
use xfer_client::durable::is_full;
use xfer_protocol::size;

use super::{Rescues, keep_in};

/// The room that a rescue takes besides its data, in bytes: for each change that is no write, since it
/// may make a file, for each write, and in all.
const CHANGE_BYTES: u64 = 8 << 10;
const WRITE_BYTES: u64 = 64;
const BASE_BYTES: u64 = 64 << 10;

/// Whether a rescue of these changes fits on one of this user's disks.
///
/// # Errors
/// A line that says which disk has too little room, and what to do.
pub fn must_fit(trace: &[Trace]) -> Result<(), String> {
    let (needed, rescues) = (needed(trace), Rescues::of_user());
    let rooms = || rescues.0.iter().map(|directory| (directory, room(directory)));
    if rooms().any(|(_, room)| room >= needed) {
        return Ok(());
    }
    let places: Vec<_> = rooms()
        .map(|(directory, room)| format!("{} in {}", size::display(room), directory.display()))
        .collect();
    Err(format!(
        "a rescue needs {}, and there is room for {}; free some, or wait for the server",
        size::display(needed),
        places.join(" or "),
    ))
}

/// Keeps as many of the changes as fit, from the first on. Returns where, and how many are left out.
///
/// # Errors
/// If none can be kept.
pub fn keep_what_fits(account: &str, why: &str, trace: &[Trace]) -> io::Result<(PathBuf, usize)> {
    let rescues = Rescues::of_user();
    let error = match rescues.keep(account, why, trace) {
        Ok(path) => return Ok((path, 0)),
        Err(error) if is_full(&error) => error,
        Err(error) => return Err(error),
    };
    let mut directories: Vec<_> =
        rescues.0.iter().map(|directory| (room(directory), directory)).collect();
    directories.sort_by(|one, other| other.cmp(one));
    for (room, directory) in directories {
        let part = &trace[..count_within(trace, room)];
        let left_out = changes(trace) - changes(part);
        let why = format!("{why}; the last {left_out} changes did not fit on this disk");
        if changes(part) > 0
            && let Ok(path) = keep_in(directory, account, &why, part.iter().cloned())
        {
            return Ok((path, left_out));
        }
    }
    Err(error)
}

fn changes(trace: &[Trace]) -> usize {
    trace.iter().filter_map(Trace::change).count()
}

/// The room that a rescue takes, in bytes, or a little less.
fn needed(trace: &[Trace]) -> u64 {
    let each = trace.iter().map(bytes_of);
    BASE_BYTES + each.sum::<u64>()
}

fn bytes_of(part: &Trace) -> u64 {
    match part.change().map_or(0, |change| change.payload.len() as u64) {
        0 => CHANGE_BYTES,
        data => WRITE_BYTES + data,
    }
}

/// The length of the longest beginning of a trace that takes no more than this room.
fn count_within(trace: &[Trace], room: u64) -> usize {
    let sums = trace.iter().scan(BASE_BYTES, |sum, part| {
        *sum += bytes_of(part);
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= room).count()
}

/// The free room of the disk of a directory, or of the one that it will be made in, in bytes.
fn room(directory: &Path) -> u64 {
    let disk = directory.ancestors().find_map(|place| statvfs(place).ok());
    disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use xfer_client::core::Change;
    use xfer_protocol::tree::{Action, Op};
    use xfer_protocol::{Ino, Seq, Timestamp};

    fn change(len: usize) -> Trace {
        let op = Op { time: Timestamp::default(), action: Action::ForgetOrphan { ino: Ino(9) } };
        let payload = Bytes::from(vec![0; len]);
        Trace::Change(Change { seq: Seq(1), op, subjects: [None; 2], payload })
    }

    #[test]
    fn what_fits_is_a_beginning_of_the_changes() {
        let trace = [change(0), change(1 << 20), change(0)];
        let all = needed(&trace);
        assert_eq!(count_within(&trace, all), 3);
        assert_eq!(count_within(&trace, all - 1), 2);
        assert_eq!(count_within(&trace, all - CHANGE_BYTES - 1), 1);
        assert_eq!(count_within(&trace, BASE_BYTES), 0);
    }
}

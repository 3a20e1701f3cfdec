//! Room for a rescue on this machine's disks, and what is kept if there is too little.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};
use xfer_client::core::Trace;
use xfer_protocol::size;
use xfer_protocol::tree::Action;

use super::{Rescues, keep_in, must_be_own};

/// The room that a change takes besides its data, in bytes: one that makes a node, and another.
const NEW_BYTES: u64 = 8 << 10;
const CHANGE_BYTES: u64 = 1 << 10;

/// The room that a rescue takes besides its changes, in bytes.
const BASE_BYTES: u64 = 64 << 10;

/// Data takes whole blocks of so many bytes.
const BLOCK_BYTES: u64 = 4 << 10;

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
    // Before the first try, whose room some filesystems give back late.
    let mut places: Vec<_> = rescues.0.iter().map(|place| (room(place), place)).collect();
    places.sort_by(|one, other| other.cmp(one));
    let error = match rescues.keep(account, why, trace) {
        Ok(path) => return Ok((path, 0)),
        Err(error) => error,
    };
    for (room, place) in places {
        let mut count = count_within(trace, room);
        // The room is an estimate.
        while changes(&trace[..count]) > 0 {
            let part = &trace[..count];
            let left_out = changes(trace) - changes(part);
            let why = format!(
                "{why}; {} at the end did not fit on this disk",
                size::count(left_out as u64, "change")
            );
            if let Ok(path) = keep_in(place, account, &why, part.iter().cloned()) {
                return Ok((path, left_out));
            }
            count /= 2;
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
    let Some(change) = part.change() else { return CHANGE_BYTES };
    let data = (change.payload.len() as u64).next_multiple_of(BLOCK_BYTES);
    match change.op.action {
        Action::Create { .. }
        | Action::Mkdir { .. }
        | Action::Symlink { .. }
        | Action::Mknod { .. } => NEW_BYTES,
        _ => CHANGE_BYTES + data,
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

/// The free room of the disk of a directory, or of the one that it will be made in, in bytes; none, if
/// nothing can be kept there.
fn room(directory: &Path) -> u64 {
    let there = directory.ancestors().find(|place| place.exists());
    let usable = there.filter(|place| {
        let is_foreign = *place == directory && must_be_own(directory).is_err();
        !is_foreign && access(*place, Access::WRITE_OK).is_ok()
    });
    let disk = usable.and_then(|place| statvfs(place).ok());
    disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use xfer_client::core::Change;
    use xfer_protocol::tree::Op;
    use xfer_protocol::{Ino, Seq, Timestamp};

    fn change(len: usize) -> Trace {
        let op = Op { time: Timestamp::default(), action: Action::ForgetOrphan { ino: Ino(9) } };
        let payload = Bytes::from(vec![0; len]);
        Trace::Change(Change { seq: Seq(1), op, subjects: [None; 2], payload })
    }

    #[test]
    fn what_fits_is_a_beginning_of_the_changes() {
        let trace = [change(1), change(1 << 20), change(0)];
        let all = needed(&trace);
        assert_eq!(all, BASE_BYTES + 3 * CHANGE_BYTES + BLOCK_BYTES + (1 << 20));
        assert_eq!(count_within(&trace, all), 3);
        assert_eq!(count_within(&trace, all - 1), 2);
        assert_eq!(count_within(&trace, all - CHANGE_BYTES - 1), 1);
        assert_eq!(count_within(&trace, BASE_BYTES), 0);
    }
}

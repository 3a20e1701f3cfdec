//! The bytes of a journal: a magic line, and frames. A frame has a marker, the lengths of its two parts,
//! a checksum, a part of the trace, and the data of a change.
//!
//! A frame that is incomplete, or whose checksum is wrong, was being written when the machine crashed,
//! and no program was told that it is safe; or the disk has lost or altered it. Those two can't be told
//! apart, so the reader is told of it. Frames behind it are found by their markers.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use bytes::{Buf, Bytes};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use xfer_protocol::tree::Op;
use xfer_protocol::{Seq, codec};

use crate::core::{Change, Subjects, Trace, Whereabouts};

/// The beginning of each journal, with its version.
pub(super) const MAGIC: &[u8] = b"xfer journal 1\n";

/// The same without it.
const MAGIC_OF_ANY_VERSION: &[u8] = b"xfer journal ";

/// The beginning of each frame. Text in UTF-8 does not contain it.
const SYNC_MARKER: [u8; 4] = [0xf8, b'x', b'f', b'r'];

/// The bytes before the two parts of a frame: the marker, their lengths, and the checksum.
const HEAD_BYTES: usize = SYNC_MARKER.len() + 4 + 4 + 8;

/// A journal as it was read.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Kept {
    /// What it has up to the first place that can't be read.
    pub(super) trace: Vec<Trace>,
    /// What it has behind that place.
    pub(super) after_damage: Vec<Trace>,
    /// The number of bytes that can't be read, without zeros.
    pub(super) unreadable: u64,
}

/// A part of the trace, without the data of a change.
#[derive(Serialize, Deserialize)]
enum Record {
    Node(Whereabouts),
    Change { seq: Seq, op: Op, subjects: Subjects },
}

/// Writes a part of the trace to the end of `out`.
pub(super) fn write(part: Trace, out: &mut Vec<u8>) -> io::Result<()> {
    let (record, payload) = match part {
        Trace::Node(node) => (Record::Node(node), Bytes::new()),
        Trace::Change(Change { seq, op, subjects, payload }) => {
            (Record::Change { seq, op, subjects }, payload)
        }
    };
    let record = codec::encode(&record).map_err(io::Error::other)?;
    let length = |part: &[u8]| u32::try_from(part.len()).map_err(io::Error::other);
    out.extend(SYNC_MARKER);
    out.extend(length(&record)?.to_le_bytes());
    out.extend(length(&payload)?.to_le_bytes());
    out.extend(checksum(&record, &payload).to_le_bytes());
    out.extend(record);
    out.extend(payload);
    Ok(())
}

/// Reads a journal. The data stays on the disk until it is used.
pub(super) fn read(path: &Path) -> io::Result<Kept> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        file => file?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(Kept::default());
    }
    must_be_readable(path, &file)?;
    // SAFETY: the file must not shrink while it is mapped. It is in a directory that only this
    // user can enter, and the lock on that directory is held by this process, which replaces or
    // removes the file. It truncates only one that it has written itself, and that is never read.
    let mapped = unsafe { Mmap::map(&file)? };
    let mut left = Bytes::from_owner(mapped);
    if left.starts_with(MAGIC) {
        left.advance(MAGIC.len());
        return Ok(frames(left, true));
    }
    if left.starts_with(MAGIC_OF_ANY_VERSION) {
        let why = "another version of xfer wrote it: mount once with that one, or move it away";
        return Err(told(path, &io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    Ok(frames(left, false))
}

/// The number of changes in a journal up to the first place that can't be read. Unlike [`read`], it may be
/// called while another process has the journal: nothing is mapped, and data is skipped.
pub(super) fn count(path: &Path) -> io::Result<usize> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut left = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    left.read_exact(&mut magic)?;
    let mut count = 0;
    if magic == *MAGIC {
        // A frame that is not whole ends the count, as the end of the file does.
        while let Ok(is_change) = skip(&mut left)
            && left.stream_position()? <= length
        {
            count += usize::from(is_change);
        }
    }
    Ok(count)
}

/// Skips a frame; returns whether it is a change.
fn skip(left: &mut BufReader<File>) -> io::Result<bool> {
    let mut bytes = [0; HEAD_BYTES];
    left.read_exact(&mut bytes)?;
    let mut head = bytes.strip_prefix(&SYNC_MARKER).ok_or(io::ErrorKind::InvalidData)?;
    let (record, payload) = (u64::from(head.get_u32_le()), i64::from(head.get_u32_le()));
    let mut bytes = Vec::new();
    left.by_ref().take(record).read_to_end(&mut bytes)?;
    let record = codec::decode(&bytes).map_err(io::Error::other)?;
    left.seek_relative(payload)?;
    Ok(matches!(record, Record::Change { .. }))
}

/// Reads a file to its end. A sector that can't be read would kill a process that finds it in a
/// mapping.
fn must_be_readable(path: &Path, mut file: &File) -> io::Result<()> {
    io::copy(&mut file, &mut io::sink()).map(|_| ()).map_err(|error| told(path, &error))
}

/// The error with the path that it is about.
fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// What stands in a journal after its magic line, if that is whole.
fn frames(mut left: Bytes, mut is_whole: bool) -> Kept {
    let mut kept = Kept::default();
    while !left.is_empty() {
        match next(&mut left) {
            Some(part) if is_whole => kept.trace.push(part),
            Some(part) => kept.after_damage.push(part),
            None => {
                is_whole = false;
                let skipped = left.split_to(to_next_marker(&left));
                kept.unreadable += skipped.iter().filter(|byte| **byte != 0).count() as u64;
            }
        }
    }
    kept
}

/// The distance to the next marker, not counting one that stands here, or to the end.
fn to_next_marker(bytes: &[u8]) -> usize {
    let behind = &bytes[1..];
    behind
        .windows(SYNC_MARKER.len())
        .position(|part| part == SYNC_MARKER)
        .map_or(bytes.len(), |at| at + 1)
}

/// Takes the frame that begins here, if it is whole.
fn next(left: &mut Bytes) -> Option<Trace> {
    let mut head = left.get(..HEAD_BYTES)?.strip_prefix(&SYNC_MARKER)?;
    let (record, payload) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
    let expected = head.get_u64_le();
    let end = HEAD_BYTES + record + payload;
    if left.len() < end {
        return None;
    }
    let frame = left.slice(..end);
    let payload = frame.slice(HEAD_BYTES + record..);
    let record = frame.slice(HEAD_BYTES..HEAD_BYTES + record);
    if checksum(&record, &payload) != expected {
        return None;
    }
    let part = match codec::decode(&record).ok()? {
        Record::Node(node) => Trace::Node(node),
        Record::Change { seq, op, subjects } => {
            Trace::Change(Change { seq, op, subjects, payload })
        }
    };
    left.advance(end);
    Some(part)
}

fn checksum(record: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    // With its length, so that a file of zeros has no valid frame.
    hasher.write_usize(record.len() + 1);
    hasher.write(record);
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use xfer_protocol::tree::Action;
    use xfer_protocol::{Ino, Name, Timestamp};

    fn trace() -> Vec<Trace> {
        let place = (Ino::ROOT, Name::new(b"name").unwrap());
        let node = Whereabouts { ino: Ino(9), places: vec![place], is_orphan: false };
        let op = Op { time: Timestamp::default(), action: Action::ForgetOrphan { ino: Ino(9) } };
        let payload = Bytes::from_static(b"payload");
        let change = Change { seq: Seq(7), op, subjects: [None; 2], payload };
        vec![Trace::Node(node), Trace::Change(change)]
    }

    fn frame(part: Trace) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(part, &mut bytes).unwrap();
        bytes
    }

    fn written() -> Vec<u8> {
        trace().into_iter().flat_map(frame).collect()
    }

    fn read_back(bytes: &[u8]) -> Kept {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, [MAGIC, bytes].concat()).unwrap();
        read(&path).unwrap()
    }

    fn whole(trace: Vec<Trace>) -> Kept {
        Kept { trace, ..Kept::default() }
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        assert_eq!(read_back(&written()), whole(trace()));
        assert_eq!(read_back(&[]), whole(vec![]));
    }

    #[test]
    fn a_journal_that_was_cut_anywhere_has_its_whole_frames() {
        let (bytes, first) = (written(), frame(trace().remove(0)).len());
        for end in 0..bytes.len() {
            let (whole, rest) = if end < first { (0, end) } else { (1, end - first) };
            let read = read_back(&bytes[..end]);
            assert_eq!(read.trace, trace()[..whole], "{end}");
            assert_eq!((read.after_damage, read.unreadable > 0), (vec![], rest > 0), "{end}");
            // A filesystem may show zeros where a crash came before the data.
            let mut zeroed = bytes[..end].to_vec();
            zeroed.resize(bytes.len() + 64, 0);
            assert!(trace().starts_with(&read_back(&zeroed).trace), "{end}");
        }
    }

    #[test]
    fn a_byte_that_changed_is_noticed_and_what_stands_behind_it_is_found() {
        let (bytes, first) = (written(), frame(trace().remove(0)).len());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let read = read_back(&changed);
            assert!(read.unreadable > 0, "{at}");
            let (all, in_first) = (trace(), at < first);
            let (before, behind) =
                if in_first { (&[][..], &all[1..]) } else { (&all[..1], &[][..]) };
            assert_eq!((&*read.trace, &*read.after_damage), (before, behind), "{at}");
        }
    }

    #[test]
    fn a_journal_of_another_version_is_not_taken_for_a_damaged_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, [b"xfer journal 2\n", &*written()].concat()).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        // One that is damaged there is.
        fs::write(&path, [b"xfex journal 1\n", &*written()].concat()).unwrap();
        let kept = read(&path).unwrap();
        assert_eq!((kept.trace, kept.after_damage), (vec![], trace()));
    }
}

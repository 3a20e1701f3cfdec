//! The bytes of a journal: frames, each with the lengths of its two parts, a checksum, a part of the
//! trace, and the data of a change.
//!
//! A frame that is incomplete, or whose checksum is wrong, ends the journal: it was being written
//! when the machine crashed. No program was told that it is safe.

use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::path::Path;

use bytes::{Buf, Bytes};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use xfer_protocol::tree::Op;
use xfer_protocol::{Seq, codec};

use crate::core::{Change, Subjects, Trace, Whereabouts};

/// The bytes before the two parts of a frame: their lengths, and the checksum.
const HEAD_BYTES: usize = 4 + 4 + 8;

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
    out.extend(length(&record)?.to_le_bytes());
    out.extend(length(&payload)?.to_le_bytes());
    out.extend(checksum(&record, &payload).to_le_bytes());
    out.extend(record);
    out.extend(payload);
    Ok(())
}

/// Reads a journal. The data stays on the disk until it is used.
pub(super) fn read(path: &Path) -> io::Result<Vec<Trace>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the file must not shrink while it is mapped. It is in a directory that only this
    // user can enter, and the lock on that directory is held by this process, which replaces the
    // file and never truncates it.
    let mapped = unsafe { Mmap::map(&file)? };
    let mut left = Bytes::from_owner(mapped);
    let mut trace = Vec::new();
    while let Some(part) = next(&mut left) {
        trace.push(part);
    }
    Ok(trace)
}

fn next(left: &mut Bytes) -> Option<Trace> {
    let mut head = left.get(..HEAD_BYTES)?;
    let (record, payload) = (head.get_u32_le() as usize, head.get_u32_le() as usize);
    let expected = head.get_u64_le();
    let end = HEAD_BYTES + record + payload;
    if left.len() < end {
        return None;
    }
    let frame = left.split_to(end);
    let payload = frame.slice(HEAD_BYTES + record..);
    let record = frame.slice(HEAD_BYTES..HEAD_BYTES + record);
    if checksum(&record, &payload) != expected {
        return None;
    }
    match codec::decode(&record).ok()? {
        Record::Node(node) => Some(Trace::Node(node)),
        Record::Change { seq, op, subjects } => {
            Some(Trace::Change(Change { seq, op, subjects, payload }))
        }
    }
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

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        trace().into_iter().for_each(|part| write(part, &mut bytes).unwrap());
        bytes
    }

    fn read_back(bytes: &[u8]) -> Vec<Trace> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        fs::write(&path, bytes).unwrap();
        read(&path).unwrap()
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        assert_eq!(read_back(&written()), trace());
        assert_eq!(read_back(&[]), []);
    }

    #[test]
    fn a_journal_that_was_cut_anywhere_has_its_whole_frames() {
        let bytes = written();
        for end in 0..bytes.len() {
            let read = read_back(&bytes[..end]);
            assert!(read.len() < 2 && trace().starts_with(&read), "{end}");
            // A filesystem may show zeros where a crash came before the data.
            let mut zeroed = bytes[..end].to_vec();
            zeroed.resize(bytes.len() + 64, 0);
            assert!(trace().starts_with(&read_back(&zeroed)), "{end}");
        }
    }

    #[test]
    fn a_byte_that_changed_ends_the_journal() {
        let bytes = written();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let read = read_back(&changed);
            assert!(read.len() < 2 && trace().starts_with(&read), "{at}");
        }
    }
}

//! What lost changes leave: one in place is not undone by a crash of the server, as on a local disk. Each
//! byte of it is the one of before, or the one that it set. The model takes over which of them is there.

use std::collections::BTreeSet;

use xfer_protocol::Ino;
use xfer_protocol::tree::Action;
use xfer_tests::cable::Said;
use xfer_tests::peers::Host;

use crate::history::History;

/// Takes over what is there of these changes. Fails the test if anything else is.
pub async fn take_over(host: &Host, history: &mut History, lost: &[Said]) {
    let changed: BTreeSet<Ino> = lost.iter().filter_map(|said| target(&said.op.action)).collect();
    for ino in changed {
        for (start, there) in there(host, history, ino).await {
            let may_be = |at, byte| lost.iter().any(|said| may_set(said, ino, at, byte));
            history.take_over(ino, start, &there, may_be);
        }
    }
}

/// The data that the store has of a file, if it is one: each run of it, and its offset.
pub async fn there(host: &Host, history: &History, ino: Ino) -> Vec<(u64, Vec<u8>)> {
    let mut there = Vec::new();
    let Some(node) = history.whole().node(ino) else { return there };
    let Some(file) = node.file() else { return there };
    let Some(content) = file.content else { return there };
    for run in file.extents.data_in(file.size, 0..file.size) {
        there.push((run.start, host.store.contents.read(content, run).await.unwrap()));
    }
    there
}

/// The file whose bytes an op changes.
fn target(action: &Action) -> Option<Ino> {
    match action {
        Action::Write { ino, .. }
        | Action::Fallocate { ino, .. }
        | Action::SetAttr { ino, size: Some(_), .. }
        | Action::CopyRange { to: ino, .. } => Some(*ino),
        _ => None,
    }
}

/// Whether an op may set a byte of a file to this.
pub fn may_set(said: &Said, ino: Ino, at: u64, byte: u8) -> bool {
    target(&said.op.action) == Some(ino)
        && match &said.op.action {
            Action::Write { offset, .. } => {
                let at = at.checked_sub(*offset).and_then(|at| said.data.get(at as usize));
                // What else of its blocks was no data is zeros.
                at.map_or(byte == 0, |written| *written == byte)
            }
            Action::CopyRange { to_offset, len, .. } => {
                byte == 0 || (*to_offset..to_offset.saturating_add(*len)).contains(&at)
            }
            _ => byte == 0,
        }
}

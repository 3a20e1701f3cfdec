//! Random operations: on few names and few blocks, so that they collide all the time.

use std::ops::Range;

use bytes::Bytes;
use xfer_client::core::{CopyRange, HandleId, New, NewAttributes, Seek};
use xfer_protocol::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use xfer_protocol::tree::{FallocateMode, RenameMode, SpecialKind, XattrMode};
use xfer_protocol::{Errno, Ino, Name, Timestamp};
use xfer_tests::Random;
use xfer_tests::peers::name;

use crate::model::Model;
use crate::program::Program;
use crate::user::{SLOTS, Slot, Task, User, Way};

/// Whether the end of a path should exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Mostly: the model may lag behind.
    There,
    /// Rarely.
    Free,
}

/// A path, mostly through existing directories.
pub fn path(model: &Model, end: End, random: &mut Random) -> Vec<Name> {
    let (mut path, mut at) = (Vec::new(), Ino::ROOT);
    loop {
        let entries = model.entries(at).into_iter().flatten();
        let inside: Vec<_> = entries.filter(|(_, ino)| model.entries(**ino).is_some()).collect();
        if inside.is_empty() || random.below(3) == 0 {
            break;
        }
        let (name, ino) = *random.pick(&inside);
        path.push(name.clone());
        at = *ino;
    }
    let there: Vec<_> = model.entries(at).into_iter().flatten().collect();
    let last = match (random.below(20), end) {
        (0..=12, End::There) | (0..=2, End::Free) if !there.is_empty() => {
            random.pick(&there).0.clone()
        }
        // A path through something that may not be a directory, or may not exist.
        (19, _) => {
            path.push(letter(random));
            letter(random)
        }
        _ => letter(random),
    };
    path.push(last);
    path
}

fn letter(random: &mut Random) -> Name {
    name(random.pick::<&str>(&["a", "b", "c", "d", "e", "f", "g", "a (2)"]))
}

fn mode(random: &mut Random) -> u16 {
    *random.pick(&[0o644, 0o755, 0o600, 0o4755, 0o2755, 0o2640, 0o6711, 0o1777, 0o2777, 0o400])
}

/// An offset: often at a block boundary, and at times beyond the largest file.
fn offset(random: &mut Random) -> u64 {
    match random.below(100) {
        0 => FILE_BYTES_MAX + random.below(2),
        1..=35 => random.below(6) * BLOCK_BYTES,
        36..=60 => (1 + random.below(5)) * BLOCK_BYTES + random.below(3) - 1,
        61..=75 => random.below(6 * BLOCK_BYTES),
        _ => random.below(200),
    }
}

/// A size that a file may have.
fn size(random: &mut Random) -> u64 {
    offset(random) % (8 * BLOCK_BYTES)
}

fn data(random: &mut Random) -> Bytes {
    let len = match random.below(20) {
        0 => 0,
        1..=12 => random.below(200),
        13..=16 => BLOCK_BYTES,
        _ => random.below(9000),
    };
    random.bytes(len as usize).into()
}

fn moment(random: &mut Random) -> Timestamp {
    let secs = random.below(1 << 33) as i64 - (1 << 32);
    Timestamp::new(secs, random.below(1_000_000_000) as u32).expect("less than a second")
}

fn xattr(random: &mut Random) -> (Bytes, Bytes, XattrMode) {
    let mode = *random.pick(&[XattrMode::Either, XattrMode::Create, XattrMode::Replace]);
    let attribute = Bytes::from_static(random.pick::<&[u8]>(&[b"user.a", b"user.b", b"user.c"]));
    let len = if random.below(50) == 0 { 5000 } else { random.below(40) as usize };
    (attribute, random.bytes(len).into(), mode)
}

fn fallocate_mode(random: &mut Random) -> FallocateMode {
    *random.pick(&[
        FallocateMode::Allocate,
        FallocateMode::AllocateKeepSize,
        FallocateMode::PunchHole,
        FallocateMode::PunchHole,
        FallocateMode::Zero,
        FallocateMode::ZeroKeepSize,
    ])
}

/// A random operation on one of the open files; `None` if there are none.
pub fn on_files(
    program: &Program,
    slots: &[Option<Slot>; SLOTS],
    random: &mut Random,
) -> Option<Task> {
    let open: Vec<Slot> = slots.iter().flatten().copied().collect();
    if open.is_empty() {
        return None;
    }
    let (program, slot) = (program.clone(), *random.pick(&open));
    let ino = slot.ino;
    // Errors of all tasks are in the notes, and are checked there.
    Some(match random.below(if slot.writable { 15 } else { 7 }) {
        0..=2 => {
            let (start, len) = (size(random), random.below(30_000));
            Box::pin(
                async move { program.read(slot.handle, ino, start..start + len).await.map(drop) },
            )
        }
        3 => {
            let (offset, seek) = (size(random), *random.pick(&[Seek::Data, Seek::Hole]));
            Box::pin(async move { program.seek(ino, offset, seek).await })
        }
        4 => Box::pin(async move { program.look(ino).await.map(drop) }),
        5 => {
            let new = attributes(random);
            Box::pin(async move { program.set_attributes(ino, &new).await.map(drop) })
        }
        6 => {
            let (attribute, value, mode) = xattr(random);
            Box::pin(async move { program.set_xattr(ino, attribute, value, mode).await })
        }
        7..=9 => {
            let (offset, data, clear) = (offset(random), data(random), random.below(2) == 0);
            Box::pin(async move { program.write(ino, offset, data, clear).await })
        }
        10 => {
            let new = new_size(random);
            Box::pin(async move { program.set_attributes(ino, &new).await.map(drop) })
        }
        11 => {
            let (range, mode, clear) =
                (range(random), fallocate_mode(random), random.below(2) == 0);
            Box::pin(async move { program.fallocate(ino, range, mode, clear).await })
        }
        12 => {
            let from = *random.pick(&open);
            let cut = size(random);
            Box::pin(async move { copy_by_hand(&program, from, slot, cut).await })
        }
        _ => {
            let (from_offset, to_offset) = (size(random), offset(random));
            let len = random.below(30_000);
            let others: Vec<_> = open.iter().filter(|other| other.ino != ino).collect();
            let alone = others.is_empty() || random.below(5) == 0;
            let from = if alone { ino } else { random.pick(&others).ino };
            let copy = CopyRange { from, from_offset, to: ino, to_offset, len };
            let whole = CopyRange { from_offset: 0, to_offset: 0, len: 1 << 20, ..copy };
            let copy = if random.below(2) == 0 { whole } else { copy };
            let clear = random.below(2) == 0;
            Box::pin(async move { program.copy(copy, clear).await })
        }
    })
}

/// Copies a file as `cat` does, in two pieces, over the other's data.
async fn copy_by_hand(program: &Program, from: Slot, to: Slot, cut: u64) -> Result<(), Errno> {
    let empty = NewAttributes { size: Some(0), ..Default::default() };
    program.set_attributes(to.ino, &empty).await?;
    for range in [0..cut, cut..1 << 18] {
        let data = program.read(from.handle, from.ino, range.clone()).await?;
        program.write(to.ino, range.start, data.into(), false).await?;
    }
    Ok(())
}

fn range(random: &mut Random) -> Range<u64> {
    let (start, len) = (offset(random), size(random));
    start..start + len
}

fn attributes(random: &mut Random) -> NewAttributes {
    let mut new = NewAttributes { clear_set_id: random.below(4) == 0, ..Default::default() };
    match random.below(4) {
        0 => new.mode = Some(mode(random)),
        1 => new.uid = Some(random.below(3) as u32),
        2 => new.gid = Some(random.below(3) as u32),
        _ => (new.atime, new.mtime) = (Some(moment(random)), Some(moment(random))),
    }
    new
}

fn new_size(random: &mut Random) -> NewAttributes {
    let size = if random.below(50) == 0 { FILE_BYTES_MAX + 1 } else { size(random) };
    NewAttributes { size: Some(size), clear_set_id: random.below(2) == 0, ..Default::default() }
}

/// Writes a new file to be sent to the other user.
async fn write_for(
    program: &Program,
    to: &Name,
    random: &mut Random,
) -> Result<(Ino, HandleId), Errno> {
    let way = Way::along(program, &[name("outbox"), to.clone(), letter(random)]).await?;
    let created = program.create(&way.place, mode(random)).await;
    way.leave(program).await;
    let ((ino, _), handle) = created?;
    // Errors are in the notes.
    let _ = program.write(ino, 0, data(random), false).await;
    Ok((ino, handle))
}

/// A random operation that changes nothing.
pub fn on_looking(program: &Program, path: Vec<Name>, random: &mut Random) -> Task {
    let (program, kind) = (program.clone(), random.below(4));
    let (start, len) = (size(random), random.below(60_000));
    Box::pin(async move {
        let (way, (ino, node)) = Way::to(&program, &path).await?;
        if node.is_directory() && kind < 3 {
            let _ = program.list(ino).await;
        } else if node.file().is_some()
            && kind < 3
            && let Ok(handle) = program.open(ino, false).await
        {
            let _ = program.read(handle, ino, start..start + len).await;
            let _ = program.close(ino, handle).await;
        } else {
            let _ = program.look(ino).await;
        }
        way.leave(&program).await;
        Ok(())
    })
}

impl User {
    /// Changes names, or a node by its name.
    pub async fn change_names(&mut self, program: &Program, random: &mut Random) {
        let kind = random.below(24);
        let end = if kind < 8 { End::Free } else { End::There };
        let path = path(self.history.model(), end, random);
        let _ = match kind {
            0..=2 => self.create(program, &path, random).await,
            3..=7 => self.make(program, &path, random).await,
            8 | 9 => self.link(program, &path, random).await,
            10..=13 => self.remove(program, &path, random).await,
            14..=18 => self.rename(program, &path, random).await,
            19 | 20 => self.open(program, &path, random).await,
            21 => {
                self.close(random.below(SLOTS as u64) as usize);
                Ok(())
            }
            _ => self.set(program, &path, random).await,
        };
    }

    /// Sends a new file to the other user.
    pub async fn send(&self, to: &Name, random: &mut Random) -> Result<(), Errno> {
        let Some(program) = self.program() else { return Ok(()) };
        let (ino, handle) = write_for(&program, to, random).await?;
        let closed = program.close(ino, handle).await;
        program.forget(ino).await;
        closed
    }

    /// Reserves room for a new file in the other user's inbox, and leaves it open.
    pub async fn begin_to_send(&self, to: &Name, random: &mut Random) -> Result<(), Errno> {
        let Some(program) = self.program() else { return Ok(()) };
        let (ino, handle) = write_for(&program, to, random).await?;
        program.flush(ino, handle).await
    }

    async fn create(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let way = Way::along(program, path).await?;
        let created = program.create(&way.place, mode(random)).await;
        way.leave(program).await;
        let ((ino, _), handle) = created?;
        let at = random.below(SLOTS as u64) as usize;
        self.keep_open(at, Slot { ino, handle, writable: true });
        Ok(())
    }

    async fn make(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let way = Way::along(program, path).await?;
        let new = match random.below(8) {
            0 | 1 => New::File { mode: mode(random) },
            2..=5 => New::Directory { mode: mode(random) },
            6 => New::Symlink { target: Bytes::from(format!("to/{}", random.below(3))) },
            _ => {
                let device = SpecialKind::CharDevice { rdev: random.below(99) as u32 };
                let kind = *random.pick(&[SpecialKind::Fifo, SpecialKind::Socket, device]);
                New::Special { kind, mode: mode(random) }
            }
        };
        let made = program.make(&way.place, &new).await;
        way.leave(program).await;
        program.forget(made?.0).await;
        Ok(())
    }

    async fn link(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let target = self::path(self.history.model(), End::Free, random);
        let (way, (ino, _)) = Way::to(program, path).await?;
        if let Ok(to) = Way::along(program, &target).await {
            if program.link(ino, &to.place).await.is_ok() {
                program.forget(ino).await;
            }
            to.leave(program).await;
        }
        way.leave(program).await;
        Ok(())
    }

    async fn remove(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let (way, (_, node)) = Way::to(program, path).await?;
        // Mostly the right call of the two.
        let removed = if node.is_directory() == (random.below(6) > 0) {
            program.rmdir(&way.place).await
        } else {
            program.unlink(&way.place).await
        };
        way.leave(program).await;
        removed
    }

    async fn rename(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let end = *random.pick(&[End::There, End::Free]);
        let target = self::path(self.history.model(), end, random);
        let modes = [RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace];
        let mut mode = *random.pick(&modes);
        // The client, not the tree's rules, forbids exchanging something with a mailbox.
        let mailed = [path, &target].iter().any(|path| path[0] == name("outbox"));
        if !mailed && random.below(4) == 0 {
            mode = RenameMode::Exchange;
        }
        let from = Way::along(program, path).await?;
        if let Ok(to) = Way::along(program, &target).await {
            let _ = program.rename(&from.place, &to.place, mode).await;
            to.leave(program).await;
        }
        from.leave(program).await;
        Ok(())
    }

    async fn open(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let (mut way, (ino, node)) = Way::to(program, path).await?;
        let writable = random.below(3) > 0;
        let opened = match node.file() {
            Some(_) => program.open(ino, writable).await,
            None => Err(Errno::EISDIR),
        };
        if opened.is_ok() {
            way.keep_last();
        }
        way.leave(program).await;
        let at = random.below(SLOTS as u64) as usize;
        self.keep_open(at, Slot { ino, handle: opened?, writable });
        Ok(())
    }

    async fn set(
        &mut self,
        program: &Program,
        path: &[Name],
        random: &mut Random,
    ) -> Result<(), Errno> {
        let (way, (ino, _)) = Way::to(program, path).await?;
        let _ = match random.below(6) {
            0 | 1 => program.set_attributes(ino, &attributes(random)).await.map(drop),
            2 => program.set_attributes(ino, &new_size(random)).await.map(drop),
            3 => program.write(ino, offset(random), data(random), false).await,
            4 => {
                let (attribute, value, mode) = xattr(random);
                program.set_xattr(ino, attribute, value, mode).await
            }
            _ => program.remove_xattr(ino, xattr(random).0).await,
        };
        way.leave(program).await;
        Ok(())
    }
}

//! A program's steps on a tree, by path, and the ops that they become on given rows.
//!
//! The alphabet of names is tiny, so that names collide all the time.

use bytes::Bytes;
use proptest::prelude::*;
use xfer_protocol::limits::BLOCK_BYTES;
use xfer_protocol::tree::{
    Action, FallocateMode, Kind, Loaded, Need, Owner, PlanError, RenameMode, Rows, SpecialKind,
    XattrMode,
};
use xfer_protocol::{ContentId, Errno, Ino, Name, Timestamp};

/// The most files open at once.
pub const SLOTS: usize = 2;

pub const OWNER: Owner = Owner { uid: 0, gid: 0 };

/// Names from the root down, each one byte.
pub type Path = Vec<u8>;

/// A file, named by path or by the slot that it is open in.
#[derive(Clone, Debug)]
pub enum File {
    At(Path),
    Open(usize),
}

#[derive(Clone, Debug)]
pub enum Step {
    Create(Path, u16),
    Mkdir(Path, u16),
    Symlink(Path, u8),
    Fifo(Path, u16),
    Link(Path, Path),
    Unlink(Path),
    Rmdir(Path),
    Rename(Path, Path, RenameMode),
    Chmod(Path, u16),
    Chown(Path, u32),
    /// Sets both times to this many seconds after a moment long ago.
    Touch(Path, u8),
    SetXattr(Path, u8, u8, XattrMode),
    RemoveXattr(Path, u8),
    Truncate(File, u64),
    Write(File, u64, u32, u8),
    Fallocate(File, u64, u64, FallocateMode),
    Copy(File, u64, File, u64, u64),
    Open(usize, Path),
    Close(usize),
}

/// The meaning of a step on given rows.
pub enum Meaning {
    /// An op, with its payload.
    Op(Action, Vec<u8>),
    /// Opens the node.
    Open(usize, Ino),
    /// Closes what is open, if anything is.
    Close(usize),
    /// The rules have no say: the kernel refuses it first.
    Nothing,
}

/// The moment that `Touch` counts from: before any other moment in a test.
pub const LONG_AGO_SECS: i64 = 1_000_000_000;

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// The bytes of a write of this length and seed.
pub fn payload(len: u32, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed) | 1).collect()
}

pub fn link_target(which: u8) -> Vec<u8> {
    format!("nowhere/{which}").into_bytes()
}

pub fn xattr_name(which: u8) -> String {
    format!("user.{which}")
}

pub fn xattr_value(which: u8) -> Vec<u8> {
    vec![which; usize::from(which)]
}

impl Step {
    /// The meaning of the step on these rows. `id` is a number that was never used before.
    pub fn meaning(
        &self,
        rows: &dyn Rows,
        slots: &[Option<Ino>; SLOTS],
        id: u64,
    ) -> Result<Meaning, PlanError> {
        let (ino, fresh) = (Ino(id), ContentId(id));
        let file = |file: &File| resolve_file(rows, slots, file);
        let mut bytes = Vec::new();
        let action = match self {
            Step::Create(path, mode) => {
                let (parent, name) = place(rows, path)?;
                Action::Create { parent, name, ino, mode: *mode, owner: OWNER }
            }
            Step::Mkdir(path, mode) => {
                let (parent, name) = place(rows, path)?;
                Action::Mkdir { parent, name, ino, mode: *mode, owner: OWNER }
            }
            Step::Symlink(path, to) => {
                let (parent, name) = place(rows, path)?;
                Action::Symlink { parent, name, ino, target: link_target(*to).into(), owner: OWNER }
            }
            Step::Fifo(path, mode) => {
                let ((parent, name), kind) = (place(rows, path)?, SpecialKind::Fifo);
                Action::Mknod { parent, name, ino, mode: *mode, owner: OWNER, kind }
            }
            Step::Link(from, to) => {
                let ino = resolve(rows, from)?;
                let (parent, name) = place(rows, to)?;
                Action::Link { ino, parent, name }
            }
            Step::Unlink(path) => {
                let (parent, name) = place(rows, path)?;
                Action::Unlink { parent, name }
            }
            Step::Rmdir(path) => {
                let (parent, name) = place(rows, path)?;
                Action::Rmdir { parent, name }
            }
            Step::Rename(from, to, mode) => {
                Action::Rename { from: place(rows, from)?, to: place(rows, to)?, mode: *mode }
            }
            Step::Chmod(..) | Step::Chown(..) | Step::Touch(..) | Step::Truncate(..) => {
                return self.set_attr(rows, slots, fresh);
            }
            Step::SetXattr(path, name, value, mode) => {
                let Some(ino) = with_xattrs(rows, path)? else { return Ok(Meaning::Nothing) };
                let (name, value) = (xattr_name(*name).into(), xattr_value(*value).into());
                Action::SetXattr { ino, name, value, mode: *mode }
            }
            Step::RemoveXattr(path, name) => {
                let Some(ino) = with_xattrs(rows, path)? else { return Ok(Meaning::Nothing) };
                Action::RemoveXattr { ino, name: Bytes::from(xattr_name(*name)) }
            }
            Step::Write(to, offset, len, seed) => {
                let Some(ino) = file(to)? else { return Ok(Meaning::Nothing) };
                bytes = payload(*len, *seed);
                Action::Write { ino, offset: *offset, len: *len, clear_set_id: false, fresh }
            }
            Step::Fallocate(of, offset, len, mode) => {
                let Some(ino) = file(of)? else { return Ok(Meaning::Nothing) };
                Action::Fallocate { ino, offset: *offset, len: *len, mode: *mode, fresh }
            }
            Step::Copy(from, from_offset, to, to_offset, len) => {
                let (from, to) = match (file(from), file(to)) {
                    (Ok(None), _) | (_, Ok(None)) => return Ok(Meaning::Nothing),
                    (from, to) => (from?.expect("a file"), to?.expect("a file")),
                };
                let (from_offset, to_offset, len) = (*from_offset, *to_offset, *len);
                Action::CopyRange { from, from_offset, to, to_offset, len, fresh }
            }
            Step::Open(slot, path) => {
                return Ok(match file(&File::At(path.clone()))? {
                    Some(ino) => Meaning::Open(*slot, ino),
                    None => Meaning::Nothing,
                });
            }
            Step::Close(slot) => return Ok(Meaning::Close(*slot)),
        };
        Ok(Meaning::Op(action, bytes))
    }

    fn set_attr(
        &self,
        rows: &dyn Rows,
        slots: &[Option<Ino>; SLOTS],
        fresh: ContentId,
    ) -> Result<Meaning, PlanError> {
        let (mut mode, mut uid, mut size, mut time) = (None, None, None, None);
        let ino = match self {
            Step::Chmod(path, to) => {
                mode = Some(*to);
                let ino = resolve(rows, path)?;
                let is_link = matches!(node(rows, ino)?.kind, Kind::Symlink { .. });
                (!is_link).then_some(ino)
            }
            Step::Chown(path, to) => {
                uid = Some(*to);
                Some(resolve(rows, path)?)
            }
            Step::Touch(path, to) => {
                time = Timestamp::new(LONG_AGO_SECS + i64::from(*to), 0);
                Some(resolve(rows, path)?)
            }
            Step::Truncate(file, to) => {
                size = Some(*to);
                resolve_file(rows, slots, file)?
            }
            other => unreachable!("{other:?} sets no attributes"),
        };
        let Some(ino) = ino else { return Ok(Meaning::Nothing) };
        let (atime, mtime) = (time, time);
        let (gid, clear_set_id) = (None, false);
        let action =
            Action::SetAttr { ino, mode, uid, gid, size, atime, mtime, clear_set_id, fresh };
        Ok(Meaning::Op(action, Vec::new()))
    }
}

pub fn node(
    rows: &dyn Rows,
    ino: Ino,
) -> Result<std::sync::Arc<xfer_protocol::tree::Node>, PlanError> {
    match rows.node(ino) {
        Loaded::Present(node) => Ok(node),
        Loaded::Absent => Err(Errno::ENOENT.into()),
        Loaded::Unknown => Err(PlanError::Need(Need::Node(ino))),
    }
}

fn entry(rows: &dyn Rows, parent: Ino, name: &Name) -> Result<Ino, PlanError> {
    match node(rows, parent)?.kind {
        Kind::Directory { .. } => {}
        // The tests' links all dangle.
        Kind::Symlink { .. } => return Err(Errno::ENOENT.into()),
        _ => return Err(Errno::ENOTDIR.into()),
    }
    match rows.entry(parent, name) {
        Loaded::Present(ino) => Ok(ino),
        Loaded::Absent => Err(Errno::ENOENT.into()),
        Loaded::Unknown => Err(PlanError::Need(Need::Entry(parent, name.clone()))),
    }
}

pub fn resolve(rows: &dyn Rows, path: &[u8]) -> Result<Ino, PlanError> {
    path.iter().try_fold(Ino::ROOT, |at, byte| entry(rows, at, &Name::new(&[*byte]).unwrap()))
}

fn place(rows: &dyn Rows, path: &[u8]) -> Result<(Ino, Name), PlanError> {
    let (last, above) = path.split_last().expect("paths have names");
    let parent = resolve(rows, above)?;
    match node(rows, parent)?.kind {
        Kind::Directory { .. } => Ok((parent, Name::new(&[*last]).unwrap())),
        Kind::Symlink { .. } => Err(Errno::ENOENT.into()),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

/// The regular file; `None` for a node of another kind or a slot with no open file.
fn resolve_file(
    rows: &dyn Rows,
    slots: &[Option<Ino>; SLOTS],
    file: &File,
) -> Result<Option<Ino>, PlanError> {
    match file {
        File::Open(slot) => Ok(slots[*slot]),
        File::At(path) => {
            let ino = resolve(rows, path)?;
            Ok(node(rows, ino)?.file().map(|_| ino))
        }
    }
}

/// The node, if the kernel allows user attributes on its kind.
fn with_xattrs(rows: &dyn Rows, path: &[u8]) -> Result<Option<Ino>, PlanError> {
    let ino = resolve(rows, path)?;
    let node = node(rows, ino)?;
    Ok((node.is_directory() || node.file().is_some()).then_some(ino))
}

fn path() -> BoxedStrategy<Path> {
    let byte = || prop::sample::select(vec![b'a', b'b', b'c']);
    prop_oneof![
        4 => prop::collection::vec(byte(), 1),
        3 => prop::collection::vec(byte(), 2),
        1 => prop::collection::vec(byte(), 3),
    ]
    .boxed()
}

fn file() -> BoxedStrategy<File> {
    prop_oneof![4 => path().prop_map(File::At), 1 => (0..SLOTS).prop_map(File::Open)].boxed()
}

fn mode() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0o644, 0o755, 0o600, 0o4755, 0o2755, 0o2640, 0o6711, 0o1777, 0o2777])
}

/// Bytes from the start: often at the edge of a block.
fn offset() -> BoxedStrategy<u64> {
    prop_oneof![
        3 => (0..6u64).prop_map(|block| block * BLOCK_BYTES),
        2 => (1..6u64, 0..3u64).prop_map(|(block, by)| block * BLOCK_BYTES + by - 1),
        2 => 0..6 * BLOCK_BYTES,
        1 => 0..200u64,
    ]
    .boxed()
}

fn fallocate_mode() -> impl Strategy<Value = FallocateMode> {
    prop::sample::select(vec![
        FallocateMode::Allocate,
        FallocateMode::AllocateKeepSize,
        FallocateMode::PunchHole,
        FallocateMode::Zero,
        FallocateMode::ZeroKeepSize,
    ])
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange),
    ]
}

fn xattr_mode() -> impl Strategy<Value = XattrMode> {
    prop::sample::select(vec![XattrMode::Either, XattrMode::Create, XattrMode::Replace])
}

/// Steps that change names and nodes.
fn structure() -> BoxedStrategy<Step> {
    prop_oneof![
        4 => (path(), mode()).prop_map(|(p, m)| Step::Create(p, m)),
        4 => (path(), mode()).prop_map(|(p, m)| Step::Mkdir(p, m)),
        1 => (path(), 0..4u8).prop_map(|(p, to)| Step::Symlink(p, to)),
        1 => (path(), mode()).prop_map(|(p, m)| Step::Fifo(p, m)),
        2 => (path(), path()).prop_map(|(p, q)| Step::Link(p, q)),
        2 => path().prop_map(Step::Unlink),
        2 => path().prop_map(Step::Rmdir),
        5 => (path(), path(), rename_mode()).prop_map(|(p, q, m)| Step::Rename(p, q, m)),
        1 => (0..SLOTS, path()).prop_map(|(slot, p)| Step::Open(slot, p)),
        1 => (0..SLOTS).prop_map(Step::Close),
    ]
    .boxed()
}

fn attributes() -> BoxedStrategy<Step> {
    prop_oneof![
        (path(), mode()).prop_map(|(p, m)| Step::Chmod(p, m)),
        (path(), 0..3u32).prop_map(|(p, uid)| Step::Chown(p, uid)),
        (path(), 0..9u8).prop_map(|(p, time)| Step::Touch(p, time)),
        (path(), 0..3u8, 0..9u8, xattr_mode()).prop_map(|(p, n, v, m)| Step::SetXattr(p, n, v, m)),
        (path(), 0..3u8).prop_map(|(p, n)| Step::RemoveXattr(p, n)),
    ]
    .boxed()
}

fn bytes_of_files() -> BoxedStrategy<Step> {
    prop_oneof![
        2 => (file(), offset()).prop_map(|(f, size)| Step::Truncate(f, size)),
        4 => (file(), offset(), 0..9000u32, any::<u8>())
            .prop_map(|(f, o, len, seed)| Step::Write(f, o, len, seed)),
        3 => (file(), offset(), offset(), fallocate_mode())
            .prop_map(|(f, o, len, m)| Step::Fallocate(f, o, len, m)),
        2 => (file(), offset(), file(), offset(), offset())
            .prop_map(|(f, o, g, p, len)| Step::Copy(f, o, g, p, len)),
        2 => (file(), file()).prop_map(|(f, g)| Step::Copy(f, 0, g, 0, 1 << 20)),
    ]
    .boxed()
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => structure(), 1 => attributes(), 4 => bytes_of_files()]
}

pub fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    // Most sequences begin by making something to work on.
    let made = prop::collection::vec(structure(), 0..12);
    (made, prop::collection::vec(step(), 1..count)).prop_map(|(mut first, rest)| {
        first.extend(rest);
        first
    })
}

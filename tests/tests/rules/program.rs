//! Operations of programs on one client: each as the kernel would pass it on, with a note of its
//! result at its seq in the log.
//!
//! The attempt itself makes the note, under the client's lock. So the note is exact for that seq,
//! however many operations are in flight.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use xfer_client::core::{CopyRange, Core, Found, HandleId, New, NewAttributes, Seek, Status, Stop};
use xfer_client::drive::Client;
use xfer_protocol::tree::{Action, FallocateMode, Quota, RenameMode, Usage, XattrMode};
use xfer_protocol::{ContentId, Errno, Ino, Name, Seq};
use xfer_tests::peers::OWNER;

use crate::history::Check;

/// Checks can't foresee the numbers that the client chooses for new nodes and contents. They use
/// these instead, which are never granted.
pub const FRESH: ContentId = ContentId(1 << 62);
pub const NEW: Ino = Ino(1 << 62);

/// A client with programs on it.
#[derive(Clone)]
pub struct Program {
    client: Arc<Client>,
    notes: Arc<Mutex<Vec<(Seq, Check)>>>,
    /// Whether the session may end at any moment, so that an I/O error proves nothing.
    doomed: Arc<AtomicBool>,
    /// The last op of which a program was told that it is safe.
    safe: Arc<Mutex<Seq>>,
    /// Whether the server's disk may be full, so that it may have no room for a change.
    is_short: Arc<AtomicBool>,
}

/// A place in the tree: a directory and a name in it.
pub type Place = (Ino, Name);

type Done = Result<(), Errno>;

impl Program {
    /// Programs on this client.
    pub fn new(client: Arc<Client>, is_short: Arc<AtomicBool>) -> Program {
        let (notes, doomed, safe) = Default::default();
        Program { client, notes, doomed, safe, is_short }
    }

    /// The client.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Takes the notes since the last call.
    pub fn take_notes(&self) -> Vec<(Seq, Check)> {
        std::mem::take(&mut *self.notes.lock().unwrap())
    }

    /// From now on the session may end.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    /// The session goes on, though without some changes that programs were told are safe.
    pub fn survive(&self) {
        self.doomed.store(false, Ordering::Relaxed);
        *self.safe.lock().unwrap() = Seq::default();
    }

    /// Whether the session may end.
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    /// Waits, as `fsync` does, until the changes so far are safe.
    pub async fn fsync(&self) -> Done {
        let mut upto = None;
        let synced = self.client.call(move |state: &mut Core| {
            let position = *upto.get_or_insert_with(|| state.position());
            state.sync_safely(position)?;
            Ok(position.seq())
        });
        let synced = synced.await;
        // The server gives a link up if its disk can't take a change, again and again.
        let is_full = matches!(synced, Err(Errno::ENOSPC | Errno::ETIMEDOUT)) && self.may_be_full();
        assert!(
            synced.is_ok() || is_full || self.is_doomed(),
            "{synced:?}: {:?}",
            self.client.status()
        );
        let mut safe = self.safe.lock().unwrap();
        *safe = synced?.max(*safe);
        Ok(())
    }

    /// Whether the server's disk may be full.
    fn may_be_full(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    /// Whether an error says that the server's disk is full, and it may be.
    fn has_no_room(&self, errno: Errno) -> bool {
        errno == Errno::ENOSPC && self.may_be_full()
    }

    /// The last op of which a program was told that it is safe.
    pub fn safe(&self) -> Seq {
        *self.safe.lock().unwrap()
    }

    /// Runs an attempt until it is answered, and notes its observations. `action` is the op that it
    /// is to make.
    async fn run<T, A>(&self, action: Option<Action>, mut attempt: A) -> Result<T, Errno>
    where
        A: FnMut(&mut Core) -> Result<(T, Vec<Check>), Stop> + Send,
    {
        let doomed = || self.doomed.load(Ordering::Relaxed);
        let answered = self.client.call(|state| {
            let (before, Status { usage, quota, .. }) = (state.position().seq(), state.status());
            let result = attempt(state);
            let after = state.position().seq();
            let mut notes = self.notes.lock().unwrap();
            match result {
                Ok((value, checks)) => {
                    // A copy notes itself how much it copied.
                    let copy = matches!(action, Some(Action::CopyRange { .. }));
                    if let Some(action) = action.as_ref().filter(|_| !copy) {
                        assert!(after > before, "{action:?} was not made");
                        let now = state.status().usage;
                        assert!(
                            keeps_to(quota, usage, now),
                            "{action:?} exceeds {quota:?}: {now:?}"
                        );
                        // A write notes its op itself.
                        if !matches!(action, Action::Write { .. }) {
                            // Others may precede it, since a record is revised first, or follow it.
                            let count = (after.0 - before.0) as usize;
                            notes.push((after, Check::Made(action.clone(), count)));
                        }
                    }
                    notes.extend(checks.into_iter().map(|check| (after, check)));
                    Ok(value)
                }
                Err(Stop::Refused(errno)) if self.has_no_room(errno) => Err(Stop::Refused(errno)),
                Err(Stop::Refused(errno)) => {
                    if let Some(action) =
                        action.as_ref().filter(|_| !doomed() || errno != Errno::EIO)
                    {
                        notes.push((after, Check::Refused(action.clone(), errno, quota)));
                    }
                    Err(Stop::Refused(errno))
                }
                Err(pause) => Err(pause),
            }
        });
        let answered = answered.await;
        if let Err(errno @ (Errno::EIO | Errno::ETIMEDOUT | Errno::ESTALE)) = answered
            && !(errno == Errno::ETIMEDOUT && self.may_be_full())
        {
            let standing = self.client.status();
            assert!(doomed(), "{errno} for {action:?}: {standing:?}");
        }
        answered
    }

    /// Runs an attempt that makes no change and has no observations.
    async fn ask<T, A>(&self, mut attempt: A) -> Result<T, Errno>
    where
        A: FnMut(&mut Core) -> Result<T, Stop> + Send,
    {
        self.run(None, |state| Ok((attempt(state)?, Vec::new()))).await
    }

    /// Looks up a name. A found node stays held until [`Program::forget`].
    pub async fn lookup(&self, place: &Place) -> Result<Option<Found>, Errno> {
        self.run(None, |state| {
            let found = state.lookup(place.0, &place.1)?;
            let ino = found.as_ref().map(|(ino, _)| *ino);
            let mut checks = vec![Check::Entry(place.0, place.1.clone(), ino)];
            checks.extend(found.as_ref().map(seen));
            Ok((found, checks))
        })
        .await
    }

    /// Releases one lookup of a node. This must not fail, even when the session is over.
    pub async fn forget(&self, ino: Ino) {
        // This never has to wait.
        let forgotten = self.ask(|state| {
            state.forget(ino, 1);
            Ok(())
        });
        forgotten.await.expect("forgetting cannot fail");
    }

    /// Gets a node's attributes.
    pub async fn look(&self, ino: Ino) -> Result<Found, Errno> {
        self.run(None, |state| {
            let found = state.attributes(ino)?;
            let checks = vec![seen(&found)];
            Ok((found, checks))
        })
        .await
    }

    /// Lists a directory.
    pub async fn list(&self, ino: Ino) -> Result<Vec<(Name, Found)>, Errno> {
        let handle = self.ask(|state| state.open_directory(ino)).await?;
        let listed = self.run(None, |state| {
            let listed = state.list(handle, 0)?;
            let dots: Vec<&[u8]> = listed.iter().take(2).map(|entry| &*entry.name).collect();
            assert_eq!(dots, [b"." as &[u8], b".."]);
            let entry = |entry: &xfer_client::core::Listed| {
                let name = Name::new(&entry.name).expect("the name of an entry");
                (name, (entry.ino, entry.node.clone()))
            };
            let mut entries: Vec<_> = listed[2..].iter().map(entry).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let names = entries.iter().map(|(name, (ino, _))| (name.clone(), *ino)).collect();
            let mut checks = vec![Check::Entries(ino, names)];
            checks.extend(listed.iter().map(|entry| Check::Node(entry.ino, entry.node.clone())));
            Ok((entries, checks))
        });
        let listed = listed.await;
        self.ask(|state| {
            state.close(handle);
            Ok(())
        })
        .await?;
        listed
    }

    /// Makes a node, and holds it.
    pub async fn make(&self, place: &Place, new: &New) -> Result<Found, Errno> {
        let ((parent, name), owner, ino) = (place.clone(), OWNER, NEW);
        let action = match new.clone() {
            New::File { mode } => Action::Create { parent, name, ino, mode, owner },
            New::Directory { mode } => Action::Mkdir { parent, name, ino, mode, owner },
            New::Symlink { target } => Action::Symlink { parent, name, ino, target, owner },
            New::Special { kind, mode } => Action::Mknod { parent, name, ino, mode, owner, kind },
        };
        self.run(Some(action), |state| {
            let found = state.make(place.0, &place.1, new, OWNER)?;
            let checks = vec![seen(&found)];
            Ok((found, checks))
        })
        .await
    }

    /// Makes a regular file, holds it, and opens it.
    pub async fn create(&self, place: &Place, mode: u16) -> Result<(Found, HandleId), Errno> {
        let (parent, name) = place.clone();
        let action = Action::Create { parent, name, ino: NEW, mode, owner: OWNER };
        self.run(Some(action), |state| {
            let (found, handle) = state.create(place.0, &place.1, mode, OWNER, true)?;
            let checks = vec![seen(&found)];
            Ok(((found, handle), checks))
        })
        .await
    }

    /// Adds a name to a node, and holds the node once more.
    pub async fn link(&self, ino: Ino, place: &Place) -> Result<Found, Errno> {
        let action = Action::Link { ino, parent: place.0, name: place.1.clone() };
        self.run(Some(action), |state| {
            let found = state.link(ino, place.0, &place.1)?;
            let checks = vec![seen(&found)];
            Ok((found, checks))
        })
        .await
    }

    /// Removes a name that is not a directory's.
    pub async fn unlink(&self, (parent, name): &Place) -> Done {
        let action = Action::Unlink { parent: *parent, name: name.clone() };
        self.change(action, |state| state.unlink(*parent, name)).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, (parent, name): &Place) -> Done {
        let action = Action::Rmdir { parent: *parent, name: name.clone() };
        self.change(action, |state| state.rmdir(*parent, name)).await
    }

    /// Renames an entry.
    pub async fn rename(&self, from: &Place, to: &Place, mode: RenameMode) -> Done {
        let action = Action::Rename { from: from.clone(), to: to.clone(), mode };
        self.change(action, |state| state.rename(from, to, mode)).await
    }

    /// Sets attributes.
    pub async fn set_attributes(&self, ino: Ino, new: &NewAttributes) -> Result<Found, Errno> {
        let action = Action::SetAttr {
            ino,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            size: new.size,
            atime: new.atime,
            mtime: new.mtime,
            clear_set_id: new.clear_set_id,
            fresh: FRESH,
        };
        self.run(Some(action), |state| {
            let found = state.set_attributes(ino, new)?;
            let checks = vec![seen(&found)];
            Ok((found, checks))
        })
        .await
    }

    /// Sets an extended attribute.
    pub async fn set_xattr(&self, ino: Ino, name: Bytes, value: Bytes, mode: XattrMode) -> Done {
        let (named, valued) = (name.clone(), value.clone());
        let action = Action::SetXattr { ino, name: named, value: valued, mode };
        self.change_of(ino, action, |state| state.set_xattr(ino, &name, &value, mode)).await
    }

    /// Removes an extended attribute.
    pub async fn remove_xattr(&self, ino: Ino, name: Bytes) -> Done {
        let action = Action::RemoveXattr { ino, name: name.clone() };
        self.change_of(ino, action, |state| state.remove_xattr(ino, &name)).await
    }

    /// Opens a file.
    pub async fn open(&self, ino: Ino, writable: bool) -> Result<HandleId, Errno> {
        self.ask(|state| state.open(ino, writable)).await
    }

    /// Closes one of several descriptors of a file. One that is to be sent has room reserved for it.
    pub async fn flush(&self, ino: Ino, handle: HandleId) -> Done {
        self.ask(|state| state.flush(handle, ino)).await
    }

    /// Closes a file, which may send it.
    pub async fn close(&self, ino: Ino, handle: HandleId) -> Done {
        let flushed = self.flush(ino, handle).await;
        let posted = self.ask(|state| {
            state.close(handle);
            state.send_if_whole(ino)
        });
        flushed.and(posted.await)
    }

    /// Reads bytes.
    pub async fn read(
        &self,
        handle: HandleId,
        ino: Ino,
        range: Range<u64>,
    ) -> Result<Vec<u8>, Errno> {
        self.run(None, |state| {
            let bytes = state.read(handle, ino, range.clone())?;
            let len = range.end - range.start;
            Ok((bytes.clone(), vec![Check::Bytes(ino, range.start, len, bytes)]))
        })
        .await
    }

    /// Searches for data or a hole.
    pub async fn seek(&self, ino: Ino, offset: u64, seek: Seek) -> Done {
        self.run(None, |state| {
            let found = match state.seek(ino, offset, seek) {
                Ok(found) => Ok(found),
                Err(Stop::Refused(Errno::ENXIO)) => Err(Errno::ENXIO),
                Err(pause) => return Err(pause),
            };
            Ok(((), vec![Check::Found(ino, offset, seek, found)]))
        })
        .await
    }

    /// Writes bytes.
    pub async fn write(&self, ino: Ino, offset: u64, data: Bytes, clear_set_id: bool) -> Done {
        let len = data.len() as u32;
        let action = Action::Write { ino, offset, len, clear_set_id, fresh: FRESH };
        self.run(Some(action.clone()), |state| {
            state.write(ino, offset, &data, clear_set_id)?;
            let mut checks = vec![Check::Written(action.clone(), data.clone())];
            checks.extend(state.attributes(ino).iter().map(seen));
            Ok(((), checks))
        })
        .await
    }

    /// Allocates, frees or zeroes a range.
    pub async fn fallocate(
        &self,
        ino: Ino,
        range: Range<u64>,
        mode: FallocateMode,
        clear_set_id: bool,
    ) -> Done {
        let (offset, len) = (range.start, range.end - range.start);
        let action = Action::Fallocate { ino, offset, len, mode, fresh: FRESH };
        self.change_of(ino, action, |state| state.fallocate(ino, range.clone(), mode, clear_set_id))
            .await
    }

    /// Copies a range of a file to another, or elsewhere in the same file.
    pub async fn copy(&self, copy: CopyRange, clear_set_id: bool) -> Done {
        let CopyRange { from, from_offset, to, to_offset, .. } = copy;
        let action =
            |len| Action::CopyRange { from, from_offset, to, to_offset, len, fresh: FRESH };
        self.run(Some(action(copy.len)), |state| {
            // The op covers only existing bytes; only the attempt knows how many there are.
            let size = state.attributes(from)?.1.file().map_or(0, |data| data.size);
            let len = state.copy_range(copy, clear_set_id)?;
            assert_eq!(len, copy.len.min(size.saturating_sub(from_offset)));
            let mut checks: Vec<Check> = state.attributes(to).iter().map(seen).collect();
            if len > 0 {
                checks.insert(0, Check::Made(action(len), 1));
            }
            Ok(((), checks))
        })
        .await
    }

    async fn change<A>(&self, action: Action, mut attempt: A) -> Done
    where
        A: FnMut(&mut Core) -> Result<(), Stop> + Send,
    {
        self.run(Some(action), |state| Ok((attempt(state)?, Vec::new()))).await
    }

    /// Changes one node, and notes its row afterwards.
    async fn change_of<A>(&self, ino: Ino, action: Action, mut attempt: A) -> Done
    where
        A: FnMut(&mut Core) -> Result<(), Stop> + Send,
    {
        self.run(Some(action), |state| {
            attempt(state)?;
            // A row just changed is known. An error must not make the attempt repeat the change.
            Ok(((), state.attributes(ino).iter().map(seen).collect()))
        })
        .await
    }
}

fn seen((ino, node): &Found) -> Check {
    Check::Node(*ino, node.clone())
}

/// Whether a change keeps to a quota, which may have been lowered below what is used.
fn keeps_to(quota: Quota, before: Usage, after: Usage) -> bool {
    after.bytes <= quota.bytes.max(before.bytes) && after.nodes <= quota.nodes.max(before.nodes)
}

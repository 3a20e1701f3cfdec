//! One session's operations: the calls that a mount would make for a program's system calls.
//!
//! Lookups are forgotten at once, so that the client keeps no node for the kernel's sake.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use xfer_client::client::{Client, New, State};
use xfer_protocol::{Errno, Ino, Name};

use super::crowd::OWNER;

/// Larger than any file of the load.
const SIZE_MAX: u64 = 1 << 20;

/// Drives a client as a mount would.
#[derive(Clone)]
pub(super) struct Driver(pub(super) Arc<Client>);

impl Driver {
    pub(super) async fn make_directory(&self, parent: Ino, name: &Name) -> Result<Ino, Errno> {
        let name = name.clone();
        let make = move |s: &mut State| {
            let new = New::Directory { mode: 0o700 };
            let ino = s.make(parent, &name, &new, OWNER)?.0;
            s.forget(ino, 1);
            Ok(ino)
        };
        self.0.call(make).await
    }

    pub(super) async fn lookup(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, Errno> {
        let name = name.clone();
        let find = move |s: &mut State| {
            let found = s.lookup(parent, &name)?.map(|(ino, _)| ino);
            found.iter().for_each(|ino| s.forget(*ino, 1));
            Ok(found)
        };
        self.0.call(find).await
    }

    /// Makes a file with these bytes and closes it, which sends it if it is in a mailbox. Removes it
    /// again if it can't be written.
    pub(super) async fn create(&self, parent: Ino, name: &Name, data: &Bytes) -> Result<(), Errno> {
        let created = name.clone();
        let create = move |s: &mut State| s.create(parent, &created, 0o600, OWNER, true);
        let ((ino, _), handle) = self.0.call(create).await?;
        let data = data.clone();
        let mut written = self.0.call(move |s: &mut State| s.write(ino, 0, &data, false)).await;
        if written.is_ok() {
            written = self.0.call(move |s: &mut State| s.flush(handle, ino)).await;
        }
        let whole = written.is_ok();
        let close = move |s: &mut State| {
            s.close(handle);
            if whole {
                s.post(ino)?;
            }
            s.forget(ino, 1);
            Ok(())
        };
        written = written.and(self.0.call(close).await);
        if written.is_err() {
            self.remove(parent, name).await?;
        }
        written
    }

    /// All bytes of a file.
    pub(super) async fn read(&self, parent: Ino, name: &Name) -> Result<Vec<u8>, Errno> {
        let ino = self.lookup(parent, name).await?.ok_or(Errno::ENOENT)?;
        let handle = self.0.call(move |s: &mut State| s.open(ino, false)).await?;
        let data = self.0.call(move |s: &mut State| s.read(handle, ino, 0..SIZE_MAX)).await;
        let close = move |s: &mut State| {
            s.close(handle);
            Ok(())
        };
        self.0.call(close).await?;
        data
    }

    /// The names in a directory, without `.` and `..`.
    pub(super) async fn list(&self, directory: Ino) -> Result<BTreeSet<Vec<u8>>, Errno> {
        let handle = self.0.call(move |s: &mut State| s.open_directory(directory)).await?;
        let (mut names, mut place) = (BTreeSet::new(), 0);
        loop {
            let listed = self.0.call(move |s: &mut State| s.list(handle, place)).await?;
            let Some(last) = listed.last() else { break };
            place = last.next;
            names.extend(listed.into_iter().map(|entry| entry.name));
        }
        let close = move |s: &mut State| {
            s.close(handle);
            Ok(())
        };
        self.0.call(close).await?;
        names.retain(|name| name != b"." && name != b"..");
        Ok(names)
    }

    pub(super) async fn remove(&self, parent: Ino, name: &Name) -> Result<(), Errno> {
        let name = name.clone();
        self.0.call(move |s: &mut State| s.unlink(parent, &name)).await
    }

    /// Waits until everything is on the server's disk.
    pub(super) async fn settle(&self) -> Result<(), Errno> {
        self.0.settle().await
    }
}

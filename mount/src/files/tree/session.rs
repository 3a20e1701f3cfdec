//! A tree by a session of this process alone, without a mount.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::watch;
use xfer_client::core::{NewAttributes, Order};
use xfer_client::drive::Client;
use xfer_client::files::{self, Entry, Files};
use xfer_protocol::Timestamp;
use xfer_protocol::tree::NOTE_XATTR;

use super::super::errno;
use super::{Changes, Meta, Removed, Sink, Source, Tree};
use crate::process::exit::Exit;

/// A session of this process.
pub(crate) struct Session {
    files: Files,
    calls: Calls,
}

/// Makes calls, and ends them once the user has had enough.
#[derive(Clone)]
struct Calls {
    client: Arc<Client>,
    runtime: Handle,
    interrupted: watch::Receiver<bool>,
}

impl Calls {
    fn make<T>(
        &self,
        work: impl Future<Output = Result<T, xfer_protocol::Errno>>,
    ) -> Result<T, Errno> {
        let mut interrupted = self.interrupted.clone();
        let done = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = interrupted.wait_for(|is| *is) => Err(Errno::INTR),
                done = work => done.map_err(errno::here),
            }
        });
        // Programs on a mount know no other error for it; here the rest need not be tried.
        let is_over = || self.client.status().trouble().is_some();
        done.map_err(|errno| if errno == Errno::IO && is_over() { Errno::NOTCONN } else { errno })
    }
}

impl Session {
    /// The files of a session. Calls fail with `EINTR` from the moment when `interrupted` is true.
    pub(crate) fn new(
        files: Files,
        runtime: Handle,
        interrupted: watch::Receiver<bool>,
    ) -> Session {
        let client = files.client().clone();
        Session { files, calls: Calls { client, runtime, interrupted } }
    }

    fn call<T>(
        &self,
        work: impl Future<Output = Result<T, xfer_protocol::Errno>>,
    ) -> Result<T, Errno> {
        self.calls.make(work)
    }

    fn meta(&self, (ino, node): &xfer_client::core::Found) -> Meta {
        Meta::of_node(*ino, node, self.files.client().owners())
    }
}

impl Tree for Session {
    fn stat(&self, path: &Path) -> Result<Meta, Errno> {
        self.call(self.files.stat(path)).map(|found| self.meta(&found))
    }

    fn list(&self, path: &Path) -> Result<Vec<(OsString, Meta)>, Errno> {
        let entries = self.call(self.files.list(path))?;
        let shown = |entry: Entry| {
            (OsString::from_vec(entry.name.as_bytes().to_vec()), self.meta(&entry.found))
        };
        Ok(entries.into_iter().map(shown).collect())
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Source>, Errno> {
        let file = self.call(self.files.open_file(path))?;
        Ok(Box::new(Open { file, calls: self.calls.clone() }))
    }

    fn write(&self, path: &Path) -> Result<Box<dyn Sink>, Errno> {
        let opened = self.call(async {
            match self.files.open_to_change(path).await {
                Err(xfer_protocol::Errno::ENOENT) => self.files.create(path).await,
                opened => opened,
            }
        });
        Ok(Box::new(Open { file: opened?, calls: self.calls.clone() }))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.call(self.files.copy(from, to))
    }

    fn make_directory(&self, path: &Path, mode: u16) -> Result<(), Errno> {
        self.call(self.files.make_directory(path))?;
        self.set(path, mode, None)
    }

    fn make_link(&self, path: &Path, target: &OsStr) -> Result<(), Errno> {
        self.call(self.files.make_link(path, Bytes::copy_from_slice(target.as_bytes())))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.call(self.files.rename(from, to))
    }

    fn remove(&self, path: &Path, _: Removed) -> Result<(), Errno> {
        self.call(self.files.remove(path))
    }

    fn set(&self, path: &Path, mode: u16, mtime: Option<Timestamp>) -> Result<(), Errno> {
        let new = NewAttributes { mode: Some(mode), mtime, ..NewAttributes::default() };
        self.call(self.files.set_attributes(path, new)).map(drop)
    }

    fn attribute(&self, path: &Path, name: &str) -> Result<Option<String>, Errno> {
        match self.call(self.files.attribute(path, name)) {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn set_note(&self, path: &Path, note: &str) -> Result<(), Errno> {
        self.call(self.files.set_attribute(path, NOTE_XATTR, note.as_bytes()))
    }

    fn order(&self, path: &Path, order: Order) -> Result<(), Errno> {
        self.call(self.files.order(path, order))
    }

    fn sync(&self) -> Result<(), Errno> {
        self.call(self.files.sync())
    }

    fn sync_and_forget(&self) -> Result<(), Errno> {
        self.sync()?;
        self.call(self.files.forget_data())
    }

    fn finish(&self, _: Changes) -> Result<(), (Exit, String)> {
        let finished = self.calls.runtime.block_on(self.files.client().finish());
        finished.map_err(|lost| (Exit::Lost, lost.to_string()))
    }
}

/// An open file.
struct Open {
    file: files::File,
    calls: Calls,
}

impl Source for Open {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, Errno> {
        self.calls.make(self.file.read_at(offset, len as u64)).map(Bytes::from)
    }
}

impl Sink for Open {
    fn write_at(&self, offset: u64, data: Bytes) -> Result<(), Errno> {
        self.calls.make(self.file.write_at(offset, &data))
    }

    fn close(self: Box<Self>) -> Result<(), Errno> {
        let Open { file, calls } = *self;
        calls.make(file.close())
    }
}

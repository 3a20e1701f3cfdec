//! Copying and sending whole trees, as `cp -r` does. The server copies the data.
//!
//! Neither is atomic: a copy that fails leaves the part that it has made.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use xfer_protocol::tree::Kind;
use xfer_protocol::{Errno, Name};

use super::{Entry, Files};
use crate::core::{Found, NewAttributes};

impl Files {
    /// Copies a file, a symbolic link, or a directory with everything in it, to a name that is
    /// free. Permission bits are copied too. Pipes, sockets and devices are left out.
    ///
    /// `EEXIST` if the name is taken; those of the tree. A failed copy of a directory leaves a part
    /// of it.
    pub async fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Errno> {
        let (from, to) = (from.as_ref(), to.as_ref());
        if self.exists(to).await? {
            return Err(Errno::EEXIST);
        }
        let found = self.stat(from).await?;
        let mut waiting = vec![(from.to_owned(), to.to_owned(), found)];
        while let Some((from, to, found)) = waiting.pop() {
            if found.1.is_directory() {
                self.make_directory(&to).await?;
                for Entry { name, found } in self.list(&from).await? {
                    let name = OsStr::from_bytes(name.as_bytes());
                    waiting.push((from.join(name), to.join(name), found));
                }
                self.copy_mode(&to, &found).await?;
            } else {
                self.copy_one(&from, &to, &found).await?;
            }
        }
        Ok(())
    }

    /// Sends a file or directory to a user: a copy appears in their inbox under the same name.
    ///
    /// `ENOENT` if there is no such user; `EDQUOT` if their inbox is full (the copy of a file then
    /// waits in the outbox); `EEXIST` if the mailbox has an entry of that name already; those of
    /// the tree.
    pub async fn send(&self, path: impl AsRef<Path>, to: &Name) -> Result<(), Errno> {
        let path = path.as_ref();
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let mailbox = PathBuf::from("outbox").join(OsStr::from_bytes(to.as_bytes()));
        let target = mailbox.join(name);
        if self.exists(&target).await? {
            return Err(Errno::EEXIST);
        }
        if !self.stat(path).await?.1.is_directory() {
            return self.copy(path, &target).await;
        }
        // A directory is sent whole, by moving it into the mailbox when it is complete.
        let beside = [b".", name.as_bytes(), b".part"].concat();
        let draft = path.with_file_name(OsStr::from_bytes(&beside));
        let sent = match self.copy(path, &draft).await {
            Ok(()) => self.rename(&draft, &target).await,
            Err(errno) => Err(errno),
        };
        if sent.is_err() && self.exists(&draft).await? {
            self.remove_all(&draft).await?;
        }
        sent
    }

    /// Removes a file, or a directory with everything in it.
    ///
    /// Those of the tree. Entries removed before an error are gone.
    pub async fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), Errno> {
        let mut waiting = vec![path.as_ref().to_owned()];
        while let Some(path) = waiting.last().cloned() {
            let entries = match self.stat(&path).await?.1.is_directory() {
                true => self.list(&path).await?,
                false => Vec::new(),
            };
            if entries.is_empty() {
                self.remove(&path).await?;
                waiting.pop();
            }
            let names = entries.iter().map(|entry| OsStr::from_bytes(entry.name.as_bytes()));
            waiting.extend(names.map(|name| path.join(name)));
        }
        Ok(())
    }

    async fn copy_one(&self, from: &Path, to: &Path, found: &Found) -> Result<(), Errno> {
        match &found.1.kind {
            Kind::Symlink { target } => self.make_link(to, target.clone()).await,
            Kind::File(data) => {
                let (source, copy) = (self.open_file(from).await?, self.create(to).await?);
                self.copy_mode(to, found).await?;
                copy.copy_from(&source, data.size).await?;
                copy.close().await
            }
            Kind::Directory { .. } | Kind::Special(_) => Ok(()),
        }
    }

    async fn copy_mode(&self, to: &Path, found: &Found) -> Result<(), Errno> {
        let new = NewAttributes { mode: Some(found.1.mode), ..NewAttributes::default() };
        self.set_attributes(to, new).await.map(drop)
    }
}

//! The files of a session by path, without a kernel, for programs that are not a mount.
//!
//! Each call makes one or a few operations, exactly as a program on a mount would. So a file that
//! is closed in a mailbox is sent, and a rename replaces. A call may be dropped at any await; the
//! operations that it has made until then stay.
//!
//! Paths lead from the root of the tree, with or without a leading `/`. Symbolic links are not
//! followed. Nodes belong to the owner that the client's options name.

mod path;
mod file;
mod copying;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use xfer_protocol::tree::{Owner, RenameMode, STATE_XATTR, XattrMode};
use xfer_protocol::{Errno, Ino, Name};

use crate::connect::NewSession;
use crate::core::{Core, Found, New, NewAttributes, Options, Order, Status, Stop};
use crate::drive::{Client, Lost};
use file::Directory;
use path::TreePath;

pub use file::File;

/// The permission bits of new files and directories, the same as in the outbox and the inbox.
const FILE_MODE: u16 = 0o600;
const DIRECTORY_MODE: u16 = 0o700;

/// The files of one session.
#[derive(Clone)]
pub struct Files {
    client: Arc<Client>,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its node.
    pub found: Found,
}

/// A file or directory that another user sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Arrival {
    /// The sender, by the name of the sender's directory in the inbox.
    pub sender: Name,
    /// The entry in the sender's directory.
    pub entry: Entry,
}

impl Files {
    /// Opens the files of a session that has just begun. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn open(session: NewSession, options: Options) -> Result<Files, Errno> {
        let client = Client::start(session, options);
        client.make_mailboxes().await?;
        Ok(Files { client })
    }

    /// The files of a running client.
    pub fn of(client: Arc<Client>) -> Files {
        Files { client }
    }

    /// The client that runs the session.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The node at a path.
    ///
    /// `ENOENT` if there is none; those of the tree.
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<Found, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        self.client.call(move |core: &mut Core| core.find_path(&path.0)).await
    }

    /// Whether there is a node at a path.
    ///
    /// # Errors
    /// Those of the tree.
    pub async fn exists(&self, path: impl AsRef<Path>) -> Result<bool, Errno> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The entries of a directory, in the order of their names.
    ///
    /// `ENOTDIR` if it is not a directory; those of the tree.
    pub async fn list(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let directory = Directory::open(&self.client, path).await?;
        let (mut entries, mut cookie) = (Vec::new(), 0);
        loop {
            let listed = directory.list(cookie).await?;
            let Some(last) = listed.last() else { break };
            cookie = last.next;
            for entry in listed {
                // `.` and `..` are not names, and are left out.
                if let Ok(name) = Name::new(&entry.name) {
                    entries.push(Entry { name, found: (entry.ino, entry.node) });
                }
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The target of a symbolic link.
    ///
    /// `EINVAL` if it is not a symbolic link; those of the tree.
    pub async fn read_link(&self, path: impl AsRef<Path>) -> Result<Bytes, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let read = move |core: &mut Core| {
            let (ino, _) = core.find_path(&path.0)?;
            core.target(ino)
        };
        self.client.call(read).await
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// Those of [`Files::open_file`] and [`File::read_at`].
    pub async fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, Errno> {
        // Not up to its size: others may change that before the bytes are read.
        self.open_file(path).await?.read_at(0, u64::MAX).await
    }

    /// Writes a whole file, which is made or replaced. In a mailbox, this sends it.
    ///
    /// Those of [`Files::create`] and [`File::write_at`]. An incomplete file is not sent.
    pub async fn write(&self, path: impl AsRef<Path>, data: &Bytes) -> Result<(), Errno> {
        let file = self.create(path).await?;
        file.write_at(0, data).await?;
        file.close().await
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// `EISDIR` for a directory, `EINVAL` for anything else that is no regular file; those of the
    /// tree.
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<File, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        File::open(&self.client, path, false).await
    }

    /// Opens an empty file for writing: a new one, or one whose data is removed.
    ///
    /// # Errors
    /// As [`Files::open_file`].
    pub async fn create(&self, path: impl AsRef<Path>) -> Result<File, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let made = self.add(path.clone(), New::File { mode: FILE_MODE }).await;
        match made {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
        let file = File::open(&self.client, path, true).await?;
        if made.is_err() {
            file.set_size(0).await?;
        }
        Ok(file)
    }

    /// Opens a file for writing as it is, which must be there.
    ///
    /// # Errors
    /// As [`Files::open_file`].
    pub async fn open_to_change(&self, path: impl AsRef<Path>) -> Result<File, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        File::open(&self.client, path, true).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken; those of the tree.
    pub async fn make_directory(&self, path: impl AsRef<Path>) -> Result<(), Errno> {
        let path = TreePath::parse(path.as_ref())?;
        self.add(path, New::Directory { mode: DIRECTORY_MODE }).await
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken; those of the tree.
    pub async fn make_link(&self, path: impl AsRef<Path>, target: Bytes) -> Result<(), Errno> {
        let path = TreePath::parse(path.as_ref())?;
        self.add(path, New::Symlink { target }).await
    }

    /// Renames an entry. It replaces an entry of the new name, as rename(2) does.
    ///
    /// # Errors
    /// Those of the tree.
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Errno> {
        let (from, from_name) = TreePath::parse(from.as_ref())?.split()?;
        let (to, to_name) = TreePath::parse(to.as_ref())?.split()?;
        let rename = move |core: &mut Core| {
            let from = (core.find_path(&from.0)?.0, from_name.clone());
            let to = (core.find_path(&to.0)?.0, to_name.clone());
            core.rename(&from, &to, RenameMode::Replace)
        };
        self.client.call(rename).await
    }

    /// Removes a file, or an empty directory.
    ///
    /// # Errors
    /// `ENOTEMPTY` for a directory with entries; those of the tree.
    pub async fn remove(&self, path: impl AsRef<Path>) -> Result<(), Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let (parent, name) = path.clone().split()?;
        let remove = move |core: &mut Core| {
            let is_directory = core.find_path(&path.0)?.1.is_directory();
            let parent = core.find_path(&parent.0)?.0;
            match is_directory {
                true => core.rmdir(parent, &name),
                false => core.unlink(parent, &name),
            }
        };
        self.client.call(remove).await
    }

    /// Sets attributes of a node.
    ///
    /// # Errors
    /// Those of the tree.
    pub async fn set_attributes(
        &self,
        path: impl AsRef<Path>,
        new: NewAttributes,
    ) -> Result<Found, Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let set = move |core: &mut Core| {
            let (ino, _) = core.find_path(&path.0)?;
            core.set_attributes(ino, &new)
        };
        self.client.call(set).await
    }

    /// An extended attribute of a node.
    ///
    /// # Errors
    /// `ENODATA` if there is none; those of the tree.
    pub async fn attribute(&self, path: impl AsRef<Path>, name: &str) -> Result<Bytes, Errno> {
        let (path, name) = (TreePath::parse(path.as_ref())?, name.as_bytes().to_owned());
        let read = move |core: &mut Core| {
            let (ino, _) = core.find_path(&path.0)?;
            core.xattr(ino, &name)
        };
        self.client.call(read).await
    }

    /// Sets an extended attribute of a node.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if programs can't set it; those of the tree.
    pub async fn set_attribute(
        &self,
        path: impl AsRef<Path>,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), Errno> {
        let path = TreePath::parse(path.as_ref())?;
        let (name, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        let set = move |core: &mut Core| {
            let (ino, _) = core.find_path(&path.0)?;
            core.set_xattr(ino, &name, &value, XattrMode::Either)
        };
        self.client.call(set).await
    }

    /// Gives an order for something in a mailbox.
    ///
    /// `EINVAL` if it is not in a mailbox, `EEXIST` if it was sent, `EBUSY` if it is open for writing,
    /// `EDQUOT` if the recipient's inbox is full: then it waits.
    pub async fn order(&self, path: impl AsRef<Path>, order: Order) -> Result<(), Errno> {
        self.set_attribute(path, STATE_XATTR, order.value()).await
    }

    /// The files and directories from other users that are in the inbox, by sender and name.
    ///
    /// # Errors
    /// Those of the tree.
    pub async fn inbox(&self) -> Result<Vec<Arrival>, Errno> {
        let mut arrivals = Vec::new();
        for Entry { name: sender, found } in self.list("inbox").await? {
            if !found.1.is_directory() {
                continue;
            }
            for entry in self.list(Path::new("inbox").join(as_path(&sender))).await? {
                arrivals.push(Arrival { sender: sender.clone(), entry });
            }
        }
        Ok(arrivals)
    }

    /// Waits until everything done so far is durable.
    ///
    /// `EIO` if the session is over before that.
    pub async fn sync(&self) -> Result<(), Errno> {
        self.client.sync().await
    }

    /// Forgets all bytes that are durable, so that the next reads fetch them from the server.
    ///
    /// # Errors
    /// Those of the tree.
    pub async fn forget_data(&self) -> Result<(), Errno> {
        self.client
            .call(|core: &mut Core| {
                core.forget_durable_data();
                Ok(())
            })
            .await
    }

    /// The state of the session, for display.
    pub fn status(&self) -> Status {
        self.client.status()
    }

    /// Ends the session: makes everything durable and logs out.
    ///
    /// # Errors
    /// If the session was over before everything was durable.
    pub async fn finish(self) -> Result<(), Lost> {
        self.client.finish().await
    }

    async fn add(&self, path: TreePath, new: New) -> Result<(), Errno> {
        let (parent, name) = path.split()?;
        let owner = self.client.owner();
        let add = move |core: &mut Core| make(core, &parent, &name, &new, owner);
        self.client.call(add).await
    }
}

fn make(
    core: &mut Core,
    parent: &TreePath,
    name: &Name,
    new: &New,
    owner: Owner,
) -> Result<(), Stop> {
    let parent: Ino = core.find_path(&parent.0)?.0;
    core.add(parent, name, new, owner).map(drop)
}

fn as_path(name: &Name) -> &Path {
    Path::new(OsStr::from_bytes(name.as_bytes()))
}

//! Bytes in plain files: the part of the engine that keeps contents.
//!
//! A content is one file, written in place, in `contents/` of the store's directory; its path
//! follows from its number alone (`shards`). `unsynced` keeps track of changes that must still be
//! synced, and `syncing` syncs them. `copying` copies bytes, `space` allocates and frees space on
//! the disk, `lost` keeps contents that no row refers to, and `measuring` says how much all take.
//!
//! **Invariant:** a file is opened by its number, and never through a symbolic link.

mod asked;
mod copying;
mod space;
mod lost;
mod measuring;
mod ends;
mod shards;
mod syncing;
mod unsynced;

use std::fs::{DirBuilder, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use asked::Files;
pub use ends::Ends;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock, fstat, fstatvfs, lstat, syncfs};
use rustix::io::{Errno, retry_on_intr};
use shards::{Directory, ShardPath};
use time::{Date, OffsetDateTime};
use unsynced::{Failures, Unsynced};
use xfer_protocol::ContentId;
use xfer_protocol::tree::Room;

use super::lock::prepare_directory;
use super::place::{Mounted, Pin, is_same, options, syncs_as_a_whole};
use crate::{Disk, Stop, StoreError};

/// The most files kept open.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(512).expect("512 is not 0");

/// A store's contents, in its `contents` directory.
pub struct FileStore {
    root: PathBuf,
    /// Open from the beginning, so that it reports every failed write-back.
    root_file: File,
    syncs_as_a_whole: bool,
    pin: Pin,
    whole_from: ContentId,
    open: Mutex<LruCache<ContentId, Arc<File>>>,
    unsynced: Mutex<Unsynced>,
    /// Whether the filesystem may not offer yet what was freed.
    has_freed: AtomicBool,
    /// Held during a sync: the kernel reports a failure once, and the report must reach the content
    /// that it belongs to.
    syncing: Mutex<()>,
}

impl FileStore {
    /// Opens the contents in the store's directory `dir`, and creates missing directories.
    ///
    /// # Errors
    /// If they can't be read and written.
    pub fn open(dir: &Path) -> Result<FileStore, StoreError> {
        let root = dir.join("contents");
        prepare_directory(dir)?;
        prepare_directory(&root)?;
        let failed = |error| StoreError::io(format!("the store's {}", root.display()), error);
        let pin = Pin::of("contents", &root)?;
        let root_file = File::open(&root).map_err(failed)?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        // Directories that an earlier server created, but did not sync before it was killed, may still
        // be in use.
        let syncs_as_a_whole = syncs_as_a_whole(&root_file).map_err(failed)?;
        match syncs_as_a_whole {
            true => syncfs(&root_file).map_err(io::Error::from),
            false => syncing::sync_directories_in(&root),
        }
        .map_err(failed)?;
        Ok(FileStore {
            root,
            root_file,
            syncs_as_a_whole,
            pin,
            whole_from: ContentId(u64::MAX),
            open: Mutex::new(LruCache::new(OPEN_MAX)),
            unsynced: Mutex::default(),
            has_freed: AtomicBool::new(false),
            syncing: Mutex::default(),
        })
    }

    /// Expects contents from this number on to be as long as the data they were given; a shorter
    /// one is damaged. Older versions of the program did not extend a content over space allocated
    /// at its end.
    #[must_use]
    pub fn whole_from(self, first: ContentId) -> FileStore {
        FileStore { whole_from: first, ..self }
    }

    /// Prevents listings of the contents for as long as this store is open, for a process that
    /// creates contents beside the server. Waits for a listing in progress to end.
    ///
    /// # Errors
    /// If the directory can't be locked.
    pub fn make_beside_server(&self) -> Result<(), StoreError> {
        retry_on_intr(|| flock(&self.root_file, FlockOperation::LockShared))
            .map_err(|error| StoreError::io("locking the store's contents", error.into()))
    }

    /// Checks that the directory is still the one that was opened.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if it is not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.pin.check()
    }

    /// The error for a failed operation. A missing file may have a larger cause.
    fn failed(&self, doing: &str, content: ContentId, error: io::Error) -> StoreError {
        if copying::is_stop(&error) {
            return StoreError::Stopped;
        }
        if error.kind() != io::ErrorKind::NotFound {
            return StoreError::io(format!("{doing} content {content}"), error);
        }
        match self.check() {
            Err(gone) => gone,
            Ok(()) => StoreError::Damaged(format!("content {content} is missing")),
        }
    }

    /// Moves back the contents set aside that are `wanted`, and returns their number.
    ///
    /// # Errors
    /// If a file can't be moved, or `wanted` fails.
    pub fn bring_back(
        &self,
        wanted: impl Fn(ContentId) -> Result<bool, StoreError>,
    ) -> Result<u64, StoreError> {
        lost::bring_back(&self.root, wanted)
    }

    /// Removes contents that were set aside before `day`, and returns the number of days they came
    /// from.
    ///
    /// # Errors
    /// If a file can't be removed.
    pub fn free_set_aside(&self, day: Date) -> Result<u64, StoreError> {
        lost::free(&self.root, day)
            .map_err(|error| StoreError::io("removing what was set aside", error))
    }

    /// The highest number of any content. Looks at all of them.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn highest(&self) -> Result<Option<ContentId>, StoreError> {
        let mut highest = None;
        shards::visit(&self.root, &mut |content| highest = highest.max(Some(content)))
            .map_err(|error| StoreError::io("listing the store's contents", error))?;
        Ok(highest)
    }

    /// The file of a content, which must exist.
    fn file(&self, content: ContentId) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.lock().get(&content) {
            return Ok(file.clone());
        }
        // Opened without the lock. Another thread may open it too, and either file will do.
        let path = ShardPath::of(content).path(&self.root);
        let file = self.keep_open(content, options().open(&path)?);
        // If the content was removed in the meantime, its open file would hold the space until it
        // is evicted.
        let is_there =
            lstat(&path).is_ok_and(|there| fstat(&*file).is_ok_and(|held| is_same(&held, &there)));
        if !is_there {
            self.open.lock().pop(&content);
        }
        Ok(file)
    }

    /// Fails if a content ends at `end`, before the length it was given, unless its number is below
    /// `whole_from`.
    fn must_reach(&self, content: ContentId, given: u64, end: u64) -> Result<(), StoreError> {
        if end >= given || content < self.whole_from {
            return Ok(());
        }
        Err(StoreError::Damaged(format!(
            "content {content} ends at byte {end}, and its data goes on to byte {given}"
        )))
    }

    fn keep_open(&self, content: ContentId, file: File) -> Arc<File> {
        let file = Arc::new(file);
        let mut open = self.open.lock();
        let closed = open.push(content, file.clone()).filter(|(closed, _)| *closed != content);
        if let Some((closed, _)) = &closed {
            // Noted before another descriptor of it can be opened.
            self.unsynced.lock().note_closed(*closed);
        }
        file
    }

    fn make(&self, content: ContentId) -> io::Result<Arc<File>> {
        let place = ShardPath::of(content);
        let path = place.path(&self.root);
        let make = || options().create_new(true).open(&path);
        let file = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directories(place)?;
                make()?
            }
            made => made?,
        };
        {
            let mut unsynced = self.unsynced.lock();
            unsynced.note_directory(place.leaf());
            unsynced.note_content(content);
        }
        Ok(self.keep_open(content, file))
    }

    fn make_directories(&self, place: ShardPath) -> io::Result<()> {
        for (parent, directory) in [(Directory::Root, place.top()), (place.top(), place.leaf())] {
            let path = directory.path(&self.root);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    self.unsynced.lock().note_directory(parent);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Changes a content, and notes it as unsynced both before and after: a sync that fails in
    /// between may have lost a part of the change, and one that succeeds may have missed a part.
    /// The first note comes before the file is opened, so that the closing of its descriptor is
    /// noted too.
    fn change(
        &self,
        content: ContentId,
        change: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.unsynced.lock().note_content(content);
        let file = self.file(content)?;
        let changed = change(&file);
        self.unsynced.lock().note_content(content);
        changed
    }

    /// Checks that a synced content will be found at its path, and that its file is the one that
    /// was synced. A file that was removed beneath the server, or created in a mount over a part of
    /// the store, can be written like any other.
    fn must_be_in_place(&self, content: ContentId, home: Mounted) -> Result<(), StoreError> {
        let path = ShardPath::of(content).path(&self.root);
        // A content that is not open was opened by its path after the write, or is about to be.
        let held = self.open.lock().peek(&content).cloned();
        let there = lstat(&path).map_err(io::Error::from);
        let in_place = there.and_then(|there| match held {
            Some(file) => Ok(is_same(&fstat(&*file)?, &there)),
            None => Ok(true),
        });
        match in_place.and_then(|in_place| Ok((in_place, Mounted::at(&path)?))) {
            Ok((true, mounted)) if mounted == home => Ok(()),
            Ok((true, _)) => Err(io::Error::other("something is mounted over its place")),
            Ok((false, _)) => Err(io::Error::other("its file was replaced")),
            Err(error) => Err(error),
        }
        .map_err(|error| self.failed("finding", content, error))
    }
}

impl Files for FileStore {
    fn create(&self, content: ContentId) -> Result<(), StoreError> {
        self.make(content).map_err(|error| self.failed("making", content, error))?;
        Ok(())
    }

    fn write(&self, content: ContentId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        self.change(content, |file| file.write_all_at(data, offset))
            .map_err(|error| self.failed("writing", content, error))
    }

    fn read(&self, content: ContentId, offset: u64, data: &mut [u8]) -> Result<usize, StoreError> {
        let failed = |error| self.failed("reading", content, error);
        let file = self.file(content).map_err(failed)?;
        let count = copying::read_full(&file, offset, data).map_err(failed)?;
        if count < data.len() {
            let end = file.metadata().map_err(failed)?.len();
            self.must_reach(content, offset + data.len() as u64, end)?;
        }
        Ok(count)
    }

    fn zero(
        &self,
        content: ContentId,
        offset: u64,
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        self.change(content, |file| space::zero(file, offset, len, stop))
            .map_err(|error| self.failed("clearing", content, error))
    }

    fn duplicate(
        &self,
        from: ContentId,
        to: ContentId,
        ranges: &[Range<u64>],
        stop: &Stop,
    ) -> Result<(), StoreError> {
        let source = self.file(from).map_err(|error| self.failed("copying", from, error))?;
        let end = source.metadata().map_err(|error| self.failed("copying", from, error))?.len();
        self.must_reach(from, ranges.last().map_or(0, |last| last.end), end)?;
        self.create(to)?;
        let copied = self.change(to, |file| copying::copy_sparse(&source, file, ranges, stop));
        if copied.is_err() {
            // A partly copied content belongs to no row. If it can't be removed, a sweep will find
            // it.
            self.remove(to).ok();
        }
        copied.map_err(|error| self.failed("copying", from, error))
    }

    fn copy(
        &self,
        from: (ContentId, u64),
        to: (ContentId, u64),
        len: u64,
        stop: &Stop,
    ) -> Result<(), StoreError> {
        let failed = |error| self.failed("copying", from.0, error);
        let source = self.file(from.0).map_err(failed)?;
        // Computed beforehand, since a copy within one file may move its end.
        let end = source.metadata().map_err(failed)?.len();
        self.must_reach(from.0, from.1 + len, end)?;
        let there = len.min(end.saturating_sub(from.1));
        self.change(to.0, |file| {
            if from.0 == to.0 && from.1.abs_diff(to.1) < there {
                copying::copy_overlapping(file, from.1, to.1, there, stop)?;
            } else {
                copying::copy_range((&source, from.1), (file, to.1), there, stop)?;
            }
            // Past its end, the source reads as zeros.
            space::zero(file, to.1 + there, len - there, stop)
        })
        .map_err(failed)
    }

    fn free(&self, content: ContentId, offset: u64, len: u64) -> Result<(), StoreError> {
        let freed = self.file(content).and_then(|file| {
            if content < self.whole_from {
                space::reach(&file, offset + len)?;
            }
            space::free(&file, offset..offset + len)
        });
        self.has_freed.store(true, Ordering::Relaxed);
        freed.map_err(|error| self.failed("freeing", content, error))
    }

    fn keep(&self, content: ContentId, ranges: &[Range<u64>]) -> Result<(), StoreError> {
        // A round looks at many contents in a row, and must not evict files that sessions have
        // open.
        let held = self.open.lock().peek(&content).cloned();
        let file = held.map_or_else(
            || Ok(Arc::new(options().open(ShardPath::of(content).path(&self.root))?)),
            Ok,
        );
        let freed = file.and_then(|file| {
            if content < self.whole_from {
                // Shortening the file frees the space allocated past its end.
                space::reach(&file, ranges.last().map_or(0, |last| last.end) + 1)?;
            }
            space::keep(&file, ranges)
        });
        self.has_freed.store(true, Ordering::Relaxed);
        freed.map_err(|error| self.failed("freeing", content, error))
    }

    fn make_each_durable(&self, contents: &[ContentId]) -> Result<Failures, StoreError> {
        let mut failures = self.sync(contents);
        // Checked even after a failure, because it tells the cause.
        self.check()?;
        let home = Mounted::at(&self.root.join("."))
            .map_err(|error| StoreError::io("the store's contents", error))?;
        for content in contents {
            if let Err(error) = self.must_be_in_place(*content, home) {
                failures.entry(*content).or_insert(error);
            }
        }
        Ok(failures)
    }

    fn remove(&self, content: ContentId) -> Result<(), StoreError> {
        let removed = std::fs::remove_file(ShardPath::of(content).path(&self.root));
        // Evicted only after the removal: before it, another thread could open the file again.
        self.open.lock().pop(&content);
        self.unsynced.lock().forget(content);
        self.has_freed.store(true, Ordering::Relaxed);
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| self.failed("removing", content, error)),
        }
    }

    /// Sets a content aside. Returns its size; `None` if it was removed meanwhile.
    fn set_aside(&self, content: ContentId) -> Result<Option<u64>, StoreError> {
        let set_aside = lost::set_aside(&self.root, content, OffsetDateTime::now_utc().date());
        // Evicted only after the move: before it, another thread could open the file again.
        self.open.lock().pop(&content);
        self.unsynced.lock().forget(content);
        set_aside.map_err(|error| self.failed("setting aside", content, error))
    }

    /// Fails while another process creates contents: those that it has not committed yet can't be
    /// told from those that never will be.
    fn each(&self, visit: &mut dyn FnMut(ContentId)) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("listing the store's contents", error);
        match flock(&self.root_file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::Importing);
            }
            Err(error) => return Err(failed(error.into())),
        }
        let visited = shards::visit(&self.root, visit);
        flock(&self.root_file, FlockOperation::Unlock).map_err(|error| failed(error.into()))?;
        visited.map_err(failed)
    }

    fn offer_freed(&self) -> Result<(), StoreError> {
        if !self.has_freed.swap(false, Ordering::Relaxed) || !self.syncs_as_a_whole {
            return Ok(());
        }
        // By another descriptor: the failures that `root_file` reports are those of contents.
        let synced = File::open(&self.root).and_then(|root| Ok(syncfs(&root)?));
        synced.map_err(|error| StoreError::io("waiting for freed space", error))
    }

    fn disk(&self) -> Result<Disk, StoreError> {
        let stat = fstatvfs(&self.root_file)
            .map_err(|error| StoreError::io("asking for the disk's free space", error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        // Some file systems have no fixed number of files, and report 0.
        let files = |files| if stat.f_files == 0 { u64::MAX } else { files };
        Ok(Disk {
            free: Room { bytes: bytes(stat.f_bavail), files: files(stat.f_favail) },
            size: Room { bytes: bytes(stat.f_blocks), files: files(stat.f_files) },
        })
    }
}

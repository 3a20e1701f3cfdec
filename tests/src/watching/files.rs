//! Files for tests, and system calls on them that the standard library lacks.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};

use crate::Random;

/// Makes a tree of `count` small files in directories of a few dozen; returns the number of bytes.
pub fn make_tree(root: &Path, count: usize, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut bytes = 0;
    for index in 0..count {
        let directory = root.join(format!("d{:02}", index % 20)).join(format!("e{}", index % 3));
        std::fs::create_dir_all(&directory).unwrap();
        let len = random.below(6000) as usize;
        std::fs::write(directory.join(format!("file {index}.txt")), random.bytes(len)).unwrap();
        bytes += len as u64;
    }
    bytes
}

/// The extended attributes of a node in `user.`. Does not follow a link.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0u8; 64 << 10];
    let len = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    names
        .map(|name| {
            (name.escape_ascii().to_string(), xattr(path, OsStr::from_bytes(name)).unwrap())
        })
        .collect()
}

/// The value of an extended attribute, if the node has it.
pub fn xattr(path: &Path, name: impl AsRef<OsStr>) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 64 << 10];
    let name = CString::new(name.as_ref().as_bytes()).unwrap();
    let len = lgetxattr(path, name.as_c_str(), &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

/// Like [`xattr`], as text.
pub fn xattr_text(path: &Path, name: &str) -> Option<String> {
    xattr(path, name).map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// Sets an extended attribute.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    lsetxattr(path, name, value, XattrFlags::empty())
}

/// Opens a file for reading and writing, creating it if missing.
pub fn read_write(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Writes a file, and waits until it is durable.
pub fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The errno of an I/O operation; 0 if it succeeded.
pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Empties the kernel's caches, if permitted; remounting empties those of a mount in any case.
pub fn drop_kernel_caches() {
    if rustix::process::geteuid().is_root() {
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
    }
}

/// A file's bytes in a shared mapping.
pub struct Mapped {
    address: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    /// Maps the first `len` bytes of a file that is open for reading and writing.
    pub fn new(file: &File, len: usize) -> Mapped {
        Mapped::try_new(file.as_fd(), len).unwrap()
    }

    /// Like [`Mapped::new`], but returns the system's error.
    pub fn try_new(file: BorrowedFd<'_>, len: usize) -> std::io::Result<Mapped> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address chosen by the kernel affects no other memory.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Mapped { address, len })
    }

    /// Copies bytes out of the mapping.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut bytes = vec![0; len];
        let from = self.address.cast::<u8>();
        // SAFETY: the range lies within the mapping, which lives as long as `self`.
        unsafe { std::ptr::copy(from.add(offset), bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Copies bytes into the mapping.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        let to = self.address.cast::<u8>();
        // SAFETY: the range lies within the mapping, which lives as long as `self`.
        unsafe { std::ptr::copy(bytes.as_ptr(), to.add(offset), bytes.len()) };
    }

    /// Flushes written bytes to the filesystem (msync(2) with `MS_SYNC`).
    pub fn sync(&self) {
        // SAFETY: address and length are the mapping's own.
        let result = unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: address and length are the mapping's own, and no reference to it remains.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

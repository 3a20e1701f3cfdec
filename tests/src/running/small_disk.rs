//! Small filesystems, which are full soon.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::shell;

/// A small filesystem; dropping it unmounts it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A tmpfs at a directory. `size` is as `mount` takes it.
    pub fn at(path: &Path, size: &str) -> SmallDisk {
        let options = format!("mount -t tmpfs -o size={size},mode=700 tmpfs '{}'", path.display());
        shell(Path::new("/"), &options);
        SmallDisk(path.to_owned())
    }

    /// An ext4 of 96 MiB with a limited number of inodes.
    pub fn with_files(path: &Path, files: u32) -> SmallDisk {
        SmallDisk::made_by(&format!("mkfs.ext4 -q -N {files}"), path, "96M")
    }

    /// A btrfs of 300 MiB, which offers the space of removed files late.
    pub fn that_frees_late(path: &Path) -> SmallDisk {
        SmallDisk::made_by("mkfs.btrfs -q", path, "300M")
    }

    fn made_by(mkfs: &str, path: &Path, size: &str) -> SmallDisk {
        let image = path.with_extension("image");
        let make = format!(
            "truncate -s {size} '{0}' && {mkfs} '{0}' && mount -o loop '{0}' '{1}' && chmod 700 '{1}'",
            image.display(),
            path.display()
        );
        shell(Path::new("/"), &make);
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

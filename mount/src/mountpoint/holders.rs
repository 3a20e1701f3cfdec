//! Finds the programs that keep a mount busy, as far as `/proc` shows them to this user.
//!
//! It checks working and root directories, executables and open files. It does not check mapped
//! memory: reading that list would wait for a program that itself waits for the mount.

use std::fs;
use std::path::{Path, PathBuf};

/// The most programs that are named.
const NAMED_MAX: usize = 5;

/// A program that uses something below a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Holder {
    pid: u32,
    name: String,
}

/// Names the programs that use something below `mountpoint`: `vim (pid 312), bash (pid 20)`. `None` if
/// there are no such programs.
pub fn names(mountpoint: &Path) -> Option<String> {
    let mut holders: Vec<Holder> = processes().filter_map(|pid| holder(pid, mountpoint)).collect();
    holders.sort_by_key(|holder| holder.pid);
    let named = holders.iter().take(NAMED_MAX);
    let named: Vec<String> =
        named.map(|Holder { pid, name }| format!("{name} (pid {pid})")).collect();
    let more = holders.len() - named.len();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join(", ")),
        (false, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process, if it uses something below the mount point; `None` if it ends meanwhile.
fn holder(pid: u32, mountpoint: &Path) -> Option<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let links = ["cwd", "root", "exe"].map(|link| process.join(link)).into_iter();
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut used = links.chain(files.map(|file| file.path()));
    // Links are read but not followed: following one would ask the mount.
    used.any(|link| fs::read_link(link).is_ok_and(|path| path.starts_with(mountpoint)))
        .then(|| Holder { pid, name: name(&process) })
}

fn name(process: &Path) -> String {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn those_with_a_file_open_or_their_working_directory_beneath_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().canonicalize().unwrap();
        assert_eq!(names(&place), None);
        let mut cat = Command::new("cat");
        let mut child =
            cat.current_dir(&place).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        assert_eq!(names(&place), Some(format!("cat (pid {})", child.id())));
        assert_eq!(names(&place.join("beneath")), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        let _open = fs::File::create(place.join("file")).unwrap();
        let open = names(&place).unwrap();
        assert!(open.contains(&format!("(pid {})", std::process::id())), "{open}");
    }
}

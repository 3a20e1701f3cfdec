//! Finds the programs that keep a mount busy, as far as `/proc` shows them to this user.
//!
//! It checks working and root directories, executables and open files. It does not check mapped
//! memory: reading that list would wait for a program that itself waits for the mount.

use std::fs;
use std::path::{Path, PathBuf};

use xfer_protocol::size;

/// The most programs that are named.
const NAMED_MAX: usize = 5;

/// A program that uses something below a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Holder {
    pid: u32,
    name: String,
    /// Whether that is its working directory alone.
    only_works_there: bool,
}

/// Says which programs use something below `mountpoint`, and how: `vim (pid 312) has files open there; bash
/// (pid 20) has its working directory there (leave it with: cd /)`. `None` if there are no such programs.
pub fn names(mountpoint: &Path) -> Option<String> {
    let mut holders: Vec<Holder> = processes().filter_map(|pid| holder(pid, mountpoint)).collect();
    holders.sort_by_key(|holder| (holder.only_works_there, holder.pid));
    let more = holders.len().saturating_sub(NAMED_MAX);
    holders.truncate(NAMED_MAX);
    let (works, opens): (Vec<_>, Vec<_>) =
        holders.iter().partition(|holder| holder.only_works_there);
    let mut parts = Vec::new();
    if !opens.is_empty() {
        parts.push(format!("{} files open there", have(&opens)));
    }
    if !works.is_empty() {
        parts.push(format!("{} a working directory there (leave it with: cd /)", have(&works)));
    }
    if more > 0 {
        parts.push(format!("also in use by {}", size::count(more as u64, "more program")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn have(holders: &[&Holder]) -> String {
    let names = holders.iter().map(|Holder { pid, name, .. }| format!("{name} (pid {pid})"));
    let names = names.collect::<Vec<_>>().join(", ");
    if holders.len() == 1 { format!("{names} has") } else { format!("{names} have") }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process, if it uses something below the mount point; `None` if it ends meanwhile.
fn holder(pid: u32, mountpoint: &Path) -> Option<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    // Links are read but not followed: following one would ask the mount.
    let is_there =
        |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(mountpoint));
    let links = ["root", "exe"].map(|link| process.join(link)).into_iter();
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let opens = links.chain(files.map(|file| file.path())).any(is_there);
    let works = is_there(process.join("cwd"));
    (opens || works).then(|| Holder { pid, name: name(&process), only_works_there: !opens })
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
        let works = "has a working directory there (leave it with: cd /)";
        assert_eq!(names(&place), Some(format!("cat (pid {}) {works}", child.id())));
        assert_eq!(names(&place.join("beneath")), None);
        let _open = fs::File::create(place.join("file")).unwrap();
        let both = names(&place).unwrap();
        let opens = format!("(pid {}) has files open there; cat", std::process::id());
        assert!(both.contains(&opens) && both.ends_with(works), "{both}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

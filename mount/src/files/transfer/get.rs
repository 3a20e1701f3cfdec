//! `xfer get`: from the tree to this machine.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::futimens;
use rustix::io::Errno;

use super::super::errno::of_io;
use super::super::opening::Opened;
use super::super::pattern::expand;
use super::super::place::{Either, absolute};
use super::super::plan::{Job, make_directories, without_collisions};
use super::super::reading::print;
use super::super::show::Output;
use super::super::tree::{Changes, Kind, Meta, times};
use super::super::walking::{Next, walk};
use super::pool::do_all;
use super::{Transfer, Trouble};
use crate::command::file_lines::GetLine;
use crate::process::exit::{Exit, Failure};

/// Fetches files and directories.
pub(in super::super) fn get(mut line: GetLine) -> Result<(), Failure> {
    let is_last_here = line.places.len() > 1
        && line.places.last().is_some_and(|last| {
            !last.as_encoded_bytes().starts_with(b":")
                && matches!(Either::parse(last), Ok(Either::Here(_)))
        });
    let to = match is_last_here {
        true => line.places.pop().unwrap_or_default(),
        false => ".".into(),
    };
    let (places, opened) = Opened::of(&line.places, line.transfer.access)?;
    let found = expand(&*opened.tree, &places, "read", &opened.report);
    let transfer =
        Transfer::new(&*opened.tree, &opened.report, &opened.label, line.transfer.checksum);
    let done = match to == "-" {
        true => print_all(&opened, &found),
        false => {
            let is_quiet = line.transfer.quiet;
            fetch_all(&transfer, found, Path::new(&to), line.transfer.recursive, is_quiet)
        }
    };
    opened.close_after(done, Changes::None)
}

fn print_all(opened: &Opened, found: &[(PathBuf, Meta)]) -> Result<(), Failure> {
    let mut output = Output::new();
    for (path, _) in found {
        let file = opened.tree.open(path);
        match file.and_then(|file| print(&*file, &(0..u64::MAX), &mut output)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(errno) => opened.report.fail("read", path, errno),
        }
    }
    output.end()
}

fn fetch_all(
    transfer: &Transfer<'_>,
    found: Vec<(PathBuf, Meta)>,
    to: &Path,
    recursive: bool,
    is_quiet: bool,
) -> Result<(), Failure> {
    let is_directory = fs::metadata(to).is_ok_and(|found| found.is_dir());
    let must_be_one = found.len() > 1 || to.as_os_str().as_encoded_bytes().ends_with(b"/");
    if must_be_one && !is_directory {
        let why = if to.exists() { "not a directory" } else { "no such file or directory" };
        let line = format!("cannot write to '{}': {why}", to.display());
        return Err(Failure::new(Exit::Other, line));
    }
    if let [(from, meta)] = &found[..]
        && meta.is_file()
        && takes_bytes(to)
    {
        transfer.report.begin(meta.size, is_quiet);
        let fetched = transfer.fetch_into(from, meta, to);
        fetched.map_or_else(|trouble| trouble.tell(transfer.report), |()| true);
        transfer.report.end();
        return Ok(());
    }
    let (mut jobs, mut directories) = (Vec::new(), Vec::new());
    // The root has no name.
    let place = |from: &Path| {
        let name = from.file_name().filter(|_| is_directory);
        name.map_or(to.to_owned(), |name| to.join(name))
    };
    let job = |(from, meta): (PathBuf, Meta)| Job { to: place(&from), from, meta };
    let mut found = found.into_iter().map(job).collect();
    without_collisions(&mut found, (transfer.report, "transfer"), absolute);
    for Job { from, meta, to } in found {
        if meta.is_directory() && !recursive {
            let why = "it is a directory; give -r to fetch it with everything in it";
            transfer.report.fail_with("fetch", &absolute(&from), why);
        } else {
            plan(transfer, (&from, meta), &to, &mut jobs, &mut directories);
        }
    }
    make_directories(&mut directories, &mut jobs, transfer.report, |path| {
        let made = make_directory(path, path == to);
        let trouble = made.map_err(|errno| Trouble::here("make", path, errno));
        trouble.map_err(|trouble| trouble.tell(transfer.report)).is_ok()
    });
    without_collisions(&mut jobs, (transfer.report, "transfer"), Path::to_owned);
    transfer.report.begin(jobs.iter().map(|job| job.meta.size).sum(), is_quiet);
    do_all(&jobs, |job| {
        let fetched = match job.meta.kind {
            Kind::Symlink(_) => transfer.fetch_link(&job.meta, &job.to),
            _ => transfer.fetch(&job.from, &job.meta, &job.to),
        };
        fetched.map_or_else(|trouble| trouble.tell(transfer.report), |()| true)
    });
    // Those in a directory first, since they change its time.
    for Job { meta, to, .. } in directories.iter().rev() {
        if let Err(errno) = settle_directory(to, meta) {
            Trouble::here("write", to, errno).tell(transfer.report);
        }
    }
    transfer.report.end();
    Ok(())
}

/// Whether a path leads to a pipe, a device, or a file that this process has open, such as /dev/stdout: what is
/// written to, as by cp(1), and not replaced.
fn takes_bytes(path: &Path) -> bool {
    let is_one =
        |kind: fs::FileType| kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
    fs::metadata(path).is_ok_and(|found| is_one(found.file_type())) || is_descriptor(path)
}

/// Whether a path is, or links to, one of the files that a process has open: `/proc/PID/fd/N`.
fn is_descriptor(path: &Path) -> bool {
    const LINKS_MAX: usize = 8;
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = at.parent().and_then(|parent| fs::canonicalize(parent).ok());
        if directory
            .is_some_and(|directory| directory.starts_with("/proc") && directory.ends_with("fd"))
        {
            return true;
        }
        let Ok(target) = fs::read_link(&at) else { return false };
        at = at.parent().unwrap_or(Path::new("/")).join(target);
    }
    false
}

/// Plans what is fetched. Nothing is made meanwhile: where the tree is mounted, the target may be in it.
fn plan(
    transfer: &Transfer<'_>,
    (from, meta): (&Path, Meta),
    to: &Path,
    jobs: &mut Vec<Job>,
    directories: &mut Vec<Job>,
) {
    walk(transfer.tree, from.to_owned(), meta, transfer.report, &mut |path, meta| {
        let below = path.strip_prefix(from).unwrap_or(Path::new(""));
        let is_top = below.as_os_str().is_empty();
        let to = if is_top { to.to_owned() } else { to.join(below) };
        let job = Job { from: path.to_owned(), meta: meta.clone(), to };
        match &meta.kind {
            Kind::Directory => directories.push(job),
            Kind::File | Kind::Symlink(_) => jobs.push(job),
            Kind::Pipe | Kind::Socket | Kind::Device => {
                transfer.report.fail("fetch", path, Errno::INVAL);
            }
        }
        Next::Within
    });
}

/// Makes a directory unless there is one. A link to one is one only where the user has named it.
fn make_directory(path: &Path, is_named: bool) -> Result<(), Errno> {
    let is_directory = |path: &Path| match is_named {
        true => fs::metadata(path).is_ok_and(|found| found.is_dir()),
        false => fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()),
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if errno_is_exist(&error) && is_directory(path) => Ok(()),
        made => made.map_err(of_io),
    }
}

fn errno_is_exist(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AlreadyExists
}

fn settle_directory(path: &Path, meta: &Meta) -> Result<(), Errno> {
    let directory = File::open(path).map_err(of_io)?;
    futimens(&directory, &times(meta.mtime))?;
    let mode = fs::Permissions::from_mode(u32::from(meta.mode & 0o777));
    directory.set_permissions(mode).map_err(of_io)
}

/// Whether an argument means standard input or output.
pub(super) fn is_stream(path: &OsStr) -> bool {
    path == "-"
}

//! Contents that were set aside because no row referred to them when a server started.
//!
//! Most of them are left over from a crash. But if the database is not the one they belong to, they
//! are users' files. So they are not removed at once but moved to `contents/lost/DATE`, and removed
//! after some days. If a row refers to one of them at a later start, it is moved back.
//!
//! The directory is below `contents` so that it is on the same filesystem.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use time::Date;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use xfer_protocol::ContentId;

use super::shards::{self, ShardPath};

const NAME: &str = "lost";

/// The format of the directories' names, one for each day.
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// Sets a content aside on `day`, and returns the bytes that it takes on the disk; `None` if there
/// is no such content.
pub(super) fn set_aside(root: &Path, content: ContentId, day: Date) -> io::Result<Option<u64>> {
    let from = ShardPath::of(content).path(root);
    let bytes = match from.symlink_metadata() {
        Ok(metadata) => metadata.blocks() * 512,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let day = root.join(NAME).join(day.format(DAY).map_err(io::Error::other)?);
    move_to(&from, &ShardPath::of(content).path(&day))?;
    Ok(Some(bytes))
}

/// Moves back contents that were set aside, are `wanted` and are missing from their place. Returns
/// their number.
pub(super) fn bring_back<E: From<io::Error>>(
    root: &Path,
    wanted: impl Fn(ContentId) -> Result<bool, E>,
) -> Result<u64, E> {
    let mut count = 0;
    for (directory, _) in days(root)? {
        let mut found = Vec::new();
        shards::visit(&directory, &mut |content| found.push(content))?;
        for content in found {
            let place = ShardPath::of(content).path(root);
            if wanted(content)? && !place.try_exists()? {
                move_to(&ShardPath::of(content).path(&directory), &place)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Removes contents that were set aside before `day`. Returns the number of days that they came
/// from.
pub(super) fn free(root: &Path, day: Date) -> io::Result<u64> {
    let mut count = 0;
    for (directory, set_aside) in days(root)? {
        if set_aside < day {
            std::fs::remove_dir_all(directory)?;
            count += 1;
        }
    }
    Ok(count)
}

/// The directories of days. Any others were made by someone else.
fn days(root: &Path) -> io::Result<Vec<(PathBuf, Date)>> {
    let all = root.join(NAME);
    let names = match shards::names(&all, |kind| kind.is_dir()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let day = |name: String| Some((all.join(&name), Date::parse(&name, DAY).ok()?));
    Ok(names.into_iter().filter_map(day).collect())
}

/// Moves a file durably. The target must not exist, and no other thread moves files here meanwhile.
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    if to.try_exists()? {
        let text = format!("{} is there already", to.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let directory = to.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::rename(from, to)?;
    File::open(directory)?.sync_all()
}

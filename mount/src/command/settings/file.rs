//! A file of settings: TOML, with settings for all accounts, and sections for some.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use xfer_client::connect::Target;
use xfer_terminal::settings::{self, Place};

use super::Layer;
use super::known::{KNOWN, Setting, exclude};
use crate::process::exit::Failure;

/// The key of the table whose keys are accounts.
const ACCOUNTS: &str = "account";

/// Settings by their names.
type Section = BTreeMap<&'static str, Setting>;

/// What a file says; nothing if there is none.
#[derive(Default)]
pub(super) struct SettingsFile {
    path: PathBuf,
    general: Section,
    accounts: Vec<(Target, Section)>,
}

impl SettingsFile {
    /// Reads a file, and checks all that it says, also for other accounts.
    ///
    /// # Errors
    /// If it is wrong, can't be read, or others may write it.
    pub(super) fn read(path: &Path, place: Place) -> Result<SettingsFile, Failure> {
        let wrong = |what: String| Failure::usage(format!("{}: {what}", path.display()));
        let read = settings::read(path, place, |file| must_be_own(file, path));
        let Some(table) = read.map_err(wrong)? else { return Ok(SettingsFile::default()) };
        let accounts = match table.get(ACCOUNTS) {
            Some(Value::Table(accounts)) => sections(accounts).map_err(wrong)?,
            Some(_) => return Err(wrong(format!("{ACCOUNTS}: write [{ACCOUNTS}.\"USER@HOST\"]"))),
            None => Vec::new(),
        };
        let general = table.iter().filter(|(key, _)| *key != ACCOUNTS);
        let general = section(general).map_err(wrong)?;
        Ok(SettingsFile { path: path.to_owned(), general, accounts })
    }

    /// Its settings for an account, the lower rank first.
    pub(super) fn layers_of(self, target: &Target) -> Vec<Layer> {
        let path = self.path.display().to_string();
        let section = |(account, values)| {
            let origin = format!("{path}, [{ACCOUNTS}.\"{account}\"]");
            Layer { origin, values }
        };
        let of_account = self.accounts.into_iter().filter(|(account, _)| account == target);
        let of_account = of_account.map(section);
        let general = Layer { origin: path.clone(), values: self.general };
        std::iter::once(general).chain(of_account).collect()
    }
}

/// The settings of accounts.
fn sections(accounts: &Table) -> Result<Vec<(Target, Section)>, String> {
    let of_account = |(account, settings): (&String, &Value)| {
        let place = format!("[{ACCOUNTS}.{account:?}]");
        let target = account.parse().map_err(|error| format!("{place}: {error}"))?;
        let settings = settings.as_table().ok_or_else(|| format!("{place}: give settings"))?;
        Ok((target, section(settings.iter()).map_err(|why| format!("{place}: {why}"))?))
    };
    let sections = accounts.iter().map(of_account).collect::<Result<Vec<_>, String>>()?;
    for (at, (account, _)) in sections.iter().enumerate() {
        if sections[..at].iter().any(|(other, _)| other == account) {
            return Err(format!("there are two sections [{ACCOUNTS}] of {account}; make them one"));
        }
    }
    Ok(sections)
}

/// Settings for the same accounts.
fn section<'a>(table: impl Iterator<Item = (&'a String, &'a Value)>) -> Result<Section, String> {
    let mut section = Section::new();
    for (key, value) in table {
        let (name, setting) = setting(key, value)?;
        if section.insert(name, setting).is_some() {
            let dashed = name.replace('_', "-");
            return Err(format!("{name} and {dashed} are one setting; give it once"));
        }
    }
    for one in &section {
        if let Some((other, _)) =
            section.iter().find(|other| exclude((one.0, one.1), (other.0, other.1)))
        {
            return Err(format!("use only one of {} and {other}", one.0));
        }
    }
    Ok(section)
}

/// A setting, by its key, in which dashes may stand for `_`.
fn setting(key: &str, value: &Value) -> Result<(&'static str, Setting), String> {
    let plain = key.replace('-', "_");
    let Some((name, takes)) = KNOWN.iter().find(|(name, _)| *name == plain) else {
        let known: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no setting '{key}'; there are: {}", known.join(", ")));
    };
    let setting = Setting::parse(name, *takes, value).map_err(|why| format!("{key}: {why}"))?;
    Ok((name, setting))
}

/// Refuses a file that another user than this one and root could have written. What is no plain file, like
/// `/dev/null`, says nothing of that.
fn must_be_own(file: &Metadata, path: &Path) -> Result<(), String> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let (own, path) = (rustix::process::geteuid().as_raw(), path.display());
    match file.uid() == own || file.uid() == 0 {
        _ if !file.is_file() => Ok(()),
        false => Err(format!("it belongs to another user; run: chown {own} {path}")),
        true if file.mode() & WRITABLE_BY_OTHERS != 0 => {
            Err(format!("others may write to it; run: chmod go-w {path}"))
        }
        true => Ok(()),
    }
}

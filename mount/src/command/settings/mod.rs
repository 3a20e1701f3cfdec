//! Settings: options of `xfer-mount` for all mounts, or for those of one account, from files and from the
//! environment.
//!
//! A setting is a word of `-o`, which all options can be written as. So it is described, and its values are
//! checked, where the words are. The command line wins over the environment (`XFER_WAIT` for `wait=`), that
//! over the account's section of the user's file, that over the rest of this file, and that over the
//! machine's file, in which a section wins over the rest too.
//!
//! **Invariant:** passwords are no settings; a file with one may be.

mod file;
mod known;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::Value;
use xfer_client::connect::Target;
use xfer_terminal::settings::Place;

use super::cli::{MountLine, PasswordLine, ServerLine, TrustLine};
use super::options;
use crate::process::exit::Failure;
use crate::process::output::print;
use file::SettingsFile;
use known::{DEFAULTS, KNOWN, OPPOSITES, Setting, exclude};

/// The file for all users of this machine.
const MACHINE_FILE: &str = "/etc/xfer/client.toml";

/// The variable that names a file in place of the user's own. A server on this machine has another.
const FILE_VARIABLE: &str = "XFER_CLIENT_CONFIG";

/// What begins the names of variables that are settings.
const VARIABLE_PREFIX: &str = "XFER_";

/// Settings of one rank, and where they come from.
struct Layer {
    origin: String,
    values: BTreeMap<&'static str, Setting>,
}

/// The settings for one account; each has the origin that it comes from.
#[derive(Clone, Default)]
struct Settings {
    values: BTreeMap<&'static str, (Setting, String)>,
}

/// Completes a command line with the settings for its account, and prints them if it says so.
///
/// # Errors
/// If a file of settings, a variable or a word of `-o` is wrong.
pub fn complete(mut line: MountLine) -> Result<MountLine, Failure> {
    let words = std::mem::take(&mut line.options);
    let words = options::take_settings(words, &mut line)?;
    // A change of a mount changes what it says, and nothing else.
    let is_remount = words.iter().any(|word| word == "remount");
    let target: Option<Target> = line.target.parse().ok();
    let (Some(target), false) = (target, is_remount) else {
        // An account that is wrong is named by the checks of the command line.
        return Ok(MountLine { options: words, ..line });
    };
    let mut settings = Settings::of(&target, line.config.take())?;
    let mut all = settings.clone();
    all.put(of_line(&line, &words));
    if line.print_config {
        print(&all.text())?;
    }
    settings.values.retain(|name, _| all.values.contains_key(name));
    let (mut given, words_of_files) = settings.taken()?;
    let MountLine { password, trust, known_hosts, .. } = &mut line;
    fill(&mut given, password, trust, known_hosts);
    line.takeover |= given.takeover;
    line.cache_size = line.cache_size.or(given.cache_size);
    line.log_size = line.log_size.or(given.log_size);
    line.tree_size = line.tree_size.or(given.tree_size);
    // The last of two words that contradict each other wins.
    line.options = words_of_files.into_iter().chain(words).collect();
    Ok(line)
}

/// Completes how a command of `xfer` reaches an account's server, and where the password comes from.
///
/// # Errors
/// If a file of settings or a variable is wrong.
pub fn complete_access(
    target: &Target,
    server: &mut ServerLine,
    password: &mut PasswordLine,
) -> Result<(), Failure> {
    let settings = Settings::of(target, server.config.take())?;
    let (mut given, _) = settings.taken()?;
    fill(&mut given, password, &mut server.trust, &mut server.known_hosts);
    Ok(())
}

/// Fills in what a command line leaves open.
fn fill(
    given: &mut MountLine,
    password: &mut PasswordLine,
    trust: &mut TrustLine,
    known_hosts: &mut Option<PathBuf>,
) {
    if password.password_file.is_none() && !password.password_stdin {
        *password = std::mem::take(&mut given.password);
    }
    if !trust.accept_new && trust.fingerprint.is_none() && trust.ca.is_none() {
        *trust = std::mem::take(&mut given.trust);
    }
    if known_hosts.is_none() {
        *known_hosts = given.known_hosts.take();
    }
}

impl Settings {
    /// The settings for an account. `named` is a file in place of the user's own.
    fn of(target: &Target, named: Option<PathBuf>) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        let machine = SettingsFile::read(Path::new(MACHINE_FILE), Place::Usual)?;
        let of_variable = || std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty());
        let named = named.or_else(|| of_variable().map(PathBuf::from));
        let own = match (named, own_file()) {
            (Some(path), _) => SettingsFile::read(&path, Place::Named)?,
            (None, Some(path)) => SettingsFile::read(&path, Place::Usual)?,
            (None, None) => SettingsFile::default(),
        };
        for file in [machine, own] {
            file.layers_of(target).into_iter().for_each(|layer| settings.put(layer));
        }
        for layer in of_environment()? {
            settings.put(layer);
        }
        Ok(settings)
    }

    /// Adds settings of a higher rank than all before. One that excludes others takes their place.
    fn put(&mut self, layer: Layer) {
        let Layer { origin, values } = layer;
        self.values.retain(|name, (before, _)| {
            !values.iter().any(|(other, setting)| exclude((name, before), (other, setting)))
        });
        let values = values.into_iter();
        self.values.extend(values.map(|(name, setting)| (name, (setting, origin.clone()))));
    }

    /// The settings as a command line has them: its own options, and the words that are left.
    fn taken(&self) -> Result<(MountLine, Vec<String>), Failure> {
        let mut line = MountLine::bare("", PathBuf::new());
        let words = self.values.iter().filter_map(|(name, (setting, _))| setting.word(name));
        let words = options::take_settings(words.collect(), &mut line)?;
        Ok((line, words))
    }

    /// The settings in force, as a file that would give the same.
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, _) in KNOWN {
            let default = DEFAULTS.iter().find(|(known, _)| known == name);
            let (value, origin) = match (self.values.get(name), default) {
                (Some((setting, origin)), _) => (setting.value(), origin.as_str()),
                (None, Some((_, value))) => (Value::String((*value).to_owned()), "the default"),
                (None, None) => continue,
            };
            // Writing to a string can't fail.
            let _ = writeln!(text, "# {origin}\n{name} = {value}");
        }
        text
    }
}

/// What the command line says, as settings.
fn of_line(line: &MountLine, words: &[String]) -> Layer {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let options = [
        ("password_file", path(&line.password.password_file)),
        ("known_hosts", path(&line.known_hosts)),
        ("ca", path(&line.trust.ca)),
        ("fingerprint", line.trust.fingerprint.clone()),
        ("cache_size", line.cache_size.clone()),
        ("log_size", line.log_size.clone()),
        ("tree_size", line.tree_size.clone()),
    ];
    let mut values = BTreeMap::new();
    for (name, value) in options {
        value.into_iter().for_each(|value| drop(values.insert(name, Setting::Is(value))));
    }
    for (name, is_given) in [("accept_new", line.trust.accept_new), ("takeover", line.takeover)] {
        if is_given {
            values.insert(name, Setting::On);
        }
    }
    for word in words {
        let (name, setting) = match word.split_once('=') {
            Some((name, value)) => (name, Setting::Is(value.to_owned())),
            None => (word.as_str(), Setting::On),
        };
        let opposite = OPPOSITES.iter().find(|(_, opposite)| *opposite == name);
        let (name, setting) = opposite.map_or((name, setting), |(name, _)| (name, Setting::Off));
        if let Some((name, _)) = KNOWN.iter().find(|(known, _)| *known == name) {
            values.insert(name, setting);
        }
    }
    Layer { origin: "the command line".to_owned(), values }
}

/// The settings in the environment, each a layer of its own.
fn of_environment() -> Result<Vec<Layer>, Failure> {
    let mut layers = Vec::new();
    for (name, takes) in KNOWN {
        let variable = format!("{VARIABLE_PREFIX}{}", name.to_ascii_uppercase());
        let Some(text) = std::env::var_os(&variable) else { continue };
        let setting = Setting::parse(name, *takes, &Value::String(text.to_string_lossy().into()));
        let wrong = |why: String| Failure::usage(format!("{variable}: {why}"));
        let setting = setting.map_err(wrong)?;
        let excluded = layers.iter().find(|layer: &&Layer| {
            layer.values.iter().any(|(other, value)| exclude((other, value), (name, &setting)))
        });
        if let Some(Layer { origin, .. }) = excluded {
            return Err(wrong(format!("use only one of this and {origin}")));
        }
        layers.push(Layer { origin: variable, values: BTreeMap::from([(*name, setting)]) });
    }
    Ok(layers)
}

/// The user's own file; `None` without a home.
fn own_file() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let directory = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
    let home = || std::env::home_dir().filter(absolute).map(|home| home.join(".config"));
    Some(directory.or_else(home)?.join("xfer/config.toml"))
}

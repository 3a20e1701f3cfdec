//! Which settings there are, and how a value is written.

use toml::Value;

use super::super::cli::{CACHE_SIZE, LOG_SIZE, MountLine, TREE_SIZE};
use super::super::config::Config;
use crate::process::exit::Failure;

/// The settings, by the names of the words of `-o`. Words that are meant for one command are none.
pub(super) const KNOWN: &[(&str, Takes)] = &[
    ("password_file", Takes::Path),
    ("known_hosts", Takes::Path),
    ("ca", Takes::Path),
    ("fingerprint", Takes::Value),
    ("accept_new", Takes::Switch),
    ("takeover", Takes::Switch),
    ("cache_size", Takes::Value),
    ("log_size", Takes::Value),
    ("tree_size", Takes::Value),
    ("wait", Takes::Value),
    ("retry", Takes::Value),
    ("silence", Takes::Value),
    ("offline", Takes::Either),
    ("handoff", Takes::Switch),
    ("ids", Takes::Value),
    ("uid", Takes::Value),
    ("gid", Takes::Value),
    ("umask", Takes::Octal),
    ("fmask", Takes::Octal),
    ("dmask", Takes::Octal),
    ("allow_other", Takes::Switch),
    ("ro", Takes::Switch),
    ("noexec", Takes::Switch),
    ("suid", Takes::Switch),
    ("dev", Takes::Switch),
    ("sync", Takes::Switch),
    ("fsname", Takes::Value),
];

/// Settings of which only one can be in force.
const EXCLUSIVE: &[&str] = &["accept_new", "fingerprint", "ca"];

/// Words that switch off what a setting switches on.
pub(super) const OPPOSITES: &[(&str, &str)] = &[
    ("ro", "rw"),
    ("noexec", "exec"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("sync", "async"),
    ("offline", "nooffline"),
    ("handoff", "nohandoff"),
];

/// What is in force if nothing is said.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("cache_size", CACHE_SIZE),
    ("log_size", LOG_SIZE),
    ("tree_size", TREE_SIZE),
    ("wait", "30"),
    ("retry", "0"),
    ("silence", "10"),
];

/// Whether only one of two settings can be in force.
pub(super) fn exclude(one: (&str, &Setting), other: (&str, &Setting)) -> bool {
    let is_trust =
        |(name, setting): (&str, &Setting)| EXCLUSIVE.contains(&name) && *setting != Setting::Off;
    let is_stored = |(name, setting): (&str, &Setting)| {
        name == "ids" && *setting == Setting::Is("stored".to_owned())
    };
    let is_owner = |(name, _)| name == "uid" || name == "gid";
    let both_trust = one.0 != other.0 && is_trust(one) && is_trust(other);
    both_trust || is_stored(one) && is_owner(other) || is_owner(one) && is_stored(other)
}

/// What a setting takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// True or false.
    Switch,
    /// A text or a number.
    Value,
    /// A text with a number in octal. TOML's own numbers would be read as decimal ones.
    Octal,
    /// Either of these.
    Either,
    /// An absolute path, or one from the home directory.
    Path,
}

/// The value of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    On,
    Off,
    Is(String),
}

impl Setting {
    /// Parses a value, and has it checked by the rules for options.
    ///
    /// # Errors
    /// Why it can't be one, for the user.
    pub(super) fn parse(name: &str, takes: Takes, value: &Value) -> Result<Setting, String> {
        let setting = match value {
            Value::Boolean(true) => Setting::On,
            Value::Boolean(false) => Setting::Off,
            Value::Integer(number) => Setting::Is(number.to_string()),
            // As the environment has them.
            Value::String(text) if text == "true" => Setting::On,
            Value::String(text) if text == "false" => Setting::Off,
            Value::String(text) => Setting::Is(text.clone()),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                return Err("give a text, a number, true or false".to_owned());
            }
        };
        let setting = match (takes, setting) {
            (Takes::Switch, Setting::Is(_)) => return Err("give true or false".to_owned()),
            (Takes::Octal, Setting::Is(_)) if matches!(value, Value::Integer(_)) => {
                return Err("give an octal number as a text, like \"077\"".to_owned());
            }
            (Takes::Value | Takes::Octal | Takes::Path, Setting::On | Setting::Off) => {
                return Err("give a value, not true or false".to_owned());
            }
            (Takes::Path, Setting::Is(path)) => Setting::Is(absolute(&path)?),
            (Takes::Switch | Takes::Value | Takes::Octal | Takes::Either, setting) => setting,
        };
        let mut line = MountLine::bare("alice@host", "/".into());
        line.options.extend(setting.word(name));
        match Config::try_from(line) {
            Ok(_) => Ok(setting),
            Err(Failure { line, .. }) => Err(without_name(&line, name).to_owned()),
        }
    }

    /// The word of `-o` for it, if it takes one.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        match self {
            Setting::On => Some(name.to_owned()),
            Setting::Off => None,
            Setting::Is(value) => Some(format!("{name}={value}")),
        }
    }

    /// The value as a file has it.
    pub(super) fn value(&self) -> Value {
        match self {
            Setting::On => Value::Boolean(true),
            Setting::Off => Value::Boolean(false),
            Setting::Is(text) => Value::String(text.clone()),
        }
    }
}

/// What a line for the command line says of an option, whose name the user is told otherwise.
fn without_name<'a>(line: &'a str, name: &str) -> &'a str {
    let of_word = || line.strip_prefix(&format!("option '{name}="))?.split_once("': ");
    let of_option = line.strip_prefix(&format!("--{}: ", name.replace('_', "-")));
    of_option.or(of_word().map(|(_, why)| why)).unwrap_or(line)
}

/// A path, with the home directory in place of `~`.
fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    let below = text.strip_prefix("~/").ok_or("give a path that begins with / or ~/")?;
    let home = std::env::home_dir().ok_or("there is no home directory for ~; set HOME")?;
    Ok(home.join(below).display().to_string())
}

//! Settings: options of `xfer-server run`, and the store, from a file and from the environment.
//!
//! An option on the command line wins over the environment (`XFER_LISTEN` for `--listen`), that over
//! the file, and that over the default. The file is TOML; its keys are the names of the options. It
//! gives clap its default values, so an option is described, and its values are checked, in one place.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};
use xfer_terminal::settings::{self, Place};

use super::{Cli, complaint};
use crate::program::exit::{Exit, Failure};

/// The file that is read if it is there and no other is named.
const FILE: &str = "/etc/xfer/server.toml";

/// The variable that names another one.
const FILE_VARIABLE: &str = "XFER_CONFIG";

/// Options that are no settings, since each is meant for one command.
const NO_SETTINGS: [&str; 4] = ["accept-older-database", "print-config", "help", "version"];

/// Why a command line can't be read.
pub(super) enum Unread {
    /// It is wrong, or asks for help.
    Line(clap::Error),
    /// The settings that go with it are wrong.
    Settings(Failure),
}

/// What a command line says, together with the settings.
pub(super) struct Read {
    pub(super) cli: Cli,
    matches: ArgMatches,
    file: SettingsFile,
}

impl Read {
    /// Reads a command line, and the settings that go with it.
    ///
    /// # Errors
    /// If either is wrong. A command line that is wrong is named first, and help is given whatever is in
    /// the file.
    pub(super) fn arguments(arguments: Vec<OsString>) -> Result<Read, Unread> {
        if let Err(error) = Cli::command().try_get_matches_from(&arguments) {
            return Err(match variable_of(&error, &arguments) {
                Some(name) => Unread::Settings(wrong_variable(&name, &error)),
                None => Unread::Line(error),
            });
        }
        let file = SettingsFile::read(place(&arguments)).map_err(Unread::Settings)?;
        let matches = file.applied().try_get_matches_from(&arguments);
        let matches = matches.map_err(|error| Unread::Settings(file.wrong(&complaint(&error))))?;
        let cli = Cli::from_arg_matches(&matches).map_err(Unread::Line)?;
        Ok(Read { cli, matches, file })
    }

    /// The settings in force, as a file that would give the same.
    pub(super) fn shown(&self) -> String {
        let command = Cli::command();
        let run = self.matches.subcommand_matches("run");
        let mut text = String::new();
        for argument in settings(&command) {
            let id = argument.get_id().as_str();
            let matches = run.filter(|run| run.try_contains_id(id).unwrap_or(false));
            let Some(value) = matches.and_then(|run| run.get_raw(id)?.next()) else {
                continue;
            };
            let source = match matches.and_then(|run| run.value_source(id)) {
                Some(ValueSource::CommandLine) => "the command line".to_owned(),
                Some(ValueSource::EnvVariable) => variable(argument),
                Some(_) | None if self.file.table.contains_key(key(argument)) => {
                    self.file.place.display().to_string()
                }
                Some(_) | None => "the default".to_owned(),
            };
            let value = Value::String(value.to_string_lossy().into_owned());
            // Writing to a string can't fail.
            let _ = writeln!(text, "# {}\n{} = {value}", source, key(argument));
        }
        text
    }
}

/// A file of settings; empty if there is none.
struct SettingsFile {
    place: PathBuf,
    table: Table,
}

impl SettingsFile {
    fn read((path, place): (PathBuf, Place)) -> Result<SettingsFile, Failure> {
        let file = SettingsFile { place: path.clone(), table: Table::new() };
        let read = settings::read(&path, place, |_| Ok(()));
        let Some(table) = read.map_err(|why| file.wrong(&why))? else { return Ok(file) };
        let file = SettingsFile { table, ..file };
        file.check()?;
        Ok(file)
    }

    /// Refuses keys that are no settings, and values that no option takes.
    fn check(&self) -> Result<(), Failure> {
        let command = Cli::command();
        let known: Vec<&str> = settings(&command).map(key).collect();
        for (key, value) in &self.table {
            if !known.contains(&key.as_str()) {
                let line = format!("there is no setting '{key}'; there are: {}", known.join(", "));
                return Err(self.wrong(&line));
            }
            if text_of(value).is_none() {
                let line = format!("{key} must be a text or a number, as in {key} = \"...\"");
                return Err(self.wrong(&line));
            }
        }
        Ok(())
    }

    /// The command line's syntax, with what the file says as default values.
    fn applied(&self) -> Command {
        let with_default = |argument: Arg| match self.table.get(key(&argument)).and_then(text_of) {
            Some(text) => argument.default_value(text),
            None => argument,
        };
        let command = Cli::command().mut_args(with_default);
        command.mut_subcommand("run", |run| run.mut_args(with_default))
    }

    fn wrong(&self, what: &str) -> Failure {
        let line =
            format!("{}: {what}; mend the file, or name another by --config", self.place.display());
        Failure::new(Exit::Usage, line)
    }
}

/// The variable that a wrong value comes from, if it is not in the command line.
fn variable_of(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let option = argument.split(' ').next()?;
    let command = Cli::command();
    let variable = settings(&command)
        .find(|setting| option.strip_prefix("--") == Some(key(setting)))
        .map(variable)?;
    let is_given = |word: &OsString| {
        let word = word.to_string_lossy();
        word == option || word.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
    };
    (!arguments.iter().any(is_given)).then_some(variable)
}

fn wrong_variable(name: &str, error: &clap::Error) -> Failure {
    let line = format!("{}; it comes from the variable {name}: mend or unset it", complaint(error));
    Failure::new(Exit::Usage, line)
}

/// Which file the settings are in. Looked for before the command line is read, since that needs them.
fn place(arguments: &[OsString]) -> (PathBuf, Place) {
    let mut arguments = arguments.iter();
    let mut named = None;
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            named = arguments.next().map(PathBuf::from);
        } else if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config="))
        {
            named = Some(PathBuf::from(path));
        }
    }
    match named.or(std::env::var_os(FILE_VARIABLE).map(PathBuf::from)) {
        Some(path) => (path, Place::Named),
        None => (PathBuf::from(FILE), Place::Usual),
    }
}

/// The options that are settings: the store, and those of `run`.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let run = command.find_subcommand("run").into_iter().flat_map(Command::get_arguments);
    command
        .get_arguments()
        .chain(run)
        .filter(|argument| argument.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long)))
        .filter(|argument| argument.get_long() != Some("config"))
}

fn key(argument: &Arg) -> &str {
    argument.get_long().unwrap_or_default()
}

fn variable(argument: &Arg) -> String {
    argument.get_env().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

/// A value as it would be given on the command line.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    }
}

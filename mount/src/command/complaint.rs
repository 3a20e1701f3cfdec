//! What is wrong with a command line, as one line for its user: clap's first sentence, an example if
//! something is missing, and the command whose help says more.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use crate::command::sshfs;
use crate::process::exit::Failure;

/// What an example begins with where help shows it, below a command's options.
pub(super) const EXAMPLE: &str = "For example: ";

/// The failure for a command line that `error` is about; its first word is the program.
pub(super) fn failure(error: &Error, command: &Command, words: &[OsString]) -> Failure {
    let (command, name) = meant(command, words.get(1..).unwrap_or_default());
    let help = format!("see: {name} --help");
    let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let example = example.strip_prefix(EXAMPLE).map(|line| format!(", as in: {line}"));
    let example = example.unwrap_or_default();
    let line = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            format!("a command is missing; {help}")
        }
        ErrorKind::TooFewValues => format!("{}{example}; {help}", too_few(command)),
        ErrorKind::MissingRequiredArgument => format!("{}{example}; {help}", sentence(error)),
        _ => {
            // Those that mount have users who know the options of sshfs.
            let mounts = !name.starts_with("xfer ") || name == "xfer mount";
            let advice = advice(error).filter(|_| mounts);
            format!("{}; {}", sentence(error), advice.unwrap_or(&help))
        }
    };
    Failure::usage(line)
}

/// The command that a line is of, and its name with those of the commands that it is part of.
fn meant<'a>(program: &'a Command, words: &[OsString]) -> (&'a Command, String) {
    let (mut command, mut name) = (program, program.get_name().to_owned());
    for word in words.iter().take_while(|word| *word != "--") {
        if let Some(part) = command.find_subcommand(word) {
            command = part;
            name = format!("{name} {}", part.get_name());
        }
    }
    (command, name)
}

/// That one of at least two arguments is missing. It may be the last, which is of another kind than those
/// before it.
fn too_few(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let last = usage.split_whitespace().next_back().unwrap_or_default();
    let names = command.get_positionals().find_map(|argument| argument.get_value_names());
    match names.and_then(|names| names.first()) {
        Some(first) if first != last => format!("{first} or {last} is missing"),
        Some(_) | None => format!("a second {last} is missing"),
    }
}

/// The first paragraph of clap's message, without the usage below it.
fn sentence(error: &Error) -> String {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    let line = xfer_terminal::plain(line.strip_prefix("error: ").unwrap_or(&line));
    match suggestion(error) {
        Some(word) => format!("{line} (did you mean {word}?)"),
        None => line,
    }
}

/// The word that was perhaps meant by one that is not known.
fn suggestion(error: &Error) -> Option<&str> {
    let is_suggestion =
        |kind| matches!(kind, ContextKind::SuggestedSubcommand | ContextKind::SuggestedArg);
    error.context().find(|(kind, _)| is_suggestion(*kind)).and_then(|(_, value)| match value {
        ContextValue::String(word) => Some(word.as_str()),
        // The nearest comes last.
        ContextValue::Strings(words) => words.last().map(String::as_str),
        _ => None,
    })
}

/// What to write in place of an option of sshfs.
fn advice(error: &Error) -> Option<&'static str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => sshfs::of_flag(flag),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    use crate::command::xfer_line::XferLine;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = XferLine::command().try_get_matches_from(&words).unwrap_err();
        assert_eq!(failure(&error, &XferLine::command(), &words).line, expected);
    }

    #[test]
    fn what_is_missing_is_said_with_an_example() {
        check(
            "xfer send f --to bob",
            "FILE or USER@HOST[:PORT] is missing, as in: xfer send report.pdf \
             alice@server.example.org --to bob; see: xfer send --help",
        );
        check(
            "xfer cp alice@host:f",
            "a second USER@HOST[:PORT]:PATH is missing, as in: xfer cp -r \
             alice@server.example.org:notes :copy; see: xfer cp --help",
        );
        check("xfer unmount", "missing: <MOUNTPOINT>; see: xfer unmount --help");
    }

    #[test]
    fn the_help_that_is_named_is_that_of_the_command() {
        check("xfer", "a command is missing; see: xfer --help");
        // Not what users of sshfs are told.
        check("xfer ls -1 a@h:", "unexpected argument '-1' found; see: xfer ls --help");
        check("xfer unmount -d m", "unexpected argument '-d' found; see: xfer unmount --help");
        check("xfer rescue", "a command is missing; see: xfer rescue --help");
        check(
            "xfer outbox send --shiny",
            "unexpected argument '--shiny' found; see: xfer outbox send --help",
        );
        check(
            "xfer head -n x a@h:f",
            "invalid value 'x' for '--lines <LINES>': it is not a whole number; see: xfer head --help",
        );
        check(
            "xfer unmont m",
            "there is no command 'unmont' (did you mean unmount?); see: xfer --help",
        );
        check("xfer -x ls", "unexpected argument '-x' found; see: xfer ls --help");
    }
}

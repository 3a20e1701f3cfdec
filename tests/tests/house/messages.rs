//! What the programs say to people, as it stands in their sources: short lines in plain English, all in one
//! form.
//!
//! A line begins with a small letter, or with the thing that it is about. What is wrong comes first, and behind
//! a semicolon what to do. A command at its end follows a colon; one within a sentence is in backticks. What a
//! person has typed is in single quotes. There is no full stop at the end. Questions are sentences.
//!
//! Not looked at: what is said by `tracing::debug!` and `trace!`, and texts of more than one line.
#![allow(clippy::unwrap_used)]

use clap::{Command, CommandFactory};

use crate::tidy::{Source, sources};

/// The crates whose texts people read.
const SPEAKING: [&str; 7] = ["mount", "client", "server", "store", "link", "protocol", "terminal"];

/// What comes before a text that no user reads.
const UNSAID: [&str; 9] = [
    "expect(",
    "reason = ",
    "debug!(",
    "trace!(",
    "unreachable!(",
    "concat!(",
    "execute_batch(",
    "include_str!(",
    "custom(",
];

/// What begins statements of SQL, and their parts.
const SQL: [&str; 10] = [
    "SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "PRAGMA ", " FROM ", " WHERE ", " AND ",
    "VALUES ",
];

/// What comes before a line that says what went wrong, or was done.
const LINES: [&str; 22] = [
    "#[error(",
    "Failure::usage(",
    "Failure::new(",
    "Exit::",
    "report(",
    "note(",
    "note_error(",
    "print_line(",
    "fail_line(",
    "warn!(",
    "error!(",
    "info!(",
    "refused(",
    "other(",
    "wrong(",
    "Err(",
    "line = ",
    "why = ",
    "what = ",
    "Instead(",
    "Conflict(",
    "Entry(",
];

/// A text in a source.
#[derive(Debug)]
struct Text {
    /// The file, and the line in it.
    place: String,
    /// The code before it, from the statement's beginning on, or some of it.
    before: String,
    said: String,
}

/// All texts of a source that have several words and that people may read.
fn texts(source: &Source) -> Vec<Text> {
    let code = source.production();
    let mut found = Vec::new();
    let (mut at, mut statement) = (0, 0);
    while at < code.len() {
        let rest = &code[at..];
        let len = match rest.as_bytes()[0] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'\'' => character(rest),
            b'r' if rest.starts_with("r#\"") => 3 + rest[3..].find("\"#").unwrap() + 2,
            b'"' => {
                let len = quoted(rest);
                let said = joined(&rest[1..len - 1]);
                if said.trim().contains(' ') {
                    let line = code[..at].lines().count();
                    let before = code[statement..at].to_owned();
                    found.push(Text { place: format!("{}:{line}", source.path), before, said });
                }
                len
            }
            b';' | b'{' | b'}' => {
                statement = at + 1;
                1
            }
            _ => rest.chars().next().unwrap().len_utf8(),
        };
        at += len;
    }
    let is_said = |text: &Text| !UNSAID.iter().any(|word| call(&text.before).ends_with(word));
    let is_sql = |text: &Text| SQL.iter().any(|word| text.said.contains(word));
    found.retain(|text| is_said(text) && !is_sql(text));
    found
}

/// The length of the character, or of the lifetime's mark, at the beginning of the code.
fn character(code: &str) -> usize {
    let inner = code[1..].chars().next().unwrap();
    match inner {
        '\\' => 2 + code[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').unwrap().0 + 1,
        _ if code[1 + inner.len_utf8()..].starts_with('\'') => 2 + inner.len_utf8(),
        _ => 1,
    }
}

/// The length of the text in quotes at the beginning of the code.
fn quoted(code: &str) -> usize {
    let mut is_escaped = false;
    let mut inner = code.char_indices().skip(1);
    let end = inner.find(|(_, c)| {
        let ends = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    });
    end.unwrap().0 + 1
}

/// A text as it is printed, with escapes as they are written.
fn joined(written: &str) -> String {
    let mut parts = written.split("\\\n");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// The code up to a text's arguments, without what formats it.
fn call(before: &str) -> &str {
    let mut code = before.trim_end();
    while let Some(rest) = ["format!(", "&"].iter().find_map(|word| code.strip_suffix(word)) {
        code = rest.trim_end();
    }
    code
}

/// Whether a text is a line of its own, and not a part of one, a question, a table or a page.
fn is_line(text: &Text) -> bool {
    let is_question = text.said.contains('?') || text.said.ends_with(": ");
    let code = call(&text.before);
    // The fields of an event come before its text.
    let is_event = ["warn!(", "error!(", "info!("].iter().any(|event| code.contains(event));
    let follows = |start: &&str| code.ends_with(start.trim_end());
    // An arm of a `match`, or the value of a block.
    let is_value = code.trim().is_empty() || code.ends_with("=>");
    let is_said = is_event || is_value || LINES.iter().any(follows);
    !is_question && (is_said || code.contains("Exit::"))
}

fn has_word(text: &str, word: &str) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_of_word) && !text[at + word.len()..].starts_with(is_of_word)
    })
}

/// Whether a noun for several things follows a placeholder, as in `{count} files`, which is wrong for one.
fn counts_without_care(text: &str) -> bool {
    const NOUNS: [&str; 8] =
        ["changes", "bytes", "files", "entries", "items", "days", "seconds", "keys"];
    // Constants are more than one.
    let is_constant = |before: &str| before.ends_with(|c: char| c.is_ascii_uppercase());
    text.match_indices("} ").any(|(at, gap)| {
        let rest = &text[at + gap.len()..];
        !is_constant(&text[..at]) && NOUNS.iter().any(|noun| rest.starts_with(noun))
    })
}

/// A text without what is in its placeholders.
fn without_names(text: &str) -> String {
    let parts = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    parts.collect::<Vec<_>>().join("{}")
}

/// What is wrong with a text of any kind, if anything is.
fn fault(said: &str) -> Option<&'static str> {
    let words = without_names(said);
    const RUST: [&str; 12] = [
        "unwrap", "errno", "panicked", "None", "Some", "Ok", "Err", "enum", "struct", "mutex",
        "tokio", "rustls",
    ];
    const SHORT: [&str; 6] = ["n't", "'re ", "'ll ", "'ve ", "it's ", "let's "];
    // Tables are set with more spaces.
    let is_prose = !said.contains("\\n") && !said.contains('\n') && !said.contains(">");
    let has_gap = said.match_indices("  ").any(|(at, gap)| {
        let is_word = |c: char| c.is_alphanumeric();
        said[..at].ends_with(is_word) && said[at + gap.len()..].starts_with(is_word)
    });
    let commands = ["see xfer", "run xfer", "use xfer", "with xfer"];
    match said {
        _ if SHORT.iter().any(|short| said.contains(short)) => Some("a contraction"),
        _ if said.contains("://") => Some("an address of a page"),
        _ if is_prose && has_gap => Some("two spaces"),
        _ if RUST.iter().any(|word| has_word(&words, word)) => Some("a word of programmers"),
        _ if said.contains(" \\\"{") => Some("double quotes: single ones are the form"),
        _ if commands.iter().any(|start| said.contains(start)) => {
            Some("a command with neither a colon before it nor backticks")
        }
        _ => None,
    }
}

/// What is wrong with a line, if anything is.
fn fault_of_line(said: &str) -> Option<&'static str> {
    // Names of things may begin with a capital, and so may the sentences before a question.
    const NAMES: [&str; 2] = ["TLS", "SAVEPOINT"];
    if ["This removes ", "This deletes "].iter().any(|start| said.starts_with(start)) {
        return None;
    }
    let begins_large = said.starts_with(char::is_uppercase);
    match said {
        _ if begins_large && !NAMES.iter().any(|name| said.starts_with(name)) => Some("a capital"),
        _ if said.ends_with(['.', '!', ';', ',']) => Some("a stop at the end"),
        _ if said.ends_with(' ') => Some("a space at the end"),
        _ if said.contains(":?}") => Some("a value as programmers see it"),
        _ if counts_without_care(said) => Some("a number that may be one with several things"),
        _ => None,
    }
}

fn spoken() -> Vec<Text> {
    let is_spoken = |source: &Source| {
        let mut parts = source.path.split('/');
        let is_ours = SPEAKING.contains(&parts.next().unwrap()) && parts.next() == Some("src");
        is_ours && !source.is_test()
    };
    sources().iter().filter(|source| is_spoken(source)).flat_map(texts).collect()
}

fn must_have_none<'a>(faults: impl Iterator<Item = (&'a Text, &'static str)>) {
    let faults: Vec<_> =
        faults.map(|(text, fault)| format!("{}: {fault}: {}", text.place, text.said)).collect();
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_text_has_slang_or_words_of_programmers() {
    let texts = spoken();
    assert!(texts.len() > 900, "{} texts were found", texts.len());
    must_have_none(texts.iter().filter_map(|text| Some((text, fault(&text.said)?))));
}

#[test]
fn each_line_has_the_form_of_the_others() {
    let mut lines = spoken();
    lines.retain(is_line);
    assert!(lines.len() > 500, "{} lines were found", lines.len());
    let wanted = [
        "the connection to the server is back",
        "the password is empty",
        "there is no user '{name}'; see: xfer-server user list",
        "the store's disk is full; free some space",
    ];
    for line in wanted {
        assert!(lines.iter().any(|text| text.said == line), "{line}");
    }
    must_have_none(lines.iter().filter_map(|text| Some((text, fault_of_line(&text.said)?))));
}

/// Whether what help says of a command or an option is plain; `found` gets what is wrong.
fn look_at_help(command: &Command, name: &str, found: &mut Vec<String>, count: &mut usize) {
    let of_command = command.get_about().map(ToString::to_string);
    let of_arguments = command.get_arguments().filter_map(|argument| argument.get_help());
    for said in of_command.into_iter().chain(of_arguments.map(ToString::to_string)) {
        *count += 1;
        let is_small = said.starts_with(char::is_lowercase);
        let wrong = match fault(&said) {
            None if is_small => Some("a small letter"),
            None if said.ends_with('.') => Some("a stop at the end"),
            fault => fault,
        };
        found.extend(wrong.map(|wrong| format!("{name}: {wrong}: {said}")));
    }
    for part in command.get_subcommands() {
        look_at_help(part, &format!("{name} {}", part.get_name()), found, count);
    }
}

#[test]
fn help_is_as_plain_and_ends_without_a_stop() {
    let (mut found, mut count) = (Vec::new(), 0);
    for command in [
        xfer_mount::command::cli::MountLine::command(),
        xfer_mount::command::helper::HelperLine::command(),
        xfer_mount::command::xfer_line::XferLine::command(),
        xfer_server::cli::command(),
    ] {
        let name = command.get_name().to_owned();
        look_at_help(&command, &name, &mut found, &mut count);
    }
    assert!(count > 250, "{count} texts were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_oracle_sees_what_is_not_plain() {
    let check = |said: &str, expected: &str| {
        let found = fault(said).or_else(|| fault_of_line(said));
        assert_eq!(found, Some(expected), "{said}");
    };
    check("the key can't be read", "a contraction");
    check("see https://example.org", "an address of a page");
    check("the file  is gone", "two spaces");
    check("called unwrap on nothing", "a word of programmers");
    check("errno 13", "a word of programmers");
    check("there is no \\\"{name}\\\"", "double quotes: single ones are the form");
    check("it is gone; see xfer status", "a command with neither a colon before it nor backticks");
    check("The key is gone", "a capital");
    check("the key is gone.", "a stop at the end");
    check("the key is gone ", "a space at the end");
    check("the key is {key:?}", "a value as programmers see it");
    check("{count} changes wait", "a number that may be one with several things");
    let code = "fn f() {\n    report(&format!(\n        \"the {} is \\\n         gone\", 'x', '\\''\n    ));\n\
                let _ = x.expect(\"it is there\"); // \"not this\"\n}\n";
    let source = Source { path: "mount/src/x.rs".to_owned(), text: code.to_owned() };
    let texts = texts(&source);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(
        (texts[0].said.as_str(), texts[0].place.as_str()),
        ("the {} is gone", "mount/src/x.rs:3")
    );
    assert!(is_line(&texts[0]));
}

//! What libraries say of numbers that are none, of command lines and of the system's errors, in the words of
//! the programs' users.

/// Each of their sentences, and what to say instead.
const SENTENCES: [(&str, &str); 6] = [
    ("invalid digit found in string", "it is not a whole number"),
    ("cannot parse integer from empty string", "a number is missing"),
    ("number too large to fit in target type", "the number is too large"),
    ("invalid float literal", "it is not a number"),
    ("the following required arguments were not provided: ", "missing: "),
    ("unrecognized subcommand ", "there is no command "),
];

/// What the standard library writes behind an error of the system, before its number.
const NUMBERED: &str = " (os error ";

/// A message without such sentences, without numbers of errors, and with errors in small letters as
/// within a sentence.
pub fn plain(message: &str) -> String {
    let message = SENTENCES
        .iter()
        .fold(message.to_owned(), |message, (theirs, ours)| message.replace(theirs, ours));
    let mut parts = message.split(NUMBERED);
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        match rest.strip_prefix(')') {
            Some(rest) if rest.len() + 1 < part.len() => line = small(&line) + rest,
            _ => line = line + NUMBERED + part,
        }
    }
    line
}

/// A message that ends with the name of an error, with that in small letters.
fn small(message: &str) -> String {
    let ends = [": ", " (", "; ", "="].into_iter();
    let start = ends.filter_map(|end| message.rfind(end).map(|at| at + end.len())).max();
    let (before, name) = message.split_at(start.unwrap_or(0));
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    before.chars().chain(first).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use super::*;

    #[test]
    fn the_sentences_are_those_of_the_standard_library() {
        for (text, ours) in [
            ("x", "it is not a whole number"),
            ("", "a number is missing"),
            ("999", "the number is too large"),
        ] {
            let theirs = text.parse::<u8>().unwrap_err().to_string();
            assert_eq!(plain(&format!("--n: {theirs}")), format!("--n: {ours}"));
        }
        assert_eq!(plain(&"x".parse::<f64>().unwrap_err().to_string()), "it is not a number");
        assert_eq!(plain("done"), "done");
    }

    #[test]
    fn errors_of_the_system_are_told_without_their_numbers() {
        let of = io::Error::from_raw_os_error;
        for (message, ours) in [
            (format!("/dev/fuse: {}", of(2)), "/dev/fuse: no such file or directory"),
            (
                format!("cannot use it ({}); check it", of(13)),
                "cannot use it (permission denied); check it",
            ),
            (format!("{}", of(21)), "is a directory"),
            (
                format!("a: {}; b: {}", of(5), of(1)),
                "a: input/output error; b: operation not permitted",
            ),
            (format!("WARN left error={}", of(5)), "WARN left error=input/output error"),
        ] {
            assert_eq!(plain(&message), ours);
        }
        // Not the standard library's.
        for text in ["Over (os error x)", "Over (os error )", "Over (os error 2"] {
            assert_eq!(plain(text), text);
        }
    }
}

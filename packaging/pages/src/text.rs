//! Texts of other places, taken apart for pages: Markdown as the project's documents have it, and
//! lists of exit codes as `--help` shows them.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Adds text in which backticks enclose what is shown in bold.
pub fn add(roff: &mut Roff, text: &str) {
    let parts = text.split('`').enumerate();
    let inlines = parts.filter(|(_, part)| !part.is_empty()).map(|(at, part)| match at % 2 {
        0 => roman(part),
        _ => bold(part),
    });
    roff.text(inlines.collect::<Vec<Inline>>());
}

/// Adds a list of things, each with its explanation.
pub fn add_list<A: AsRef<str>, B: AsRef<str>>(
    roff: &mut Roff,
    entries: impl IntoIterator<Item = (A, B)>,
) {
    for (thing, explanation) in entries {
        roff.control("TP", []);
        add(roff, thing.as_ref());
        add(roff, explanation.as_ref());
    }
}

/// Adds the section `heading` of a document: its paragraphs, and the rows of its tables of two columns.
///
/// # Errors
/// If the document has no such section, or no table in it.
pub fn add_section(roff: &mut Roff, document: &str, heading: &str) -> Result<(), String> {
    let start = format!("\n## {heading}\n");
    let (_, section) = document.split_once(&start).ok_or(format!("no section {heading}"))?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let paragraphs = section.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    let mut rows = 0;
    for (at, paragraph) in paragraphs.enumerate() {
        if paragraph.starts_with('|') {
            let table: Vec<_> = paragraph.lines().skip(2).filter_map(row).collect();
            rows += table.len();
            add_list(roff, table);
        } else {
            if at > 0 {
                roff.control("PP", []);
            }
            add(roff, &paragraph.replace('\n', " "));
        }
    }
    if rows == 0 { Err(format!("no table in section {heading}")) } else { Ok(()) }
}

fn row(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.strip_prefix('|')?.strip_suffix('|')?.split_once(" | ")?;
    Some((left.trim(), right.trim()))
}

/// The exit codes in a text of `--help`: numbers, each with its meaning, in one or more columns.
pub fn exit_codes(text: &str) -> Vec<(u8, String)> {
    let mut codes: Vec<(u8, String)> = Vec::new();
    for word in text.split_whitespace() {
        match (word.parse(), codes.last_mut()) {
            (Ok(code), _) => codes.push((code, String::new())),
            (Err(_), Some((_, meaning))) if meaning.is_empty() => meaning.push_str(word),
            (Err(_), Some((_, meaning))) => *meaning += &format!(" {word}"),
            (Err(_), None) => {}
        }
    }
    codes.iter_mut().for_each(|(_, meaning)| {
        if meaning.ends_with(',') {
            meaning.pop();
        }
    });
    codes.sort();
    codes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exit_codes_are_found_in_lists_and_in_columns() {
        let check = |text: &str, expected: &[(u8, &str)]| {
            let found = exit_codes(text);
            let found: Vec<_> = found.iter().map(|(code, what)| (*code, what.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(
            "Exit codes: 0 done, 1 anything\nelse, 13 lost",
            &[(0, "done"), (1, "anything else"), (13, "lost")],
        );
        check(
            "Exit codes:\n  0  done   6  certificate or key\n  1  else   7  no user",
            &[(0, "done"), (1, "else"), (6, "certificate or key"), (7, "no user")],
        );
    }

    #[test]
    fn a_section_gives_its_paragraphs_and_the_rows_of_its_table() {
        let document = "# T\n\n## A\n\nnot this\n\n## B\n\nTake `it`\nall.\n\n| word | effect |\n|---|---|\n\
                        | `ro`, `rw` | Whether. |\n\n## C\n\nnor this\n";
        let mut roff = Roff::new();
        add_section(&mut roff, document, "B").unwrap();
        let text = roff.to_roff();
        assert!(text.contains("Take \\fBit\\fR all."), "{text}");
        assert!(text.contains(".TP\n\\fBro\\fR, \\fBrw\\fR\nWhether.\n"), "{text}");
        assert!(!text.contains("this"), "{text}");
        assert!(add_section(&mut roff, document, "A").is_err());
        assert!(add_section(&mut roff, document, "D").is_err());
    }
}

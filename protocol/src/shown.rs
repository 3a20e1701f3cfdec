//! Makes untrusted text fit to be shown. No other place decides how.
//!
//! Names of files and hosts and the other side's error texts are untrusted: they must not be able
//! to move a reader's cursor, make one line look like two, or reverse the direction of letters.

use std::fmt::{self, Write};

/// Shows a text with every invisible character escaped: control and format characters (including
/// those that have no width or change the direction of writing), line separators, and characters
/// that Unicode does not define.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_visible(c) { f.write_char(c)? } else { write!(f, "{}", c.escape_default())? }
        }
        Ok(())
    }
}

/// Returns `text` as [`Shown`] shows it.
pub fn shown(text: &str) -> String {
    Shown(text).to_string()
}

/// Escapes in `json` the characters that [`Shown`] would escape, so that it means the same and can
/// be printed. Line ends and indentation stay.
pub fn shown_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_visible(c) {
            text.push(c);
            continue;
        }
        // Such a character can only occur in a string, where a surrogate pair may stand for it.
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

/// Whether a character is visible by itself, by the standard library's table. Accents that combine
/// with the preceding character count as visible.
pub fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library escapes an accent only at the start of a string.
    let mut buffer = [b'a', 0, 0, 0, 0];
    let len = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let pair = str::from_utf8(&buffer[..len]).unwrap_or_default();
    pair.escape_debug().eq(pair.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(shown(text), expected);
    }

    #[test]
    fn what_can_be_seen_is_shown_as_it_is() {
        check("plain 'text' \"with\" \\ ~", "plain 'text' \"with\" \\ ~");
        check("bücher für Žižek, 日本, שלום, 🦀", "bücher für Žižek, 日本, שלום, 🦀");
        check("e\u{301}", "e\u{301}");
    }

    #[test]
    fn what_moves_the_cursor_or_cannot_be_seen_is_escaped() {
        // One of each kind: Cc, Zl, Zp, and Cf: direction, width, joining, tags.
        check("a\x1b[2J\r\n\u{9b}\u{7f}", "a\\u{1b}[2J\\r\\n\\u{9b}\\u{7f}");
        check("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}");
        for c in [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{1d173}',
        ] {
            check(&format!("a{c}b"), &format!("a{}b", c.escape_default()));
        }
    }

    #[test]
    fn json_means_the_same_when_it_can_be_printed() {
        let json = "{\n  \"host\": \"a\u{202e}\u{e0041}é\"\n}";
        assert_eq!(shown_json(json), "{\n  \"host\": \"a\\u202e\\udb40\\udc41é\"\n}");
    }
}

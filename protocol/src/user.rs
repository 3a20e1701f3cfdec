//! The names that an account may have.

use crate::Name;
use crate::limits::USER_BYTES_MAX;

/// The rule of [`parse`], for messages.
pub const RULE: &str = "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit";

/// Parses a user's name.
///
/// The rule is narrower than that for entries. Users' names are typed, read aloud and used as
/// directory names, so they have no capitals to mix up and can't look like an option or a hidden file.
pub fn parse(text: &str) -> Option<Name> {
    let first = text.bytes().next()?;
    let begins = first.is_ascii_lowercase() || first.is_ascii_digit();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if !begins || text.len() > USER_BYTES_MAX || !text.bytes().all(allowed) {
        return None;
    }
    Name::new(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, ok: bool) {
        assert_eq!(parse(text).is_some(), ok, "{text:?}");
    }

    #[test]
    fn names_that_could_be_mistaken_for_something_else_are_refused() {
        check("alice", true);
        check("4.bob_x-y", true);
        check("", false);
        check(".", false);
        check("..", false);
        check("-a", false);
        check(".hidden", false);
        check("Alice", false);
        check("a b", false);
        check("a/b", false);
        check("é", false);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
    }
}

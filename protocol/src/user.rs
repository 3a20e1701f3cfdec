//! What an account may be called.

use crate::Name;
use crate::limits::USER_BYTES_MAX;

/// What [`parse`] accepts, for messages.
pub const RULE: &str = "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit";

/// Checks a user's name.
///
/// Narrower than the name of an entry: users' names are typed, read aloud and made directories of,
/// so there are no capitals to mix up, and no name that looks like an option or a hidden file.
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

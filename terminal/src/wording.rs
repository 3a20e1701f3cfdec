//! What the standard library says of numbers that are none, in the words of the programs' users.

/// Each of its sentences, and what to say instead.
const SENTENCES: [(&str, &str); 4] = [
    ("invalid digit found in string", "it is not a whole number"),
    ("cannot parse integer from empty string", "a number is missing"),
    ("number too large to fit in target type", "the number is too large"),
    ("invalid float literal", "it is not a number"),
];

/// A message without such sentences.
pub fn plain(message: &str) -> String {
    SENTENCES
        .iter()
        .fold(message.to_owned(), |message, (theirs, ours)| message.replace(theirs, ours))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
}

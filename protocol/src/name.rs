//! The name of an entry in a directory: the only thing like a path that crosses the wire.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Errno;
use crate::limits::NAME_BYTES_MAX;
use crate::shown::Shown;

/// A validated name: 1 to 255 bytes, no `/`, no NUL, not `.` and not `..`.
///
/// All other bytes are kept exactly; a name need not be UTF-8. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Validates `bytes` as a name.
    ///
    /// # Errors
    /// `ENAMETOOLONG` over 255 bytes; `EINVAL` for an empty name, `.`, `..`, or one with `/` or NUL.
    pub fn new(bytes: &[u8]) -> Result<Name, Errno> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let special = matches!(bytes, b"" | b"." | b"..");
        if special || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(Errno::EINVAL);
        }
        Ok(Name(bytes.into()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Allows maps keyed by name to be searched by bytes.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Lossy, with invisible characters escaped: for messages and logs, never for comparing.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&String::from_utf8_lossy(&self.0)).fmt(f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let bytes = bytes::Bytes::deserialize(deserializer)?;
        Name::new(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Result<(), Errno>) {
        assert_eq!(Name::new(bytes).map(|_| ()), expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        check(b"", Err(Errno::EINVAL));
        check(b".", Err(Errno::EINVAL));
        check(b"..", Err(Errno::EINVAL));
        check(b"a/b", Err(Errno::EINVAL));
        check(b"a\0b", Err(Errno::EINVAL));
        check(&[b'x'; 255], Ok(()));
        check(&[b'x'; 256], Err(Errno::ENAMETOOLONG));
        check(b"...", Ok(()));
    }

    proptest! {
        #[test]
        fn all_other_bytes_are_kept_exactly(
            bytes in prop::collection::vec(prop_oneof![1..b'/', b'/' + 1..], 1..256),
        ) {
            prop_assume!(bytes != b"." && bytes != b"..");
            let name = Name::new(&bytes).unwrap();
            prop_assert_eq!(name.as_bytes(), &bytes[..]);
        }
    }
}

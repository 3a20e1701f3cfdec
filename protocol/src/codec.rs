//! How messages become bytes. The only file that names bincode, so that it can be replaced.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::MESSAGE_BYTES_MAX;

/// A message that could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[error("not a valid message: {0}")]
pub struct CodecError(String);

/// Encodes a message.
///
/// # Errors
/// If it is longer than any frame can carry.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, config())
        .map_err(|error| CodecError(error.to_string()))?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(CodecError(format!("{} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Decodes a message that takes up all of `bytes`.
///
/// # Errors
/// Bytes left over or missing, an invalid name, or a length past the decode limit. A length alone
/// never makes it allocate.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (message, len) = bincode::serde::decode_from_slice(bytes, config())
        .map_err(|error| CodecError(error.to_string()))?;
    if len != bytes.len() {
        return Err(CodecError(format!("{} bytes left over", bytes.len() - len)));
    }
    Ok(message)
}

/// Decoding may allocate more than the encoded bytes, so the limit is a multiple of them.
const DECODE_BYTES_MAX: usize = 16 * MESSAGE_BYTES_MAX;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::message::{Ask, Request};
    use crate::{Ino, Name, Seq};
    use proptest::prelude::*;

    fn request() -> Request {
        let name = Name::new(b"hello").unwrap();
        Request { id: 7, after: Seq(300), ask: Ask::Entry(Ino::ROOT, name) }
    }

    #[test]
    fn the_bytes_of_a_message_stay_what_they_are() {
        let bytes = encode(&request()).unwrap();
        assert_eq!(bytes, [7, 251, 44, 1, 1, 1, 5, b'h', b'e', b'l', b'l', b'o']);
        assert_eq!(decode::<Request>(&bytes).unwrap(), request());
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut bytes = encode(&request()).unwrap();
        bytes.push(0);
        assert!(decode::<Request>(&bytes).is_err());
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let bytes = [7, 251, 44, 1, 1, 1, 3, b'a', b'/', b'b'];
        assert!(decode::<Request>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode::<crate::message::ToServer>(&bytes);
            let _ = decode::<crate::message::Response>(&bytes);
            let _ = decode::<crate::message::Opening>(&bytes);
        }
    }
}

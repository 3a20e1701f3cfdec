//! Frames: how messages follow each other on a link.
//!
//! A frame is a header of eight bytes (the length of the message, then the length of the payload,
//! each a 32-bit number in little-endian order), the message as [`crate::codec`] writes it, and a
//! raw payload, which is never copied through the codec. Lengths are checked against the bounds of
//! the link's state before anything is allocated.

use crate::limits;
use crate::size;

/// The length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 8;

/// The lengths that a frame declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The message's length, in bytes.
    pub message_len: usize,
    /// The payload's length, in bytes.
    pub payload_len: usize,
}

/// The largest frame that a link accepts in one of its states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The longest message, in bytes.
    pub message_max: usize,
    /// The longest payload, in bytes.
    pub payload_max: usize,
}

impl Bounds {
    /// Before the link is opened.
    pub const OPENING: Bounds =
        Bounds { message_max: limits::OPENING_MESSAGE_BYTES_MAX, payload_max: 0 };

    /// For questions on an open read link.
    pub const REQUEST: Bounds = Bounds { message_max: limits::REQUEST_BYTES_MAX, payload_max: 0 };

    /// For an open link otherwise, and for [`crate::message::Opened`] itself.
    pub const OPEN: Bounds =
        Bounds { message_max: limits::MESSAGE_BYTES_MAX, payload_max: limits::PAYLOAD_BYTES_MAX };
}

/// A header that no frame may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is too long, or empty.
    #[error("a message of {}", size::display(*.0 as u64))]
    Message(usize),
    /// The payload is too long.
    #[error("a payload of {}", size::display(*.0 as u64))]
    Payload(usize),
}

impl Header {
    /// Encodes the header.
    ///
    /// # Errors
    /// The same headers as [`Header::parse`]: never send what the peer must refuse.
    pub fn encode(self, bounds: Bounds) -> Result<[u8; HEADER_BYTES], FrameError> {
        self.check(bounds)?;
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&(self.message_len as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&(self.payload_len as u32).to_le_bytes());
        Ok(bytes)
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// A length beyond `bounds`, or an empty message.
    pub fn parse(bytes: [u8; HEADER_BYTES], bounds: Bounds) -> Result<Header, FrameError> {
        let [m0, m1, m2, m3, p0, p1, p2, p3] = bytes;
        let header = Header {
            message_len: u32::from_le_bytes([m0, m1, m2, m3]) as usize,
            payload_len: u32::from_le_bytes([p0, p1, p2, p3]) as usize,
        };
        header.check(bounds)?;
        Ok(header)
    }

    fn check(self, bounds: Bounds) -> Result<(), FrameError> {
        if self.message_len == 0 || self.message_len > bounds.message_max {
            return Err(FrameError::Message(self.message_len));
        }
        if self.payload_len > bounds.payload_max {
            return Err(FrameError::Payload(self.payload_len));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(message_len: usize, payload_len: usize, bounds: Bounds, ok: bool) {
        let header = Header { message_len, payload_len };
        assert_eq!(header.encode(bounds).is_ok(), ok);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&(message_len as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&(payload_len as u32).to_le_bytes());
        assert_eq!(Header::parse(bytes, bounds).ok(), ok.then_some(header));
    }

    #[test]
    fn what_the_decoder_refuses_the_encoder_refuses_too() {
        check(1, 0, Bounds::OPENING, true);
        check(0, 0, Bounds::OPENING, false);
        check(4096, 0, Bounds::OPENING, true);
        check(4097, 0, Bounds::OPENING, false);
        check(1, 1, Bounds::OPENING, false);
        check(1, 4 << 20, Bounds::OPEN, true);
        check(1, (4 << 20) + 1, Bounds::OPEN, false);
        check(u32::MAX as usize, 0, Bounds::OPEN, false);
        check(4097, 0, Bounds::REQUEST, false);
        check(1, 1, Bounds::REQUEST, false);
    }
}

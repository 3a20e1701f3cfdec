//! Invitations as people pass them on: one word that names the account, its server, the server's
//! certificate and a code, as in `alice@files.example.org#XYZ`.
//!
//! This module has the part after the `#`.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::message::InviteCode;

/// What a device needs to know beyond the account and its server, in order to enrol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// The code, which is good once.
    pub code: InviteCode,
    /// The SHA-256 of the server's certificate in DER.
    pub fingerprint: [u8; 32],
}

/// The text is no invitation, or a part of it is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not an invitation, or only a part of one; paste all of it, from the user's name to its end"
)]
pub struct NotAnInvitation;

const CODE_BYTES: usize = 16;
const BYTES: usize = CODE_BYTES + 32;

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.code.0[..], &self.fingerprint].concat();
        f.write_str(&Base64UrlUnpadded::encode_string(&bytes))
    }
}

impl FromStr for Invitation {
    type Err = NotAnInvitation;

    fn from_str(text: &str) -> Result<Invitation, NotAnInvitation> {
        let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| NotAnInvitation)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| NotAnInvitation)?;
        let (code, fingerprint) = bytes.split_at(CODE_BYTES);
        let code = code.try_into().map_err(|_| NotAnInvitation)?;
        let fingerprint = fingerprint.try_into().map_err(|_| NotAnInvitation)?;
        Ok(Invitation { code: InviteCode(code), fingerprint })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_invitation_is_a_word_that_a_shell_leaves_alone() {
        let bytes = std::array::from_fn(|at| 255 - at as u8);
        let invitation = Invitation { code: InviteCode(bytes), fingerprint: [0xfb; 32] };
        let text = invitation.to_string();
        assert_eq!(text.len(), 64);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(text.chars().all(is_plain), "{text}");
        assert_eq!(text.parse(), Ok(invitation));
    }

    #[test]
    fn a_part_of_one_is_refused() {
        let invitation = Invitation { code: InviteCode([1; 16]), fingerprint: [2; 32] };
        let text = invitation.to_string();
        for part in ["", &text[1..], &text[..63], &format!("{text}A"), &text.replace('A', "*")] {
            assert_eq!(part.parse::<Invitation>(), Err(NotAnInvitation), "{part}");
        }
    }
}

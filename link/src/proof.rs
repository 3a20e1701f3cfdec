//! The proof that the client which continues a session is the one that began it.
//!
//! The client makes a key for each session and tells the server the public half when it logs in.
//! To continue the session, it signs a value that both sides derive from the new TLS connection. So
//! a stolen secret is useless without the key, and a signature is useless on any other connection.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use xfer_protocol::SessionId;
use xfer_protocol::message::{Binding, PublicKey, Signature};

/// Keeps a signature for this purpose from being one for another.
const PURPOSE: &[u8] = b"xfer: continue a session";

/// The client's key for one session.
pub struct SessionKey(Ed25519KeyPair);

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// The bytes are not a key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not a key of a session")]
pub struct NotAKey;

impl SessionKey {
    /// Makes a random key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<SessionKey, NoRandomness> {
        Ed25519KeyPair::generate().map(SessionKey).map_err(|Unspecified| NoRandomness)
    }

    /// A key that was saved, as [`SessionKey::save`] gave it.
    ///
    /// # Errors
    /// If it is none.
    pub fn restore(saved: &[u8]) -> Result<SessionKey, NotAKey> {
        Ed25519KeyPair::from_pkcs8(saved).map(SessionKey).map_err(|_| NotAKey)
    }

    /// The key as bytes (PKCS #8), to be kept secret.
    ///
    /// # Errors
    /// If the library can't give it.
    pub fn save(&self) -> Result<Vec<u8>, NotAKey> {
        let document = self.0.to_pkcs8().map_err(|Unspecified| NotAKey)?;
        Ok(document.as_ref().to_vec())
    }

    /// The half that the server is told.
    pub fn public(&self) -> PublicKey {
        let mut key = PublicKey::default();
        // An Ed25519 key has 32 bytes (RFC 8032, section 5.1.5).
        key.0.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    /// Proves on the connection with this binding that the session is this client's.
    pub fn prove(&self, session: SessionId, binding: Binding) -> Signature {
        let signed = self.0.sign(&signed(session, binding));
        let mut signature = Signature::default();
        // A signature has 64 bytes (RFC 8032, section 5.1.6).
        signature.0.as_flattened_mut().copy_from_slice(signed.as_ref());
        signature
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// Whether the proof was made with the key, for this session and this connection.
pub fn is_proved(key: PublicKey, session: SessionId, binding: Binding, proof: Signature) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key.0);
    key.verify(&signed(session, binding), proof.0.as_flattened()).is_ok()
}

fn signed(session: SessionId, binding: Binding) -> Vec<u8> {
    [PURPOSE, &session.0, &binding.0].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);
    const BINDING: Binding = Binding([2; 32]);

    #[test]
    fn a_key_that_was_saved_proves_the_same() {
        let key = SessionKey::generate().unwrap();
        let restored = SessionKey::restore(&key.save().unwrap()).unwrap();
        let proof = restored.prove(SESSION, BINDING);
        assert!(is_proved(key.public(), SESSION, BINDING, proof));
        assert!(SessionKey::restore(b"nothing").is_err());
    }

    #[test]
    fn a_proof_holds_for_its_key_its_session_and_its_connection_alone() {
        let (key, other) = (SessionKey::generate().unwrap(), SessionKey::generate().unwrap());
        let proof = key.prove(SESSION, BINDING);
        assert!(is_proved(key.public(), SESSION, BINDING, proof));
        assert!(!is_proved(other.public(), SESSION, BINDING, proof));
        assert!(!is_proved(key.public(), SessionId([3; 16]), BINDING, proof));
        assert!(!is_proved(key.public(), SESSION, Binding([3; 32]), proof));
        assert!(!is_proved(key.public(), SESSION, BINDING, Signature::default()));
        assert!(!is_proved(PublicKey::default(), SESSION, BINDING, proof));
    }
}

//! Proofs by a key: that the client which continues a session is the one that began it, and that a
//! client is a device of the account.
//!
//! The client makes a key for each session and tells the server the public half when it logs in. A
//! device's key is made once, and the account knows its public half. In either case the client signs
//! a value that both sides derive from the TLS connection. So a stolen secret is useless without the
//! key, and a signature is useless on any other connection.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use xfer_protocol::SessionId;
use xfer_protocol::message::{Binding, PublicKey, Signature};

/// Keeps a signature for this purpose from being one for another.
const CONTINUES: &[u8] = b"xfer: continue a session";

/// The same, for devices.
const ACTS_FOR: &[u8] = b"xfer: act for an account";

/// The key of one session, or of a device.
pub struct SigningKey(Ed25519KeyPair);

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// The bytes are not a key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not a key")]
pub struct NotAKey;

impl SigningKey {
    /// Makes a random key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<SigningKey, NoRandomness> {
        Ed25519KeyPair::generate().map(SigningKey).map_err(|Unspecified| NoRandomness)
    }

    /// A key that was saved, as [`SigningKey::save`] gave it.
    ///
    /// # Errors
    /// If it is none.
    pub fn restore(saved: &[u8]) -> Result<SigningKey, NotAKey> {
        Ed25519KeyPair::from_pkcs8(saved).map(SigningKey).map_err(|_| NotAKey)
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
    pub fn prove_session(&self, session: SessionId, binding: Binding) -> Signature {
        self.sign(&continuing(session, binding))
    }

    /// Proves on the connection with this binding that this device acts for the account.
    pub fn prove_device(&self, user: &str, binding: Binding) -> Signature {
        self.sign(&acting(user, binding))
    }

    fn sign(&self, text: &[u8]) -> Signature {
        let signed = self.0.sign(text);
        let mut signature = Signature::default();
        // A signature has 64 bytes (RFC 8032, section 5.1.6).
        signature.0.as_flattened_mut().copy_from_slice(signed.as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Whether the proof was made with the key, for this session and this connection.
pub fn is_own_session(
    key: PublicKey,
    session: SessionId,
    binding: Binding,
    proof: Signature,
) -> bool {
    is_signed(key, &continuing(session, binding), proof)
}

/// Whether the proof was made with the device's key, for this account and this connection.
pub fn is_device_of(key: PublicKey, user: &str, binding: Binding, proof: Signature) -> bool {
    is_signed(key, &acting(user, binding), proof)
}

fn is_signed(key: PublicKey, text: &[u8], proof: Signature) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key.0);
    key.verify(text, proof.0.as_flattened()).is_ok()
}

fn continuing(session: SessionId, binding: Binding) -> Vec<u8> {
    [CONTINUES, &session.0, &binding.0].concat()
}

fn acting(user: &str, binding: Binding) -> Vec<u8> {
    [ACTS_FOR, &binding.0, user.as_bytes()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);
    const BINDING: Binding = Binding([2; 32]);

    #[test]
    fn a_key_that_was_saved_proves_the_same() {
        let key = SigningKey::generate().unwrap();
        let restored = SigningKey::restore(&key.save().unwrap()).unwrap();
        let proof = restored.prove_session(SESSION, BINDING);
        assert!(is_own_session(key.public(), SESSION, BINDING, proof));
        assert!(SigningKey::restore(b"nothing").is_err());
    }

    #[test]
    fn a_proof_holds_for_its_key_its_session_and_its_connection_alone() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let proof = key.prove_session(SESSION, BINDING);
        assert!(is_own_session(key.public(), SESSION, BINDING, proof));
        assert!(!is_own_session(other.public(), SESSION, BINDING, proof));
        assert!(!is_own_session(key.public(), SessionId([3; 16]), BINDING, proof));
        assert!(!is_own_session(key.public(), SESSION, Binding([3; 32]), proof));
        assert!(!is_own_session(key.public(), SESSION, BINDING, Signature::default()));
        assert!(!is_own_session(PublicKey::default(), SESSION, BINDING, proof));
    }

    #[test]
    fn a_device_proves_itself_for_its_account_and_its_connection_alone() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let proof = key.prove_device("alice", BINDING);
        assert!(is_device_of(key.public(), "alice", BINDING, proof));
        assert!(!is_device_of(other.public(), "alice", BINDING, proof));
        assert!(!is_device_of(key.public(), "bob", BINDING, proof));
        assert!(!is_device_of(key.public(), "alice", Binding([3; 32]), proof));
        assert!(!is_own_session(key.public(), SESSION, BINDING, proof), "another purpose");
    }
}

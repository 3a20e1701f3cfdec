//! Hashing and checking passwords.
//!
//! Argon2id with 64 MiB, three passes and one lane: about a tenth of a second of one core. A person
//! does not notice that, while a guesser pays it for each guess. [`crate::login::opening`] limits how many
//! checks run at a time, [`crate::login::lockout`] how many attempts a source has.
//!
//! **Invariant:** a check takes the same work whether or not the account exists.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use xfer_protocol::limits::PASSWORD_BYTES_MAX;

const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// The hash to check against if the account does not exist. No known password matches it, and a
/// match would be ignored.
const NOBODY: &str = "$argon2id$v=19$m=65536,t=3,p=1$bm8gc3VjaCBhY2NvdW50$\
                      Pj4/t+9QU0dLlbVYb8gX2Lk0cHn4m5dTz7qFqYw1c2M";

/// Why a password could not be hashed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordError {
    /// It is empty.
    #[error("the password is empty")]
    Empty,
    /// It is longer than [`PASSWORD_BYTES_MAX`].
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// Argon2 failed, or there was no memory or no randomness.
    #[error("hashing the password failed: {0}")]
    Failed(String),
}

/// Checks a password's length, before any expensive work.
///
/// # Errors
/// If it is empty or too long.
pub fn check_length(password: &[u8]) -> Result<(), PasswordError> {
    match password.len() {
        0 => Err(PasswordError::Empty),
        len if len > PASSWORD_BYTES_MAX => Err(PasswordError::TooLong),
        _ => Ok(()),
    }
}

/// Hashes a new password into a PHC string for the store. Slow.
///
/// # Errors
/// If the password is empty or too long, or there is no memory.
pub fn hash(password: &[u8]) -> Result<String, PasswordError> {
    check_length(password)?;
    let failed = |error: &dyn std::fmt::Display| PasswordError::Failed(error.to_string());
    let hash = hasher().map_err(|e| failed(&e))?.hash_password(password).map_err(|e| failed(&e))?;
    Ok(hash.to_string())
}

/// The stored string is not a password hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stored password is damaged")]
pub struct DamagedHash;

/// Whether `password` matches the hash `stored`. Slow, and equally so for an account that does not
/// exist (`None`), for which the answer is always no.
///
/// # Errors
/// If `stored` is not a valid hash.
pub fn verify(password: &[u8], stored: Option<&str>) -> Result<bool, DamagedHash> {
    let hash = PasswordHash::new(stored.unwrap_or(NOBODY)).map_err(|_| DamagedHash)?;
    // The parameters come from the stored hash, so that those for new passwords can be raised.
    match Argon2::default().verify_password(password, &hash) {
        Ok(()) => Ok(stored.is_some()),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(DamagedHash),
    }
}

fn hasher() -> Result<Argon2<'static>, argon2::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_right_password_is_recognised_and_no_other() {
        let stored = hash(b"correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=65536,t=3,p=1$"), "{stored}");
        assert_eq!(verify(b"correct horse", Some(&stored)), Ok(true));
        assert_eq!(verify(b"correct horse ", Some(&stored)), Ok(false));
        assert_eq!(verify(b"correct horse", None), Ok(false));
    }

    #[test]
    fn what_is_no_hash_is_not_taken_for_a_wrong_password() {
        let stored = hash(b"x").unwrap();
        for damaged in ["", "not a hash", "$argon2id$v=19$", &stored.replace("argon2id", "argon3")]
        {
            assert_eq!(verify(b"x", Some(damaged)), Err(DamagedHash), "{damaged}");
        }
    }

    #[test]
    fn one_password_is_never_hashed_alike_twice() {
        assert_ne!(hash(b"x").unwrap(), hash(b"x").unwrap());
    }

    #[test]
    fn nobodys_hash_takes_the_work_of_a_real_one() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let real = hash(b"x").unwrap();
        let real = PasswordHash::new(&real).unwrap();
        assert_eq!(nobody.params, real.params);
        assert_eq!(nobody.algorithm, real.algorithm);
        assert_eq!(nobody.hash.unwrap().as_bytes().len(), real.hash.unwrap().as_bytes().len());
    }

    #[test]
    fn lengths_are_checked_before_any_work() {
        assert_eq!(hash(b""), Err(PasswordError::Empty));
        assert_eq!(hash(&[b'x'; 1025]), Err(PasswordError::TooLong));
        assert_eq!(check_length(&[b'x'; 1024]), Ok(()));
    }
}

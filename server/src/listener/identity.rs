//! The server's identity: a certificate and its key.
//!
//! It is made on the first start and kept in the store (`tls/cert.pem`, `tls/key.pem`); clients pin
//! it by its fingerprint. An administrator may use a certificate of a public authority instead;
//! then this identity is neither made nor read.
//!
//! **Invariant:** an existing identity is never silently replaced: to clients the new one would be
//! a stranger's. The key is made again only if the certificate was never written.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A certificate chain, leaf first, and the leaf's key.
pub struct Identity {
    /// The certificates, leaf first; at least one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
}

/// The SHA-256 of a certificate, written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Reading or writing a file failed.
    #[error("{}: {error}", path.display())]
    File {
        /// The path of that file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file has invalid content.
    #[error("{}: {what}", path.display())]
    Content {
        /// The path of that file.
        path: PathBuf,
        /// The problem with its content.
        what: String,
    },
    /// Making a certificate failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl IdentityError {
    /// Whether this process may not read it.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, IdentityError::File { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl Identity {
    /// Returns the store's own identity, and makes it first if there is none. The caller must hold
    /// the store's lock.
    ///
    /// # Errors
    /// If it can't be read, is invalid, or can't be made.
    pub fn of_store(store: &Path) -> Result<Identity, IdentityError> {
        if !files(store).cert.try_exists().unwrap_or(true) {
            make(store)?;
        }
        Identity::load_from_store(store)
    }

    /// Loads the store's own identity.
    ///
    /// # Errors
    /// If it is missing, can't be read, or is invalid.
    pub fn load_from_store(store: &Path) -> Result<Identity, IdentityError> {
        let Files { cert, key } = files(store);
        Identity::load(&cert, &key)
    }

    /// Loads an identity from PEM files.
    ///
    /// # Errors
    /// If they can't be read, or contain no certificate or no key.
    pub fn load(cert: &Path, key: &Path) -> Result<Identity, IdentityError> {
        let content =
            |path: &Path, what: String| IdentityError::Content { path: path.into(), what };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(cert)?)
            .collect::<Result<_, _>>()
            .map_err(|error| content(cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(content(cert, "no certificate in PEM".to_owned()));
        }
        let bytes = zeroize::Zeroizing::new(read(key)?);
        let key = PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| content(key, "no private key in PEM".to_owned()))?;
        Ok(Identity { chain, key })
    }

    /// The fingerprint of the leaf certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        let leaf = self.chain.first().expect("an identity has a certificate");
        Fingerprint(Sha256::digest(leaf).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

fn files(store: &Path) -> Files {
    let directory = store.join("tls");
    Files { cert: directory.join("cert.pem"), key: directory.join("key.pem") }
}

/// The certificate is written last: if it exists, the key is complete.
fn make(store: &Path) -> Result<(), IdentityError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = parameters()?.self_signed(&pair)?;
    let directory = store.join("tls");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    // The directory's name too, or the next server would make another identity after a power cut.
    let made = made.and_then(|()| File::open(store)?.sync_all());
    made.map_err(|error| IdentityError::File { path: directory, error })?;
    let Files { cert, key } = files(store);
    let key_pem = zeroize::Zeroizing::new(pair.serialize_pem());
    write_durably(&key, key_pem.as_bytes())?;
    write_durably(&cert, certificate.pem().as_bytes())
}

fn parameters() -> Result<CertificateParams, rcgen::Error> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names = vec!["localhost".to_owned()];
    // Clients verify the fingerprint, so a host name that is not valid in DNS may be left out.
    if host.is_ascii() && !host.is_empty() && host != "localhost" {
        names.push(host);
    }
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "xfer-server");
    parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
    // RFC 5280, 4.1.2.5: the date for a certificate without an expiry.
    parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
    Ok(parameters)
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|error| IdentityError::File { path: path.into(), error })
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let write = || {
        let temporary = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| IdentityError::File { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_made_once_and_then_kept() {
        let store = tempfile::tempdir().unwrap();
        assert!(Identity::load_from_store(store.path()).is_err());
        let made = Identity::of_store(store.path()).unwrap().fingerprint();
        assert_eq!(Identity::of_store(store.path()).unwrap().fingerprint(), made);
        let text = made.to_string();
        assert_eq!(text.len(), "sha256:".len() + 64);
        assert_eq!(text, text.to_lowercase());
    }

    #[test]
    fn nobody_else_can_read_the_key() {
        let store = tempfile::tempdir().unwrap();
        Identity::of_store(store.path()).unwrap();
        let mode = fs::metadata(files(store.path()).key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_key_is_an_error_and_not_a_new_identity() {
        let store = tempfile::tempdir().unwrap();
        Identity::of_store(store.path()).unwrap();
        fs::remove_file(files(store.path()).key).unwrap();
        assert!(matches!(Identity::of_store(store.path()), Err(IdentityError::File { .. })));
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let store = tempfile::tempdir().unwrap();
        Identity::of_store(store.path()).unwrap();
        let Files { cert, key } = files(store.path());
        assert!(matches!(Identity::load(&key, &key), Err(IdentityError::Content { .. })));
        assert!(matches!(Identity::load(&cert, &cert), Err(IdentityError::Content { .. })));
    }
}

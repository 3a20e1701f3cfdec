//! The keys of this machine, by which it logs in without a password: a file for each account in the
//! directory for the state of programs, `keys/USER@HOST:PORT`, as PKCS #8 in PEM (RFC 7468).
//!
//! A file serves before anybody has logged in at the machine, when a mount is to be there after a
//! boot; a keyring is not open then.
//!
//! **Invariant:** a key that other users of the machine can read is not used.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use xfer_link::proof::SigningKey;

use super::trust::state_directory;
use crate::durable::{make_directory, replace, sync_directory};

/// The keys of this machine.
#[derive(Clone, Debug)]
pub struct DeviceKeys {
    directory: PathBuf,
}

/// More than a file of a key has, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// The length of a line in PEM.
const LINE_CHARS: usize = 64;

impl DeviceKeys {
    /// Those of this user; `None` without a home.
    pub fn of_user() -> Option<DeviceKeys> {
        Some(DeviceKeys::within(state_directory()?.join("keys")))
    }

    /// Those in a directory.
    pub fn within(directory: PathBuf) -> DeviceKeys {
        DeviceKeys { directory }
    }

    /// The file of an account's key; `label` is `user@host:port`.
    pub fn path(&self, label: &str) -> PathBuf {
        self.directory.join(label)
    }

    /// The key for an account, if this machine has one.
    ///
    /// # Errors
    /// If it can't be read, is damaged, or other users can read it.
    pub fn find(&self, label: &str) -> io::Result<Option<SigningKey>> {
        let path = self.path(label);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        check_private(&file, &path)?;
        let mut text = zeroize::Zeroizing::new(Vec::new());
        io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| damaged())?;
        SigningKey::restore(key.secret_pkcs8_der()).map(Some).map_err(|_| damaged())
    }

    /// The key to enrol for an account: the one that this machine has, one whose enrolment was cut off,
    /// or a new one. It is on the disk before the server hears of it, so a login that was cut off can be
    /// repeated with it. [`DeviceKeys::settle`] is to follow.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn begin(&self, label: &str) -> io::Result<SigningKey> {
        // One that can't be used is replaced.
        for name in [label, &begun(label)] {
            if let Ok(Some(key)) = self.find(name) {
                return Ok(key);
            }
        }
        let key = SigningKey::generate().map_err(io::Error::other)?;
        self.write(&begun(label), &key)?;
        Ok(key)
    }

    /// Keeps the key that was enrolled for an account, or forgets it if it was refused.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn settle(&self, label: &str, key: &SigningKey, is_enrolled: bool) -> io::Result<()> {
        if is_enrolled {
            self.write(label, key)?;
        }
        self.forget(&begun(label)).map(drop)
    }

    fn write(&self, label: &str, key: &SigningKey) -> io::Result<()> {
        make_directory(&self.directory)?;
        let der = key.save().map_err(io::Error::other)?;
        let text = zeroize::Zeroizing::new(Base64::encode_string(&der));
        replace(&self.path(label), |mut file| {
            writeln!(file, "-----BEGIN PRIVATE KEY-----")?;
            for line in text.as_bytes().chunks(LINE_CHARS) {
                file.write_all(line)?;
                writeln!(file)?;
            }
            writeln!(file, "-----END PRIVATE KEY-----")
        })
        .map(drop)
    }

    /// Forgets the key for an account. Returns whether there was one.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn forget(&self, label: &str) -> io::Result<bool> {
        match fs::remove_file(self.path(label)) {
            Ok(()) => sync_directory(&self.directory).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The name of a key that is not enrolled yet.
fn begun(label: &str) -> String {
    format!("{label}.begun")
}

/// Refuses a file that anybody but its owner can read, or that is somebody else's.
fn check_private(file: &File, path: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    let refused = |what: String| Err(io::Error::new(ErrorKind::PermissionDenied, what));
    if metadata.mode() & 0o077 != 0 {
        return refused(format!("others can read it; run: chmod 600 {}", path.display()));
    }
    let ours = [0, rustix::process::geteuid().as_raw()];
    if !ours.contains(&metadata.uid()) {
        return refused("it belongs to another user".to_owned());
    }
    Ok(())
}

fn damaged() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        "it is no key, or a damaged one; remove it, and run: xfer login",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ALICE: &str = "alice@[2001:db8::1]:33000";

    fn keys() -> (tempfile::TempDir, DeviceKeys) {
        let directory = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::within(directory.path().join("state/keys"));
        (directory, keys)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_that_was_kept_is_found_for_its_account_alone() {
        let (_directory, keys) = keys();
        assert!(keys.find(ALICE).unwrap().is_none());
        let key = SigningKey::generate().unwrap();
        keys.settle(ALICE, &key, true).unwrap();
        assert_eq!(keys.find(ALICE).unwrap().unwrap().public(), key.public());
        assert!(keys.find("alice@[2001:db8::1]:33001").unwrap().is_none());
        assert!(keys.forget(ALICE).unwrap() && !keys.forget(ALICE).unwrap());
        assert!(keys.find(ALICE).unwrap().is_none());
    }

    #[test]
    fn an_enrolment_that_was_cut_off_is_repeated_with_the_same_key() {
        let (_directory, keys) = keys();
        let first = keys.begin(ALICE).unwrap();
        assert!(keys.find(ALICE).unwrap().is_none(), "it is not enrolled yet");
        assert_eq!(keys.begin(ALICE).unwrap().public(), first.public());
        keys.settle(ALICE, &first, false).unwrap();
        let second = keys.begin(ALICE).unwrap();
        assert_ne!(second.public(), first.public(), "it was refused");
        keys.settle(ALICE, &second, true).unwrap();
        assert_eq!(keys.begin(ALICE).unwrap().public(), second.public());
        keys.settle(ALICE, &second, false).unwrap();
        assert!(keys.find(ALICE).unwrap().is_some(), "it was enrolled before");
    }

    #[test]
    fn its_file_is_pem_that_only_its_owner_can_read() {
        let (_directory, keys) = keys();
        keys.settle(ALICE, &SigningKey::generate().unwrap(), true).unwrap();
        let path = keys.path(ALICE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_do() {
        let (_directory, keys) = keys();
        keys.settle(ALICE, &SigningKey::generate().unwrap(), true).unwrap();
        set_mode(&keys.path(ALICE), 0o640);
        let error = keys.find(ALICE).unwrap_err().to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", keys.path(ALICE).display())), "{error}");
        set_mode(&keys.path(ALICE), 0o400);
        assert!(keys.find(ALICE).unwrap().is_some());
    }

    #[test]
    fn a_damaged_key_is_told_from_a_missing_one() {
        let (_directory, keys) = keys();
        keys.settle(ALICE, &SigningKey::generate().unwrap(), true).unwrap();
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(keys.path(ALICE), text).unwrap();
            assert_eq!(keys.find(ALICE).unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }
}

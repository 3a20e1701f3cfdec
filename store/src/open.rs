//! Opening a store with any engine: the one place that knows which engines there are.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;
use xfer_protocol::Name;

use crate::embedded::{self, Beside, Serving};
use crate::memory;
use crate::{Accounts, Checked, Failures, Fault, Keys, Store, StoreError};

/// The location of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// In a directory of this machine: `sqlite:DIR`, or `DIR` alone.
    Sqlite(PathBuf),
    /// In the memory of this process: `memory:`. It starts empty and is lost when it is dropped.
    /// For tests and simulations.
    Memory,
}

/// The intended use of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// By a server, which has sole use of it. A missing store is created.
    Serve(Serving),
    /// By a command that works on trees, beside the server or without one.
    Command(Beside),
}

/// How to treat a missing store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfMissing {
    /// Create it.
    Make,
    /// Fail with [`StoreError::Missing`].
    Fail,
}

/// The accounts of a store, for a command that needs nothing else.
#[derive(Clone)]
pub struct Register {
    /// The accounts themselves.
    pub accounts: Arc<dyn Accounts>,
    /// Their wrong passwords.
    pub failures: Arc<dyn Failures>,
    /// Their devices' keys.
    pub keys: Arc<dyn Keys>,
}

/// Opens a store.
///
/// # Errors
/// If it can't be used for that: [`StoreError::InUse`] if another server has it.
pub async fn open(location: &Location, for_use: Use) -> Result<Store, StoreError> {
    match location {
        Location::Sqlite(dir) => {
            let dir = dir.clone();
            let opened = spawn_blocking(move || match for_use {
                Use::Serve(serving) => embedded::serve(&dir, serving),
                Use::Command(beside) => embedded::beside(&dir, beside),
            });
            opened.await.unwrap_or(Err(StoreError::Panicked))
        }
        Location::Memory => Ok(memory::store()),
    }
}

/// Opens the accounts of a store.
///
/// # Errors
/// If they can't be used.
pub async fn open_register(
    location: &Location,
    if_missing: IfMissing,
) -> Result<Register, StoreError> {
    match location {
        Location::Sqlite(dir) => {
            let dir = dir.clone();
            let opened = spawn_blocking(move || embedded::register(&dir, if_missing));
            opened.await.unwrap_or(Err(StoreError::Panicked))
        }
        Location::Memory => Ok(memory::store().register()),
    }
}

/// Looks through a store, or one account of it, for what its rules do not allow, and changes nothing.
/// Takes long, and may be done beside the server.
///
/// # Errors
/// If the store can't be read.
pub fn check(
    location: &Location,
    only: Option<&Name>,
    report: &mut dyn FnMut(Fault),
) -> Result<Checked, StoreError> {
    match location {
        Location::Sqlite(dir) => embedded::check(dir, only, report),
        // It ends with the program, and only tests have it.
        Location::Memory => Ok(Checked::default()),
    }
}

impl Location {
    /// Parses the location of a store. A word and a colon at its start name the engine; a directory
    /// whose name starts like that is written with `./` before it.
    ///
    /// # Errors
    /// [`StoreError::UnknownEngine`] if the engine does not exist.
    pub fn parse(text: &OsStr) -> Result<Location, StoreError> {
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':');
        let Some((engine, rest)) = colon.map(|at| (&bytes[..at], &bytes[at + 1..])) else {
            return Ok(Location::Sqlite(text.into()));
        };
        let is_word = |engine: &[u8]| {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
            engine.first().is_some_and(u8::is_ascii_alphabetic) && engine.iter().all(is_part)
        };
        match engine {
            b"memory" if rest.is_empty() => Ok(Location::Memory),
            b"sqlite" if !rest.is_empty() => Ok(Location::Sqlite(OsStr::from_bytes(rest).into())),
            _ if is_word(engine) => {
                Err(StoreError::UnknownEngine(text.to_string_lossy().into_owned()))
            }
            _ => Ok(Location::Sqlite(text.into())),
        }
    }

    /// The store's directory on this machine, if it has one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Location::Sqlite(dir) => Some(dir),
            Location::Memory => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Sqlite(dir) => dir.display().fmt(f),
            Location::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match Location::parse(OsStr::new(text)) {
            Ok(Location::Sqlite(dir)) => format!("sqlite {}", dir.display()),
            Ok(Location::Memory) => "memory".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_directory_is_a_store_and_so_is_one_with_the_name_of_its_engine() {
        check("/var/lib/xfer", "sqlite /var/lib/xfer");
        check("sqlite:/var/lib/xfer", "sqlite /var/lib/xfer");
        check("sqlite:store", "sqlite store");
        check("memory:", "memory");
        check("./sqlite:store", "sqlite ./sqlite:store");
        check("/srv/a:b", "sqlite /srv/a:b");
        check(":x", "sqlite :x");
    }

    #[test]
    fn an_engine_that_there_is_not_is_refused_by_a_line_that_names_those_there_are() {
        let line = |text: &str| {
            format!("there is no engine for the store {text}; use sqlite:DIR, DIR or memory:")
        };
        for text in ["postgres://host/db", "s3:bucket", "sqlite:", "memory:x", "a:b"] {
            check(text, &line(text));
        }
    }
}

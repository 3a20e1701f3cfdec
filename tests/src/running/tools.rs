//! Third-party test suites, installed by tests/install-tools.sh.

use std::path::{Path, PathBuf};

/// The path of an installed tool.
///
/// # Panics
/// If it is not installed: a missing suite must not count as passed.
pub fn tool(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = vec![root.join("target/tools/bin")];
    places.extend(std::env::split_paths(&path));
    let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run tests/install-tools.sh"))
}

/// The path of a suite's configuration.
pub fn suite_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suites").join(name)
}

//! The file of known servers: lines `host:port sha256:HEX`.
//!
//! Lines of other hosts, comments and empty lines are kept as they are. A host may have several
//! lines (say, while its key is being replaced); any of them will do.
//!
//! **Invariant:** the file is replaced whole, by renaming, and only its owner can read it; two
//! mounts that learn of a server at once both find their line in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Fingerprint;

/// The longest known hosts file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The known hosts file.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    path: PathBuf,
}

/// What the file says of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownKey {
    /// The key it should have.
    pub fingerprint: Fingerprint,
    /// The line that says so, counted from 1.
    pub line: usize,
}

impl KnownHosts {
    /// The file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> KnownHosts {
        KnownHosts { path }
    }

    /// `xfer/known_hosts` under `$XDG_STATE_HOME` or `~/.local/state`; `None` without a home. Under
    /// mount(8), which clears `$HOME`, the home is the one of the system's list of users.
    pub fn default_path() -> Option<PathBuf> {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::home_dir().map(|home| home.join(".local/state"));
        let absolute = |path: &PathBuf| path.is_absolute();
        let state = state.filter(absolute).or_else(|| home().filter(absolute))?;
        Some(state.join("xfer/known_hosts"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that the file has for `endpoint`.
    ///
    /// # Errors
    /// If it is there and can't be read, or a line of this endpoint holds no key.
    pub fn lookup(&self, endpoint: &str) -> io::Result<Vec<KnownKey>> {
        let text = self.read()?;
        let lines = text.lines().enumerate().filter_map(|(index, line)| {
            let mut words = line.split_whitespace();
            (words.next() == Some(endpoint)).then(|| (index + 1, words.next().unwrap_or_default()))
        });
        lines.map(|(line, key)| parse_key(line, key)).collect()
    }

    /// Adds a line for `endpoint`.
    ///
    /// # Errors
    /// If the file, or its directory, can't be written.
    pub fn add(&self, endpoint: &str, fingerprint: Fingerprint) -> io::Result<()> {
        // Where the path is a link, the file it leads to is replaced and the link stays.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) | None => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let directory_file = File::open(directory)?;
        rustix::fs::flock(&directory_file, rustix::fs::FlockOperation::LockExclusive)?;
        let mut text = self.read()?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{endpoint} {fingerprint}\n"));
        replace(&path, text.as_bytes())?;
        directory_file.sync_all()
    }

    fn read(&self) -> io::Result<String> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(ErrorKind::FileTooLarge.into()),
            Ok(_) => fs::read_to_string(&self.path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

fn parse_key(line: usize, key: &str) -> io::Result<KnownKey> {
    let fingerprint = key
        .parse()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("line {line}: {error}")))?;
    Ok(KnownKey { fingerprint, line })
}

/// Puts a new file in the place of `path`, all at once.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn in_temp() -> (tempfile::TempDir, KnownHosts) {
        let directory = tempfile::tempdir().unwrap();
        let hosts = KnownHosts::new(directory.path().join("state/xfer/known_hosts"));
        (directory, hosts)
    }

    fn key(bytes: &[u8], line: usize) -> KnownKey {
        KnownKey { fingerprint: Fingerprint::of(bytes), line }
    }

    #[test]
    fn a_host_that_was_added_is_known_and_others_are_not() {
        let (_directory, hosts) = in_temp();
        assert_eq!(hosts.lookup("a:1").unwrap(), []);
        hosts.add("a:1", Fingerprint::of(b"a")).unwrap();
        hosts.add("b:1", Fingerprint::of(b"b")).unwrap();
        assert_eq!(hosts.lookup("a:1").unwrap(), [key(b"a", 1)]);
        assert_eq!(hosts.lookup("b:1").unwrap(), [key(b"b", 2)]);
        assert_eq!(hosts.lookup("a:2").unwrap(), []);
    }

    #[test]
    fn only_the_owner_can_read_it_and_nothing_is_left_beside_it() {
        let (_directory, hosts) = in_temp();
        hosts.add("a:1", Fingerprint::of(b"a")).unwrap();
        assert_eq!(fs::metadata(hosts.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(hosts.path().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn comments_and_a_missing_last_newline_are_kept() {
        let (_directory, hosts) = in_temp();
        fs::create_dir_all(hosts.path().parent().unwrap()).unwrap();
        let old = Fingerprint::of(b"old");
        fs::write(hosts.path(), format!("# mine\n\nz:1 garbage\na:1 {old}")).unwrap();
        hosts.add("a:1", Fingerprint::of(b"new")).unwrap();
        assert_eq!(hosts.lookup("a:1").unwrap(), [key(b"old", 4), key(b"new", 5)]);
        let text = fs::read_to_string(hosts.path()).unwrap();
        assert!(text.starts_with("# mine\n\nz:1 garbage\n"));
    }

    #[test]
    fn a_broken_line_of_the_host_itself_is_an_error_that_names_it() {
        let (_directory, hosts) = in_temp();
        fs::create_dir_all(hosts.path().parent().unwrap()).unwrap();
        fs::write(hosts.path(), "\na:1 sha256:zz\n").unwrap();
        assert!(hosts.lookup("a:1").unwrap_err().to_string().contains("line 2"));
        assert_eq!(hosts.lookup("b:1").unwrap(), []);
    }

    #[test]
    fn two_that_add_at_once_both_find_their_line() {
        let (_directory, hosts) = in_temp();
        let adders: Vec<_> = (0..8)
            .map(|n| {
                let hosts = hosts.clone();
                std::thread::spawn(move || hosts.add(&format!("h:{n}"), Fingerprint::of(&[n])))
            })
            .collect();
        for adder in adders {
            adder.join().unwrap().unwrap();
        }
        for n in 0..8 {
            assert_eq!(hosts.lookup(&format!("h:{n}")).unwrap().len(), 1);
        }
    }
}

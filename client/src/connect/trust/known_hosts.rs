//! The file of known servers: lines `host:port sha256:HEX`.
//!
//! Lines of other hosts, comments and empty lines are kept as they are. A host may have several
//! lines (say, while its key is being replaced), and any of them will do.
//!
//! **Invariant:** the file is replaced whole, by a rename. If two mounts learn of a server at once,
//! both find their line in it. A file that is made here can be read by its owner only. One that
//! exists keeps its owner and mode.
//! **Invariant:** a file that any other user of the machine could have written is not believed.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::fingerprint::Fingerprint;

/// The longest known hosts file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The known hosts file.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    path: PathBuf,
}

/// The file's entry for a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownKey {
    /// The fingerprint of its certificate.
    pub fingerprint: Fingerprint,
    /// The number of the entry's line, counted from 1.
    pub line: usize,
}

impl KnownHosts {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> KnownHosts {
        KnownHosts { path }
    }

    /// `known_hosts` in the directory for the state of programs; `None` without a home.
    pub fn default_path() -> Option<PathBuf> {
        Some(state_directory()?.join("known_hosts"))
    }

    /// The path, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that the file has for `endpoint`.
    ///
    /// If the file exists and can't be read, or a line of this endpoint holds no key.
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
        let path = self.followed(|_| Ok(()))?;
        let directory = parent(&path);
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
        let path = self.followed(believable)?;
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(ErrorKind::FileTooLarge.into()),
            Ok(_) => fs::read_to_string(&path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// The file that the path leads to, if it is a link. That file is read and replaced, and the
    /// link stays. `check` is called for each step.
    fn followed(&self, check: impl Fn(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
        const LINKS_MAX: usize = 40;
        let mut path = self.path.clone();
        for _ in 0..LINKS_MAX {
            check(&path)?;
            let Ok(target) = fs::read_link(&path) else { return Ok(path) };
            path = parent(&path).join(target);
        }
        Err(io::Error::other("too many links, one leading to the next"))
    }
}

/// The directory `xfer` under `$XDG_STATE_HOME` or `~/.local/state`; `None` without a home. Under
/// mount(8), which clears `$HOME`, the home is the one in the system's list of users.
pub fn state_directory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".local/state"));
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = state.filter(absolute).or_else(|| home().filter(absolute))?;
    Some(state.join("xfer"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Refuses a file that any user can write, or that another user may have put there.
fn believable(path: &Path) -> io::Result<()> {
    const WRITABLE_BY_ALL: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let there = |metadata: io::Result<Metadata>| match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let refused = |what: String| Err(io::Error::new(ErrorKind::PermissionDenied, what));
    let directory = parent(path);
    let is_shared = there(fs::metadata(directory))?.filter(|of| of.mode() & WRITABLE_BY_ALL != 0);
    if is_shared.as_ref().is_some_and(|of| of.mode() & STICKY == 0) {
        let directory = directory.display();
        return refused(format!("any user can replace it; run: chmod o-w {directory}"));
    }
    let Some(file) = there(fs::symlink_metadata(path))? else { return Ok(()) };
    if !file.is_symlink() && !file.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    if !file.is_symlink() && file.mode() & WRITABLE_BY_ALL != 0 {
        return refused(format!("any user can write it; run: chmod o-w {}", path.display()));
    }
    // In a directory like /tmp, another user may have made the file first.
    let ours = [0, rustix::process::geteuid().as_raw()];
    if is_shared.is_some() && !ours.contains(&file.uid()) {
        return refused("another user put it there".to_owned());
    }
    Ok(())
}

fn parse_key(line: usize, key: &str) -> io::Result<KnownKey> {
    let fingerprint = key
        .parse()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("line {line}: {error}")))?;
    Ok(KnownKey { fingerprint, line })
}

/// Replaces the file at `path`, all at once. The new file keeps the owner and mode of the old one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    // One that was left behind may belong to another user, or be a link.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| keep_owner_and_mode(&file, path))
        .and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}

fn keep_owner_and_mode(file: &File, old: &Path) -> io::Result<()> {
    let Ok(old) = fs::metadata(old) else { return Ok(()) };
    let new = file.metadata()?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o777))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

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

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_file_that_a_link_leads_to_is_replaced_and_keeps_its_mode() {
        let (directory, hosts) = in_temp();
        let target = directory.path().join("shared");
        fs::create_dir_all(hosts.path().parent().unwrap()).unwrap();
        symlink("../../shared", hosts.path()).unwrap();
        // The link exists before its target, as where dotfiles are kept elsewhere.
        hosts.add("a:1", Fingerprint::of(b"a")).unwrap();
        assert_eq!(mode(&target), 0o600);
        set_mode(&target, 0o644);
        hosts.add("b:1", Fingerprint::of(b"b")).unwrap();
        assert_eq!(mode(&target), 0o644);
        assert!(hosts.path().is_symlink());
        assert_eq!(hosts.lookup("a:1").unwrap(), [key(b"a", 1)]);
        assert_eq!(KnownHosts::new(target).lookup("b:1").unwrap(), [key(b"b", 2)]);
    }

    #[test]
    fn what_any_user_may_have_written_is_refused_with_what_to_do() {
        let (directory, hosts) = in_temp();
        hosts.add("a:1", Fingerprint::of(b"a")).unwrap();
        let own = hosts.path().parent().unwrap();
        let linked = KnownHosts::new(directory.path().join("link"));
        symlink(hosts.path(), linked.path()).unwrap();
        let check = |chmod: Option<String>| {
            for hosts in [&hosts, &linked] {
                let result = hosts.lookup("a:1").map(|_| ()).map_err(|error| error.to_string());
                let added = hosts.add("b:1", Fingerprint::of(b"b")).map_err(|e| e.to_string());
                let said = chmod.clone().map_or(Ok(()), Err);
                assert_eq!(result.map_err(|e| e.split("run: ").last().unwrap().to_owned()), said);
                assert_eq!(added.map_err(|e| e.split("run: ").last().unwrap().to_owned()), said);
            }
        };
        check(None);
        set_mode(hosts.path(), 0o646);
        check(Some(format!("chmod o-w {}", hosts.path().display())));
        set_mode(hosts.path(), 0o664);
        check(None);
        set_mode(own, 0o777);
        check(Some(format!("chmod o-w {}", own.display())));
        // As in /tmp: users can't replace files that are not theirs.
        set_mode(own, 0o1777);
        check(None);
        set_mode(own, 0o700);
        set_mode(directory.path(), 0o777);
        let result = linked.lookup("a:1").unwrap_err().to_string();
        assert!(result.contains(&format!("chmod o-w {}", directory.path().display())), "{result}");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let (directory, _) = in_temp();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let link = directory.path().join("link");
        symlink("/dev/null", &link).unwrap();
        for path in [pipe, link, "/dev/null".into()] {
            let hosts = KnownHosts::new(path);
            let error = hosts.lookup("host:1").unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file");
            assert!(hosts.add("host:1", Fingerprint::of(b"a")).is_err());
        }
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

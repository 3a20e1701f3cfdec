//! Everything that one test needs: a server with accounts, a home for its users, mount points.

pub mod accounts;
pub mod server;
pub mod authority;
pub mod mount;
pub mod by_hand;
pub mod machine;
pub(crate) mod watchdog;

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use xfer_protocol::Name;

use crate::PATIENCE;
use crate::programs::{Finished, program, run_within};
use crate::running::signals::as_on_a_terminal;
use accounts::Hashing;
use mount::{Mount, Mounting};
use server::Server;
use watchdog::{Watchdog, detach};

/// A server and its users, in a directory that goes when it is dropped.
pub struct World {
    /// The server's process.
    pub server: Server,
    pub(crate) watchdog: Watchdog,
    directory: TempDir,
    _elsewhere: Option<TempDir>,
    /// Whether the test has damaged the store itself.
    is_damaged: AtomicBool,
}

impl World {
    /// A server with these accounts. Each name may be followed by options of `user add`.
    pub fn new(users: &[&str]) -> World {
        World::with_server(users, |store| Server::start(store, "127.0.0.1:0"))
    }

    /// Like [`World::new`], with a server that `start` starts.
    pub fn with_server(users: &[&str], start: impl FnOnce(&Path) -> Server) -> World {
        World::within("/tmp", users, start)
    }

    /// Like [`World::with_server`], in a directory within `parent`.
    pub fn within(
        parent: impl AsRef<Path>,
        users: &[&str],
        start: impl FnOnce(&Path) -> Server,
    ) -> World {
        World::make(temporary(parent), None, start, |directory, store| {
            users.iter().for_each(|user| add_user(directory, store, user));
        })
    }

    /// Like [`World::new`], with the store in memory, for work that some disks are slow at.
    pub fn with_store_in_memory(users: &[&str]) -> World {
        World::with_store_within("/dev/shm", users)
    }

    /// Like [`World::new`], with the store in a directory within `parent`.
    pub fn with_store_within(parent: impl AsRef<Path>, users: &[&str]) -> World {
        let start = |store: &Path| Server::start(store, "127.0.0.1:0");
        let elsewhere = Some(temporary(parent));
        World::make(temporary("/tmp"), elsewhere, start, |directory, store| {
            users.iter().for_each(|user| add_user(directory, store, user));
        })
    }

    /// Like [`World::new`], for many users: making their accounts and checking their passwords
    /// takes almost no time.
    pub fn of_many(users: &[Name]) -> World {
        World::with_hashing(users, Hashing::Cheap)
    }

    /// Like [`World::new`], with passwords whose check costs this much.
    pub fn with_hashing(users: &[Name], hashing: Hashing) -> World {
        let start = |store: &Path| Server::start(store, "127.0.0.1:0");
        World::make(temporary("/tmp"), None, start, |directory, store| {
            accounts::add(store, users, hashing);
            for user in users {
                write_secret(&directory.join(format!("password-{user}")), accounts::PASSWORD);
            }
        })
    }

    fn make(
        directory: TempDir,
        elsewhere: Option<TempDir>,
        start: impl FnOnce(&Path) -> Server,
        add_users: impl FnOnce(&Path, &Path),
    ) -> World {
        as_on_a_terminal();
        std::fs::create_dir_all(directory.path().join("home/run")).unwrap();
        let store = elsewhere.as_ref().unwrap_or(&directory).path().join("store");
        add_users(directory.path(), &store);
        let server = start(&store);
        let watchdog = Watchdog::new();
        watchdog.watch_process(server.pid());
        World {
            server,
            watchdog,
            directory,
            _elsewhere: elsewhere,
            is_damaged: AtomicBool::new(false),
        }
    }

    /// Notes that the test damages the store. Any other must have no faults when its test is over,
    /// whatever happened to its server.
    pub fn damages_the_store(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    fn must_have_no_faults(&mut self) {
        const FAULTY: i32 = 18;
        if self.server.is_running() {
            self.server.kill();
        }
        let looked = self.server.command(&["check"]);
        assert!(looked.code != Some(FAULTY), "the store has faults: {looked}");
    }

    /// A directory outside all mounts, for the test's own files.
    pub fn outside(&self) -> PathBuf {
        let path = self.directory.path().join("outside");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The home directory for `xfer-mount` and `xfer`.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Sets that home directory for a command.
    pub fn at_home<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("HOME", self.home()).env("XDG_RUNTIME_DIR", self.home().join("run"))
    }

    /// Runs `xfer` with these arguments.
    #[track_caller]
    pub fn xfer(&self, arguments: &[&str]) -> Finished {
        run_within(&mut self.xfer_command(arguments), PATIENCE)
    }

    /// `xfer` with these arguments.
    pub fn xfer_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("xfer"));
        self.at_home(command.args(arguments));
        command
    }

    /// Runs `xfer rescue` with these arguments.
    #[track_caller]
    pub fn rescue(&self, arguments: &[&str]) -> Finished {
        self.xfer(&[&["rescue"], arguments].concat())
    }

    /// The name of the only rescue that there is.
    #[track_caller]
    pub fn only_rescue(&self) -> String {
        let listed = self.rescue(&["list"]).succeeded().stdout;
        let mut lines = listed.lines();
        let name = lines.next().unwrap().split("  ").next().unwrap().to_owned();
        assert_eq!(lines.next(), None, "{listed}");
        name
    }

    /// The mount point of a user, an empty directory.
    pub fn mount_point(&self, user: &str) -> PathBuf {
        let path = self.directory.path().join("mnt").join(user);
        if !crate::mount::is_mounted(&path) {
            std::fs::create_dir_all(&path).unwrap();
        }
        path
    }

    /// The file with a user's password.
    pub fn password_file(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("password-{user}"))
    }

    /// Lets other users of the machine reach the mount points.
    pub fn let_others_in(&self) {
        let permissions = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(self.directory.path(), permissions).unwrap();
    }

    /// Adds an account while the server is running.
    pub fn add_user(&self, user: &str) {
        add_user(self.directory.path(), self.server.store(), user);
    }

    /// Prepares to mount a user's storage.
    pub fn mounting(&self, user: &str) -> Mounting<'_> {
        Mounting::new(self, user)
    }

    /// Mounts a user's storage.
    #[track_caller]
    pub fn mount(&self, user: &str) -> Mount {
        self.mounting(user).start()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mounts = std::fs::read_dir(self.directory.path().join("mnt"));
        for mount in mounts.into_iter().flatten().flatten() {
            if crate::mount::is_mounted(&mount.path()) {
                detach(&mount.path());
            }
        }
        if !self.is_damaged.load(Ordering::Relaxed) && !std::thread::panicking() {
            self.must_have_no_faults();
        }
    }
}

fn temporary(parent: impl AsRef<Path>) -> TempDir {
    tempfile::Builder::new().prefix("xfer-").tempdir_in(parent).unwrap()
}

/// Mounts a new account, runs `check` on the mount, and unmounts.
pub fn on_a_mount(check: impl FnOnce(&Mount)) {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    check(&mount);
    mount.unmount();
}

/// Like [`on_a_mount`], then runs `after` on a fresh mount of the same account.
pub fn before_and_after_a_remount(before: impl FnOnce(&Mount), after: impl FnOnce(&Mount)) {
    let world = World::new(&["alice"]);
    for check in [Box::new(before) as Box<dyn FnOnce(&Mount)>, Box::new(after)] {
        let mount = world.mount("alice");
        check(&mount);
        mount.unmount();
    }
}

/// Adds the account named by the first word of `user`; the other words are options.
fn add_user(directory: &Path, store: &Path, user: &str) {
    let (name, options) = user.split_once(' ').unwrap_or((user, ""));
    let file = directory.join(format!("password-{name}"));
    write_secret(&file, &format!("the password of {name}"));
    let mut args = vec!["user", "add", name, "--password-file", file.to_str().unwrap()];
    args.extend(options.split_whitespace());
    server::command(store, &args).succeeded();
}

/// Writes a file that only its owner can read.
pub fn write_secret(file: &Path, text: &str) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

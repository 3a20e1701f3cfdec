//! A machine as far as its mounts and files of configuration go: a mount namespace, in which xfer is
//! installed, root's home is the world's, and another user can log in.
//!
//! What is done there stays there: `/etc` and `/usr/sbin` are layers over the real ones.

use std::path::PathBuf;
use std::process::Command;

use crate::PATIENCE;
use crate::programs::{FAILS, Finished, program, run_within};
use crate::world::World;

/// The user of the machine other than root.
pub const USER: &str = "carol";

/// What comes before a command that this user runs.
pub const AS_USER: &str = "setpriv --reuid 20001 --regid 20001 --clear-groups --";

/// A machine.
pub struct Machine<'a> {
    world: &'a World,
    /// Commands of root's that prepare it.
    set_up: String,
}

impl World {
    /// A machine whose users mount accounts of this world.
    pub fn machine(&self) -> Machine<'_> {
        self.let_others_in();
        let (outside, home) = (self.outside(), self.home());
        let layers = outside.join("layers");
        let programs = self.programs_there();
        for directory in [&layers, &programs, &self.home_of_user()] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::os::unix::fs::chown(self.home_of_user(), Some(20_001), Some(20_001)).unwrap();
        let built = program("xfer-mount").parent().unwrap().display().to_string();
        let set_up = format!(
            "set -eu
             L='{layers}' PLACE='{place}' PATH='{programs}':/usr/sbin:/usr/bin:/sbin:/bin
             export PLACE PATH
             mount -t tmpfs none \"$L\"
             for of in etc usr/sbin; do
                 mkdir -p \"$L/upper/$of\" \"$L/work/$of\"
                 mount -t overlay -o \"lowerdir=/$of,upperdir=$L/upper/$of,workdir=$L/work/$of\" none /$of
             done
             mknod -m 666 \"$L/fuse\" c 10 229 && mount --bind \"$L/fuse\" /dev/fuse
             mount --bind '{home}' /root
             # Where rescues are kept for which there is no room at home.
             install -d -m 1777 \"$L/var-tmp\" && mount --bind \"$L/var-tmp\" /var/tmp
             mount --bind '{built}' '{programs}'
             for name in mount.fuse.xfer mount.xfer; do
                 ln -s '{programs}/xfer-mount' /usr/sbin/$name
             done
             echo '{USER}:x:20001:20001::{user_home}:/bin/sh' >> /etc/passwd
             echo '{USER}:x:20001:' >> /etc/group
             {FAILS}
             trap 'umount -l \"$PLACE\" 2>/dev/null || true' EXIT
            ",
            layers = layers.display(),
            place = self.mount_point("alice").display(),
            programs = programs.display(),
            home = home.display(),
            user_home = self.home_of_user().display(),
        );
        Machine { world: self, set_up }
    }

    /// The home directory of the machine's user other than root.
    pub fn home_of_user(&self) -> PathBuf {
        self.outside().join("home of carol")
    }

    /// Where a machine has the programs.
    fn programs_there(&self) -> PathBuf {
        self.outside().join("bin")
    }
}

impl Machine<'_> {
    /// Prepares it further, by a shell script of root's.
    #[must_use]
    pub fn with(mut self, script: &str) -> Self {
        self.set_up.push_str(script);
        self.set_up.push('\n');
        self
    }

    /// A shell script of root's, which is run with no variable but `PATH` and `PLACE`, a mount point, as at
    /// boot.
    pub fn command(&self, script: &str) -> Command {
        self.world.watchdog.watch_mount(self.world.mount_point("alice"));
        let mut command = Command::new("unshare");
        let script = format!("{}\n{script}", self.set_up);
        command.args(["-m", "--propagation", "private", "env", "-i", "PATH=/usr/bin:/bin"]);
        command.args(["TERM=dumb", "sh", "-c", &script]);
        command
    }

    /// Runs such a script.
    #[track_caller]
    pub fn run(&self, script: &str) -> Finished {
        run_within(&mut self.command(script), PATIENCE)
    }
}

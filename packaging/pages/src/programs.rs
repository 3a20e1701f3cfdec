//! The programs, and what their command lines do not say: files, examples, and where to read on.

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};
use xfer_mount::command::cli::MountLine;
use xfer_mount::command::helper::HelperLine;
use xfer_mount::command::xfer_line::XferLine;

/// The document that describes the words of `-o`.
pub const MOUNTING: &str = include_str!("../../../docs/MOUNTING.md");

/// A program with its pages. In its texts, backticks enclose what is shown in bold.
pub struct Program {
    /// The package that has it.
    pub package: &'static str,
    /// Its command line.
    pub command: Command,
    /// The section of its pages: 1 for users, 8 for administrators.
    pub section: u8,
    /// Whether shells complete its command line.
    pub completes: bool,
    /// Whether it takes the words of `-o`.
    pub mounts: bool,
    /// Paragraphs after the description of its command line.
    pub description: &'static [&'static str],
    /// Its exit status, if `--help` does not list it.
    pub exit_status: &'static str,
    /// Variables of the environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// Files that it uses.
    pub files: &'static [(&'static str, &'static str)],
    /// What one may want, and the command for it.
    pub examples: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub see_also: &'static [(&'static str, u8)],
}

/// All programs.
pub fn all() -> [Program; 4] {
    [xfer(), xfer_mount(), mount_helper(), xfer_server()]
}

/// The command line as pages and completions show it: without the backticks of its comments, and with
/// possible values in the text.
fn plain(command: Command) -> Command {
    let plain_text = |text: &StyledStr| text.to_string().replace('`', "");
    let about = command.get_about().map(plain_text);
    let long_about = command.get_long_about().map(plain_text);
    let command = command.mut_args(|arg: Arg| {
        let help = arg.get_help().map(plain_text);
        let long_help = arg.get_long_help().map(plain_text);
        let arg = help.into_iter().fold(arg, Arg::help);
        long_help.into_iter().fold(arg, Arg::long_help)
    });
    let command = about.into_iter().fold(command, Command::about);
    let command = long_about.into_iter().fold(command, Command::long_about);
    command.subcommand_help_heading("COMMANDS").mut_subcommands(plain)
}

const LOG: (&str, &str) =
    ("`XFER_LOG`", "How much is logged: `error`, `warn`, `info`, `debug` or `trace`.");

const STATE: (&str, &str) = (
    "`XDG_STATE_HOME`, `XDG_CACHE_HOME`",
    "What stands for ~/.local/state and ~/.cache in the paths below.",
);

const CONFIG: (&str, &str) = (
    "`XFER_CLIENT_CONFIG`, `XDG_CONFIG_HOME`",
    "The file of settings, and what stands for ~/.config in its path.",
);

const SETTING: (&str, &str) =
    ("`XFER_WAIT` and so on", "Settings: the words of `-o` in capitals, after `XFER_`.");

const SETTINGS: (&str, &str) = (
    "~/.config/xfer/config.toml, /etc/xfer/client.toml",
    "Settings of the user, and below them those of the machine.",
);

const EXAMPLE: (&str, &str) =
    ("/usr/share/doc/xfer/examples/config.toml", "Settings, to be copied.");

const KNOWN_HOSTS: (&str, &str) =
    ("~/.local/state/xfer/known_hosts", "The servers that were trusted, by their certificates.");

const KEYS: (&str, &str) =
    ("~/.local/state/xfer/keys/", "The keys by which this machine logs in; see `xfer login`.");

const RESCUE: (&str, &str) =
    ("~/.local/state/xfer/rescue/", "Changes that did not reach the server; see `xfer rescue`.");

const OFFLINE: (&str, &str) = (
    "~/.cache/xfer/offline/",
    "Changes of mounts with `-o offline`, while there is no connection.",
);

fn xfer() -> Program {
    Program {
        package: "xfer",
        command: plain(XferLine::command()),
        section: 1,
        completes: true,
        mounts: false,
        description: &[
            "Each command has a page of its own, whose name has the command after a hyphen: \
             `man xfer-status`.",
        ],
        exit_status: "",
        environment: &[CONFIG, SETTING, LOG, STATE],
        files: &[
            SETTINGS,
            EXAMPLE,
            KNOWN_HOSTS,
            KEYS,
            RESCUE,
            OFFLINE,
            (
                "~/.local/state/xfer/inbox/",
                "For which arrivals `xfer inbox` has run commands, or shown notices.",
            ),
            (
                "/usr/lib/systemd/user/xfer-notify@.service",
                "Shows notices of what is sent to ACCOUNT@HOST, while that is mounted.",
            ),
        ],
        examples: &[
            ("Log this machine in, then mount without a password:", "xfer login alice@example.org"),
            ("Wait until everything is on the server's disk:", "xfer sync ~/remote"),
        ],
        see_also: &[("xfer-mount", 8), ("xfer-server", 8)],
    }
}

fn xfer_mount() -> Program {
    Program {
        package: "xfer",
        command: plain(MountLine::command()),
        // Section 1 has the page of `xfer mount`.
        section: 8,
        completes: true,
        mounts: true,
        description: &[
            "The program moves to the background when the directory can be used, and ends when it is \
             unmounted, by `xfer unmount` or umount(8).",
            "The first time, it shows the fingerprint of the server's certificate and asks whether to \
             trust it. Without a key of this machine (`xfer login`), it asks for the password.",
        ],
        exit_status: "",
        environment: &[CONFIG, SETTING, LOG, STATE],
        files: &[
            SETTINGS,
            EXAMPLE,
            KNOWN_HOSTS,
            KEYS,
            RESCUE,
            OFFLINE,
            ("/etc/fuse.conf", "`user_allow_other` there lets users give `-o allow_other`."),
            (
                "/usr/lib/systemd/system/xfer-mount@.service",
                "Mounts ACCOUNT@HOST on /mnt/ACCOUNT@HOST when the machine starts.",
            ),
            (
                "/usr/lib/systemd/user/xfer-mount@.service",
                "Mounts ACCOUNT@HOST on ~/ACCOUNT@HOST when its user logs in.",
            ),
        ],
        examples: &[
            ("Mount an account:", "xfer-mount alice@example.org ~/remote"),
            (
                "Keep changes on this machine's disk while the server cannot be reached:",
                "xfer-mount -o offline alice@example.org ~/remote",
            ),
            (
                "Mount at each login of this user, with the key that `xfer login` made:",
                "xfer mount --at-login alice@example.org ~/remote",
            ),
        ],
        see_also: &[("xfer", 1), ("fusermount3", 1), ("mount.fuse.xfer", 8), ("umount", 8)],
    }
}

fn mount_helper() -> Program {
    Program {
        package: "xfer",
        command: plain(HelperLine::command()),
        section: 8,
        completes: false,
        mounts: true,
        description: &[
            "mount(8) runs this helper for the filesystem types `fuse.xfer` and `xfer`, and so for lines \
             of fstab(5). It is xfer-mount(8) under another name.",
            "The server must be known in advance: mount once by hand as the same user, or give \
             `fingerprint=`. With a key (`xfer login`, as root for lines of fstab) no password is needed.",
            "Programs that search all filesystems should leave these out. For locate(1), add `fuse.xfer` \
             to PRUNEFS in /etc/updatedb.conf.",
        ],
        exit_status: "As of mount(8): `0` mounted, `1` a wrong option, `32` a failure.",
        environment: &[],
        files: &[
            ("/etc/fstab", "Lines with the type `fuse.xfer`."),
            ("/usr/sbin/mount.fuse.xfer, /usr/sbin/mount.xfer", "Links to xfer-mount."),
        ],
        examples: &[(
            "A line of /etc/fstab:",
            "alice@example.org /mnt/alice fuse.xfer _netdev,nofail 0 0",
        )],
        see_also: &[("xfer-mount", 8), ("xfer", 1), ("fstab", 5), ("mount", 8)],
    }
}

fn xfer_server() -> Program {
    Program {
        package: "xfer-server",
        command: plain(xfer_server::cli::command()),
        section: 8,
        completes: true,
        mounts: false,
        description: &[
            "`xfer-server run` serves. The other commands manage the store, beside a running server or \
             without one. A command that root runs acts with the rights of the store's owner.",
            "Each command has a page of its own, whose name has the command after a hyphen: \
             `man xfer-server-user-add`.",
        ],
        exit_status: "",
        environment: &[LOG],
        files: &[
            ("/var/lib/xfer", "The store: accounts, their data, and the server's certificate."),
            ("/usr/lib/systemd/system/xfer-server.service", "The service that runs it."),
            ("/usr/share/doc/xfer-server/OPERATIONS.md", "How to run a server."),
        ],
        examples: &[
            (
                "Add an account; prints a line for its user to paste:",
                "xfer-server user add alice --invite",
            ),
            ("See who is connected:", "xfer-server session list"),
        ],
        see_also: &[("xfer", 1), ("xfer-mount", 8), ("systemctl", 1)],
    }
}

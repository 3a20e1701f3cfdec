//! Options of sshfs, which users bring along in their fstab lines and their fingers. Each either asks for
//! something that an xfer mount does anyway, or is answered by a line that says what to write instead.
//!
//! docs/FROM-SSHFS.md shows the same to people. Options that both have are in `options`.
//!
//! **Invariant:** an option is accepted only if the mount is as it asks for. Nothing is ignored that the
//! user would miss.

/// What an option of sshfs is to xfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A mount is like that anyway.
    Nothing,
    /// Refused: the user writes this instead.
    Instead(&'static str),
}

use Answer::{Instead, Nothing};

const NO_SSH: Answer = Instead("leave it out: xfer does not use ssh");

const NEVER_STALE: Answer = Instead(
    "leave it out: what is cached is never out of date; cache_size= and tree_size= bound its memory",
);

const TUNING: Answer = Instead("leave it out: xfer finds such values itself");

const STORED_LINKS: Answer =
    Instead("leave it out: links show what is stored, and are followed on this machine");

const OWNERS: Answer = Instead(
    "write ids=mounter to show all files as yours, ids=stored to show the stored owners, or uid= and gid=",
);

const ELSEWHERE: Answer = Instead(
    "leave it out: forward the server's port, as with ssh -L, and mount USER@localhost:PORT",
);

const LOG: Answer = Instead("write -f, and set XFER_LOG=debug in the environment");

const KEYS: Answer = Instead(
    "leave it out: xfer login USER@HOST makes a key for this machine, which is used from then on",
);

/// Options by their names, in small letters; for ssh's own, capitals do not matter. A value is `*` if any
/// is meant.
const OPTIONS: &[(&str, &str, Answer)] = &[
    ("reconnect", "", Nothing),
    ("serveraliveinterval", "*", Nothing),
    ("serveralivecountmax", "*", Nothing),
    ("tcpkeepalive", "*", Nothing),
    ("cache", "yes", Nothing),
    ("dir_cache", "yes", Nothing),
    ("kernel_cache", "", Nothing),
    ("auto_cache", "", Nothing),
    ("big_writes", "", Nothing),
    ("large_read", "", Nothing),
    ("use_ino", "", Nothing),
    ("readdir_ino", "", Nothing),
    ("intr", "", Nothing),
    ("workaround", "*", Nothing),
    ("no_check_root", "", Nothing),
    ("compression", "no", Nothing),
    ("cache", "*", NEVER_STALE),
    ("dir_cache", "*", NEVER_STALE),
    ("noauto_cache", "", NEVER_STALE),
    ("direct_io", "", NEVER_STALE),
    ("cache_timeout", "*", NEVER_STALE),
    ("cache_stat_timeout", "*", NEVER_STALE),
    ("cache_dir_timeout", "*", NEVER_STALE),
    ("cache_link_timeout", "*", NEVER_STALE),
    ("cache_max_size", "*", NEVER_STALE),
    ("cache_clean_interval", "*", NEVER_STALE),
    ("cache_min_clean_interval", "*", NEVER_STALE),
    ("dcache_timeout", "*", NEVER_STALE),
    ("dcache_stat_timeout", "*", NEVER_STALE),
    ("dcache_dir_timeout", "*", NEVER_STALE),
    ("dcache_link_timeout", "*", NEVER_STALE),
    ("dcache_max_size", "*", NEVER_STALE),
    ("dcache_clean_interval", "*", NEVER_STALE),
    ("dcache_min_clean_interval", "*", NEVER_STALE),
    ("entry_timeout", "*", NEVER_STALE),
    ("negative_timeout", "*", NEVER_STALE),
    ("attr_timeout", "*", NEVER_STALE),
    ("ac_attr_timeout", "*", NEVER_STALE),
    (
        "sshfs_sync",
        "",
        Instead("write sync: each change is answered when it is on the server's disk"),
    ),
    ("sync_readdir", "", TUNING),
    ("sync_read", "", TUNING),
    ("async_read", "", TUNING),
    ("no_readahead", "", TUNING),
    ("max_conns", "*", TUNING),
    ("max_write", "*", TUNING),
    ("max_readahead", "*", TUNING),
    ("max_background", "*", TUNING),
    ("max_idle_threads", "*", TUNING),
    ("max_threads", "*", TUNING),
    ("clone_fd", "", TUNING),
    ("congestion_threshold", "*", TUNING),
    ("remember", "*", TUNING),
    ("noforget", "", TUNING),
    ("nopath", "", TUNING),
    (
        "hard_remove",
        "",
        Instead("leave it out: files that are open when they are removed stay usable"),
    ),
    ("disable_hardlink", "", Instead("leave it out: hard links work")),
    ("follow_symlinks", "", STORED_LINKS),
    ("transform_symlinks", "", STORED_LINKS),
    ("idmap", "none", Instead("write ids=stored")),
    ("idmap", "user", Instead("write ids=mounter")),
    ("idmap", "*", OWNERS),
    ("uidfile", "*", OWNERS),
    ("gidfile", "*", OWNERS),
    ("nomap", "*", OWNERS),
    (
        "allow_root",
        "",
        Instead("write allow_other: it lets root in, and others as permissions allow"),
    ),
    ("port", "*", Instead("write the port behind the host: USER@HOST:PORT")),
    ("user", "*", Instead("write the user before the host: USER@HOST")),
    ("hostname", "*", Instead("write the host that is meant: USER@HOST")),
    ("identityfile", "*", KEYS),
    ("identitiesonly", "*", KEYS),
    ("identityagent", "*", KEYS),
    ("pubkeyauthentication", "*", KEYS),
    ("passwordauthentication", "*", KEYS),
    ("preferredauthentications", "*", KEYS),
    ("batchmode", "*", KEYS),
    ("userknownhostsfile", "*", Instead("write known_hosts=FILE, with lines that xfer wrote")),
    ("stricthostkeychecking", "no", Instead("write accept_new, or better fingerprint=sha256:HEX")),
    ("stricthostkeychecking", "accept-new", Instead("write accept_new")),
    (
        "stricthostkeychecking",
        "*",
        Instead(
            "leave it out: you are asked about an unknown server, which is refused without a terminal",
        ),
    ),
    (
        "connecttimeout",
        "*",
        Instead("write retry=SECONDS to try again while the server cannot be reached"),
    ),
    (
        "delay_connect",
        "",
        Instead("write x-systemd.automount in fstab: the mount is made at the first access"),
    ),
    ("proxyjump", "*", ELSEWHERE),
    ("proxycommand", "*", ELSEWHERE),
    ("compression", "*", Instead("leave it out: xfer does not compress")),
    ("ciphers", "*", NO_SSH),
    ("macs", "*", NO_SSH),
    ("kexalgorithms", "*", NO_SSH),
    ("hostkeyalgorithms", "*", NO_SSH),
    ("controlmaster", "*", NO_SSH),
    ("controlpath", "*", NO_SSH),
    ("controlpersist", "*", NO_SSH),
    ("forwardagent", "*", NO_SSH),
    ("ssh_command", "*", NO_SSH),
    ("ssh_protocol", "*", NO_SSH),
    ("sftp_server", "*", NO_SSH),
    ("directport", "*", NO_SSH),
    ("vsock", "*", NO_SSH),
    ("passive", "", NO_SSH),
    ("slave", "", NO_SSH),
    ("rekeylimit", "*", NO_SSH),
    (
        "addressfamily",
        "*",
        Instead("leave it out, or write the host's address: USER@ADDRESS or USER@[ADDRESS]"),
    ),
    ("debug", "", LOG),
    ("sshfs_debug", "", LOG),
    ("loglevel", "*", LOG),
];

/// Flags of sshfs's command line that xfer-mount does not have.
const FLAGS: &[(&str, &str)] = &[
    ("-p", "write the port behind the host: USER@HOST:PORT"),
    ("-C", "leave it out: xfer does not compress"),
    ("-F", "leave it out: xfer does not use ssh"),
    ("-1", "leave it out: xfer does not use ssh"),
    ("-d", "write -f, and set XFER_LOG=debug in the environment"),
    ("-s", "leave it out: xfer has no such mode"),
];

/// The answer to a word of `-o`, if it is an option of sshfs.
pub fn of_word(word: &str) -> Option<Answer> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, v)| (name, Some(v)));
    let name = name.to_ascii_lowercase();
    let fits = |wanted: &str| match (wanted, value) {
        ("", None) | ("*", Some(_)) => true,
        (wanted, Some(value)) => wanted == value,
        (_, None) => false,
    };
    let found = OPTIONS.iter().find(|(of, wanted, _)| *of == name && fits(wanted));
    found.map(|(_, _, answer)| *answer)
}

/// What to write instead of a flag of sshfs, like `-p`.
pub fn of_flag(flag: &str) -> Option<&'static str> {
    FLAGS.iter().find(|(of, _)| *of == flag).map(|(_, instead)| *instead)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_mount_does_anyway_is_accepted() {
        for word in ["reconnect", "ServerAliveInterval=15", "cache=yes", "workaround=rename"] {
            assert_eq!(of_word(word), Some(Nothing), "{word}");
        }
    }

    #[test]
    fn what_would_be_missed_is_answered_by_what_to_write() {
        for (word, part) in [
            ("idmap=user", "ids=mounter"),
            ("idmap=file", "ids=stored"),
            ("cache=no", "cache_size="),
            ("IdentityFile=/home/a/.ssh/id", "xfer login"),
            ("identityfile=~/.ssh/id", "xfer login"),
            ("Port=22", "USER@HOST:PORT"),
        ] {
            let Some(Instead(advice)) = of_word(word) else { panic!("{word}") };
            assert!(advice.contains(part), "{word}: {advice}");
        }
        assert!(of_flag("-p").unwrap().contains("HOST:PORT"));
    }

    #[test]
    fn each_option_is_on_the_page_about_them() {
        let page = include_str!("../../../docs/FROM-SSHFS.md").to_ascii_lowercase();
        let is_there = |option: &str| page.contains(option);
        for (name, value, _) in OPTIONS {
            let found = match *value {
                "" => is_there(&format!("`{name}`")),
                "*" => is_there(&format!("`{name}=")),
                value => is_there(&format!("`{name}={value}`")),
            };
            assert!(found, "{name}={value}");
        }
        assert!(FLAGS.iter().all(|(flag, _)| page.contains(&format!("`{}", flag.to_lowercase()))));
    }

    #[test]
    fn words_that_neither_has_have_no_answer() {
        for word in ["shiny", "reconnect=yes", "port", "", "cache"] {
            assert_eq!(of_word(word), None, "{word}");
        }
        assert_eq!(of_flag("-x"), None);
    }
}

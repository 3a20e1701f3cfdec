//! Third-party suites on real mounts: pjdfstest for POSIX's rules about names, owners and errors,
//! and fsx for the content of files.
//!
//! tests/install-tools.sh installs them. Neither is ever skipped.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use xfer_tests::files::drop_kernel_caches;
use xfer_tests::tools::{suite_file, tool};
use xfer_tests::{World, run_within, scale};

/// The number of fsx operations in each test.
const FSX_OPERATIONS: usize = 30_000;

/// The fewest runs to divide them into: each has its own seed, and a fresh mount.
const FSX_RUNS_MIN: usize = 2;

/// The most operations in a run. fsx never unmaps its mappings; the kernel allows a process some
/// 65,000 of them (`vm.max_map_count`), and slows down long before that.
const FSX_RUN_MAX: usize = 25_000;

/// The number of cases in pjdfstest 0.2.2.
const PJDFSTEST_CASES: usize = 398;

/// The cases about read-only filesystems among them.
const READ_ONLY_CASES: usize = 13;

/// The one case that asks the C library for the maximum link count, which it knows only for a few
/// filesystems by name, and not for FUSE.
const UNKNOWN_TO_LIBC: &str = "link::link_count_max";

#[test]
fn pjdfstest_passes_as_root_and_as_three_users() {
    let (skipped, passed) = pjdfstest(&suite_file("pjdfstest.toml"), &[]);
    let others: Vec<_> = skipped.iter().filter(|case| !case.contains("::erofs_")).collect();
    assert_eq!(others, [UNKNOWN_TO_LIBC]);
    assert_eq!(skipped.len(), READ_ONLY_CASES + 1, "{skipped:?}");
    assert_eq!(passed, PJDFSTEST_CASES - skipped.len());
}

#[test]
fn pjdfstest_finds_a_mount_read_only_when_it_is_remounted_so() {
    let text = fs::read_to_string(suite_file("pjdfstest.toml")).unwrap();
    let text = text.replace("allow_remount = false", "allow_remount = true");
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("remount.toml");
    fs::write(&config, text).unwrap();
    let (skipped, passed) = pjdfstest(&config, &["erofs"]);
    assert_eq!((skipped.len(), passed), (0, READ_ONLY_CASES));
}

/// Runs pjdfstest on a mount, with a second mount as the other filesystem. Returns the skipped
/// cases and the number of passed ones.
fn pjdfstest(config: &Path, patterns: &[&str]) -> (Vec<String>, usize) {
    assert!(rustix::process::geteuid().is_root(), "pjdfstest changes users: run it as root");
    let world = World::new(&["alice", "bob"]);
    world.let_others_in();
    let options = |user| world.mounting(user).arg("-o").arg("ids=stored,allow_other");
    let (mount, other) = (options("alice").start(), options("bob").start());

    let mut command = Command::new(tool("pjdfstest"));
    command.arg("-c").arg(config).arg("-p").arg(mount.root()).arg("-s").arg(other.root());
    command.args(patterns).env("PATH", path_with_plain_mount(&world.outside()));
    let finished = run_within(&mut command, scale::time_limit()).succeeded();
    let cases = |result: &str| -> Vec<String> {
        let words = finished.stdout.lines().map(|line| line.split_whitespace().collect());
        let matching = words.filter(|words: &Vec<&str>| words.get(1) == Some(&result));
        matching.map(|words| words[0].to_owned()).collect()
    };
    let found = (cases("skipped"), cases("ok").len());
    other.unmount();
    mount.unmount();
    found
}

/// A search path on which mount(8) runs no mount helpers: those for FUSE can't remount.
fn path_with_plain_mount(directory: &Path) -> String {
    let script = directory.join("mount");
    fs::write(&script, "#!/bin/sh\nexec /bin/mount -i \"$@\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

#[test]
fn fsx_finds_in_a_file_what_it_put_there() {
    exercise(1, "256MiB", 4 << 20);
}

#[test]
fn fsx_finds_in_a_file_what_it_put_there_when_little_fits_the_cache() {
    exercise(1001, "16MiB", 32 << 20);
}

/// Runs fsx on a file of a mount, with several seeds and cold caches in between, and in the same way
/// on a file in memory. Both must be equal in the end, also after a remount.
fn exercise(first_seed: u64, cache_size: &str, file_len: u64) {
    let operations = scale::count("XFER_FSX_OPERATIONS", FSX_OPERATIONS);
    let runs = operations.div_ceil(FSX_RUN_MAX).max(FSX_RUNS_MIN);
    let world = World::new(&["alice"]);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let reference = memory.path().join("reference");
    let rest = fs::read_to_string(suite_file("fsx.toml")).unwrap();
    fs::write(world.outside().join("fsx.toml"), format!("flen = {file_len}\n{rest}")).unwrap();
    let mounted = || world.mounting("alice").arg("--cache-size").arg(cache_size).start();
    for seed in (first_seed..).take(runs) {
        let fsx = |file: &Path| fsx(seed, operations.div_ceil(runs), file, &world.outside());
        drop_kernel_caches();
        let mount = mounted();
        fsx(&reference);
        fsx(&mount.path("file"));
        let expected = fs::read(&reference).unwrap();
        assert!(fs::read(mount.path("file")).unwrap() == expected, "seed {seed}");
        mount.unmount();
        let mount = mounted();
        assert!(fs::read(mount.path("file")).unwrap() == expected, "remounted, seed {seed}");
        mount.unmount();
    }
}

/// Runs fsx in a directory with its configuration, where it also leaves its traces of a failure.
fn fsx(seed: u64, operations: usize, file: &Path, directory: &Path) {
    let mut command = Command::new(tool("fsx"));
    command.arg("-f").arg(directory.join("fsx.toml")).arg("-P").arg(directory);
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]).arg(file);
    run_within(&mut command, scale::time_limit()).succeeded();
}

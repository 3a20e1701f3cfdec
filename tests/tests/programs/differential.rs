//! Random operations by several processes on a mount and on a local directory: results, errors,
//! attributes, times and contents must be equal. Few names are used, so that collisions are frequent.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use xfer_tests::differential::{Contest, Plant};
use xfer_tests::files::drop_kernel_caches;
use xfer_tests::snapshot::{assert_same, snapshot};
use xfer_tests::{Mount, Random, World, scale};

/// The number of operations in a run. Each part of it ends with a remount.
const OPERATIONS: usize = 20_000;
const OPERATIONS_OF_A_PART: usize = 2_500;

/// The number of operations in a part that the processes do at once, each in a tree of its own.
const AT_ONCE: usize = 700;

/// The number of operations in a run with a planted bug, and of runs in which it must be found.
const OPERATIONS_WITH_A_BUG: usize = 4_000;
const RUNS_WITH_A_BUG: usize = 12;

/// The part of the tree that is read between two remounts. So operations find a replica that knows
/// all, some, or none of what existed before.
#[derive(Clone, Copy)]
enum Look {
    All,
    Part,
    Nothing,
}

#[test]
fn random_operations_give_what_a_local_directory_gives() {
    let mut random = Random::new(Random::seed());
    let world = World::new(&["alice"]);
    world.let_others_in();
    let local = world.outside().join("local");
    let remote = world.mount_point("alice").join("remote");
    let mut contest = Contest::new(random.number(), &local, &remote, None);
    let parts = scale::count("XFER_DIFFERENTIAL_OPERATIONS", OPERATIONS) / OPERATIONS_OF_A_PART;
    for part in 0..parts {
        let mount = mounted(&world, &mut random);
        let look = *random.pick(&[Look::All, Look::Part, Look::Nothing]);
        look.at(&contest, part, "remounted");
        play(&mut contest).unwrap_or_else(|difference| panic!("part {part}: {difference}"));
        look.at(&contest, part, "ended");
        mount.unmount();
        println!("part {part} of {parts} is done");
    }
    let mount = mounted(&world, &mut random);
    Look::All.at(&contest, parts, "remounted");
    mount.unmount();
    assert_eq!(contest.never_succeeded(), 0, "{contest:?}");
}

impl Look {
    #[track_caller]
    fn at(self, contest: &Contest, part: usize, when: &str) {
        let found = match self {
            Look::All => contest.compare(),
            Look::Part => contest.compare_a_part(),
            Look::Nothing => Ok(()),
        };
        found.unwrap_or_else(|difference| panic!("part {part}, {when}: {difference}"));
    }
}

/// One part: the processes start, work and end.
fn play(contest: &mut Contest) -> Result<(), String> {
    contest.begin();
    let turns = OPERATIONS_OF_A_PART - AT_ONCE;
    contest.take_turns(turns / 2)?;
    contest.work_at_once(AT_ONCE, drop_kernel_caches)?;
    contest.take_turns(turns / 2)?;
    contest.end();
    Ok(())
}

/// A mount with random cache sizes, and stored owners where permitted.
fn mounted(world: &World, random: &mut Random) -> Mount {
    let sizes = ["16MiB", "64MiB", "256MiB"];
    let mut size = || *random.pick::<&str>(&sizes);
    let mounting = world.mounting("alice");
    let mounting = mounting.arg("--cache-size").arg(size());
    let mounting = mounting.arg("--log-size").arg(size());
    match rustix::process::geteuid().is_root() {
        true => mounting.arg("-o").arg("ids=stored,allow_other").start(),
        false => mounting.start(),
    }
}

#[test]
fn each_planted_bug_is_found_and_without_one_there_is_no_difference() {
    let mut random = Random::new(Random::seed());
    assert_eq!(contest_with(random.number(), None), Ok(()));
    for plant in Plant::ALL {
        // Not every run has the operations that reveal a bug.
        let found =
            (0..RUNS_WITH_A_BUG).any(|_| contest_with(random.number(), Some(plant)).is_err());
        assert!(found, "{plant:?} was not found");
    }
}

/// Runs a contest between two local directories.
fn contest_with(seed: u64, plant: Option<Plant>) -> Result<(), String> {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
    let mut contest = Contest::new(seed, &one, &other, plant);
    contest.begin();
    contest.take_turns(OPERATIONS_WITH_A_BUG)?;
    contest.work_at_once(AT_ONCE, || {})?;
    contest.end();
    contest.compare()
}

#[test]
fn the_comparison_sees_a_planted_difference() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let local = world.outside();
    for root in [&local, &mount.path("remote")] {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join("file"), "same").unwrap();
        set_mtime(&root.join("file"), 1);
    }
    let (one, other) = (snapshot(&local), snapshot(&mount.path("remote")));
    assert_same(&one, &other);
    let set = |value: &[u8]| {
        xfer_tests::files::set_xattr(&mount.path("remote/file"), "user.x", value).unwrap();
    };
    set(b"1");
    let with_one = snapshot(&mount.path("remote"));
    assert_ne!(other, with_one);
    set(b"2");
    assert_ne!(snapshot(&mount.path("remote")), with_one);
    mount.unmount();
}

fn set_mtime(path: &Path, second: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

//! The rules against a real directory: random steps on both, the same errors, the same tree.

use proptest::prelude::*;
use xfer_protocol::Ino;

use crate::audit::audit;
use crate::local::Local;
use crate::steps::{File, SLOTS, Step, steps};
use crate::world::{Seen, World};

/// The whole trees are compared after this many steps.
const STEPS_BETWEEN: usize = 6;

/// Does the steps on both sides and reports the first difference.
fn compare(world: &mut World, local: &mut Local, steps: &[Step]) -> Result<(), String> {
    for (index, step) in steps.iter().enumerate() {
        let Some(expected) = world.step(step) else { continue };
        let expected = expected.map_err(|errno| errno.number());
        let found = local.step(step);
        if expected != found {
            return Err(format!("{step:?}: the rules say {expected:?}, the kernel {found:?}"));
        }
        if index % STEPS_BETWEEN == 0 {
            compare_trees(world, local).map_err(|what| format!("after {step:?}: {what}"))?;
        }
    }
    compare_trees(world, local)?;
    audit(&[world])
}

fn compare_trees(world: &World, local: &Local) -> Result<(), String> {
    let (rules, kernel) = (world.snapshot(Ino::ROOT), local.snapshot());
    for path in rules.keys().chain(kernel.keys()) {
        let (rules, kernel) = (rules.get(path), kernel.get(path));
        if rules != kernel {
            return Err(format!("{path}: {}", difference(rules, kernel)));
        }
    }
    for slot in 0..SLOTS {
        let open = world.slots[slot].map(|ino| (world.node(ino).nlink, world.read(ino)));
        if open != local.open_file(slot) {
            return Err(format!("the open file {slot}"));
        }
    }
    Ok(())
}

fn difference(rules: Option<&Seen>, kernel: Option<&Seen>) -> String {
    let (Some(rules), Some(kernel)) = (rules, kernel) else {
        return format!("here {}, there {}", rules.is_some(), kernel.is_some());
    };
    let at = rules.bytes.iter().zip(&kernel.bytes).position(|(a, b)| a != b);
    let sizes = (rules.bytes.len(), kernel.bytes.len());
    let rest = |seen: &Seen| Seen { bytes: Vec::new(), ..seen.clone() };
    let (rules, kernel) = (rest(rules), rest(kernel));
    format!("bytes differ at {at:?}, sizes {sizes:?}\nrules  {rules:?}\nkernel {kernel:?}")
}

proptest! {
    #![proptest_config(crate::cases(400))]

    #[test]
    fn random_steps_end_as_in_a_local_directory(steps in steps(60)) {
        let steps = if rustix::process::geteuid().is_root() { steps } else { harmless(steps) };
        let outcome = compare(&mut World::new(), &mut Local::new(), &steps);
        prop_assert_eq!(outcome, Ok(()));
    }
}

/// Drops the steps whose outcome depends on the user: only root may give files away, keeps set-id
/// bits when it writes, and is never refused.
fn harmless(steps: Vec<Step>) -> Vec<Step> {
    let change = |step| match step {
        Step::Create(path, mode) => Some(Step::Create(path, mode & 0o777 | 0o600)),
        Step::Mkdir(path, mode) => Some(Step::Mkdir(path, mode & 0o777 | 0o700)),
        Step::Chmod(..) | Step::Chown(..) => None,
        other => Some(other),
    };
    steps.into_iter().filter_map(change).collect()
}

fn path(text: &str) -> Vec<u8> {
    text.bytes().collect()
}

#[test]
fn a_difference_in_the_tree_is_seen() {
    let (mut world, mut local) = (World::new(), Local::new());
    let both = [Step::Mkdir(path("a"), 0o755), Step::Create(path("ab"), 0o644)];
    assert_eq!(compare(&mut world, &mut local, &both), Ok(()));
    world.step(&Step::Write(File::At(path("ab")), 0, 1, 9)).unwrap().unwrap();
    assert!(compare(&mut world, &mut local, &[]).unwrap_err().starts_with("/a/b"));
}

#[test]
fn a_difference_in_an_error_is_seen() {
    let (mut world, mut local) = (World::new(), Local::new());
    local.step(&Step::Create(path("a"), 0o644)).unwrap();
    let outcome = compare(&mut world, &mut local, &[Step::Unlink(path("a"))]);
    assert!(outcome.unwrap_err().contains("the kernel Ok"));
}

#[test]
fn a_store_that_forgets_to_zero_is_seen() {
    let (mut world, mut local) = (World::new(), Local::new());
    world.storage.borrow_mut().forgets_zeros = true;
    let file = || File::At(path("a"));
    let steps = [
        Step::Create(path("a"), 0o644),
        Step::Write(file(), 0, 8192, 1),
        Step::Truncate(file(), 100),
        Step::Truncate(file(), 200),
    ];
    assert!(compare(&mut world, &mut local, &steps).unwrap_err().contains("bytes differ at"));
}

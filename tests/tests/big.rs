//! Directories without a limit on their size.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use xfer_tests::World;

const ENTRIES: usize = 100_000;

fn listed(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let set: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "a name was listed twice");
    set
}

#[test]
fn a_directory_of_a_hundred_thousand_entries_is_made_listed_and_removed() {
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let directory = mount.path("many");
    fs::create_dir(&directory).unwrap();
    let expected: BTreeSet<String> = (0..ENTRIES).map(|index| format!("file-{index:06}")).collect();
    for name in &expected {
        File::create(directory.join(name)).unwrap();
    }
    assert!(listed(&directory) == expected, "the listing is not what was made");
    mount.unmount();

    let mount = world.mount("alice");
    let directory = mount.path("many");
    // One entry of a directory that was not listed yet, and one that is not there.
    assert!(directory.join("file-077777").exists());
    assert!(!directory.join("file-100000").exists());
    assert!(listed(&directory) == expected, "the listing is not what was made");
    fs::remove_dir_all(&directory).unwrap();
    mount.unmount();

    let mount = world.mount("alice");
    assert!(!mount.path("many").exists());
    mount.unmount();
}

//! The directory that is mounted on, and what users other than root need to leave it again.
#![allow(clippy::unwrap_used)]

use xfer_tests::World;
use xfer_tests::machine::{AS_USER, USER};

/// The command that mounts on this place, with these words before the account.
fn mount(world: &World, words: &str, place: &str) -> String {
    format!(
        "xfer-mount --fingerprint {} --password-stdin {words} alice@{} {place} <'{}'",
        world.server.fingerprint,
        world.server.address,
        world.password_file("alice").display(),
    )
}

#[test]
fn a_directory_that_is_not_empty_is_mounted_on_with_a_warning_unless_the_user_knows_it() {
    let world = World::new(&["alice"]);
    let script = format!(
        "mkdir $L/empty $L/full && echo hidden > $L/full/.file
         {empty} && umount $L/empty
         {full} && fails cat $L/full/.file && umount $L/full
         {known} && umount $L/full
         cat $L/full/.file",
        empty = mount(&world, "", "$L/empty"),
        full = mount(&world, "", "$L/full"),
        known = mount(&world, "-o nonempty", "$L/full"),
    );
    let finished = world.machine().run(&script).succeeded();
    let layers = world.outside().join("layers");
    let warning = format!(
        "xfer-mount: warning: {}/full is not empty; what is in it is hidden until it is unmounted\n",
        layers.display()
    );
    assert_eq!((finished.stdout.as_str(), finished.stderr), ("hidden\n", warning));
}

#[test]
fn a_user_learns_what_fusermount3_lacks_to_unmount() {
    let world = World::new(&["alice"]);
    let script = format!(
        "rm /etc/mtab
         mkdir $L/own && chown {USER} $L/own
         {AS_USER} env HOME='{home}' {mount}
         echo mounted
         {AS_USER} env HOME='{home}' xfer unmount $L/own || echo $?
         ln -s ../proc/self/mounts /etc/mtab
         {AS_USER} env HOME='{home}' xfer unmount $L/own",
        home = world.home_of_user().display(),
        mount = mount(&world, "", "$L/own"),
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!(finished.stdout, "mounted\n1\n", "{finished}");
    let said = "own: fusermount3 needs /etc/mtab, which is missing; as root: ln -s ../proc/self/mounts \
                /etc/mtab\n";
    assert!(finished.stderr.ends_with(said) && finished.stderr.lines().count() == 1, "{finished}");
}

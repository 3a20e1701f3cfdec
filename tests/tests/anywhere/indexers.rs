//! Programs that look at a whole machine, and what docs/MOUNTING.md says of them.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use xfer_tests::machine::{AS_USER, USER};
use xfer_tests::{PATIENCE, World, run_within, shell};

use crate::{log_in, trust};

const PAGE: &str = include_str!("../../../docs/MOUNTING.md");

#[test]
fn updatedb_lists_a_mount_until_it_is_told_of_the_type_as_the_page_says() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let tell = PAGE.lines().find_map(|line| line.strip_prefix("sudo sed ")).unwrap();
    // The machine's list of paths has those of tests.
    let script = format!(
        "index() {{
             updatedb -U \"$(dirname $PLACE)\" -o $L/db --prunepaths '' -l no
             plocate -d $L/db in-the-tree || echo not listed
         }}
         mount -t fuse.xfer -o {trust} alice@{server} $PLACE
         mkdir $PLACE/d && touch $PLACE/d/in-the-tree
         index
         sed {tell}
         index
         umount $PLACE
         # What a user mounts for themselves is closed to root anyway.
         sed -i 's/fuse.xfer //' /etc/updatedb.conf
         chown {USER} $PLACE
         {AS_USER} env HOME='{home}' xfer-mount --fingerprint {fingerprint} --password-stdin \
             alice@{server} $PLACE <'{password}'
         index
         {AS_USER} env HOME='{home}' xfer unmount $PLACE",
        trust = trust(&world),
        server = world.server.address,
        home = world.home_of_user().display(),
        fingerprint = world.server.fingerprint,
        password = world.password_file("alice").display(),
    );
    let finished = world.machine().run(&script).succeeded();
    let place = world.mount_point("alice").display().to_string();
    let expected = format!("{place}/d/in-the-tree\nnot listed\nnot listed\n");
    assert_eq!(finished.stdout, expected, "{finished}");
}

#[test]
fn glib_takes_a_mount_for_a_local_disk_as_the_page_says() {
    assert!(PAGE.contains("(`filesystem::remote` is `FALSE`)"));
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    let mut gio = Command::new("gio");
    let info = run_within(gio.args(["info", "-f"]).arg(mount.root()), PATIENCE).succeeded().stdout;
    assert!(info.lines().any(|line| line.trim() == "filesystem::remote: FALSE"), "{info}");
    assert!(info.contains("filesystem::type: "), "{info}");
    mount.unmount();
}

#[test]
fn programs_that_stay_on_a_filesystem_or_on_local_ones_do_not_enter_a_mount_as_the_page_says() {
    assert!(PAGE.contains("| `df -l` |") && PAGE.contains("`find -xdev`, `du -x`, `rsync -x`"));
    let world = World::new(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("seq 100000 > large");
    let around = mount.root().parent().unwrap();
    let look = |script: &str| shell(around, script);
    assert_eq!(look("find . -name large; find . -xdev -name large"), "./alice/large");
    assert_eq!(look("du -sk . | cut -f 1 | sed 's/^....*/much/'"), "much");
    assert_eq!(look("du -skx . | cut -f 1 | sed 's/^....*/much/'").len(), 1);
    let to = world.outside().display().to_string();
    look(&format!("rsync -rx . {to}/one && rsync -r . {to}/all"));
    assert_eq!(look(&format!("ls {to}/one/alice; ls {to}/all/alice")), "inbox\nlarge\noutbox");
    let source = format!("alice@{}", world.server.address);
    let rows = |option: &str| look(&format!("df {option} | grep -cF '{source}' || true"));
    assert_eq!((rows(""), rows("-l")), ("1".to_owned(), "0".to_owned()));
    mount.unmount();
}

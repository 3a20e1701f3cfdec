//! Who else on a machine sees a mount that a user made.
#![allow(clippy::unwrap_used)]

use xfer_tests::World;
use xfer_tests::machine::{AS_USER, USER};

/// What comes before a command of a user who did not mount.
const AS_OTHER: &str = "setpriv --reuid 20002 --regid 20002 --clear-groups --";

#[test]
fn a_mount_of_a_user_lets_others_in_with_allow_other_if_the_machine_permits_it_and_not_without() {
    let world = World::new(&["alice"]);
    let script = format!(
        "own() {{ {AS_USER} env HOME='{home}' \"$@\"; }}
         other() {{ {AS_OTHER} \"$@\"; }}
         mounts() {{
             own xfer-mount --fingerprint {fingerprint} --password-stdin \"$@\" alice@{server} $PLACE <'{password}'
         }}
         chown {USER} $PLACE
         sed -i '/^user_allow_other/d' /etc/fuse.conf
         # Not for a user to decide alone.
         fails mounts -o allow_other
         echo user_allow_other >> /etc/fuse.conf
         mounts -o allow_other
         findmnt -n -o OPTIONS $PLACE | tr ',' '\\n' | grep -E 'allow_other|user_id'
         own sh -c 'cd $PLACE && echo text > open && chmod 644 open && echo own > closed && chmod 600 closed'
         other cat $PLACE/open && other stat -c %U $PLACE/open && cat $PLACE/closed
         # As far as permissions go.
         fails other cat $PLACE/closed
         fails other touch $PLACE/new
         own xfer unmount $PLACE
         # That others may be let in lets nobody in.
         mounts
         own cat $PLACE/open
         fails other cat $PLACE/open
         fails other ls $PLACE
         fails cat $PLACE/open
         own xfer unmount $PLACE",
        home = world.home_of_user().display(),
        fingerprint = world.server.fingerprint,
        server = world.server.address,
        password = world.password_file("alice").display(),
    );
    let finished = world.machine().run(&script).succeeded();
    let expected = format!("user_id=20001\nallow_other\ntext\n{USER}\nown\ntext\n");
    assert_eq!(finished.stdout, expected, "{finished}");
}

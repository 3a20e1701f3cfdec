//! The main job on a machine that has no FUSE at all.
#![allow(clippy::unwrap_used)]

use xfer_tests::World;

#[test]
fn a_machine_without_fuse_logs_in_keeps_files_sends_and_receives() {
    let world = World::new(&["alice", "bob"]);
    let (server, fingerprint) = (world.server.address, &world.server.fingerprint);
    // A /dev of its own, and no program that mounts.
    let script = format!(
        "mount -t tmpfs none /dev
         mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/tty c 5 0
         for name in fusermount fusermount3; do
             [ ! -e /usr/bin/$name ] || mount --bind /dev/null /usr/bin/$name
         done
         fails test -e /dev/fuse
         fails xfer-mount --fingerprint {fingerprint} --password-stdin alice@{server} \"$PLACE\" < {password_alice}
         xfer login --fingerprint {fingerprint} --password-stdin alice@{server} < {password_alice}
         xfer login --fingerprint {fingerprint} --password-stdin bob@{server} < {password_bob}
         export XFER_FINGERPRINT={fingerprint}
         mkdir \"$L/own\"
         cd \"$L/own\"
         seq 1000 > numbers
         mkdir dir
         echo text > dir/file
         xfer put -r numbers dir alice@{server}:
         xfer ls alice@{server}:
         xfer head -n 1 alice@{server}:numbers
         xfer mv alice@{server}:numbers alice@{server}:dir/moved
         xfer get -r alice@{server}:dir back
         diff numbers back/moved
         diff dir/file back/file
         xfer send numbers alice@{server} --to bob
         xfer inbox bob@{server}
         xfer get bob@{server}:inbox/alice/numbers received
         diff numbers received
         xfer rm -r alice@{server}:dir
         xfer ls alice@{server}:",
        password_alice = world.password_file("alice").display(),
        password_bob = world.password_file("bob").display(),
    );
    let done = world.machine().run(&script).succeeded();
    assert!(done.stdout.contains("\nalice  numbers  ") && done.stdout.contains("\n1\n"), "{done}");
}

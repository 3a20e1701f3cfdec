//! Mounts by mount(8), its fstab and automount(8), with this machine's key.
#![allow(clippy::unwrap_used)]

use xfer_tests::machine::{AS_USER, USER};
use xfer_tests::programs::{Finished, Running};
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, World, run_within, wait_until};

use crate::{log_in, log_in_at, trust};

/// A line of fstab for the world's account and `$PLACE`.
fn line(world: &World, kind: &str, options: &str) -> String {
    let options = format!("{options},{}", trust(world));
    format!("alice@{} $PLACE {kind} {options} 0 0", world.server.address)
}

/// A shell script that writes lines to a table.
fn table(path: &str, lines: &[String]) -> String {
    format!("cat > {path} <<END\n{}\nEND", lines.join("\n"))
}

#[test]
fn mount_a_mounts_what_fstab_has_by_this_machines_key_and_a_second_one_finds_it_mounted() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let options = "defaults,_netdev,x-systemd.automount,nofail,retry=5";
    for (kind, name) in [("fuse.xfer", "first"), ("xfer", "second")] {
        let script = format!(
            "{table}
             for round in 1 2; do mount -a; done
             findmnt -n -o FSTYPE,SOURCE $PLACE
             findmnt -n $PLACE | wc -l
             echo text > $PLACE/{name} && umount $PLACE
             mount $PLACE && cat $PLACE/{name} && umount $PLACE
             mount alice@{address} && rm $PLACE/{name} && umount alice@{address}",
            table = table("/etc/fstab", &[line(&world, kind, options)]),
            address = world.server.address,
        );
        let finished = world.machine().run(&script).succeeded();
        let expected = format!("fuse.xfer alice@{}\n1\ntext\n", world.server.address);
        assert_eq!(finished.stdout, expected, "{finished}");
        assert_eq!(finished.stderr, "", "{finished}");
    }
}

#[test]
fn mount_a_finds_its_mount_however_fstab_writes_the_account() {
    let world = World::new(&["alice"]);
    let at = |host: &str| format!("alice@{host}:{}", world.server.address.port());
    log_in_at(&world, &at("localhost"), "alice");
    let written = at("LOCALHOST");
    let script = format!(
        "echo \"{written} $PLACE fuse.xfer {} 0 0\" > /etc/fstab
         for round in 1 2; do mount -a; done
         findmnt -n -o SOURCE $PLACE && umount {written}",
        trust(&world)
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!((finished.stdout, finished.stderr), (format!("{written}\n"), String::new()));
}

#[test]
fn another_table_by_an_option_or_a_variable_is_as_good() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let script = format!(
        "{}
         : > /etc/fstab
         mount -T $L/table -a && findmnt -n -o FSTYPE $PLACE && umount $PLACE
         mount -T $L/table -a -t fuse.xfer && umount $PLACE
         LIBMOUNT_FSTAB=$L/table mount $PLACE && findmnt -n -o FSTYPE $PLACE && umount $PLACE",
        table("$L/table", &[line(&world, "fuse.xfer", "ro")]),
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!(finished.stdout, "fuse.xfer\nfuse.xfer\n", "{finished}");
}

#[test]
fn the_helper_of_the_short_name_and_the_helper_itself_mount_too() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let (address, trust) = (world.server.address, trust(&world));
    let script = format!(
        "mount -t xfer -o '{trust},noexec' alice@{address} $PLACE
         findmnt -n -o FSTYPE $PLACE && findmnt -n -o OPTIONS $PLACE | grep -c noexec && umount $PLACE
         mount.xfer alice@{address} $PLACE -o '{trust}' && umount $PLACE
         mount -t xfer -o shiny alice@{address} $PLACE 2>/dev/null || echo \"$?\"
         mount -t xfer -o '{trust}' alice@127.0.0.1:1 $PLACE 2>/dev/null || echo \"$?\"
         mount -t xfer -f -o '{trust}' alice@{address} $PLACE && fails mountpoint -q $PLACE"
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!(finished.stdout, "fuse.xfer\n1\n1\n32\n", "{finished}");
}

#[test]
fn a_user_mounts_and_unmounts_what_fstab_lets_users_mount_by_a_key_of_their_own() {
    let world = World::new(&["alice"]);
    let home = world.home_of_user();
    let log_in = format!(
        "{AS_USER} env HOME='{}' xfer login --fingerprint {} --password-stdin alice@{} <'{}' >/dev/null",
        home.display(),
        world.server.fingerprint,
        world.server.address,
        world.password_file("alice").display(),
    );
    let script = format!(
        "{table}
         chown {USER} $PLACE && {log_in}
         for home in HOME='{home}' NO_HOME=; do
             {AS_USER} env -i PATH=\"$PATH\" $home mount $PLACE
             findmnt -n -o FSTYPE,OPTIONS $PLACE | tr ',' '\\n' | grep -E 'fuse|nosuid|noexec|user_id'
             {AS_USER} sh -c \"echo text > $PLACE/file && stat -c %U $PLACE/file\"
             fails cat $PLACE/file
             {AS_USER} umount $PLACE
         done
         fails mountpoint -q $PLACE",
        table = table("/etc/fstab", &[line(&world, "fuse.xfer", "noauto,user,_netdev")]),
        home = home.display(),
    );
    let finished =
        world.machine().run(&script.replace("$home mount", "\"$home\" mount")).succeeded();
    let once = "fuse.xfer rw\nnosuid\nnoexec\nuser_id=20001\ncarol\n";
    assert_eq!(finished.stdout, format!("{once}{once}"), "{finished}");
}

#[test]
fn the_long_options_are_words_of_mount_with_the_same_effect() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let other = world.mount_point("other");
    let holder = world.mounting("alice").at(&other).start();
    let (address, fingerprint) = (world.server.address, &world.server.fingerprint);
    let script = format!(
        "# Another mount has the tree.
         fails mount -t fuse.xfer -o fingerprint={fingerprint} alice@{address} $PLACE
         fails mount -t fuse.xfer -o known_hosts=$L/known,takeover alice@{address} $PLACE
         fails mount -t fuse.xfer -o fingerprint={fingerprint},takeover,cache_size=1KiB alice@{address} $PLACE
         mount -t fuse.xfer -o known_hosts=$L/known,accept_new,takeover,cache_size=32MiB,log_size=64MiB,tree_size=32MiB \
             alice@{address} $PLACE
         cat $L/known && echo text > $PLACE/file && xfer unmount $PLACE
         # Known by now.
         mount -t fuse.xfer -o known_hosts=$L/known alice@{address} $PLACE
         cat $PLACE/file && umount $PLACE",
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!(finished.stdout, format!("{address} {fingerprint}\ntext\n"), "{finished}");
    drop(holder);
}

/// Runs a script beside an automounter, which mounts alice's account at a key of a place, as its maps have them.
fn beside_an_automounter(world: &World, place: &str, key: &str, script: &str) -> Finished {
    let (ip, port) = (world.server.address.ip(), world.server.address.port());
    let script = format!(
        "has() {{ grep -qF \"$1\" /proc/self/mounts; }}
         mount -t tmpfs none /run
         echo \"{place} $L/map --timeout=1\" > $L/master
         echo \"{key} -fstype=fuse.xfer,{} :alice@{ip}\\:{port}\" > $L/map
         setsid automount --foreground --dont-check-daemon --pid-file $L/pid $L/master &
         trap \"kill $!; wait $!\" EXIT
         {script}
         kill $! || true; wait $! || true
         trap - EXIT",
        trust(world)
    );
    world.machine().run(&script).succeeded()
}

#[test]
fn an_automounter_mounts_at_the_first_access_and_unmounts_what_is_not_used() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    // To look at the mount's path would be to use it. The programs of the automounter's process group
    // see the directory without mounts.
    let script = "until has \"$L/auto autofs\"; do sleep 0.1; done
         echo text > $L/auto/alice/file
         findmnt -n -o FSTYPE $L/auto/alice
         cat $L/auto/alice/file
         while has \"$L/auto/alice fuse.xfer\"; do sleep 0.1; done
         cat $L/auto/alice/file
         kill $!; wait $! || true
         fails has \"$L/auto\"";
    let finished = beside_an_automounter(&world, "$L/auto", "alice", script);
    assert_eq!(finished.stdout, "fuse.xfer\ntext\ntext\n", "{finished}");
}

#[test]
fn a_mount_covers_the_trigger_that_an_automounter_has_at_its_place() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    // As `x-systemd.automount` of an fstab has it: the place itself is of autofs until somebody looks.
    let script = "until has \"$PLACE autofs\"; do sleep 0.1; done
         echo text > $PLACE/file
         has \"$PLACE fuse.xfer\"
         cat $PLACE/file
         while has \"$PLACE fuse.xfer\"; do sleep 0.1; done
         has \"$PLACE autofs\"
         cat $PLACE/file";
    let finished = beside_an_automounter(&world, "/-", "$PLACE", script);
    assert_eq!(finished.stdout, "text\ntext\n", "{finished}");
}

#[test]
fn a_mount_waits_for_a_server_that_can_not_be_reached_yet_as_long_as_it_is_told() {
    let mut world = World::new(&["alice"]);
    world.server.kill();
    let line = world.mounting("alice").in_background().refused(6);
    assert!(!line.contains("trying again"), "{line}");
    let gave_up = world.mounting("alice").arg("-o").arg("retry=1").in_background();
    assert_eq!(gave_up.code, Some(6), "{gave_up}");
    assert!(gave_up.stderr.contains("; trying again for 1 s\n"), "{gave_up}");
    let mut mount = world.mounting("alice").arg("-o").arg("retry=forever").command();
    let mut waiting = Running::start(mount.arg("-f"));
    waiting.line("the first try", |line| line.contains("; trying again until").then_some(()));
    world.server.restart();
    let place = world.mount_point("alice");
    wait_until("the mount", PATIENCE, || {
        run_within(&mut world.xfer_command(&["status", place.to_str().unwrap()]), PATIENCE).code
            == Some(0)
    });
    world.xfer(&["unmount", place.to_str().unwrap()]).succeeded();
    assert_eq!(waiting.ended_within(PATIENCE), Some(0));
}

#[test]
fn mount_asks_for_the_password_on_the_terminal_if_there_is_no_key() {
    let world = World::new(&["alice"]);
    let script = format!(
        "mount -t fuse.xfer -o {} alice@{} $PLACE && findmnt -n -o FSTYPE $PLACE && umount $PLACE",
        trust(&world),
        world.server.address
    );
    let mut terminal = OnPty::start(&world.machine().command(&script));
    terminal.says("Password of alice@");
    assert!(!terminal.echoes());
    terminal.types("the password of alice\r");
    terminal.says("fuse.xfer");
    assert_eq!(terminal.ended(), Some(0), "{}", terminal.said());
}

#[test]
fn what_a_mount_by_root_needs_and_keeps_is_in_the_home_directory_that_the_system_knows() {
    let world = World::new(&["alice"]);
    log_in(&world, "alice");
    let state = world.home().join(".local/state/xfer");
    let known = format!("{} {}\n", world.server.address, world.server.fingerprint);
    std::fs::write(state.join("known_hosts"), known).unwrap();
    let script = format!(
        "test -z \"${{HOME-}}\"
         mount -t fuse.xfer -o offline alice@{} $PLACE
         ls /root/.cache/xfer/offline | wc -l
         umount $PLACE",
        world.server.address
    );
    let finished = world.machine().run(&script).succeeded();
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("1\n", ""));
    assert!(world.home().join(".cache/xfer/offline").is_dir());
}

/// The lines for fstab in a page.
fn documented(page: &'static str) -> Vec<&'static str> {
    let is_line =
        |line: &&str| line.split_whitespace().nth(2) == Some("fuse.xfer") && line.ends_with("0  0");
    page.lines().filter(is_line).collect()
}

#[test]
fn the_lines_of_fstab_that_the_pages_show_are_taken_by_mount_and_by_systemd() {
    let world = World::new(&[]);
    let (page, readme) =
        (include_str!("../../../docs/MOUNTING.md"), include_str!("../../../README.md"));
    let lines = documented(page);
    assert_eq!((lines.len(), documented(readme).len()), (3, 1));
    assert!(lines.contains(&documented(readme)[0]));
    for line in lines {
        let script = format!(
            "mkdir -p \"$L/mnt/alice\" && mount --bind \"$L/mnt\" /mnt && mkdir $L/units $L/a $L/b
             echo '{line}' > $L/table
             mount -f -T $L/table /mnt/alice
             sed s/fuse.xfer/\"&  shiny,\"/ $L/table > $L/wrong
             fails mount -f -T $L/wrong /mnt/alice
             SYSTEMD_FSTAB=$L/table /lib/systemd/system-generators/systemd-fstab-generator $L/units $L/a $L/b
             cd $L/units && grep -h ^Type= mnt-alice.mount && ls -d remote-fs.target.*/* 2>/dev/null || true"
        );
        let finished = world.machine().run(&script).succeeded();
        let started = match line {
            line if line.contains("automount") => "remote-fs.target.requires/mnt-alice.automount\n",
            line if line.contains("noauto") => "",
            _ => "remote-fs.target.wants/mnt-alice.mount\n",
        };
        assert_eq!(finished.stdout, format!("Type=fuse.xfer\n{started}"), "{finished}");
    }
}

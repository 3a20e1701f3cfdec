//! Programs of xfer whose files are replaced while they run, as a package manager does it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::Signal;
use tempfile::TempDir;
use xfer_mount::process::exit::Exit;
use xfer_tests::programs::{Finished, program};
use xfer_tests::{Mount, PATIENCE, Server, World, run_within, wait_until};

/// A directory with installed programs.
struct Installed(TempDir);

impl Installed {
    /// Installs the first version of these programs.
    fn new(programs: &[&str]) -> Installed {
        let installed = Installed(tempfile::tempdir().unwrap());
        programs.iter().for_each(|name| installed.upgrade(name));
        installed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a new file in the place of a program's.
    fn upgrade(&self, name: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::copy(program(name), &new).unwrap();
        // A program may have anything at its end.
        let mut file = File::options().append(true).open(&new).unwrap();
        file.write_all(b"another version").unwrap();
        drop(file);
        fs::rename(&new, self.path(name)).unwrap();
    }

    fn server(&self, store: &Path, listen: &str) -> Server {
        Server::start_as(Command::new(self.path("xfer-server")), store, listen, &[])
    }
}

/// The file that a process runs, as the kernel shows it.
fn file_of(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_str().unwrap().to_owned()
}

/// A program that writes and syncs until a file tells it to end. Any error ends it before.
const WORK: &str = "i=0
while [ ! -e $ENOUGH ]; do
    mkdir d$((i += 1)); echo $i > d$i/file; echo $i >> log; sync -d log; test $(cat d$i/file) = $i
done
echo $i > count";

/// What it leaves.
const CHECK: &str = "count=$(cat count); diff log <(seq $count); test $(ls -d d* | wc -l) = $count";

/// That program at work on a mount.
struct Working {
    program: Child,
    root: PathBuf,
    enough: PathBuf,
}

impl Working {
    fn on(mount: &Mount, outside: &Path) -> Working {
        let enough = outside.join("enough");
        let mut bash = Command::new("bash");
        bash.args(["-euc", WORK]).env("ENOUGH", &enough).current_dir(mount.root());
        let program = bash.spawn().unwrap();
        let mut working = Working { program, root: mount.root().to_owned(), enough };
        working.goes_on();
        working
    }

    /// Waits until the program has made progress.
    fn goes_on(&mut self) {
        let lines =
            || fs::read_to_string(self.root.join("log")).map_or(0, |text| text.lines().count());
        let before = lines();
        wait_until("the program to go on", PATIENCE, || {
            assert!(self.program.try_wait().unwrap().is_none(), "it has ended");
            lines() > before + 2
        });
    }

    fn ends_well(mut self) {
        fs::write(&self.enough, "").unwrap();
        assert!(self.program.wait().unwrap().success());
    }
}

#[test]
fn a_server_that_is_upgraded_and_restarted_is_a_pause_for_programs() {
    let installed = Installed::new(&["xfer-server"]);
    let mut world = World::with_server(&["alice"], |store| installed.server(store, "127.0.0.1:0"));
    let store = world.server.store().to_owned();
    let mount = world.mounting("alice").arg("-o").arg("wait=forever").start();
    let mut open = File::create(mount.path("open")).unwrap();
    open.write_all(b"before ").unwrap();
    let mut working = Working::on(&mount, &world.outside());
    for is_killed in [false, true] {
        installed.upgrade("xfer-server");
        assert!(file_of(world.server.pid()).ends_with(" (deleted)"));
        // The old one goes on, and commands of the new file reach it.
        working.goes_on();
        let mut list = Command::new(installed.path("xfer-server"));
        list.args(["session", "list", "--store"]).arg(&store);
        let said = run_within(&mut list, PATIENCE).succeeded().stdout;
        assert!(said.contains("alice"), "{said}");
        match is_killed {
            true => world.server.kill(),
            false => assert_eq!(world.server.terminate(), Some(0)),
        }
        world.server = installed.server(&store, &world.server.address.to_string());
        assert_eq!(file_of(world.server.pid()), installed.path("xfer-server").to_str().unwrap());
        working.goes_on();
    }
    working.ends_well();
    open.write_all(b"after").unwrap();
    open.sync_all().unwrap();
    drop(open);
    mount.unmount();
    let mount = world.mount("alice");
    mount.shell(CHECK);
    assert_eq!(fs::read_to_string(mount.path("open")).unwrap(), "before after");
    mount.unmount();
}

#[test]
fn a_mount_goes_on_when_its_program_is_upgraded_and_the_new_commands_work_on_it() {
    let installed = Installed::new(&["xfer-mount", "xfer"]);
    let mut world = World::new(&["alice"]);
    let mounting = |world: &World| -> Mount {
        let mounting = world.mounting("alice").by(&installed.path("xfer-mount"));
        mounting.arg("-o").arg("wait=forever").start()
    };
    let mut mount = mounting(&world);
    let mut working = Working::on(&mount, &world.outside());
    installed.upgrade("xfer-mount");
    installed.upgrade("xfer");
    assert!(file_of(mount.pid()).ends_with(" (deleted)"));
    working.goes_on();
    let root = mount.root().to_owned();
    let xfer = |world: &World, name: &str| -> Finished {
        let mut command = Command::new(installed.path("xfer"));
        run_within(world.at_home(command.arg(name).arg(&root)), PATIENCE)
    };
    let status = xfer(&world, "status").succeeded().stdout;
    assert!(status.contains(" connected\n"), "{status}");
    xfer(&world, "sync").succeeded();
    let again = world.mounting("alice").by(&installed.path("xfer-mount")).in_background();
    again.refused(Exit::MountPointBusy.code());
    // It also finds its way back to its server.
    world.server.kill();
    world.server.restart();
    working.goes_on();
    working.ends_well();
    xfer(&world, "unmount").succeeded();
    assert_eq!(mount.ended(), Some(0), "{}", mount.said());
    drop(mount);
    let mut mount = mounting(&world);
    mount.shell(CHECK);
    // One that is killed makes way for the new program at once.
    installed.upgrade("xfer-mount");
    mount.signal(Signal::KILL);
    mount.ended();
    let again = mounting(&world);
    again.shell(CHECK);
    again.unmount();
}

//! What `install.sh` makes of an unpacked tarball, and that it leaves nothing of it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xfer_tests::{Finished, PATIENCE, run_within};

use crate::packages::{Asset, Source, assets, files, root, written};

/// An unpacked tarball, and the directory that stands for the machine's root.
struct Machine {
    tarball: TempDir,
    root: TempDir,
}

impl Machine {
    /// With all files and links of the packages. What stands for a program only has its name in it.
    fn new() -> Machine {
        let directory = || tempfile::tempdir().unwrap();
        let machine = Machine { tarball: directory(), root: directory() };
        let pages = written();
        for page in files(pages.path()) {
            let place: PathBuf = page.strip_prefix(pages.path()).unwrap().iter().skip(1).collect();
            fs::copy(&page, machine.unpacked(Path::new("share").join(place))).unwrap();
        }
        for Asset { source, place, .. } in assets() {
            let Some(place) = place.strip_prefix("usr/") else { continue };
            let at = || machine.unpacked(place);
            match source {
                Source::Built(name) if name.starts_with("pages/") => {}
                Source::Built(name) => fs::write(at(), name).unwrap(),
                Source::File(path) => drop(fs::copy(path, at()).unwrap()),
                Source::Link(to) => symlink(to, at()).unwrap(),
            }
        }
        fs::copy(root().join("packaging/install.sh"), machine.unpacked("install.sh")).unwrap();
        machine
    }

    /// A place in the tarball, whose directory there is.
    fn unpacked(&self, place: impl AsRef<Path>) -> PathBuf {
        let path = self.tarball.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// A place below the root.
    fn at(&self, place: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(place)
    }

    fn run(&self, script: &Path, arguments: &[&str]) -> Finished {
        let mut command = Command::new("sh");
        command.arg(script).args(arguments).env("DESTDIR", self.root.path());
        run_within(&mut command, PATIENCE)
    }

    fn install(&self, arguments: &[&str]) -> Finished {
        self.run(&self.tarball.path().join("install.sh"), arguments)
    }
}

/// All files and directories below a directory, in order.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let output = Command::new("find").arg(directory).output().unwrap().stdout;
    let mut found: Vec<_> = String::from_utf8(output).unwrap().lines().map(PathBuf::from).collect();
    found.sort();
    found
}

#[test]
fn a_tarball_brings_what_the_packages_do_and_is_removed_without_a_trace() {
    for (arguments, prefix) in [(&[][..], "usr/local"), (&["--prefix", "/opt/xfer"], "opt/xfer")] {
        let machine = Machine::new();
        fs::create_dir_all(machine.at("usr/local/bin")).unwrap();
        let before = everything(machine.root.path());
        machine.install(arguments).succeeded();
        let all = files(machine.tarball.path());
        assert!(all.len() > 80, "{}", all.len());
        for path in all {
            let place = path.strip_prefix(machine.tarball.path()).unwrap();
            if place == Path::new("install.sh") {
                continue;
            }
            let installed = machine.at(prefix).join(place);
            if path.is_symlink() {
                assert_eq!(fs::read_link(&path).unwrap(), fs::read_link(&installed).unwrap());
                continue;
            }
            let is_program = place.starts_with("bin");
            let mode = fs::metadata(&installed).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if is_program { 0o755 } else { 0o644 }, "{}", place.display());
            // It names no place of the packages.
            let text = fs::read_to_string(&installed).unwrap();
            for other in ["/usr/bin/xfer", "/usr/share/doc/xfer", "/usr/lib/systemd/"] {
                assert!(!text.contains(other), "{}: {other}", place.display());
            }
        }
        let unit = machine.at(prefix).join("lib/systemd/system/xfer-mount@.service");
        let start = format!("\nExecStart=/{prefix}/bin/xfer-mount ");
        assert!(fs::read_to_string(unit).unwrap().contains(&start), "{start}");
        if rustix::process::geteuid().is_root() {
            for helper in ["mount.fuse.xfer", "mount.xfer"] {
                let to = fs::read_link(machine.at("sbin").join(helper)).unwrap();
                assert_eq!(to, Path::new("/").join(prefix).join("sbin").join(helper));
                let program = machine.at(prefix).join("sbin").join(helper);
                assert_eq!(fs::read_to_string(program).unwrap(), "xfer-mount");
            }
        }
        let kept = machine.at(prefix).join("share/xfer/install.sh");
        let uninstall = [arguments, &["--uninstall"]].concat();
        machine.run(&kept, &uninstall).succeeded();
        assert_eq!(everything(machine.root.path()), before);
    }
}

#[test]
fn another_tarball_takes_the_place_of_the_first_and_of_nothing_else() {
    let machine = Machine::new();
    machine.install(&[]).succeeded();
    let mut running = fs::File::open(machine.at("usr/local/bin/xfer")).unwrap();
    let others = [machine.at("usr/local/bin/other"), machine.at("usr/local/share/doc/xfer/other")];
    others.iter().for_each(|path| fs::write(path, "").unwrap());
    fs::write(machine.unpacked("bin/xfer"), "new").unwrap();
    fs::write(machine.unpacked("lib/new/file"), "").unwrap();
    let dropped = "share/doc/xfer/docs/SEMANTICS.md";
    fs::remove_file(machine.unpacked(dropped)).unwrap();
    machine.install(&[]).succeeded();
    assert_eq!(fs::read_to_string(machine.at("usr/local/bin/xfer")).unwrap(), "new");
    assert!(!machine.at("usr/local").join(dropped).exists());
    // A program that runs keeps its file.
    let mut text = String::new();
    running.read_to_string(&mut text).unwrap();
    assert_eq!(text, "xfer");
    machine.install(&["--uninstall"]).succeeded();
    assert_eq!(files(machine.root.path()), others);
}

#[test]
fn install_sh_says_in_a_line_what_it_refuses() {
    let machine = Machine::new();
    let check = |arguments: &[&str], code: i32, said: &str| {
        let refused = machine.install(arguments);
        assert_eq!(refused.code, Some(code), "{refused}");
        assert!(refused.stdout.is_empty() && refused.stderr.contains(said), "{refused}");
        assert!(code == 2 || refused.stderr.lines().count() == 1, "{refused}");
        assert_eq!(everything(machine.root.path()).len(), 1);
    };
    check(&["--prefix", "here"], 1, "a prefix begins with a slash: here");
    check(&["--prefix=/a place"], 1, "a prefix has only letters, digits");
    check(&["--uninstall"], 1, "no xfer of a tarball in /usr/local");
    check(&["--prefix"], 2, "./install.sh --prefix DIR");
    check(&["--all"], 2, "./install.sh --prefix DIR");
    fs::remove_dir_all(machine.tarball.path().join("bin")).unwrap();
    check(&[], 1, "run the install.sh of an unpacked tarball");
}

#[test]
fn install_sh_leaves_the_helpers_of_another_xfer() {
    if !rustix::process::geteuid().is_root() {
        println!("not checked: only root makes helpers");
        return;
    }
    let machine = Machine::new();
    fs::create_dir(machine.at("sbin")).unwrap();
    fs::write(machine.at("sbin/mount.xfer"), "another").unwrap();
    let said = machine.install(&[]).succeeded().stdout;
    assert!(said.contains("left as it is, since another xfer has it: /sbin/mount.xfer"), "{said}");
    machine.install(&["--uninstall"]).succeeded();
    assert_eq!(files(machine.root.path()), [machine.at("sbin/mount.xfer")]);
}

//! What the packages bring: pages, completions, units, and the files that they list.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use xfer_tests::programs::{Finished, program};
use xfer_tests::pty::OnPty;
use xfer_tests::{PATIENCE, run_within};

/// The programs with a command line, each with its package and the section of its pages.
const PROGRAMS: [(&str, &str, u8); 3] =
    [("xfer", "xfer", 1), ("xfer-mount", "xfer", 8), ("xfer-server", "xfer-server", 8)];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The pages and completions of all packages.
pub fn written() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("xfer-pages"));
    run_within(command.arg(directory.path()).arg("2026-01-31"), PATIENCE).succeeded();
    directory
}

/// What a program says of one of its commands.
fn help(name: &str, words: &[String]) -> String {
    let mut command = Command::new(program(name));
    run_within(command.args(words).arg("--help"), PATIENCE).succeeded().stdout
}

/// All commands of a program, as it lists them itself: each as the words after its name.
fn commands(name: &str) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut at = 0;
    while at < found.len() {
        let words: Vec<String> = found[at].clone();
        let help = help(name, &words);
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
        let listed = lines.take_while(|line| !line.is_empty()).filter(is_command);
        let below = listed.filter_map(|line| line.split_whitespace().next());
        found.extend(below.filter(|word| *word != "help").map(|word| {
            let word = word.to_owned();
            [words.clone(), vec![word]].concat()
        }));
        at += 1;
    }
    found
}

/// All files below a directory, in order.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        match path.is_dir() {
            true => waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn each_command_has_a_page_with_all_its_options() {
    let written = written();
    let mut pages = 0;
    for (name, package, section) in PROGRAMS {
        let all = commands(name);
        assert!(name == "xfer-mount" || all.len() > 8, "{name} has more commands: {all:?}");
        for words in all {
            let page = [&[name.to_owned()], words.as_slice()].concat().join("-");
            let path = format!("{package}/man/man{section}/{page}.{section}");
            let text = fs::read_to_string(written.path().join(&path));
            let text = text.unwrap_or_else(|error| panic!("{path}: {error}")).replace("\\-", "-");
            assert!(text.contains(&format!(".SH NAME\n{page} - ")), "{path}: {text}");
            let help = help(name, &words);
            let options = help.lines().map(str::trim).filter(|line| line.starts_with('-'));
            let named = options.filter_map(|line| line.split("  ").next());
            for option in named.flat_map(|line| line.split([' ', ',', '='])) {
                let is_shown = text.contains(&format!("\\fB{option}\\fR"));
                assert!(
                    option.len() < 2 || !option.starts_with('-') || is_shown,
                    "{path} lacks {option}"
                );
            }
            pages += 1;
        }
    }
    assert_eq!(files(written.path()).iter().filter(|path| is_page(path)).count(), pages + 1);
    assert!(written.path().join("xfer/man/man8/mount.fuse.xfer.8").exists());
}

fn is_page(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "man")
}

#[test]
fn the_pages_are_shown_without_a_warning_and_say_what_there_is() {
    let written = written();
    for page in files(written.path()).into_iter().filter(|path| is_page(path)) {
        let mut checks = [
            Command::new("mandoc"),
            // Another reader, which most systems have.
            Command::new("man"),
        ];
        checks[0].args(["-T", "lint", "-W", "warning"]);
        checks[1].args(["--warnings", "-E", "UTF-8", "-l"]).env("LC_ALL", "C.UTF-8");
        for check in &mut checks {
            let said = run_within(check.arg(&page).env("MANPAGER", "cat"), PATIENCE).succeeded();
            let is_lint = said.command.contains("lint");
            assert!(said.stderr.is_empty() && (!is_lint || said.stdout.is_empty()), "{said}");
        }
        let text = fs::read_to_string(&page).unwrap();
        for section in ["SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(text.contains(&format!("\n.SH {section}\n")), "{}: {section}", page.display());
        }
    }
    let page = |path: &str| fs::read_to_string(written.path().join(path)).unwrap();
    // The words of `-o` are those of docs/MOUNTING.md, and the exit codes those of `--help`.
    let mount = page("xfer/man/man8/xfer-mount.8");
    assert!(mount.contains("\n\\fBallow_other\\fR\n"), "{mount}");
    assert!(mount.contains("\n\\fB130\\fR\ninterrupted\n"), "{mount}");
    let server = page("xfer-server/man/man8/xfer-server.8");
    assert!(server.contains("\n\\fB16\\fR\nthe store was removed or replaced\n"), "{server}");
}

#[test]
fn bash_zsh_and_fish_complete_the_commands() {
    let written = written();
    for path in files(written.path()).into_iter().filter(|path| !is_page(path)) {
        let text = path.display().to_string();
        let shell = ["bash", "zsh", "fish"].into_iter().find(|name| text.contains(name)).unwrap();
        let read = run_within(Command::new(shell).arg("-n").arg(&path), PATIENCE).succeeded();
        assert!(read.stdout.is_empty() && read.stderr.is_empty(), "{read}");
    }
    let share = written.path().join("xfer");
    let completed = |words: &str| {
        let script = format!(
            ". bash-completion/completions/xfer\nCOMP_WORDS=({words} '')\n\
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             $(complete -p xfer | sed 's/.*-F \\([^ ]*\\).*/\\1/') xfer '' \"${{COMP_WORDS[-2]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        // What is generated relies on commands that may fail.
        let mut command = Command::new("bash");
        run_within(command.args(["-c", &script]).current_dir(&share), PATIENCE).succeeded().stdout
    };
    for words in commands("xfer").into_iter().filter(|words| !words.is_empty()) {
        let (last, before) = words.split_last().unwrap();
        let line = [&["xfer".to_owned()], before].concat().join(" ");
        let bash = completed(&line);
        assert!(bash.lines().any(|word| word == last), "bash: {line} {last}: {bash}");
        let script = format!("source fish/vendor_completions.d/xfer.fish; complete -C '{line} '");
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &script]).current_dir(&share);
        let fish = run_within(&mut fish, PATIENCE).succeeded().stdout;
        assert!(fish.lines().any(|line| line.split('\t').next() == Some(last)), "fish: {fish}");
    }
    for (name, package, _) in PROGRAMS {
        zsh_completes(&written.path().join(package), name);
    }
}

/// Has zsh list what can follow on each command of a program, as a person does by the tabulator.
fn zsh_completes(share: &Path, name: &str) {
    let mut command = Command::new("zsh");
    command.args(["-f", "-i"]).env("TERM", "dumb");
    let mut zsh = OnPty::start(&command);
    let functions = share.join("zsh/vendor-completions");
    zsh.types(&format!(
        "fpath=({} $fpath); autoload -Uz compinit && compinit -D -u; LISTMAX=10000; PS1=$'re''ady '\n",
        functions.display()
    ));
    zsh.says("ready ");
    let all = commands(name);
    for before in &all {
        let follow = all.iter().filter(|words| words.len() == before.len() + 1);
        let follow = follow.filter(|words| words.starts_with(before));
        let mut follow: Vec<&String> = follow.filter_map(|words| words.last()).collect();
        if follow.is_empty() {
            continue;
        }
        let line = [&[name.to_owned()], before.as_slice()].concat().join(" ");
        zsh.types(&format!("{line} \t"));
        follow.sort();
        for last in follow {
            zsh.says(&format!("\n{last} "));
        }
        zsh.says(&format!("ready {line} "));
        // Ctrl-U: nothing of that is run.
        zsh.types("\x15print do''ne\n");
        zsh.says("\ndone");
        zsh.says("ready ");
    }
    zsh.types("exit\n");
    assert_eq!(zsh.ended(), Some(0), "{}", zsh.said());
}

/// A file that a package installs.
pub struct Asset {
    pub package: String,
    /// Where it comes from, or what the link leads to.
    pub source: Source,
    /// Where it goes, without the first `/`.
    pub place: String,
}

pub enum Source {
    Built(String),
    File(PathBuf),
    Link(String),
}

/// All files that the packages install, apart from those that xfer-pages writes.
pub fn assets() -> Vec<Asset> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let said = run_within(command.current_dir(root()), PATIENCE).succeeded().stdout;
    let metadata: Value = serde_json::from_str(&said).unwrap();
    let mut found = Vec::new();
    for crate_ in metadata["packages"].as_array().unwrap() {
        let deb = &crate_["metadata"]["deb"];
        let directory = Path::new(crate_["manifest_path"].as_str().unwrap()).parent().unwrap();
        for asset in deb["assets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (from, to) = match asset.as_array() {
                Some(parts) => (text(&parts[0]), text(&parts[1])),
                None => (text(&asset["link_name"]), text(&asset["dest"])),
            };
            let source = match (asset.is_array(), from.strip_prefix("target/release/")) {
                (false, _) => Source::Link(from.clone()),
                (true, Some(built)) => Source::Built(built.to_owned()),
                (true, None) => Source::File(directory.join(&from)),
            };
            let name = from.rsplit('/').next().unwrap();
            let place = if to.ends_with('/') { format!("{to}{name}") } else { to };
            found.push(Asset { package: text(&deb["name"]), source, place });
        }
    }
    found
}

#[test]
fn packages_list_files_that_there_are() {
    let assets = assets();
    assert!(assets.len() > 15, "{}", assets.len());
    let pages = written();
    for Asset { package, source, place } in &assets {
        match source {
            Source::Built(name) if name.starts_with("pages/") => {
                assert_eq!(
                    (name, place),
                    (&format!("pages/{package}/**/*"), &"usr/share/*".to_owned())
                );
                assert!(pages.path().join(package).is_dir(), "{package}");
            }
            Source::Built(name) => assert!(program(name).exists(), "{name}"),
            Source::File(path) => assert!(path.is_file(), "{}", path.display()),
            Source::Link(to) => {
                // What it leads to is in the same package; pages are compressed when it is built.
                let file = to.rsplit('/').next().unwrap().trim_end_matches(".gz");
                let is_installed = assets.iter().any(|asset| asset.place.ends_with(file));
                let is_written = files(pages.path()).iter().any(|path| path.ends_with(file));
                assert!(is_installed || is_written, "{place} leads to {to}");
            }
        }
    }
    for package in ["xfer", "xfer-server"] {
        assert!(root().join("packaging/lintian").join(package).is_file(), "{package}");
    }
}

#[test]
fn units_start_what_the_packages_install() {
    if run_within(Command::new("which").arg("systemd-analyze"), PATIENCE).code != Some(0) {
        println!("not checked: systemd-analyze is not there");
        return;
    }
    let staged = tempfile::tempdir().unwrap();
    let at = |place: &str| {
        let path = staged.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    // A unit of users is checked like one of the system.
    let mut units = Vec::new();
    for Asset { source, place, .. } in assets() {
        match source {
            Source::Built(name) if !name.starts_with("pages/") => {
                fs::write(at(&place), "").unwrap();
                fs::set_permissions(at(&place), fs::Permissions::from_mode(0o755)).unwrap();
            }
            Source::File(path) if place.starts_with("usr/lib/systemd/") => {
                let name = place.strip_prefix("usr/lib/systemd/").unwrap().replace('/', "-");
                fs::copy(path, at(&format!("usr/lib/systemd/system/{name}"))).unwrap();
                units.push(name.replace('@', "@alice\\x40host"));
            }
            Source::Link(to) if !place.contains("/man/") => symlink(to, at(&place)).unwrap(),
            Source::Built(_) | Source::File(_) | Source::Link(_) => {}
        }
    }
    // A program of the system that they use.
    fs::write(at("usr/bin/mkdir"), "").unwrap();
    fs::set_permissions(at("usr/bin/mkdir"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(units.len(), 4, "{units:?}");
    for unit in &units {
        let said = verified(staged.path(), unit).succeeded();
        assert!(said.stdout.is_empty() && said.stderr.is_empty(), "{said}");
    }
    for helper in ["mount.fuse.xfer", "mount.xfer"] {
        assert!(at(&format!("usr/sbin/{helper}")).exists(), "{helper}");
    }
    // The check sees a program that is not there.
    fs::remove_file(at("usr/bin/xfer-mount")).unwrap();
    let refused = units.iter().filter(|unit| verified(staged.path(), unit).code != Some(0));
    assert_eq!(refused.count(), 2);
}

fn verified(root: &Path, unit: &str) -> Finished {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    run_within(command.arg(format!("--root={}", root.display())).arg(unit), PATIENCE)
}

#[test]
fn the_scripts_of_packages_are_shell_and_never_touch_a_mount() {
    let mut scripts = 0;
    for package in ["server", "client"] {
        for path in files(&root().join("packaging").join(package)) {
            let text = fs::read_to_string(&path).unwrap();
            if !text.starts_with("#!/bin/sh\n") {
                continue;
            }
            run_within(Command::new("sh").arg("-n").arg(&path), PATIENCE).succeeded();
            let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let acts = code.filter(|line| line.contains("mount") || line.contains("rm -r"));
            assert_eq!(acts.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", path.display());
            scripts += 1;
        }
    }
    assert_eq!(scripts, 5);
}

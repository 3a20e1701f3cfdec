//! The rows of the table: each has one ordinary program, and a proof that it did its work.

use std::path::Path;
use std::process::Command;

use super::fixtures::{Fixture, Fixtures, NEEDLE};
use super::proof::Proof;
use super::timed::Said;

/// The state of the client's caches when a row begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Just mounted, and every cache of this machine is empty.
    Cold,
    /// The same program has already run once.
    Warm,
}

/// One program, to run on every filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in the table.
    pub name: &'static str,
    /// The data that is stored before.
    pub fixture: Fixture,
    /// The state of the client's caches.
    pub before: Before,
    /// The program and its arguments. It runs in the mount point.
    pub program: fn(&Fixtures) -> Vec<String>,
    /// The check to make afterwards.
    pub proof: Proof,
    /// The bytes that it moves, for rows whose bandwidth matters.
    pub bytes: fn(&Fixtures) -> Option<u64>,
}

impl Row {
    /// The command, to run in `directory`.
    pub fn command(&self, fixtures: &Fixtures, directory: &Path) -> Command {
        let words = (self.program)(fixtures);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(directory).env("LC_ALL", "C");
        command
    }
}

/// Reads of 4 KiB at random places, which are the same in every run.
const RANDOM_READS: &str = r#"
    my ($file, $count) = @ARGV;
    open(my $in, "<:raw", $file) or die "$file: $!";
    srand(7);
    my $blocks = int((-s $in) / 4096);
    for (1 .. $count) {
        sysseek($in, 4096 * int(rand($blocks)), 0) or die $!;
        sysread($in, my $bytes, 4096) == 4096 or die $!;
        print $bytes;
    }"#;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn none(_: &Fixtures) -> Option<u64> {
    None
}

fn big(fixtures: &Fixtures) -> Option<u64> {
    Some(fixtures.sizes.big_bytes)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of our own").to_owned()
}

/// A row that reads the stored data.
const fn reading(
    name: &'static str,
    fixture: Fixture,
    proof: Proof,
    program: fn(&Fixtures) -> Vec<String>,
) -> Row {
    Row { name, fixture, before: Before::Cold, program, proof, bytes: none }
}

/// A row that changes the store.
const fn changing(
    name: &'static str,
    fixture: Fixture,
    program: fn(&Fixtures) -> Vec<String>,
) -> Row {
    Row { name, fixture, before: Before::Cold, program, proof: Proof::Stored, bytes: none }
}

/// All rows, in the order of the table.
pub const ROWS: &[Row] = &[
    Row {
        bytes: big,
        ..changing("write 256 MiB", Fixture::Empty, |all| {
            vec!["cp".to_owned(), text(&all.big()), "written".to_owned()]
        })
    },
    Row {
        bytes: big,
        ..reading("read 256 MiB (cold)", Fixture::Big, Proof::Read("big"), |_| {
            words(&["cat", "big"])
        })
    },
    Row {
        before: Before::Warm,
        bytes: big,
        ..reading("read 256 MiB (warm)", Fixture::Big, Proof::Read("big"), |_| {
            words(&["cat", "big"])
        })
    },
    reading("head -c 4096 of 256 MiB (cold)", Fixture::Big, Proof::Output(exact), |_| {
        words(&["head", "-c", "4096", "big"])
    }),
    reading("head -c 4096 of 1 GiB (cold)", Fixture::Huge, Proof::Output(exact), |_| {
        words(&["head", "-c", "4096", "huge"])
    }),
    reading("200 random reads of 4 KiB (cold)", Fixture::Big, Proof::Output(exact), |_| {
        words(&["perl", "-e", RANDOM_READS, "big", "200"])
    }),
    changing("cp of 256 MiB inside", Fixture::Big, |_| words(&["cp", "big", "copy"])),
    changing("untar 1,000 files", Fixture::Empty, |all| {
        vec!["tar".to_owned(), "xf".to_owned(), text(&all.archive())]
    }),
    reading("find -ls (cold)", Fixture::Tree, Proof::Output(listed), |_| {
        words(&["find", "tree", "-ls"])
    }),
    Row {
        before: Before::Warm,
        ..reading("find -ls (warm)", Fixture::Tree, Proof::Output(listed), |_| {
            words(&["find", "tree", "-ls"])
        })
    },
    reading("grep -r (cold)", Fixture::Tree, Proof::Output(sorted), |_| {
        words(&["grep", "-r", NEEDLE, "tree"])
    }),
    changing("rm -rf of 1,000 files", Fixture::Tree, |_| words(&["rm", "-rf", "tree"])),
    Row {
        proof: Proof::Sent("big"),
        ..changing("send 256 MiB: cp to outbox", Fixture::Big, |_| {
            words(&["cp", "big", "outbox/bob/big"])
        })
    },
    Row {
        proof: Proof::Sent("big"),
        ..changing("send 256 MiB: mv to outbox", Fixture::Big, |_| {
            words(&["mv", "big", "outbox/bob/big"])
        })
    },
];

/// An output that is the same on every filesystem.
fn exact(output: &[u8]) -> Vec<Said> {
    vec![output.to_owned()]
}

/// The output's lines, sorted, since filesystems list entries in different orders.
fn sorted(output: &[u8]) -> Vec<Said> {
    let mut lines: Vec<Said> = output.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

/// The kind, a file's size, and the path in lines of `find -ls`. The rest differs between filesystems.
fn listed(output: &[u8]) -> Vec<Said> {
    let mut lines: Vec<Said> = String::from_utf8_lossy(output)
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or_default();
            let kind = field(2).get(..1).unwrap_or_default();
            let size = if kind == "-" { field(6) } else { "" };
            format!("{kind} {size} {}", field(10)).into_bytes()
        })
        .collect();
    lines.sort();
    lines
}

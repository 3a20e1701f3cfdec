//! The data that rows find stored and the files that they bring: made once, each in its own directory.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{Random, shell};

/// The text that `grep` searches for. One file in fifty has it.
pub const NEEDLE: &str = "needle in a haystack";

/// The content of a filesystem before a row begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fixture {
    /// Nothing.
    Empty,
    /// `big`, a large file.
    Big,
    /// `huge`, a still larger file.
    Huge,
    /// `tree`, with small text files.
    Tree,
}

/// The sizes of the fixtures.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The size of `big`, in bytes.
    pub big_bytes: u64,
    /// The size of `huge`, in bytes.
    pub huge_bytes: u64,
    /// The number of files in `tree`.
    pub tree_files: usize,
}

impl Sizes {
    /// The sizes that the tables use.
    pub const FULL: Sizes = Sizes { big_bytes: 256 << 20, huge_bytes: 1 << 30, tree_files: 1000 };
}

/// All fixtures, on the local disk.
#[derive(Clone, Debug)]
pub struct Fixtures {
    root: PathBuf,
    /// How large they are.
    pub sizes: Sizes,
}

impl Fixtures {
    /// Makes all fixtures in a directory.
    pub fn make(root: &Path, sizes: Sizes) -> Fixtures {
        let fixtures = Fixtures { root: root.to_owned(), sizes };
        for one in [Fixture::Empty, Fixture::Big, Fixture::Huge, Fixture::Tree] {
            fs::create_dir_all(fixtures.directory(one)).unwrap();
        }
        make_file(&fixtures.directory(Fixture::Big).join("big"), sizes.big_bytes, 1);
        make_file(&fixtures.directory(Fixture::Huge).join("huge"), sizes.huge_bytes, 2);
        make_tree(&fixtures.directory(Fixture::Tree).join("tree"), sizes.tree_files);
        shell(&fixtures.directory(Fixture::Tree), "tar cf ../tree.tar tree");
        shell(root, "sync -f .");
        fixtures
    }

    /// The directory that contains exactly one fixture.
    pub fn directory(&self, one: Fixture) -> PathBuf {
        let name = match one {
            Fixture::Empty => "empty",
            Fixture::Big => "with-big",
            Fixture::Huge => "with-huge",
            Fixture::Tree => "with-tree",
        };
        self.root.join(name)
    }

    /// The file to write.
    pub fn big(&self) -> PathBuf {
        self.directory(Fixture::Big).join("big")
    }

    /// The file `tree` is packed in.
    pub fn archive(&self) -> PathBuf {
        self.root.join("tree.tar")
    }
}

/// Writes incompressible bytes.
fn make_file(path: &Path, bytes: u64, seed: u64) {
    const PIECE: u64 = 1 << 20;
    let mut random = Random::new(seed);
    let mut file = File::create(path).unwrap();
    let mut left = bytes;
    while left > 0 {
        file.write_all(&random.bytes(PIECE.min(left) as usize)).unwrap();
        left -= PIECE.min(left);
    }
}

/// Makes files of up to 4.4 kB, in directories of about seventeen.
fn make_tree(root: &Path, files: usize) {
    let mut random = Random::new(3);
    for index in 0..files {
        let directory = root.join(format!("d{:02}", index % 20)).join(format!("e{}", index % 3));
        fs::create_dir_all(&directory).unwrap();
        let mut text = String::new();
        for _ in 0..random.below(128) {
            writeln!(text, "{:016x} {:016x}", random.number(), random.number()).unwrap();
        }
        if index % 50 == 0 {
            writeln!(text, "{NEEDLE}").unwrap();
        }
        fs::write(directory.join(format!("file-{index}.txt")), text).unwrap();
    }
}

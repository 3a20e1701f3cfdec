//! What rows find stored, and what they bring: made once, in a directory for each.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::{Random, shell};

/// What `grep` looks for. One file in fifty has it.
pub const NEEDLE: &str = "needle in a haystack";

/// What a filesystem has stored before a row begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fixture {
    /// Nothing.
    Empty,
    /// `big`, a file.
    Big,
    /// `huge`, a larger one.
    Huge,
    /// `tree`, with small files of text.
    Tree,
}

/// How large they are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of `big`.
    pub big_bytes: u64,
    /// Of `huge`.
    pub huge_bytes: u64,
    /// How many files are in `tree`.
    pub tree_files: usize,
}

impl Sizes {
    /// As the tables have them.
    pub const FULL: Sizes = Sizes { big_bytes: 256 << 20, huge_bytes: 1 << 30, tree_files: 1000 };
}

/// All of them, on the local disk.
#[derive(Clone, Debug)]
pub struct Fixtures {
    root: PathBuf,
    /// How large they are.
    pub sizes: Sizes,
}

impl Fixtures {
    /// Makes them in a directory.
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

    /// The directory with one of them in it, and nothing else.
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

    /// The tree, packed.
    pub fn archive(&self) -> PathBuf {
        self.root.join("tree.tar")
    }
}

/// Bytes that do not compress.
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

/// Files of up to 4.4 kB, in directories of about seventeen.
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

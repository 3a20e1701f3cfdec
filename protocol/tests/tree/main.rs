//! Proofs of the tree's rules: one binary, so that what the proofs share is compiled once.
//!
//! Reading order: `contents` (bytes in memory), `steps` (what a program does, by path), `world` (a
//! tree on the rules), `audit` (what must be true of a tree at any time), `local` (a real directory);
//! then the proofs. Each oracle is itself shown to fail by a planted bug, beside the proofs that use it.
//!
//! `PROPTEST_CASES` sets how many cases each property gets.
#![allow(clippy::unwrap_used)]

mod contents;

mod steps;

mod world;

mod audit;

mod local;

mod against_a_directory;

mod accounting;

mod replicas;

mod pair;

mod sending;

mod names;

mod data;

mod attributes;

mod edges;

/// Proptest's settings with `count` cases, unless the environment says how many.
fn cases(count: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = count;
    }
    config
}

//! Tests of the tree's rules, in one binary so that shared code is compiled once.
//!
//! Reading order: `contents` (bytes in memory), `steps` (what a program does, by path), `world` (a tree
//! on the rules), `audit` (invariants of a tree), `local` (a real directory); then the tests. A planted
//! bug shows, beside the tests that use it, that each oracle can fail.
//!
//! `PROPTEST_CASES` sets the number of cases of each property.
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

/// Proptest's settings with `count` cases, unless the environment sets the number.
fn cases(count: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = count;
    }
    config
}

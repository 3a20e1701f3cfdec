//! The comparison with other filesystems: the same ordinary programs on each, timed until what they
//! wrote is durable, and checked.
//!
//! A [`Row`](rows::Row) is one program and the proof that it did its work; a
//! [`Filesystem`](filesystem::Filesystem) is one way to have a directory; a [`Sample`](sample::Sample) is what one run of a row on a
//! filesystem took. Each run has a filesystem of its own, from its server to its mount, so nothing
//! is left over from the run before. The program is `tests/benches/filesystems`.

pub mod rows;

pub mod fixtures;

pub mod filesystem;

pub mod sample;

pub mod proof;

pub mod timed;

pub mod usage;

pub mod requests;

pub mod profile;

pub mod cell;

pub mod table;

pub mod memory;

//! The comparison with other filesystems: the same ordinary programs on each, timed until the data
//! that they wrote is durable, and checked.
//!
//! A [`Row`](rows::Row) is one program with the proof that it did its work; a
//! [`Filesystem`](filesystem::Filesystem) is one kind of mount; a [`Sample`](sample::Sample) is the
//! measurement of one run of a row on a filesystem. Each run sets up its own filesystem, from server to
//! mount, so that no state is carried over between runs. The program is `tests/benches/filesystems`.

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

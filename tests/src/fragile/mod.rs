//! A disk that forgets: a filesystem for a real store of which only that is left without power which
//! was synced, and whose calls can fail.
//!
//! Reading order: [`image`] (what is there, and what would be left), [`chosen`] (calls that fail or wait),
//! [`mounted`] (the filesystem).

pub mod image;
pub mod chosen;
pub mod mounted;

//! The project itself: its sources, its scripts and its benches.

mod tidy;
mod messages;
mod scripts;
mod benches;
mod packages;
mod tarball;

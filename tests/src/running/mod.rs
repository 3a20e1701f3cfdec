//! Running programs and waiting for them.

pub mod programs;
pub mod pty;
pub mod waiting;
pub mod random;
pub mod scale;
pub mod signals;
pub mod small_disk;
pub mod tools;
pub mod bus;
pub mod logind;
pub mod desktop;
pub mod freezer;

//! What a server keeps: on a full disk, a damaged one, after crashes, and from a backup.

mod durability;
mod power;
mod slow;
mod clocks;
mod space;
mod crashes;
mod troubles;
mod faults;
mod restored;
mod big;

//! What a server keeps: on a full disk, a damaged one, after crashes, and from a backup.

mod durability;
mod power;
mod slow;
mod clocks;
mod space;
mod crashes;
mod damage;
mod troubles;
mod store_gone;
mod restored;
mod big;

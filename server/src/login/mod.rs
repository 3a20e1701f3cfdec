//! From a link's first frame to knowing who is there: names, passwords, and what wrong ones lead to.

pub mod opening;
pub mod authority;
pub mod checking;
pub mod tasks;
pub mod outcomes;
pub mod turns;
pub mod password;
pub mod lockout;
pub mod source;

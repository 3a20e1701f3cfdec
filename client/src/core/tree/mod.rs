//! Names, attributes and directories: the loaded rows, and the operations on them.

mod replica;
mod filling;
mod known;
mod handles;
mod names;
mod attributes;
mod directories;

pub(crate) use filling::Unexpected;
pub(in crate::core) use handles::{Handle, Handles};
pub(in crate::core) use replica::Replica;

pub use attributes::{NewAttributes, Space};
pub use directories::Listed;
pub use handles::HandleId;
pub use names::{Found, New};

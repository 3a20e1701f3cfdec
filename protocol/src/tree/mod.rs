//! The filesystem's rules, as a pure state machine that both sides run.
//!
//! [`plan`] takes the loaded rows and an [`Op`]. It returns the [`Changes`] that the op makes, or
//! an errno as POSIX and Linux define it, or the row that must be loaded first. It changes nothing
//! itself: the owner of the rows (a [`Table`], on both sides) commits the changes.
//!
//! **Invariant:** `plan` depends on the rows and the op alone: no clock, no randomness, no order
//! of a hash map. Given equal rows, both sides make equal changes, bit for bit.
//!
//! Permissions are not decided here: a tree has one user, and the client's kernel checks modes for
//! each program. The rules here cover everything about structure, data, time and space.

mod node;
mod kind;
mod file;
mod extents;
mod runs;
mod op;
mod rows;
mod room;
mod staging;
mod rules;
mod table;

pub use extents::Extents;
pub use file::FileData;
pub use kind::{Kind, SpecialKind};
pub use node::{
    ARRIVED_NOTE_XATTR, NOTE_XATTR, Node, Quota, STATE_XATTR, Usage, XattrMap, Xattrs,
    is_for_programs, is_note,
};
pub use op::{Action, FallocateMode, Op, Owner, RenameMode, XattrMode};
pub use room::{Limit, Room};
pub use rows::{
    Changes, ContentEffect, Delivery, DeliveryEffect, Item, ItemKind, Loaded, Need, PlanError, Rows,
};
pub use rules::plan;
pub use runs::Runs;
pub use table::{Row, Table};

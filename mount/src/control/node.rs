//! What the kernel does not tell of a node, or do with it: extended attributes of a file or directory
//! are read only by users who may read it, and set by those who may write to it. What is in a mailbox need not
//! let its own user do that, and its sender still wants to know whether it was sent. So the mount is asked.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use xfer_client::core::Order;
use xfer_protocol::Errno;

use super::call::Call;
use super::find::socket_of;
use super::{Answer, Ask, Mounted};

/// The attributes that are told: those by which a user knows what is sent or arrived.
const TOLD: &str = "user.xfer.";

/// An extended attribute of the node at a path in the tree that is mounted at `mountpoint`.
///
/// # Errors
/// Those of the tree, and EACCES if the mount's process does not say.
pub fn attribute(mountpoint: &Path, path: &Path, name: &str) -> Result<Option<String>, Errno> {
    let (path, name) = (hex::encode(path.as_os_str().as_bytes()), name.to_owned());
    ask(mountpoint, Ask::Attribute { path, name })
}

/// Gives an order for something in a mailbox.
///
/// # Errors
/// As [`attribute`].
pub fn order(mountpoint: &Path, path: &Path, order: Order) -> Result<(), Errno> {
    let path = hex::encode(path.as_os_str().as_bytes());
    let order = String::from_utf8_lossy(order.value()).into_owned();
    ask(mountpoint, Ask::Order { path, order }).map(drop)
}

fn ask(mountpoint: &Path, ask: Ask) -> Result<Option<String>, Errno> {
    let call = socket_of(mountpoint).and_then(|socket| Call::to(&socket, mountpoint.to_owned()));
    let answer = call.and_then(|call| call.of_node(ask)).ok_or(Errno::EACCES)?;
    answer.map_err(|number| Errno::from_number(number).unwrap_or(Errno::EIO))
}

/// The mount's answer to a question for an attribute.
pub(super) async fn tell(mounted: &dyn Mounted, path: &str, name: String) -> Answer {
    let told = match node(path) {
        Some(path) if name.starts_with(TOLD) => mounted.attribute(path, name).await,
        Some(_) | None => Err(Errno::EINVAL),
    };
    Answer::OfNode(told.map_err(Errno::number))
}

/// The mount's answer to an order.
pub(super) async fn obey(mounted: &dyn Mounted, path: &str, order: &str) -> Answer {
    let obeyed = match (node(path), Order::of(order.as_bytes())) {
        (Some(path), Some(order)) => mounted.order(path, order).await,
        (None, _) | (_, None) => Err(Errno::EINVAL),
    };
    Answer::OfNode(obeyed.map(|()| None).map_err(Errno::number))
}

fn node(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(std::ffi::OsString::from_vec(hex::decode(path).ok()?)))
}

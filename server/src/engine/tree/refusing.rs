//! The client's view of failed questions about a tree.

use xfer_protocol::message::ReadError;
use xfer_store::StoreError;

use crate::engine::tree::holding::Unmade;

/// Converts the failure of an attempt.
pub(crate) fn unmade(error: Unmade) -> ReadError {
    match error {
        Unmade::NoTree => ReadError::Ended,
        Unmade::Storage(error) => storage(error),
    }
}

/// Converts a failure of the store. The client learns no details; they are logged.
pub(crate) fn storage(error: StoreError) -> ReadError {
    tracing::error!(%error, "a question cannot be answered");
    ReadError::Storage
}

//! How questions about a tree fail, as the client is told.

use xfer_protocol::message::ReadError;
use xfer_store::StoreError;

use crate::engine::tree::holding::Unmade;

/// Why an attempt was not made.
pub(crate) fn unmade(error: Unmade) -> ReadError {
    match error {
        Unmade::NoTree => ReadError::Ended,
        Unmade::Storage(error) => storage(error),
    }
}

/// That the store failed; the log says how.
pub(crate) fn storage(error: StoreError) -> ReadError {
    tracing::error!(%error, "a question can't be answered");
    ReadError::Storage
}

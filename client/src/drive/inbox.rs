//! Tending the inbox: deliveries are placed at `inbox/<sender>/<name>`.
//!
//! With a mount, they are placed through it (see [`super::Kernel`]), so that programs that watch
//! the directory are told. The core chooses the names.

use std::sync::Arc;
use std::time::Duration;

use xfer_protocol::message::DeliveryHead;
use xfer_protocol::{DeliveryId, Errno, Name};

use super::Client;
use crate::core::Core;

/// The pause before deliveries without room are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The number of free names that programs may take before their delivery waits.
const TRIES_MAX: u32 = 100;

impl Client {
    /// A number that rises whenever something may have arrived in the inbox. Waits until it is another
    /// than `seen`; `None` once the session is over.
    pub async fn inbox_news(&self, seen: Option<u64>) -> Option<u64> {
        let mut progress = self.progress.subscribe();
        loop {
            progress.mark_unchanged();
            let news = self.lock().inbox_news();
            if Some(news) != seen {
                return Some(news);
            }
            tokio::select! {
                () = self.wait_over() => return None,
                changed = progress.changed() => changed.ok()?,
            }
        }
    }

    /// Places deliveries as they arrive. One that can't be placed now goes behind the others.
    pub(super) async fn tend_inbox(self: Arc<Self>) {
        let mut progress = self.progress.subscribe();
        let mut failures = 0;
        while self.lock().takes_changes() {
            let (head, waiting) = self.lock().next_arrival();
            // While another client has the seat, it places what arrives.
            let Some(head) = head.filter(|_| self.lock().may_be_kept()) else {
                if progress.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let placing = self.placing.lock().await;
            if !self.lock().may_be_kept() {
                continue;
            }
            let result = self.receive_delivery(&head).await;
            drop(placing);
            let gone = self.lock().finish_delivery(head.id, result.is_ok());
            match result {
                Err(errno) if !gone => {
                    tracing::warn!("'{}' from {} has to wait: {errno}", head.name, head.from);
                    failures += 1;
                }
                Ok(()) | Err(_) => failures = 0,
            }
            if failures >= waiting && failures > 0 {
                tokio::time::sleep(RETRY).await;
                failures = 0;
            }
        }
    }

    async fn receive_delivery(self: &Arc<Self>, head: &DeliveryHead) -> Result<(), Errno> {
        let id = head.id;
        self.load_delivery(id).await?;
        let directory = self.tend(move |core: &mut Core| core.is_directory_delivery(id)).await?;
        for _ in 0..TRIES_MAX {
            let (from, wanted) = (head.from.clone(), head.name.clone());
            let free = move |core: &mut Core| core.free_name(&from, &wanted);
            let (number, name) = self.tend(free).await?;
            let placed = self.place(id, directory, &head.from, &name).await;
            self.lock().note_number(head, number);
            match placed {
                // A program took the name first.
                Err(Errno::EEXIST) => {}
                result => return result,
            }
        }
        Err(Errno::EEXIST)
    }

    /// Places a delivery under a name: through the mount point if that works, else in the tree
    /// itself.
    async fn place(
        self: &Arc<Self>,
        id: DeliveryId,
        directory: bool,
        from: &Name,
        name: &Name,
    ) -> Result<(), Errno> {
        if let Some(kernel) = self.kernel() {
            let (sender, name) = (from.clone(), name.clone());
            let place = move || kernel.place(id, directory, &sender, &name);
            match tokio::task::spawn_blocking(place).await.unwrap_or(Err(Errno::EIO)) {
                Ok(()) => return Ok(()),
                Err(errno @ (Errno::EEXIST | Errno::EDQUOT | Errno::ENOSPC)) => return Err(errno),
                Err(errno) => tracing::debug!("placing through the mount point: {errno}"),
            }
        }
        self.place_in_tree(id, from, name).await
    }

    async fn place_in_tree(
        self: &Arc<Self>,
        id: DeliveryId,
        from: &Name,
        name: &Name,
    ) -> Result<(), Errno> {
        let (owner, from, name) = (self.owner(), from.clone(), name.clone());
        let find = move |core: &mut Core| core.sender_directory(&from, owner);
        let directory = self.tend(find).await?;
        self.tend(move |core: &mut Core| core.accept(id, directory, &name, owner)).await
    }
}

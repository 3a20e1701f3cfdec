//! The inbox: what others sent is placed at `inbox/<sender>/<name>`.
//!
//! Where there is a mount, the placing goes through it (see [`super::Kernel`]), so that programs that
//! watch the directory are told. Each delivery is accepted by one op of the log: it is there whole
//! or not at all, and once.

use std::sync::Arc;
use std::time::Duration;

use xfer_protocol::message::DeliveryHead;
use xfer_protocol::tree::{Action, Loaded, Owner, Rows};
use xfer_protocol::{DeliveryId, Errno, Ino, Name};

use super::state::{Pause, Phase, State};
use super::{Client, New, Notice};

/// How long to wait before trying again to place what had no room.
const RETRY: Duration = Duration::from_secs(5);

/// The last number that a name gets: `name (2).ext`, `name (3).ext` and so on.
const NUMBER_MAX: u32 = 100_000_000;

/// How often a place that was free is taken by a program before a delivery waits.
const PLACES_MAX: u32 = 100;

/// For how many names it is remembered which numbers are taken.
const NUMBERED_MAX: usize = 10_000;

impl Client {
    /// Places what arrives. What can't be placed now makes way for what comes after it.
    pub(super) async fn receive_deliveries(self: Arc<Self>) {
        let mut progress = self.progress.subscribe();
        let mut failures = 0;
        while self.lock().phase == Phase::Connected {
            let (head, waiting) = {
                let state = self.lock();
                (state.next_arrival(), state.waiting.len())
            };
            let Some(head) = head else {
                if progress.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let result = self.receive_delivery(&head).await;
            let gone = self.lock().finish_delivery(head.id, result.is_ok());
            match result {
                Err(errno) if !gone => {
                    tracing::warn!("\"{}\" from {} has to wait: {errno}", head.name, head.from);
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
        let directory = self.call(move |state: &mut State| state.is_directory_delivery(id)).await?;
        for _ in 0..PLACES_MAX {
            let (from, wanted) = (head.from.clone(), head.name.clone());
            let free = move |state: &mut State| state.free_name(&from, &wanted);
            let (number, name) = self.call(free).await?;
            let placed = self.place(id, directory, &head.from, &name).await;
            self.lock().note_number(head, number);
            match placed {
                // A program was faster.
                Err(Errno::EEXIST) => {}
                result => return result,
            }
        }
        Err(Errno::EEXIST)
    }

    /// Places a delivery under a name: through the mount point if that works, else in the tree.
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
        let find = move |state: &mut State| state.sender_directory(&from, owner);
        let directory = self.call(find).await?;
        self.call(move |state: &mut State| state.accept(id, directory, &name, owner)).await
    }
}

impl State {
    /// Accepts a delivery under a name.
    pub fn accept(
        &mut self,
        delivery: DeliveryId,
        parent: Ino,
        name: &Name,
        owner: Owner,
    ) -> Result<(), Pause> {
        let items = match self.table.delivery(delivery) {
            Loaded::Present(delivery) => delivery.items.len() as u64,
            Loaded::Absent | Loaded::Unknown => return Err(Errno::ENOENT.into()),
        };
        let first = Ino(self.fresh_run(items)?);
        self.change(Action::Accept { delivery, parent, name: name.clone(), first, owner })
    }

    fn is_directory_delivery(&mut self, id: DeliveryId) -> Result<bool, Pause> {
        match self.table.delivery(id) {
            Loaded::Present(delivery) => Ok(delivery
                .items
                .first()
                .is_some_and(|item| matches!(item.kind, xfer_protocol::tree::ItemKind::Directory))),
            Loaded::Absent | Loaded::Unknown => Err(Errno::ENOENT.into()),
        }
    }

    /// The directory for what a user sends, made if it is not there. If something else has its
    /// name, the next name that is free or a directory.
    fn sender_directory(&mut self, sender: &Name, owner: Owner) -> Result<Ino, Pause> {
        let (name, there) = self.find_sender_directory(sender)?;
        if let Some(ino) = there {
            return Ok(ino);
        }
        let new = New::Directory { mode: 0o700 };
        let ino = self.add(Ino::INBOX, &name, &new, owner)?;
        self.notices.push(Notice::Entry(Ino::INBOX, name));
        self.notices.push(Notice::Node(Ino::INBOX));
        Ok(ino)
    }

    /// The first delivery that there is room for: in what the quota leaves to arrivals.
    fn next_arrival(&self) -> Option<DeliveryHead> {
        self.waiting.iter().find(|head| self.has_room_to_receive(head)).cloned()
    }

    /// Whether an arrival fits, as far as it was announced.
    pub(super) fn has_room_to_receive(&self, head: &DeliveryHead) -> bool {
        let (usage, quota) = (self.table.usage(), self.table.quota().for_arrivals());
        usage.bytes.saturating_add(head.bytes) <= quota.bytes
            && usage.nodes.saturating_add(head.items.into()) <= quota.nodes
    }

    /// A name for something that a user sent, as far as is known not taken, and its number.
    fn free_name(&mut self, from: &Name, wanted: &Name) -> Result<(u32, Name), Pause> {
        let (_, Some(directory)) = self.find_sender_directory(from)? else {
            return Ok((1, wanted.clone()));
        };
        let key = (from.clone(), wanted.clone());
        let hint = self.numbered.get(&key).copied().unwrap_or(1);
        let number = free_number(hint, |number| {
            Ok::<_, Pause>(self.entry(directory, &numbered(wanted, number)?)?.is_some())
        })?;
        let number = number.ok_or(Errno::EEXIST)?;
        Ok((number, numbered(wanted, number)?))
    }

    /// Notes that a number of a name is taken.
    fn note_number(&mut self, head: &DeliveryHead, number: u32) {
        if self.numbered.len() >= NUMBERED_MAX {
            self.numbered.clear();
        }
        self.numbered.insert((head.from.clone(), head.name.clone()), number);
    }

    /// The name of the directory for what a user sends, and the directory, if it is there.
    fn find_sender_directory(&mut self, sender: &Name) -> Result<(Name, Option<Ino>), Pause> {
        for number in 1..NUMBER_MAX {
            let name = numbered(sender, number)?;
            match self.entry(Ino::INBOX, &name)? {
                Some(ino) if self.node(ino)?.is_directory() => return Ok((name, Some(ino))),
                Some(_) => {}
                None => return Ok((name, None)),
            }
        }
        Err(Errno::EEXIST.into())
    }

    /// Takes a delivery off those that wait, or puts it behind them. Says whether it is off.
    fn finish_delivery(&mut self, id: DeliveryId, placed: bool) -> bool {
        let gone = placed || self.table.delivery(id) == Loaded::Absent;
        let place = self.waiting.iter().position(|head| head.id == id);
        let head = place.and_then(|place| self.waiting.remove(place));
        self.waiting.extend(head.filter(|_| !gone));
        gone
    }
}

/// A number that is not taken, though the one before it is: the first, if that is free; else one from
/// the `hint` on, which was taken last. However many are taken, few are looked at.
fn free_number<E>(
    hint: u32,
    mut is_taken: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Option<u32>, E> {
    if !is_taken(1)? {
        return Ok(Some(1));
    }
    // What was removed since makes the hint worth nothing.
    let mut taken = if hint > 1 && is_taken(hint)? { hint } else { 1 };
    let mut step = 1;
    let mut free = loop {
        let next = taken + step;
        if next > NUMBER_MAX {
            return Ok(None);
        }
        if !is_taken(next)? {
            break next;
        }
        (taken, step) = (next, step * 2);
    };
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? { taken = middle } else { free = middle }
    }
    Ok(Some(free))
}

/// The name for the `number`th thing of that name: `name (2).ext` for the second.
fn numbered(name: &Name, number: u32) -> Result<Name, Errno> {
    if number == 1 {
        return Ok(name.clone());
    }
    let bytes = name.as_bytes();
    let (stem, extension) = match bytes.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => bytes.split_at(dot),
        Some(_) | None => (bytes, &[][..]),
    };
    let suffix = format!(" ({number})").into_bytes();
    let room = xfer_protocol::limits::NAME_BYTES_MAX - suffix.len();
    let extension = if extension.len() < room { extension } else { &[][..] };
    let stem = &stem[..stem.len().min(room - extension.len())];
    Name::new(&[stem, &suffix, extension].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, number: u32, expected: &str) {
        let name = Name::new(name.as_bytes()).unwrap();
        assert_eq!(numbered(&name, number).unwrap().as_bytes(), expected.as_bytes());
    }

    #[test]
    fn a_second_thing_of_a_name_gets_a_number_before_its_extension() {
        check("report.txt", 1, "report.txt");
        check("report.txt", 2, "report (2).txt");
        check("archive.tar.gz", 3, "archive.tar (3).gz");
        check("README", 2, "README (2)");
        check(".bashrc", 2, ".bashrc (2)");
    }

    #[test]
    fn a_free_number_is_found_by_looking_at_few() {
        let look = |hint: u32, taken: &dyn Fn(u32) -> bool| {
            let mut looks = 0;
            let found = free_number(hint, |number| {
                looks += 1;
                Ok::<_, Errno>(taken(number))
            });
            (found.unwrap().unwrap(), looks)
        };
        assert_eq!(look(1, &|_| false), (1, 1));
        assert_eq!(look(1, &|number| number == 1), (2, 2));
        for count in [2, 3, 1000, 99_999] {
            let (found, looks) = look(1, &|number| number <= count);
            assert_eq!(found, count + 1);
            assert!(looks <= 40, "{looks}");
            assert_eq!(look(count, &|number| number <= count), (count + 1, 3));
        }
        // The first is free again, or the hint is.
        assert_eq!(look(1000, &|number| number > 1 && number <= 1000).0, 1);
        assert_eq!(look(1000, &|number| number <= 10).0, 11);
    }

    #[test]
    fn a_numbered_name_is_never_too_long() {
        let long = "x".repeat(255);
        check(&long, 12, &format!("{} (12)", "x".repeat(250)));
        check(&format!("{}.txt", "x".repeat(251)), 2, &format!("{} (2).txt", "x".repeat(247)));
    }
}

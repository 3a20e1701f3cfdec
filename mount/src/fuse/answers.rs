//! How requests are answered: run the attempt, then reply with its result.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    FileHandle, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyXattr, Request,
};
use xfer_client::core::{Core, Found, HandleId, Listed, New, NewAttributes, Stop};
use xfer_client::drive::Origin;
use xfer_protocol::{Errno, Ino, Name};

use super::attr::{FOR_EVER, View, absent, attr, file_type};
use super::counting::{noting, take_begun, timing};
use super::dying::is_killed;
use super::filesystem::XferFs;
use super::placing;
use super::repeats::{Asked, Repeatable, What, impatient};
use super::replies::{GENERATION, Noting, Refuse};
use super::words::{given, new_name, open_flags, owner, parse};

impl XferFs {
    /// Runs an attempt and replies with its result or its error. The error is `EINTR` if the
    /// attempt has to wait and the program is told to end. On a `sync` mount, a change is answered
    /// once it is durable.
    pub(super) fn answer<R, T, D>(
        &self,
        request: &Request,
        reply: R,
        attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let (interrupts, thread) = (self.interrupts.clone(), request.pid());
        let origin = match self.placing.is_own(thread) {
            true => Origin::Housekeeping,
            false => Origin::Program,
        };
        let interrupted = move || interrupts.interrupted(thread);
        let (operations, begun) = (&self.operations, take_begun());
        let attempt = noting(operations.clone(), begun, attempt);
        let answer = timing(operations.clone(), begun, answering(reply, done));
        match self.sync {
            true => self.client.run_until(origin, durably(attempt), interrupted, answer),
            false => self.client.run_until(origin, attempt, interrupted, answer),
        }
    }

    /// Like [`XferFs::answer`], for a change of a file's data, which may clear the set-id bits. The
    /// kernel leaves that to us and keeps showing the mode that it has cached, so a separate thread
    /// invalidates the mode before the reply.
    pub(super) fn answer_change<R, T, D>(
        &self,
        request: &Request,
        ino: Ino,
        reply: R,
        mut attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let mut before = None;
        let attempt = move |state: &mut Core| {
            before = before.or(state.known_mode(ino));
            let value = attempt(state)?;
            Ok((value, before != state.known_mode(ino)))
        };
        let kernel = self.kernel.clone();
        self.answer(
            request,
            reply,
            attempt,
            move |reply, (value, mode_changed)| match mode_changed {
                true => kernel.outdate(ino, move || done(reply, value)),
                false => done(reply, value),
            },
        );
    }

    /// Like [`XferFs::answer`], for work that must be done even if the program is told to end.
    pub(super) fn answer_in_any_case<R, T, D>(
        &self,
        reply: R,
        attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let (operations, begun) = (&self.operations, take_begun());
        let attempt = noting(operations.clone(), begun, attempt);
        let answer = timing(operations.clone(), begun, answering(reply, done));
        self.client.run(attempt, answer);
    }

    /// Answers with a node that was looked up or created.
    pub(super) fn answer_entry(
        &self,
        request: &Request,
        reply: ReplyEntry,
        attempt: impl FnMut(&mut Core) -> Result<Found, Stop> + Send + 'static,
    ) {
        let view = self.view;
        self.answer(request, reply, with_validity(attempt), move |reply, ((ino, node), valid)| {
            reply.entry(&valid, &attr(ino, &node, view), GENERATION);
        });
    }

    /// Answers with a node's attributes.
    pub(super) fn answer_attr(
        &self,
        request: &Request,
        reply: ReplyAttr,
        attempt: impl FnMut(&mut Core) -> Result<Found, Stop> + Send + 'static,
    ) {
        let view = self.view;
        self.answer(request, reply, with_validity(attempt), move |reply, ((ino, node), valid)| {
            reply.attr(&valid, &attr(ino, &node, view));
        });
    }

    /// Answers a `setattr` that sets no attribute. The kernel sends nothing else when the set-id
    /// bits are to be cleared.
    ///
    /// It does so when the owner is set to its present value, which only the owner may do, and before
    /// any user's change of data. These two look the same here. So for users other than the owner
    /// this does nothing; their changes of data clear the bits.
    pub(super) fn set_nothing(&self, request: &Request, ino: Ino, reply: ReplyAttr) {
        let (caller, view) = (request.uid(), self.view);
        self.answer_attr(request, reply, move |state| {
            let found = state.attributes(ino)?;
            let owner = attr(ino, &found.1, view).uid;
            if caller != 0 && caller != owner {
                return Ok(found);
            }
            let new = NewAttributes { clear_set_id: true, ..NewAttributes::default() };
            state.set_attributes(ino, &new)
        });
    }

    /// Sets attributes and replies with all of them.
    pub(super) fn answer_attributes(
        &self,
        request: &Request,
        file: (INodeNo, Option<FileHandle>),
        new: NewAttributes,
        reply: ReplyAttr,
    ) {
        let (ino, resizes, view) = (Ino(file.0.0), new.size.is_some(), self.view);
        let attempt = move |state: &mut Core| state.set_attributes(ino, &new);
        if !resizes {
            return self.answer_attr(request, reply, attempt);
        }
        let (reply, attempt) = self.data_change(file, reply, attempt);
        let attempt = with_validity(attempt);
        self.answer(request, reply, attempt, move |reply, ((ino, node), valid)| {
            reply.inner().attr(&valid, &attr(ino, &node, view));
        });
    }

    /// Wraps an attempt to change a file's data, and its reply, so that the outbox learns whether
    /// the change succeeded: an incomplete file is not sent.
    pub(super) fn data_change<R, T>(
        &self,
        (ino, handle): (INodeNo, Option<FileHandle>),
        reply: R,
        mut attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
    ) -> (Noting<R>, impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static) {
        let (ino, handle) = (Ino(ino.0), handle.map(|handle| HandleId(handle.0)));
        let noting = Noting::new(reply, self.client.clone(), ino);
        let changing = move |state: &mut Core| {
            let done = attempt(state)?;
            state.note_change(ino, handle);
            Ok(done)
        };
        (noting, changing)
    }

    /// Answers the closing of a descriptor: the file's last one, or a copy.
    pub(super) fn answer_flush(
        &self,
        request: &Request,
        ino: Ino,
        handle: HandleId,
        reply: ReplyEmpty,
    ) {
        let killed = self.client.matters_to_drafts(ino) && is_killed(request.pid());
        self.answer_empty(request, reply, move |state| match killed {
            true => {
                state.note_killed(handle, ino);
                Ok(())
            }
            false => state.flush(handle, ino),
        });
    }

    /// Answers without data.
    pub(super) fn answer_empty(
        &self,
        request: &Request,
        reply: ReplyEmpty,
        attempt: impl FnMut(&mut Core) -> Result<(), Stop> + Send + 'static,
    ) {
        self.answer(request, reply, attempt, |reply, ()| reply.ok());
    }

    /// Answers once everything done so far is durable, in the whole tree: there is one log, and a
    /// program may rely on the data of other files. Changes made later don't count; otherwise other
    /// programs could delay this without end.
    pub(super) fn answer_sync(&self, request: &Request, handle: FileHandle, reply: ReplyEmpty) {
        let mut upto = None;
        self.answer_empty(request, reply, move |state| {
            let position = *upto.get_or_insert_with(|| {
                // Not again when the attempt is made again: a change may have been made since.
                state.note_synced(HandleId(handle.0));
                state.position()
            });
            state.sync_handle(HandleId(handle.0), position)
        });
    }

    /// Answers with the value of an extended attribute, or with its length.
    pub(super) fn answer_xattr<T: AsRef<[u8]> + Send + 'static>(
        &self,
        request: &Request,
        reply: ReplyXattr,
        size: u32,
        attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
    ) {
        self.answer(request, reply, attempt, move |reply, value| {
            let value = value.as_ref();
            match size as usize {
                0 => reply.size(value.len() as u32),
                room if room < value.len() => reply.refuse(Errno::ERANGE),
                _ => reply.data(value),
            }
        });
    }

    /// Accepts a delivery that one of our own threads renames out of the hidden directory.
    pub(super) fn accept(
        &self,
        request: &Request,
        entry: &[u8],
        to: Result<(Ino, Name), Errno>,
        reply: ReplyEmpty,
    ) {
        let (owner, own) = (owner(request), self.placing.is_own(request.pid()));
        let id = placing::delivery(entry).filter(|_| own).ok_or(Errno::ENOENT);
        self.answer_empty(request, reply, move |state| {
            let (parent, name) = given(&to)?;
            state.accept(id?, *parent, name, owner)
        });
    }

    /// Wraps the reply to a request that the kernel may make again by itself. Returns its error if it
    /// has just failed.
    pub(super) fn repeatable<R>(
        &self,
        request: &Request,
        what: What,
        reply: R,
    ) -> (Repeatable<R>, Option<Errno>) {
        let asked = Asked { thread: request.pid(), what };
        let failed = self.repeats.take(&asked);
        (Repeatable::new(reply, asked, self.client.wait(), self.repeats.clone()), failed)
    }

    /// Answers with the node of a name, or that the name is absent; the kernel may cache both.
    pub(super) fn answer_lookup(
        &self,
        request: &Request,
        parent: Ino,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (name, view) = (parse(name), self.view);
        let what = What::Name(parent, name.as_ref().ok().cloned());
        let (reply, failed) = self.repeatable(request, what, reply);
        let attempt = move |state: &mut Core| match state.lookup(parent, given(&name)?)? {
            Some(found) => Ok(Ok(found)),
            None => Ok(Err(state.may_keep_absent(parent, given(&name)?))),
        };
        let attempt = impatient(with_validity(attempt), failed);
        self.answer(request, reply, attempt, move |reply, (found, valid)| {
            let reply = reply.inner();
            match found {
                Ok((ino, node)) => reply.entry(&valid, &attr(ino, &node, view), GENERATION),
                Err(true) => reply.entry(&valid, &absent(), GENERATION),
                Err(false) => reply.entry(&Duration::ZERO, &absent(), GENERATION),
            }
        });
    }

    /// Answers a lookup in the hidden directory, which only threads that place arrivals can see.
    pub(super) fn lookup_hidden(
        &self,
        request: &Request,
        parent: Ino,
        name: &[u8],
        reply: ReplyEntry,
    ) {
        let admitted = self.placing.is_own(request.pid());
        let found = match self.placing.is_hidden(parent) {
            true => self.placing.entry_attr(name),
            false => Some(self.placing.hidden_attr()),
        };
        // Never cached: the next lookup may come from another program.
        match found.filter(|_| admitted) {
            Some(attr) => reply.entry(&Duration::ZERO, &attr, GENERATION),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    /// Answers with bytes of a file.
    pub(super) fn answer_data<T: AsRef<[u8]> + Send + 'static>(
        &self,
        request: &Request,
        ino: Ino,
        attempt: impl FnMut(&mut Core) -> Result<T, Stop> + Send + 'static,
        reply: ReplyData,
    ) {
        let (reply, failed) = self.repeatable(request, What::Bytes(ino), reply);
        self.answer(request, reply, impatient(attempt, failed), |reply, data| {
            reply.inner().data(data.as_ref());
        });
    }

    /// Creates a node under a name that a program gave.
    pub(super) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new: New,
        reply: ReplyEntry,
    ) {
        let (owner, parent) = (owner(request), Ino(parent.0));
        let name = new_name(parent, name);
        self.answer_entry(request, reply, move |state| {
            state.make(parent, given(&name)?, &new, owner)
        });
    }

    /// Creates a file under a name that a program gave, and opens it.
    pub(super) fn create_opened(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        mode: u16,
        writable: bool,
        reply: ReplyCreate,
    ) {
        let (view, owner, parent) = (self.view, owner(request), Ino(parent.0));
        let name = new_name(parent, name);
        let attempt =
            move |state: &mut Core| state.create(parent, given(&name)?, mode, owner, writable);
        self.answer(request, reply, with_validity(attempt), move |reply, (created, valid)| {
            let ((ino, node), handle) = created;
            let (attr, handle) = (attr(ino, &node, view), FileHandle(handle.0));
            reply.created(&valid, &attr, GENERATION, handle, open_flags(writable));
        });
    }

    /// Answers with as many entries as fit.
    pub(super) fn answer_names(
        &self,
        request: &Request,
        reply: ReplyDirectory,
        attempt: impl FnMut(&mut Core) -> Result<Vec<Listed>, Stop> + Send + 'static,
    ) {
        self.answer(request, reply, attempt, |mut reply, listed| {
            for Listed { next, name, ino, node } in listed {
                let (ino, kind) = (INodeNo(ino.0), file_type(&node.kind));
                if reply.add(ino, next, kind, OsStr::from_bytes(&name)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    /// Answers with as many entries as fit, with their nodes.
    pub(super) fn answer_listing(
        &self,
        request: &Request,
        directory: INodeNo,
        reply: ReplyDirectoryPlus,
        attempt: impl FnMut(&mut Core) -> Result<Vec<Listed>, Stop> + Send + 'static,
    ) {
        let (client, view) = (self.client.clone(), self.view);
        self.answer(request, reply, with_validity(attempt), move |mut reply, (listed, valid)| {
            let told = add_entries(&mut reply, listed, view, valid);
            // Before the answer: after it, the kernel may forget the nodes at any moment.
            let remember = move |state: &mut Core| {
                state.remember_listed(Ino(directory.0), &told);
                Ok(())
            };
            client.run(remember, |_| {});
            reply.ok();
        });
    }
}

/// A callback that replies with the attempt's result or its error.
fn answering<R, T, D>(reply: R, done: D) -> impl FnOnce(Result<T, Errno>) + Send + 'static
where
    R: Refuse,
    D: FnOnce(R, T) + Send + 'static,
{
    move |result| match result {
        Ok(value) => done(reply, value),
        Err(error) => reply.refuse(error),
    }
}

/// Adds to an attempt's result how long the kernel may keep it. Once the session is over, or another
/// client may get the tree, that is not at all.
fn with_validity<T>(
    mut attempt: impl FnMut(&mut Core) -> Result<T, Stop>,
) -> impl FnMut(&mut Core) -> Result<(T, Duration), Stop> {
    move |state| {
        let value = attempt(state)?;
        Ok((value, if state.may_be_kept() { FOR_EVER } else { Duration::ZERO }))
    }
}

/// Wraps an attempt so that it succeeds only once its change is durable.
fn durably<T>(
    mut attempt: impl FnMut(&mut Core) -> Result<T, Stop>,
) -> impl FnMut(&mut Core) -> Result<T, Stop> {
    let mut made = None;
    move |state| {
        let (value, upto) = match made.take() {
            Some(made) => made,
            None => {
                let before = state.position();
                let value = attempt(state)?;
                let after = state.position();
                (value, (after != before).then_some(after))
            }
        };
        match upto.map(|upto| state.sync_safely(upto)) {
            Some(Err(pause)) => {
                made = Some((value, upto));
                Err(pause)
            }
            Some(Ok(())) | None => Ok(value),
        }
    }
}

/// Adds entries until the reply is full; returns those with nodes that the kernel now knows.
fn add_entries(
    reply: &mut ReplyDirectoryPlus,
    listed: Vec<Listed>,
    view: View,
    valid: Duration,
) -> Vec<(Name, Ino)> {
    let mut told = Vec::with_capacity(listed.len());
    for Listed { next, name, ino, node } in listed {
        let (attr, entry) = (attr(ino, &node, view), OsStr::from_bytes(&name));
        if reply.add(INodeNo(ino.0), next, entry, &valid, &attr, GENERATION) {
            break;
        }
        // The kernel does not count `.` and `..` as lookups, and these are no names.
        told.extend(Name::new(&name).ok().map(|name| (name, ino)));
    }
    told
}

//! How requests are answered: run the attempt, then say what came of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    FileHandle, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request,
};
use xfer_client::client::{Client, Found, HandleId, Listed, New, NewAttributes, Pause, State};
use xfer_protocol::{Errno, Ino, Name};

use super::attr::{FOR_EVER, View, absent, attr, errno, file_type};
use super::dying::is_killed;
use super::filesystem::XferFs;
use super::placing;
use super::words::{given, new_name, owner, parse};

/// Numbers are never used again, so one generation is enough.
pub(super) const GENERATION: Generation = Generation(0);

impl XferFs {
    /// Runs an attempt, and answers with what it gives or why it was refused; with `EINTR`, if it
    /// has to wait and the program that waits for it is told to end. On a mount that is `sync`, a
    /// change is answered once it is durable.
    pub(super) fn answer<R, T, D>(
        &self,
        request: &Request,
        reply: R,
        attempt: impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let (interrupts, thread) = (self.interrupts.clone(), request.pid());
        let interrupted = move || interrupts.interrupted(thread);
        let answer = answering(reply, done);
        match self.sync {
            true => self.client.run_until(durably(attempt), interrupted, answer),
            false => self.client.run_until(attempt, interrupted, answer),
        }
    }

    /// As [`XferFs::answer`], for a change of a file's data, which may take its set-id bits: the
    /// kernel leaves that to us, and goes on showing the mode that it knows. So it is told first,
    /// by a thread of its own.
    pub(super) fn answer_change<R, T, D>(
        &self,
        request: &Request,
        ino: Ino,
        reply: R,
        mut attempt: impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        let mut before = None;
        let attempt = move |state: &mut State| {
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

    /// As [`XferFs::answer`], for what must be done whoever still waits for it.
    pub(super) fn answer_in_any_case<R, T, D>(
        &self,
        reply: R,
        attempt: impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
        done: D,
    ) where
        R: Refuse,
        T: Send + 'static,
        D: FnOnce(R, T) + Send + 'static,
    {
        self.client.run(attempt, answering(reply, done));
    }

    /// Answers with a node that was found or made.
    pub(super) fn answer_entry(
        &self,
        request: &Request,
        reply: ReplyEntry,
        attempt: impl FnMut(&mut State) -> Result<Found, Pause> + Send + 'static,
    ) {
        let view = self.view;
        self.answer(request, reply, attempt, move |reply, (ino, node)| {
            reply.entry(&FOR_EVER, &attr(ino, &node, view), GENERATION);
        });
    }

    /// Answers with a node's attributes.
    pub(super) fn answer_attr(
        &self,
        request: &Request,
        reply: ReplyAttr,
        attempt: impl FnMut(&mut State) -> Result<Found, Pause> + Send + 'static,
    ) {
        let view = self.view;
        self.answer(request, reply, with_validity(attempt), move |reply, ((ino, node), valid)| {
            reply.attr(&valid, &attr(ino, &node, view));
        });
    }

    /// Answers a change of attributes that sets none: all that the kernel sends when the set-id bits
    /// are to go.
    ///
    /// It does so when the owner is set to what it is, which is the owner's to do, and before anybody
    /// changes data. Those can't be told apart here. So for others this does nothing, and their
    /// changes of data take the bits with them.
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

    /// Sets attributes, and answers with all of them.
    pub(super) fn answer_attributes(
        &self,
        request: &Request,
        file: (INodeNo, Option<FileHandle>),
        new: NewAttributes,
        reply: ReplyAttr,
    ) {
        let (ino, resizes, view) = (Ino(file.0.0), new.size.is_some(), self.view);
        let attempt = move |state: &mut State| state.set_attributes(ino, &new);
        if !resizes {
            return self.answer_attr(request, reply, attempt);
        }
        let (reply, attempt) = self.data_change(file, reply, attempt);
        self.answer(request, reply, attempt, move |reply, (ino, node)| {
            reply.inner().attr(&FOR_EVER, &attr(ino, &node, view));
        });
    }

    /// Makes an attempt to change a file's data, and its answer, such that the outbox learns whether
    /// it could be: a file of which part is missing is not sent.
    pub(super) fn data_change<R, T>(
        &self,
        (ino, handle): (INodeNo, Option<FileHandle>),
        reply: R,
        mut attempt: impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
    ) -> (Noting<R>, impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static) {
        let (ino, handle) = (Ino(ino.0), handle.map(|handle| HandleId(handle.0)));
        let noting = Noting { reply, client: self.client.clone(), ino };
        let changing = move |state: &mut State| {
            let done = attempt(state)?;
            state.note_change(ino, handle);
            Ok(done)
        };
        (noting, changing)
    }

    /// A descriptor of a file was closed: for good, or a copy of one.
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

    /// Answers that it is done.
    pub(super) fn answer_empty(
        &self,
        request: &Request,
        reply: ReplyEmpty,
        attempt: impl FnMut(&mut State) -> Result<(), Pause> + Send + 'static,
    ) {
        self.answer(request, reply, attempt, |reply, ()| reply.ok());
    }

    /// Answers once everything done before is durable, in the whole tree: there is one log, and a
    /// program may rely on what another file has. Later changes, which others may make without end,
    /// don't matter.
    pub(super) fn answer_sync(&self, request: &Request, reply: ReplyEmpty) {
        let mut upto = None;
        self.answer_empty(request, reply, move |state| {
            let seq = *upto.get_or_insert_with(|| state.last_change());
            state.sync_to(seq)
        });
    }

    /// Answers with a value of an extended attribute, or how long it is.
    pub(super) fn answer_xattr<T: AsRef<[u8]> + Send + 'static>(
        &self,
        request: &Request,
        reply: ReplyXattr,
        size: u32,
        attempt: impl FnMut(&mut State) -> Result<T, Pause> + Send + 'static,
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

    /// Answers with what a name stands for, or that there is no such name, which is as lasting.
    pub(super) fn answer_lookup(
        &self,
        request: &Request,
        parent: Ino,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (name, view) = (parse(name), self.view);
        let attempt = move |state: &mut State| match state.lookup(parent, given(&name)?)? {
            Some(found) => Ok(Ok(found)),
            None => Ok(Err(state.may_keep_absent(parent, given(&name)?))),
        };
        self.answer(request, reply, attempt, move |reply, found| match found {
            Ok((ino, node)) => reply.entry(&FOR_EVER, &attr(ino, &node, view), GENERATION),
            Err(true) => reply.entry(&FOR_EVER, &absent(), GENERATION),
            Err(false) => reply.entry(&Duration::ZERO, &absent(), GENERATION),
        });
    }

    /// Answers a look-up in what only threads that place arrivals can see.
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
        // Never cached: the next to ask may be somebody else.
        match found.filter(|_| admitted) {
            Some(attr) => reply.entry(&Duration::ZERO, &attr, GENERATION),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    /// Makes a node of a name that a program gave.
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

    /// Answers with entries, as many as fit.
    pub(super) fn answer_names(
        &self,
        request: &Request,
        reply: ReplyDirectory,
        attempt: impl FnMut(&mut State) -> Result<Vec<Listed>, Pause> + Send + 'static,
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

    /// Answers with entries and their nodes, as many as fit.
    pub(super) fn answer_listing(
        &self,
        request: &Request,
        directory: INodeNo,
        reply: ReplyDirectoryPlus,
        attempt: impl FnMut(&mut State) -> Result<Vec<Listed>, Pause> + Send + 'static,
    ) {
        let (client, view) = (self.client.clone(), self.view);
        self.answer(request, reply, with_validity(attempt), move |mut reply, (listed, valid)| {
            let told = add_entries(&mut reply, listed, view, valid);
            // Before the answer: after it, the kernel may forget them at any moment.
            let remember = move |state: &mut State| {
                state.remember_listed(Ino(directory.0), &told);
                Ok(())
            };
            client.run(remember, |_| {});
            reply.ok();
        });
    }
}

/// Answers with what an attempt gave, or why it was refused.
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

/// An attempt at what can be had when the session is over too, and for how long the kernel may keep
/// it then: not at all, since others may change the tree.
fn with_validity<T>(
    mut attempt: impl FnMut(&mut State) -> Result<T, Pause>,
) -> impl FnMut(&mut State) -> Result<(T, Duration), Pause> {
    move |state| {
        let value = attempt(state)?;
        Ok((value, if state.is_over() { Duration::ZERO } else { FOR_EVER }))
    }
}

/// An attempt that has succeeded only once the change that it made is durable.
fn durably<T>(
    mut attempt: impl FnMut(&mut State) -> Result<T, Pause>,
) -> impl FnMut(&mut State) -> Result<T, Pause> {
    let mut made = None;
    move |state| {
        let (value, upto) = match made.take() {
            Some(made) => made,
            None => {
                let before = state.last_change();
                let value = attempt(state)?;
                let after = state.last_change();
                (value, (after != before).then_some(after))
            }
        };
        match upto.map(|upto| state.sync_to(upto)) {
            Some(Err(pause)) => {
                made = Some((value, upto));
                Err(pause)
            }
            Some(Ok(())) | None => Ok(value),
        }
    }
}

/// Adds entries until the answer is full, and returns the nodes that the kernel now knows.
fn add_entries(
    reply: &mut ReplyDirectoryPlus,
    listed: Vec<Listed>,
    view: View,
    valid: Duration,
) -> Vec<Ino> {
    let mut told = Vec::with_capacity(listed.len());
    for Listed { next, name, ino, node } in listed {
        let (attr, entry) = (attr(ino, &node, view), OsStr::from_bytes(&name));
        if reply.add(INodeNo(ino.0), next, entry, &valid, &attr, GENERATION) {
            break;
        }
        // The kernel does not count what it is told of `.` and `..`.
        if name != b"." && name != b".." {
            told.push(ino);
        }
    }
    told
}

/// An answer to a change of data: a refusal is noted before it is said.
pub(super) struct Noting<R> {
    reply: R,
    client: Arc<Client>,
    ino: Ino,
}

impl<R> Noting<R> {
    /// The answer itself.
    pub(super) fn inner(self) -> R {
        self.reply
    }
}

impl<R: Refuse> Refuse for Noting<R> {
    fn refuse(self, errno: Errno) {
        self.client.note_failure(self.ino, errno);
        self.reply.refuse(errno);
    }
}

/// An answer that can be a refusal: each of fuser's is a type of its own.
pub(super) trait Refuse: Send + 'static {
    /// Answers with an error.
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, error: Errno) {
                self.error(errno(error));
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

//! Doing something for each arrival: for what is there, and for what comes later.
//!
//! Through a mount, the directory is opened only while it is looked at, so that the mount can be unmounted
//! meanwhile; then the next mount of the account is waited for. A session stays open, but not while a command
//! runs, which may want to use the tree itself.
//!
//! **Invariant:** what is told of is on the server's disk as part of the recipient's tree.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use xfer_client::connect::Target;
use xfer_protocol::shown::Shown;

use super::super::errno::words;
use super::super::mounts;
use super::super::opening::{Opened, end_on_signals};
use super::super::report::Report;
use super::super::show::Output;
use super::super::tree::Changes;
use super::arrival::{Arrival, Known, all};
use super::target;
use super::telling::{Task, Whereabouts};
use crate::command::file_lines::{AccessLine, InboxLine};
use crate::process::exit::{Exit, Failure};
use crate::process::report::complain;

/// The pause after a look that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The pause after a mount that does not tell of news any more.
const AFTER_A_MOUNT: Duration = Duration::from_secs(1);

/// Does something for each arrival.
pub(super) struct Follower {
    account: Target,
    access: AccessLine,
    goes_on: bool,
    /// Whether no session is begun.
    only_mounted: bool,
    prints_json: bool,
    /// Whether signals are caught while there is no session, too.
    catches_signals: bool,
    tasks: Vec<Task>,
    output: Output,
    /// What could not be done.
    report: Report,
    /// The arrivals for which not all could be done. That is tried again with the next one.
    failed: BTreeSet<Known>,
    /// The failure that was told last, so that it is told once.
    told_failure: String,
}

/// Where the next arrival is heard of.
enum Ear {
    Mount(PathBuf),
    Session(Opened),
    /// Nowhere, since the session was closed for a command.
    None,
}

impl Follower {
    /// What a command line asks for.
    ///
    /// # Errors
    /// If something of that can't be done here.
    pub(super) fn new(line: InboxLine) -> Result<Follower, Failure> {
        let account = target(&line.account)?;
        let label = account.to_string();
        let mut tasks = Vec::new();
        if let Some(command) = line.exec {
            tasks.push(Task::run(&label, command)?);
        }
        if line.notify {
            tasks.push(Task::notify(&label)?);
        }
        if tasks.is_empty() {
            tasks.push(Task::print());
        }
        Ok(Follower {
            account,
            access: line.access,
            goes_on: line.follow,
            only_mounted: line.mounted,
            prints_json: line.json,
            catches_signals: false,
            tasks,
            output: Output::new(),
            report: Report::new(),
            failed: BTreeSet::new(),
            told_failure: String::new(),
        })
    }

    /// Does it, until the inbox has nothing new, or for ever.
    ///
    /// # Errors
    /// If the account can't be reached, or the session ends; if not everything could be done.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let mut kept = None;
        loop {
            let opened = match kept.take() {
                Some(opened) => opened,
                None => match self.open()? {
                    Some(opened) => opened,
                    None => continue,
                },
            };
            let (ear, news) = match self.look(opened) {
                Ok(heard) => heard,
                Err(failure) if self.goes_on && self.only_mounted => {
                    self.tell_once(failure);
                    sleep(RETRY);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if !self.goes_on || !self.output.flush() {
                return self.end(ear);
            }
            match ear {
                Ear::None => {}
                Ear::Session(opened) => match opened.inbox_news(Some(news)) {
                    Ok(_) => kept = Some(opened),
                    Err(failure) => return opened.close(Changes::None).and(Err(failure)),
                },
                // If the mount has ended, the next one is waited for.
                Ear::Mount(mountpoint) => {
                    if mounts::news(&mountpoint, Some(news)).is_err() {
                        sleep(AFTER_A_MOUNT);
                    }
                }
            }
        }
    }

    /// Opens the tree; `None` if nothing of that could be done yet.
    fn open(&mut self) -> Result<Option<Opened>, Failure> {
        if !self.only_mounted {
            let opened = Opened::open(&self.account, self.access.clone())?;
            // A mount that is followed is one that the user has made. Its end does not mean that this
            // command is to take the tree.
            self.only_mounted = opened.mountpoint().is_some();
            let runs_commands = self.tasks.iter().any(Task::runs_commands);
            if !self.only_mounted && runs_commands && !self.catches_signals {
                end_on_signals()?;
                self.catches_signals = true;
            }
            return Ok(Some(opened));
        }
        match Opened::if_mounted(&self.account) {
            Ok(None) if self.goes_on => {
                mounts::await_mount(&self.account.to_string())?;
                Ok(None)
            }
            Ok(None) => {
                let line = format!("{}: it is not mounted on this machine", self.account);
                Err(Failure::new(Exit::NotMounted, line))
            }
            Err(failure) if self.goes_on => {
                self.tell_once(failure);
                sleep(RETRY);
                Ok(None)
            }
            opened => opened,
        }
    }

    /// Does everything for what is there. Returns where the next arrival is heard of, and what was
    /// heard before this look.
    fn look(&mut self, opened: Opened) -> Result<(Ear, u64), Failure> {
        let (news, arrivals) = match self.found(&opened) {
            Ok(found) => found,
            Err(failure) => return opened.close(Changes::None).and(Err(failure)),
        };
        let new = self.new_among(&arrivals);
        let whereabouts = Whereabouts {
            account: opened.label.clone(),
            mountpoint: opened.mountpoint().map(PathBuf::from),
        };
        let runs_commands = !new.is_empty() && self.tasks.iter().any(Task::runs_commands);
        let ear = match &whereabouts.mountpoint {
            None if !runs_commands => Ear::Session(opened),
            None => opened.close(Changes::None).map(|()| Ear::None)?,
            Some(mountpoint) => {
                opened.close(Changes::None).map(|()| Ear::Mount(mountpoint.clone()))?
            }
        };
        for arrival in &new {
            match self.prints_json {
                true => arrival.print_json(&mut self.output),
                false => arrival.print(&mut self.output),
            }
        }
        self.output.flush();
        let mut done = self.tasks.iter_mut().map(|task| {
            task.perform(&new, &whereabouts, &self.report)?;
            task.told.keep_only(&arrivals)
        });
        let failure = done.find_map(Result::err);
        if !new.is_empty() {
            let left = new.iter().filter(|arrival| self.is_new(arrival));
            self.failed = left.map(|arrival| arrival.known()).collect();
        }
        match failure {
            None => Ok((ear, news)),
            Some(failure) => self.end(ear).and(Err(failure)),
        }
    }

    /// What has arrived, in the order in which it was sent. If some of it is new, all of it is on the
    /// server's disk.
    fn found(&self, opened: &Opened) -> Result<(u64, Vec<Arrival>), Failure> {
        let news = opened.inbox_news(None)?;
        let mut arrivals = all(opened);
        arrivals.retain(|arrival| arrival.sent.is_some());
        // Numbers of nodes tell those apart that were sent in the same second.
        arrivals.sort_by_key(|arrival| (arrival.sent.clone(), arrival.meta.inode));
        if !self.new_among(&arrivals).is_empty() {
            opened.tree.sync().map_err(|errno| {
                Failure::new(Exit::Other, format!("{}: {}", opened.label, words(errno)))
            })?;
        }
        Ok((news, arrivals))
    }

    /// Those for which there is something to do: none as long as it could not be done for any of them.
    fn new_among<'a>(&self, arrivals: &'a [Arrival]) -> Vec<&'a Arrival> {
        let new: Vec<&Arrival> = arrivals.iter().filter(|arrival| self.is_new(arrival)).collect();
        match new.iter().all(|arrival| self.failed.contains(&arrival.known())) {
            true => Vec::new(),
            false => new,
        }
    }

    fn is_new(&self, arrival: &Arrival) -> bool {
        self.tasks.iter().any(|task| !task.told.has(arrival))
    }

    fn tell_once(&mut self, failure: Failure) {
        if failure.line != self.told_failure && !failure.line.is_empty() {
            complain(format_args!("xfer: {}", Shown(&failure.line)));
        }
        self.told_failure = failure.line;
    }

    fn end(&mut self, ear: Ear) -> Result<(), Failure> {
        let closed = match ear {
            Ear::Session(opened) => opened.close(Changes::None),
            Ear::Mount(_) | Ear::None => Ok(()),
        };
        let output = std::mem::replace(&mut self.output, Output::new());
        output.end().and(closed).and(self.report.outcome())
    }
}

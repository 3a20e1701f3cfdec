//! One session's work, in rounds: it makes small files and waits until they are durable, reads an
//! older one that its cache has lost, lists, sends a letter and waits for its arrival, reads and
//! removes letters that arrived, and removes its oldest files.
//!
//! A file's content follows from its name, so any reader can check it.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;
use xfer_client::files::Files;
use xfer_protocol::{Errno, Name};

use super::crowd::Crowd;
use super::figures::{Figures, Kind};
use crate::Random;

/// The time limit of an operation.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// The number of files that a session keeps.
const FILES_KEPT: usize = 12;

/// Once this many younger files exist, a file has certainly left the cache.
const FILES_CACHED: usize = 8;

/// One user at work.
pub(super) struct Worker {
    crowd: Arc<Crowd>,
    user: usize,
    tree: Files,
    random: Random,
    /// The names of its files, oldest first.
    files: VecDeque<Name>,
    made: usize,
    pub(super) figures: Figures,
}

impl Worker {
    /// Logs in. On failure returns only figures.
    pub(super) async fn login(
        crowd: Arc<Crowd>,
        user: usize,
        seed: u64,
    ) -> Result<Worker, Figures> {
        let mut figures = Figures::default();
        let begun = async {
            let (client, time) = crowd.login(user).await?;
            figures.note(Kind::Login, time);
            let tree = Files::of(client);
            tree.make_directory(WORK).await.map_err(said)?;
            synced(&tree).await?;
            Ok::<_, String>(tree)
        };
        match begun.await {
            Ok(tree) => {
                let random = Random::new(seed ^ user as u64);
                let (files, made) = (VecDeque::new(), 0);
                Ok(Worker { crowd, user, tree, random, files, made, figures })
            }
            Err(why) => {
                figures.note_failure(Kind::Login, format!("{}: {why}", Crowd::name(user)));
                Err(figures)
            }
        }
    }

    /// The user's number.
    pub(super) fn user(&self) -> usize {
        self.user
    }

    /// Counts a failure if the session is over; returns whether it still runs.
    pub(super) fn check_session(&mut self) -> bool {
        let runs = self.tree.status().trouble().is_none();
        if !runs {
            self.fail(Kind::Login, "the session is over".to_owned());
        }
        runs
    }

    /// Does one round: a few operations of every kind.
    pub(super) async fn round(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            self.create().await;
        }
        self.sync().await;
        if let Some(name) = self.files.front().cloned()
            && self.files.len() > FILES_CACHED
        {
            self.read(&work(&name), &name).await;
        }
        self.list().await;
        if self.crowd.users > 1 {
            self.send().await;
        }
        while let Some((from, name)) = self.crowd.letters.unread(self.user) {
            let letter = arrived(from, &name);
            self.read(&letter, &name).await;
            self.remove(&letter).await;
        }
        while self.files.len() > FILES_KEPT {
            let Some(name) = self.files.pop_front() else { return };
            self.remove(&work(&name)).await;
        }
    }

    /// Logs out and in again, and checks that everything is as before, now without caches.
    pub(super) async fn start_over(&mut self) {
        let again = async {
            self.tree.clone().finish().await.map_err(|lost| lost.to_string())?;
            let (client, time) = self.crowd.login(self.user).await?;
            self.figures.note(Kind::Login, time);
            self.tree = Files::of(client);
            for (from, name) in self.crowd.letters.expected_by(self.user) {
                // It may have arrived while no client was connected to notice it.
                if self.tree.exists(arrived(from, &name)).await.map_err(said)? {
                    self.crowd.letters.note(self.user, name);
                }
            }
            Ok::<_, String>(())
        };
        if let Err(why) = again.await {
            self.fail(Kind::Login, why);
            return;
        }
        self.check_files().await;
    }

    /// Lists and reads all its files.
    pub(super) async fn check_files(&mut self) {
        self.list().await;
        for name in self.files.clone() {
            self.read(&work(&name), &name).await;
        }
    }

    /// Logs out; returns the figures, and the files that must exist from now on.
    pub(super) async fn finish(mut self) -> (Figures, Vec<Name>) {
        if let Err(lost) = self.tree.clone().finish().await {
            self.fail(Kind::Sync, lost.to_string());
        }
        (self.figures, self.files.into())
    }

    /// Like [`Worker::login`], with existing files, which it reads at once.
    pub(super) async fn check(crowd: Arc<Crowd>, user: usize, files: Vec<Name>) -> Figures {
        let mut figures = Figures::default();
        let found = async {
            let (client, time) = crowd.login(user).await?;
            figures.note(Kind::Login, time);
            let tree = Files::of(client);
            match tree.exists(WORK).await.map_err(said)? {
                true => Ok::<_, String>(tree),
                false => Err("its directory is not there".to_owned()),
            }
        };
        match found.await {
            Ok(tree) => {
                let (files, random, made) = (files.into(), Random::new(0), 0);
                let mut worker = Worker { crowd, user, tree, random, files, made, figures };
                worker.check_files().await;
                worker.finish().await.0
            }
            Err(why) => {
                figures.note_failure(Kind::Login, format!("{}: {why}", Crowd::name(user)));
                figures
            }
        }
    }

    async fn create(&mut self) {
        let name = self.new_name("file");
        let data = content(&name);
        let (tree, path) = (self.tree.clone(), work(&name));
        let create = async { write(&tree, &path, &data).await.map_err(said) };
        if self.timed(Kind::Create, create).await.is_some() {
            self.figures.written += data.len() as u64;
            self.files.push_back(name);
        }
    }

    async fn sync(&mut self) {
        let tree = self.tree.clone();
        self.timed(Kind::Sync, async { tree.sync().await.map_err(said) }).await;
    }

    async fn read(&mut self, path: &str, name: &Name) {
        let tree = self.tree.clone();
        let expected = content(name);
        let read = async {
            let data = tree.read(path).await.map_err(said)?;
            if data == expected { Ok(()) } else { Err(format!("{name} is not what was written")) }
        };
        if self.timed(Kind::Read, read).await.is_some() {
            self.figures.read += expected.len() as u64;
        }
    }

    async fn list(&mut self) {
        let tree = self.tree.clone();
        let expected: BTreeSet<Name> = self.files.iter().cloned().collect();
        let list = async {
            let found = tree.list(WORK).await.map_err(said)?.into_iter();
            if found.map(|entry| entry.name).eq(expected) {
                Ok(())
            } else {
                Err("a listing is wrong".to_owned())
            }
        };
        self.timed(Kind::List, list).await;
    }

    /// Sends a letter to another user and waits until it has arrived.
    async fn send(&mut self) {
        let to = (self.user + 1 + self.random.below(self.crowd.users as u64 - 1) as usize)
            % self.crowd.users;
        let name = self.new_name("letter");
        let (tree, data) = (self.tree.clone(), content(&name));
        let path = format!("outbox/{}/{name}", Crowd::name(to));
        let arrival = self.crowd.letters.expect(self.user, to, name.clone());
        let start = Instant::now();
        let sent = async {
            write(&tree, &path, &data).await.map_err(said)?;
            arrival.await.map_err(|_| "nobody knows".to_owned())
        };
        match timeout(OPERATION_MAX, sent).await.unwrap_or_else(|_| Err(too_long())) {
            Ok(arrived) => {
                self.figures.note(Kind::Send, arrived.duration_since(start));
                self.figures.written += data.len() as u64;
            }
            Err(why) => self.fail(Kind::Send, why),
        }
        self.remove(&path).await;
    }

    async fn remove(&mut self, path: &str) {
        let tree = self.tree.clone();
        let remove = async { tree.remove(path).await.map_err(said) };
        self.timed(Kind::Remove, remove).await;
    }

    /// Runs an operation within its time limit; counts its time, or its failure.
    async fn timed<T>(
        &mut self,
        kind: Kind,
        work: impl Future<Output = Result<T, String>>,
    ) -> Option<T> {
        let start = Instant::now();
        match timeout(OPERATION_MAX, work).await.unwrap_or_else(|_| Err(too_long())) {
            Ok(done) => {
                self.figures.note(kind, start.elapsed());
                Some(done)
            }
            Err(why) => {
                self.fail(kind, why);
                None
            }
        }
    }

    fn fail(&mut self, kind: Kind, why: String) {
        let trouble = self.tree.status().trouble().map(ToString::to_string);
        let trouble = trouble.map_or(String::new(), |trouble| format!(" ({trouble})"));
        self.figures.note_failure(kind, format!("{}: {why}{trouble}", Crowd::name(self.user)));
    }

    fn new_name(&mut self, what: &str) -> Name {
        self.made += 1;
        Name::new(format!("{what}-{}-{}", self.user, self.made).as_bytes()).unwrap()
    }
}

/// Waits until everything that a login made is durable.
async fn synced(tree: &Files) -> Result<(), String> {
    let synced = timeout(OPERATION_MAX, tree.sync()).await;
    synced.map_err(|_| too_long())?.map_err(said)
}

/// Writes a file, and removes it again if it can't be written.
async fn write(tree: &Files, path: &str, data: &Bytes) -> Result<(), Errno> {
    let written = tree.write(path, data).await;
    if written.is_err() {
        tree.remove(path).await?;
    }
    written
}

/// The directory that a session works in.
const WORK: &str = "work";

/// The path of a file in it.
fn work(name: &Name) -> String {
    format!("{WORK}/{name}")
}

/// The path of a letter that arrived.
fn arrived(from: usize, name: &Name) -> String {
    format!("inbox/{}/{name}", Crowd::name(from))
}

/// The content of a file of this name: 4 to 16 KiB.
fn content(name: &Name) -> Bytes {
    let mix = |sum: u64, byte: &u8| sum.wrapping_mul(131).wrapping_add(u64::from(*byte));
    let seed = name.as_bytes().iter().fold(0, mix);
    let mut random = Random::new(seed);
    let len = 4096 + random.below(12 << 10) as usize;
    random.bytes(len).into()
}

fn said(errno: Errno) -> String {
    errno.to_string()
}

fn too_long() -> String {
    format!("not within {OPERATION_MAX:?}")
}

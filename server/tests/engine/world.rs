//! An engine over stores in a temporary directory.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use xfer_link::proof::SigningKey;
use xfer_link::receive;
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{Binding, Grant, Opened, Purpose, Refusal, Resume, Return, Terms};
use xfer_protocol::tree::Quota;
use xfer_protocol::{ContentId, Name, SessionId, Timestamp};
use xfer_server::engine::Engine;
use xfer_server::login::authority::Authority;
use xfer_server::login::opening::{Authenticated, Resuming};
use xfer_store::embedded::{self, FileStore, Files, SqliteStore};

use crate::client::{Client, Lost, Reads};

const PIPE_BYTES: usize = 1 << 20;

pub struct World {
    pub meta: Arc<SqliteStore>,
    pub engine: Arc<Engine>,
    dir: TempDir,
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub fn time() -> Timestamp {
    Timestamp::new(1_700_000_000, 5).unwrap()
}

impl World {
    /// A world with the users alice and bob, with room for two items in each inbox.
    pub fn new() -> World {
        World::over(|contents| contents)
    }

    /// The same, with a wrapper around the content store.
    pub fn over(wrap: impl FnOnce(Arc<dyn Files>) -> Arc<dyn Files>) -> World {
        let dir = tempfile::tempdir().unwrap();
        let meta = Arc::new(SqliteStore::open(dir.path()).unwrap());
        for user in ["alice", "bob"] {
            let inbox = Quota { bytes: 1 << 30, nodes: 2 };
            meta.create_account(&name(user), "hash", Quota::UNLIMITED, inbox, time()).unwrap();
        }
        let contents =
            wrap(Arc::new(FileStore::open(dir.path()).unwrap().whole_from(ContentId(0))));
        let engine = Engine::new(embedded::over(meta.clone(), contents), 64 << 20);
        World { meta, engine, dir }
    }

    /// The number of contents on the disk, and the bytes that they take up together.
    pub fn on_disk(&self) -> (u64, u64) {
        let mut waiting = vec![self.dir.path().join("contents")];
        let (mut count, mut bytes) = (0, 0);
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.metadata() {
                    Ok(meta) if meta.is_dir() => waiting.push(path),
                    Ok(meta) => {
                        count += 1;
                        bytes += meta.blocks() * 512;
                    }
                    // The content was removed meanwhile.
                    Err(_) => {}
                }
            }
        }
        (count, bytes)
    }

    /// Whether any file of the store has these bytes.
    pub fn has_on_disk(&self, bytes: &[u8]) -> bool {
        let mut waiting = vec![self.dir.path().to_owned()];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if let Ok(there) = std::fs::read(path)
                && there.windows(bytes.len()).any(|part| part == bytes)
            {
                return true;
            }
        }
        false
    }

    /// The size of the database, in bytes.
    pub fn rows_on_disk(&self) -> u64 {
        let db = rusqlite::Connection::open(self.dir.path().join("xfer.db")).unwrap();
        let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    }

    /// Makes the database refuse every new row of a table whose `column` holds this user.
    pub fn refuse_rows(&self, table: &str, column: &str, user: &str) {
        let account = self.meta.account(&name(user)).unwrap().unwrap().id.0;
        let db = rusqlite::Connection::open(self.dir.path().join("xfer.db")).unwrap();
        db.execute_batch(&format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN NEW.{column} = {account}
             BEGIN SELECT RAISE(ABORT, 'told to'); END"
        ))
        .unwrap();
    }

    /// Opens the stores again, as another process would.
    pub fn reopen(&self) -> (SqliteStore, FileStore) {
        let meta = SqliteStore::open(self.dir.path()).unwrap();
        (meta, FileStore::open(self.dir.path()).unwrap())
    }

    /// The same world with another engine, over stores opened again.
    pub fn over_again(self, engine: Arc<Engine>) -> World {
        World { engine, ..self }
    }

    pub async fn login(&self, user: &str) -> Client {
        self.try_login(user, Purpose::Mount).await.unwrap()
    }

    pub async fn try_login(&self, user: &str, purpose: Purpose) -> Result<Client, Refusal> {
        self.try_login_over(PIPE_BYTES, user, purpose).await
    }

    /// Logs in over a link that buffers so many bytes before they are read.
    pub async fn try_login_over(
        &self,
        pipe_bytes: usize,
        user: &str,
        purpose: Purpose,
    ) -> Result<Client, Refusal> {
        self.try_login_replacing(None, pipe_bytes, user, purpose).await
    }

    /// Logs in on a machine on which the client of this session has crashed.
    pub async fn login_after_crash(&self, user: &str, crashed: SessionId) -> Client {
        let login = self.try_login_replacing(Some(crashed), PIPE_BYTES, user, Purpose::Mount);
        login.await.unwrap()
    }

    async fn try_login_replacing(
        &self,
        replaces: Option<SessionId>,
        pipe_bytes: usize,
        user: &str,
        purpose: Purpose,
    ) -> Result<Client, Refusal> {
        let (ours, theirs) = duplex(pipe_bytes);
        let account = self.meta.account(&name(user)).unwrap().unwrap();
        let key = SigningKey::generate().unwrap();
        let auth = Authenticated {
            account: account.id,
            user: account.name,
            authority: Authority::Password(account.password.unwrap()),
            purpose,
            key: key.public(),
            replaces,
            terms: Terms::default(),
            host: "host".to_owned(),
            address: "address".to_owned(),
        };
        let (reader, writer) = tokio::io::split(theirs);
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.run_session(auth, reader, writer).await });
        let mut ours = ours;
        match receive::<Opened, _>(&mut ours, Bounds::OPEN).await.unwrap().0 {
            Opened::Session(grant) => Ok(Client::new(*grant, ours, key)),
            Opened::Refused(refusal) => Err(refusal),
            other => panic!("a login was answered by {other:?}"),
        }
    }

    /// Resumes a session over a new link.
    pub async fn resume(&self, lost: Lost) -> Client {
        let request = lost.request();
        let (grant, stream) = self.try_resume(request, lost.binding).await.unwrap();
        lost.with_link(grant, stream)
    }

    /// Makes a request to resume a session, over a connection with this binding.
    pub async fn try_resume(
        &self,
        request: Resume,
        binding: Binding,
    ) -> Result<(Grant, DuplexStream), Refusal> {
        match self.ask_to_resume(request, binding).await? {
            (Opened::Resumed(grant), ours) => Ok((*grant, ours)),
            (Opened::Refused(refusal), _) => Err(refusal),
            (opened, _) => panic!("a resume was answered by {opened:?}"),
        }
    }

    /// Makes a request to resume a session whose tree others have changed.
    pub async fn try_return(
        &self,
        request: Resume,
        binding: Binding,
    ) -> Result<(Return, DuplexStream), Refusal> {
        match self.ask_to_resume(request, binding).await? {
            (Opened::Returned(back), ours) => Ok((*back, ours)),
            (Opened::Refused(refusal), _) => Err(refusal),
            (opened, _) => panic!("a return was answered by {opened:?}"),
        }
    }

    async fn ask_to_resume(
        &self,
        request: Resume,
        binding: Binding,
    ) -> Result<(Opened, DuplexStream), Refusal> {
        let (mut ours, theirs) = duplex(PIPE_BYTES);
        let user = name(&request.user);
        let address = "another address".to_owned();
        let proved = self.engine.prove(Resuming { user, request, binding, address }).await?;
        let (reader, writer) = tokio::io::split(theirs);
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.run_resumed(proved, reader, writer).await });
        let opened = receive::<Opened, _>(&mut ours, Bounds::OPEN).await.unwrap().0;
        Ok((opened, ours))
    }

    /// Waits until the session of a user has left the server's memory.
    pub async fn until_away(&self, user: &str) {
        let is_away = || {
            let sessions = self.engine.sessions();
            sessions.iter().any(|one| one.user == name(user) && one.away.is_some())
        };
        while !is_away() {
            tokio::task::yield_now().await;
        }
    }

    /// Logs in, though the seat of a client that is away may still stand.
    pub async fn take(&self, user: &str) -> Client {
        self.try_login(user, Purpose::TakeOver).await.unwrap()
    }

    pub async fn reads(&self, grant: &Grant) -> Reads {
        let (mut ours, theirs) = duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(theirs);
        let (engine, session, secret) = (self.engine.clone(), grant.session, grant.secret.clone());
        tokio::spawn(async move { engine.run_reads(session, secret, reader, writer).await });
        let (opened, _) = receive::<Opened, _>(&mut ours, Bounds::OPEN).await.unwrap();
        assert_eq!(opened, Opened::Attached);
        Reads::new(ours)
    }
}

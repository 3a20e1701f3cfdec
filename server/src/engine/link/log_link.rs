//! A log link: passes the client's messages to the session, and writes the messages from the queues
//! that the session lent it.
//!
//! The end of a link is not the end of its session: the link reports why it ended, and the driver
//! decides. A link sees only the parts of the session in [`Lent`].

use std::future::pending;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use xfer_link::patience::{Heard, Patient, is_silence};
use xfer_link::{LinkError, receive_body, receive_header, send};
use xfer_protocol::frame::Bounds;
use xfer_protocol::message::{ToClient, ToServer};

use crate::engine::session::Session;
use crate::engine::session::counters::add;
use crate::engine::session::lending::{FromLink, Lent, LinkEnd, LinkOrders, Loss, SentOps};
use crate::engine::session::queues::Queues;

/// The most bytes of frames in flight: being read, waiting, or being applied.
const FRAME_BYTES_MAX: usize = 24 << 20;

// The largest frame fits.
const _: () = assert!(Bounds::OPEN.message_max + Bounds::OPEN.payload_max <= FRAME_BYTES_MAX);

/// Whether a client waits for something: it has sent bytes since the last message to it, or frames
/// of it are being read or applied.
struct Activity<'a> {
    heard: Heard,
    /// The arrivals before the last message to it.
    seen: u64,
    room: &'a Semaphore,
    upward: &'a mpsc::Sender<FromLink>,
}

impl Activity<'_> {
    fn is_idle(&self) -> bool {
        self.heard.count() == self.seen
            && self.room.available_permits() == FRAME_BYTES_MAX
            && self.upward.capacity() == self.upward.max_capacity()
    }

    fn note_message(&mut self) {
        self.seen = self.heard.count();
    }
}

/// Serves a link until it breaks or its session ends it.
pub(crate) async fn serve<R, W>(lent: Lent, reader: Patient<R>, writer: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Lent { session, mut queues, upward, mut orders, ended } = lent;
    let heartbeat = session.seat.terms.silence.heartbeat();
    let written = {
        let room = Arc::new(Semaphore::new(FRAME_BYTES_MAX));
        let activity = Activity { heard: reader.heard(), seen: 0, room: &room, upward: &upward };
        let writing = write_messages(writer, &mut queues, orders.clone(), (activity, heartbeat));
        // When no more can be read, messages that wait are still written.
        let hearing = async {
            hear(&session, reader, &upward, &room).await;
            pending().await
        };
        tokio::select! {
            biased;
            written = writing => written,
            () = hearing => Ok(()),
            () = orders.close() => Ok(()),
        }
    };
    if let Err(error) = written {
        // Sending fails only if the session has ended the link, and then it need not know.
        let end = LinkEnd::Lost(Loss::Broken(error.to_string()));
        let _ = upward.send(FromLink::Ended(end)).await;
    }
    drop(ended);
}

/// Passes the client's messages to the session, and at last the reason why there are no more. If
/// frames come faster than they are applied, this waits, and so does the client.
async fn hear<R: AsyncRead + Unpin>(
    session: &Session,
    mut reader: R,
    upward: &mpsc::Sender<FromLink>,
    room: &Arc<Semaphore>,
) {
    loop {
        let heard = match read_frame(&mut reader, room).await {
            Ok(heard) => {
                add(&session.counters().frames, 1);
                session.seat.note_heard();
                heard
            }
            Err(error) => FromLink::Ended(end_of(error)),
        };
        let ended = matches!(heard, FromLink::Ended(_));
        if upward.send(heard).await.is_err() || ended {
            return;
        }
    }
}

async fn read_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    room: &Arc<Semaphore>,
) -> Result<FromLink, LinkError> {
    let header = receive_header(reader, Bounds::OPEN).await?;
    // The bounds keep this far below the greatest possible number of permits.
    let bytes = (header.message_len + header.payload_len) as u32;
    let held = room.clone().acquire_many_owned(bytes).await.map_err(std::io::Error::other)?;
    let (message, payload) = receive_body(header, reader, Bounds::OPEN).await?;
    Ok(match message {
        ToServer::Ops { first, ops } => FromLink::Ops(SentOps { first, ops, payload, held }),
        ToServer::Barrier { upto } => FromLink::Barrier(upto),
        ToServer::Ping { limit } => FromLink::Ping(limit),
        ToServer::Room { wanted } => FromLink::Room(wanted),
        ToServer::MoreIds => FromLink::MoreIds,
        ToServer::Logout => FromLink::Ended(LinkEnd::LoggedOut),
        ToServer::Yield => FromLink::Ended(LinkEnd::Yielded),
    })
}

fn end_of(error: LinkError) -> LinkEnd {
    match error {
        LinkError::Io(error) if is_silence(&error) => LinkEnd::Lost(Loss::Silent),
        LinkError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            LinkEnd::Lost(Loss::Closed)
        }
        LinkError::Io(error) => LinkEnd::Lost(Loss::Broken(error.to_string())),
        error @ (LinkError::Frame(_) | LinkError::Codec(_)) => LinkEnd::Protocol(error.to_string()),
    }
}

/// Writes messages until the last words are written or the link breaks. News is written only when
/// no other message waits. A client that waits for something gets a heartbeat at intervals, since the
/// driver may be busy for long.
async fn write_messages<W: AsyncWrite + Unpin>(
    mut writer: W,
    queues: &mut Queues,
    mut orders: LinkOrders,
    (mut activity, heartbeat): (Activity<'_>, Duration),
) -> Result<(), LinkError> {
    loop {
        let next = async {
            tokio::select! {
                biased;
                Some(message) = queues.outgoing.recv() => Next::Say(message),
                words = orders.farewell() => Next::Farewell(words),
                Some(message) = queues.told_news.recv() => Next::Say(message),
                else => pending().await,
            }
        };
        match tokio::time::timeout(heartbeat, next).await {
            Ok(Next::Say(message)) => say(&mut writer, &message).await?,
            Ok(Next::Farewell(words)) => {
                for word in &words {
                    say(&mut writer, word).await?;
                }
                writer.shutdown().await?;
                return Ok(());
            }
            Err(_) if activity.is_idle() => continue,
            Err(_) => say(&mut writer, &ToClient::Pong).await?,
        }
        activity.note_message();
    }
}

/// The next thing that a link writes.
enum Next {
    Say(ToClient),
    Farewell(Vec<ToClient>),
}

async fn say<W: AsyncWrite + Unpin>(writer: &mut W, message: &ToClient) -> Result<(), LinkError> {
    send(writer, message, &[], Bounds::OPEN).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex, split};
    use tokio::task::JoinHandle;
    use xfer_link::receive;
    use xfer_protocol::message::{EndReason, PublicKey, Purpose, Terms};
    use xfer_protocol::{IdRange, Name};
    use xfer_store::AccountId;

    use crate::engine::link::answer_room::AnswerRoom;
    use crate::engine::seats::seat::Seat;
    use crate::engine::session::Ends;
    use crate::engine::session::lending::{Loan, lend};
    use crate::login::authority::Authority;
    use crate::login::opening::Authenticated;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The number of messages that the session sends.
    const MESSAGES: u64 = 100;

    fn session() -> (Arc<Session>, Ends) {
        let auth = Authenticated {
            account: AccountId(1),
            user: Name::new(b"alice").unwrap(),
            authority: Authority::Password("hash".to_owned()),
            purpose: Purpose::Mount,
            key: PublicKey::default(),
            replaces: None,
            terms: Terms::default(),
            host: "host".to_owned(),
            address: "address".to_owned(),
        };
        let answers = Arc::new(AnswerRoom::default()).share();
        let (session, ends) = Session::new(Seat::new(&auth).unwrap(), Arc::default(), answers);
        (Arc::new(session), ends)
    }

    fn message(n: u64) -> ToClient {
        ToClient::Ids(IdRange { first: n, end: n + 1 })
    }

    /// A link that buffers so many bytes before its client reads any.
    fn link(
        session: &Arc<Session>,
        queues: Queues,
        bytes: usize,
    ) -> (Loan, DuplexStream, JoinHandle<()>) {
        let (lent, loan) = lend(session.clone(), queues);
        let (ours, theirs) = duplex(bytes);
        let (reader, writer) = split(ours);
        let reader = Patient::new(reader, PATIENCE);
        (loan, theirs, tokio::spawn(serve(lent, reader, writer)))
    }

    async fn next(client: &mut DuplexStream) -> ToClient {
        receive(client, Bounds::OPEN).await.unwrap().0
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_words_come_after_all_that_waits_though_nothing_is_heard_any_more() {
        let (session, ends) = session();
        let (mut loan, mut client, serving) = link(&session, ends.queues, 1 << 16);
        send(&mut client, &ToServer::Logout, &[], Bounds::OPEN).await.unwrap();
        assert!(matches!(loan.hear().await, FromLink::Ended(LinkEnd::LoggedOut)));
        (0..MESSAGES).for_each(|n| session.tell(message(n)));
        let ended = ToClient::Ended(EndReason::LoggedOut);
        loan.call_in(vec![ended.clone()], PATIENCE).await;
        serving.await.unwrap();
        for n in 0..MESSAGES {
            assert_eq!(next(&mut client).await, message(n));
        }
        assert_eq!(next(&mut client).await, ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_does_not_keep_the_queues() {
        let (session, ends) = session();
        (0..MESSAGES).for_each(|n| session.tell(message(n)));
        let (loan, client, serving) = link(&session, ends.queues, 64);
        let start = tokio::time::Instant::now();
        let words = vec![ToClient::Ended(EndReason::Stopping)];
        loan.call_in(words, PATIENCE).await;
        assert_eq!(start.elapsed(), PATIENCE);
        serving.await.unwrap();
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_ends_with_its_session() {
        let (session, ends) = session();
        let (loan, _client, serving) = link(&session, ends.queues, 64);
        drop(loan);
        serving.await.unwrap();
    }
}

//! One connection, for both programs: sends and receives frames. [`patience`] bounds a peer's silence;
//! [`proof`] ties a connection to a session; [`watch`] is a value that the tasks around a connection
//! watch.
//!
//! Generic over the stream, so that tests can run two peers over a pipe in memory. The protocol
//! crate defines frames and messages; it does no I/O and knows no runtime.

pub mod patience;
pub mod proof;
pub mod watch;

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use xfer_protocol::codec::{self, CodecError};
use xfer_protocol::frame::{Bounds, FrameError, HEADER_BYTES, Header};
use zeroize::Zeroize;

/// A message up to this length is copied so that it is sent together with its header.
const COPIED_MAX: usize = 4 << 10;

/// Why a link failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection broke or was closed.
    #[error("connection: {}", plain(.0))]
    Io(#[from] std::io::Error),
    /// The peer exceeded a bound on frames.
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
    /// The peer sent an invalid message.
    #[error("{0}")]
    Codec(#[from] CodecError),
}

impl LinkError {
    /// Whether the peer is merely gone, not at fault.
    pub fn is_end(&self) -> bool {
        match self {
            LinkError::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ),
            LinkError::Frame(_) | LinkError::Codec(_) => false,
        }
    }
}

/// What an error of a connection says. The text of TLS's library for one that was closed is for
/// programmers.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the other side closed it".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads one frame.
///
/// Not cancel-safe: dropping the future loses a partly read frame.
///
/// # Errors
/// If the connection ends, or the data is not a frame within `bounds`.
pub async fn receive<T, R>(reader: &mut R, bounds: Bounds) -> Result<(T, Bytes), LinkError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let header = receive_header(reader, bounds).await?;
    receive_body(header, reader, bounds).await
}

/// Reads a frame's header and checks it against `bounds`. [`receive_body`] reads the rest.
///
/// # Errors
/// As [`receive`].
pub async fn receive_header<R: AsyncRead + Unpin>(
    reader: &mut R,
    bounds: Bounds,
) -> Result<Header, LinkError> {
    let mut header = [0; HEADER_BYTES];
    reader.read_exact(&mut header).await?;
    Ok(Header::parse(header, bounds)?)
}

/// Like [`receive`], for a frame whose first byte has already been read.
///
/// # Errors
/// As [`receive`].
pub async fn receive_after<T, R>(
    first: u8,
    reader: &mut R,
    bounds: Bounds,
) -> Result<(T, Bytes), LinkError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut header = [first; HEADER_BYTES];
    reader.read_exact(&mut header[1..]).await?;
    receive_body(Header::parse(header, bounds)?, reader, bounds).await
}

/// Reads the rest of a frame, after its header.
///
/// # Errors
/// As [`receive`].
pub async fn receive_body<T, R>(
    header: Header,
    reader: &mut R,
    bounds: Bounds,
) -> Result<(T, Bytes), LinkError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut message = read_vec(reader, header.message_len).await?;
    let payload = read_vec(reader, header.payload_len).await?;
    let decoded = codec::decode(&message);
    if bounds == Bounds::OPENING {
        // The buffer may have held a password or a session's secret.
        message.zeroize();
    }
    Ok((decoded?, payload.into()))
}

/// Writes one frame and flushes it.
///
/// # Errors
/// If the connection is broken, or the frame exceeds `bounds`.
pub async fn send<T, W>(
    writer: &mut W,
    message: &T,
    payload: &[u8],
    bounds: Bounds,
) -> Result<(), LinkError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    send_parts(writer, message, &[payload], bounds).await
}

/// Writes one frame whose payload is in parts, and flushes it.
///
/// # Errors
/// If the connection is broken, or the frame exceeds `bounds`.
pub async fn send_parts<T, W, P>(
    writer: &mut W,
    message: &T,
    payload: &[P],
    bounds: Bounds,
) -> Result<(), LinkError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
    P: AsRef<[u8]>,
{
    send_encoded(writer, &codec::encode(message)?, payload, bounds).await
}

/// Like [`send_parts`], for a message that is already encoded.
///
/// # Errors
/// As [`send`].
pub async fn send_encoded<W, P>(
    writer: &mut W,
    message: &[u8],
    payload: &[P],
    bounds: Bounds,
) -> Result<(), LinkError>
where
    W: AsyncWrite + Unpin,
    P: AsRef<[u8]>,
{
    let payload_len = payload.iter().map(|part| part.as_ref().len()).sum();
    let header = Header { message_len: message.len(), payload_len };
    let header = header.encode(bounds)?;
    if message.len() > COPIED_MAX {
        writer.write_all(&header).await?;
        writer.write_all(message).await?;
    } else {
        // In one write, and so in one TLS record.
        writer.write_all(&[&header, message].concat()).await?;
    }
    for part in payload.iter().filter(|part| !part.as_ref().is_empty()) {
        writer.write_all(part.as_ref()).await?;
    }
    writer.flush().await?;
    Ok(())
}

/// The buffer grows as bytes arrive, so that a declared length alone allocates little.
async fn read_vec<R: AsyncRead + Unpin>(reader: &mut R, len: usize) -> std::io::Result<Vec<u8>> {
    const FIRST_BYTES: usize = 1 << 20;
    let mut bytes = Vec::with_capacity(len.min(FIRST_BYTES));
    reader.take(len as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < len {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

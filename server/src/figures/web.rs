//! The pages for machines that watch the server: `/metrics`, `/health` and `/ready`, over plain HTTP.
//!
//! Nothing asks who reads them, so by default they are off, and an address that other machines can reach
//! must be named as such ([`Place::Public`]).
//!
//! **Invariant:** whatever comes over these connections takes a bounded amount of memory and time: there
//! are [`PLACES`](crate::listener::half_open::PLACES) at most, each for one small request that is
//! answered within [`DEADLINE`]. They share nothing with those of clients.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Source, metrics};
use crate::listener::half_open::HalfOpen;
use crate::listener::{bind, pause_after};
use crate::login::source;

/// The longest time for a connection: to send its request, and to take the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long `/health` waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// The most that is read of a request, in bytes; the least that hyper takes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Where the pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere.
    Off,
    /// At an address that only this machine reaches.
    Loopback(SocketAddr),
    /// At an address that others reach, which was meant.
    Public(SocketAddr),
}

/// What is not the place of pages.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPlace {
    /// It is not written like one.
    #[error("give an address like 127.0.0.1:33001, public:ADDR:PORT, or off")]
    NotOne,
    /// Others reach it, and it does not say that this is meant.
    #[error(
        "other machines can reach {0}, and anybody could read the metrics; say public:{0} if that is meant"
    )]
    Exposed(SocketAddr),
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Place, BadPlace> {
        let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| BadPlace::NotOne);
        match (text, text.strip_prefix("public:")) {
            ("off", _) => Ok(Place::Off),
            (_, Some(text)) => Ok(Place::Public(address(text)?)),
            (text, None) => match address(text)? {
                address if address.ip().to_canonical().is_loopback() => {
                    Ok(Place::Loopback(address))
                }
                address => Err(BadPlace::Exposed(address)),
            },
        }
    }
}

/// How far a server is.
#[derive(Clone)]
pub enum Stage {
    /// It opens its store and its port.
    Starting,
    /// Clients can log in.
    Serving(Arc<Source>),
    /// It makes everything durable and ends.
    Stopping(Arc<Source>),
}

/// The pages of a server.
pub struct Web {
    port: TcpListener,
    stage: watch::Receiver<Stage>,
}

impl Web {
    /// Takes the address.
    ///
    /// # Errors
    /// If it is in use, does not belong to this host, or is not permitted.
    pub fn bind(address: SocketAddr, stage: watch::Receiver<Stage>) -> io::Result<Web> {
        let port = bind(address)?;
        tracing::info!(address = %port.local_addr()?, "metrics can be read");
        Ok(Web { port, stage })
    }

    /// Answers requests until it is dropped.
    pub async fn serve(self) {
        let places = Arc::<HalfOpen>::default();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.port.accept() => match accepted {
                    Ok((tcp, peer)) => {
                        let mut place = places.enter(source::Source::of(peer.ip()));
                        let stage = self.stage.clone();
                        connections.spawn(async move {
                            // Neither end of a connection matters to anybody but its client.
                            let _ = place.keep(timeout(DEADLINE, connection(tcp, stage))).await;
                        });
                    }
                    Err(error) => pause_after(error).await,
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a page's task failed");
                    }
                }
            }
        }
    }
}

async fn connection(tcp: TcpStream, stage: watch::Receiver<Stage>) {
    // One who has sent all of a request may close that half, as `nc -N` does.
    let answered = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(
            TokioIo::new(tcp),
            service_fn(|request| {
                let stage = stage.borrow().clone();
                async move { Ok::<_, Infallible>(page(&request, stage).await) }
            }),
        );
    if let Err(error) = answered.await {
        tracing::debug!(%error, "a request for a page failed");
    }
}

async fn page(request: &Request<Incoming>, stage: Stage) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut page = answer(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return page;
    }
    match request.uri().path() {
        "/metrics" => figures(stage).await,
        "/health" => health(stage).await,
        "/ready" => match stage {
            Stage::Starting => unavailable("the server is starting"),
            Stage::Serving(_) => answer(StatusCode::OK, "clients can log in"),
            Stage::Stopping(_) => unavailable("the server is stopping"),
        },
        _ => answer(StatusCode::NOT_FOUND, "there are /metrics, /health and /ready"),
    }
}

async fn figures(stage: Stage) -> Response<String> {
    let source = match stage {
        Stage::Starting => return unavailable("the server is starting"),
        Stage::Serving(source) | Stage::Stopping(source) => source,
    };
    match metrics::text(source.read().await.0) {
        Ok(text) => {
            let mut page = Response::new(text);
            let of = HeaderValue::from_static(metrics::CONTENT_TYPE);
            page.headers_mut().insert(CONTENT_TYPE, of);
            page
        }
        Err(fmt::Error) => {
            answer(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
        }
    }
}

/// Whether the store is there. A server that is stopping is well as long as it is.
async fn health(stage: Stage) -> Response<String> {
    let source = match stage {
        Stage::Starting => return unavailable("the server is starting"),
        Stage::Serving(source) | Stage::Stopping(source) => source,
    };
    match timeout(STORE_PATIENCE, source.check_store()).await {
        Ok(Ok(())) => answer(StatusCode::OK, "the store is there"),
        // As much as clients may know.
        Ok(Err(error)) => unavailable(&error.told()),
        Err(_) => unavailable("the store does not answer"),
    }
}

fn unavailable(why: &str) -> Response<String> {
    answer(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn answer(status: StatusCode, line: &str) -> Response<String> {
    let mut page = Response::new(format!("{line}\n"));
    *page.status_mut() = status;
    let of = HeaderValue::from_static("text/plain; charset=utf-8");
    page.headers_mut().insert(CONTENT_TYPE, of);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Place, &str>) {
        let found = text.parse::<Place>().map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn an_address_that_others_reach_must_be_named_as_such() {
        let address = |text: &str| text.parse().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
        check("off", Ok(Place::Off));
        for text in ["127.0.0.1:33001", "127.9.9.9:1", "[::1]:33001", "[::ffff:127.0.0.1]:1"] {
            check(text, Ok(Place::Loopback(address(text))));
        }
        for text in ["0.0.0.0:33001", "[::]:33001", "192.0.2.1:33001"] {
            let line = format!(
                "other machines can reach {text}, and anybody could read the metrics; say public:{text} \
                 if that is meant"
            );
            check(text, Err(&line));
            check(&format!("public:{text}"), Ok(Place::Public(address(text))));
        }
        for text in ["", "on", "33001", "localhost:33001", "public:", "public:off"] {
            check(text, Err("give an address like 127.0.0.1:33001, public:ADDR:PORT, or off"));
        }
    }
}

//! A relay between client and server that counts bytes, and can hold back answers or changes.
//!
//! It sees TLS and not messages: only the number of bytes in each direction. That suffices to show
//! that a client does not wait for answers, or that a copy moves no data.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, socket_linger};

use crate::waiting::{PATIENCE, wait_until};

/// The time that a call gets to return too early.
const LONG_ENOUGH_TO_RETURN: Duration = Duration::from_millis(500);

/// A relay that runs until the test ends.
pub struct Relay {
    /// The address that clients connect to.
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

/// The bytes that passed, by direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
}

#[derive(Default)]
struct Wire {
    up: AtomicU64,
    down: AtomicU64,
    /// Bytes from the server that are held back.
    held: AtomicU64,
    cut: AtomicBool,
    holding: Mutex<Holding>,
    released: Condvar,
    /// Both ends of each connection.
    connections: Mutex<Vec<Weak<TcpStream>>>,
    /// Where the next connection is reset.
    next_cut: Mutex<Option<Cut>>,
}

/// A place in a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Whether it is on the way to the server, or to the client.
    pub to_server: bool,
    /// The number of bytes before it.
    pub after: u64,
}

/// The kinds of bytes to hold back.
#[derive(Default)]
struct Holding {
    /// Everything from the server.
    answers: bool,
    /// Everything from the client on the first connection, which is the log link.
    changes: bool,
}

impl Relay {
    /// Starts a relay to a server.
    pub fn to(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Arc::new(Wire::default());
        let theirs = wire.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                theirs.connect(client, server);
            }
        });
        Relay { address, wire }
    }

    /// The bytes that have passed so far.
    pub fn passed(&self) -> Passed {
        Passed {
            up: self.wire.up.load(Ordering::SeqCst),
            down: self.wire.down.load(Ordering::SeqCst),
        }
    }

    /// Holds back everything from the server from now on.
    pub fn hold_answers(&self) {
        self.wire.holding.lock().unwrap().answers = true;
    }

    /// Holds back the first session's changes and heartbeats from now on; its questions pass and
    /// are answered. Must not last longer than the server tolerates the silence.
    pub fn hold_changes(&self) {
        self.wire.holding.lock().unwrap().changes = true;
    }

    /// Releases the changes that are held back, but no answers.
    pub fn release_changes(&self) {
        self.wire.holding.lock().unwrap().changes = false;
        self.wire.released.notify_all();
    }

    /// The number of bytes from the server that are held back.
    pub fn held(&self) -> u64 {
        self.wire.held.load(Ordering::SeqCst)
    }

    /// Runs `act` while answers are held back, releases them once there are some, and returns the
    /// result of `act`.
    ///
    /// # Panics
    /// If `act` returns before the release, or not at all.
    pub fn answers_are_waited_for<T: Send + 'static>(
        &self,
        what: &str,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.hold_answers();
        let (sender, receiver) = channel();
        std::thread::spawn(move || drop(sender.send(act())));
        wait_until("the server's answer", PATIENCE, || self.held() > 0);
        let early = receiver.recv_timeout(LONG_ENOUGH_TO_RETURN);
        assert!(early.is_err(), "{what} returned before the server's answer arrived");
        self.release();
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} hangs"))
    }

    /// Releases everything held back.
    pub fn release(&self) {
        *self.wire.holding.lock().unwrap() = Holding::default();
        self.wire.released.notify_all();
    }

    /// Resets all connections, and the next one at this place.
    pub fn reset(&self, next: Cut) {
        *self.wire.next_cut.lock().unwrap() = Some(next);
        self.wire.end_all(reset);
        self.release();
    }

    /// Resets no connection that begins from now on.
    pub fn spare_next(&self) {
        *self.wire.next_cut.lock().unwrap() = None;
    }

    /// Whether the connection has begun that [`Relay::reset`] resets.
    pub fn has_reset_next(&self) -> bool {
        self.wire.next_cut.lock().unwrap().is_none()
    }

    /// Breaks all connections, present and future, until it is mended.
    pub fn cut(&self) {
        self.wire.cut.store(true, Ordering::SeqCst);
        self.break_connections();
    }

    /// Lets new connections be made again.
    pub fn mend(&self) {
        self.wire.cut.store(false, Ordering::SeqCst);
    }

    /// Breaks all connections. New ones can be made.
    pub fn break_connections(&self) {
        self.wire.end_all(|connection| drop(connection.shutdown(Shutdown::Both)));
        self.release();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
    }
}

impl Wire {
    fn end_all(&self, end: impl Fn(&TcpStream)) {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.iter().filter_map(Weak::upgrade).for_each(|connection| end(&connection));
    }

    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (client, server) = (Arc::new(client), Arc::new(server));
        let (client_too, server_too) = (client.clone(), server.clone());
        let mut connections = self.connections.lock().unwrap();
        let is_first = connections.is_empty();
        connections.extend([&client, &server].map(Arc::downgrade));
        let (up, down) = (self.clone(), self.clone());
        let cut = self.next_cut.lock().unwrap().take();
        let up_to = |to_server| cut.filter(|cut| cut.to_server == to_server).map(|cut| cut.after);
        let (up_max, down_max) = (up_to(true), up_to(false));
        std::thread::spawn(move || {
            pass(&client, &server, up_max, |len| {
                if is_first {
                    up.wait_while(|holding| holding.changes);
                }
                up.up.fetch_add(len, Ordering::SeqCst);
            });
        });
        std::thread::spawn(move || {
            pass(&server_too, &client_too, down_max, |len| {
                down.held.fetch_add(len, Ordering::SeqCst);
                down.wait_while(|holding| holding.answers);
                down.held.fetch_sub(len, Ordering::SeqCst);
                down.down.fetch_add(len, Ordering::SeqCst);
            });
        });
    }

    fn wait_while(&self, is_held: impl Fn(&Holding) -> bool) {
        let holding = self.holding.lock().unwrap();
        drop(self.released.wait_while(holding, |holding| is_held(holding)).unwrap());
    }
}

/// Has the other side see a reset, and not an end, once nothing here uses the connection any more.
fn reset(connection: &TcpStream) {
    let _ = set_socket_linger(connection, Some(Duration::ZERO));
    let _ = connection.shutdown(Shutdown::Read);
}

/// Forwards bytes until either end closes; calls `before` with their number before each write. Both
/// ends are reset after `max` bytes, if there is a maximum.
fn pass(mut from: &TcpStream, mut to: &TcpStream, max: Option<u64>, before: impl Fn(u64)) {
    let (mut buffer, mut left) = (vec![0; 64 << 10], max.unwrap_or(u64::MAX));
    while left > 0
        && let Ok(len @ 1..) = from.read(&mut buffer)
    {
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        before(len as u64);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
        left -= len as u64;
    }
    if left == 0 {
        reset(from);
        reset(to);
    }
    for end in [from, to] {
        // An end would come before the reset.
        if !matches!(socket_linger(end), Ok(Some(Duration::ZERO))) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

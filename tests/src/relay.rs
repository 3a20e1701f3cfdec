//! A wire between client and server that counts what passes, and can hold answers or changes back.
//!
//! It sees TLS, not messages: how many bytes go each way, and which way. That is enough to show
//! that a client does not wait for answers, or that a copy moves no data.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::waiting::{PATIENCE, wait_until};

/// How long a call is given to return although it must not.
const LONG_ENOUGH_TO_RETURN: Duration = Duration::from_millis(500);

/// A relay that runs until the test ends.
pub struct Relay {
    /// Where clients connect.
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

/// Bytes that passed, by direction.
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
    /// Bytes from the server that wait to be passed on.
    held: AtomicU64,
    cut: AtomicBool,
    holding: Mutex<Holding>,
    released: Condvar,
    connections: Mutex<Vec<TcpStream>>,
}

/// What does not pass.
#[derive(Default)]
struct Holding {
    /// What the server says.
    answers: bool,
    /// What comes up the first connection, which is the log link.
    changes: bool,
}

impl Relay {
    /// A relay to a server.
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

    /// What has passed so far.
    pub fn passed(&self) -> Passed {
        Passed {
            up: self.wire.up.load(Ordering::SeqCst),
            down: self.wire.down.load(Ordering::SeqCst),
        }
    }

    /// From now on nothing that the server says arrives.
    pub fn hold_answers(&self) {
        self.wire.holding.lock().unwrap().answers = true;
    }

    /// From now on no change of the first session's reaches the server, nor any sign of life: its
    /// questions do, and are answered. Not for longer than the server waits for a sign of life.
    pub fn hold_changes(&self) {
        self.wire.holding.lock().unwrap().changes = true;
    }

    /// How many bytes the server has said that are held back.
    pub fn held(&self) -> u64 {
        self.wire.held.load(Ordering::SeqCst)
    }

    /// Runs `act` while no answer arrives, lets the answers pass once there are some, and gives what
    /// `act` returns.
    ///
    /// # Panics
    /// If `act` returns before they pass, or not at all.
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

    /// Lets everything that was held pass.
    pub fn release(&self) {
        *self.wire.holding.lock().unwrap() = Holding::default();
        self.wire.released.notify_all();
    }

    /// Breaks all connections, and those to come.
    pub fn cut(&self) {
        self.wire.cut.store(true, Ordering::SeqCst);
        for connection in self.wire.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.release();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.release();
    }
}

impl Wire {
    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        if self.cut.load(Ordering::SeqCst) {
            return;
        }
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let ends = [&client, &server].map(|end| end.try_clone().unwrap());
        let [client_too, server_too] = ends;
        let mut connections = self.connections.lock().unwrap();
        let is_first = connections.is_empty();
        connections.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (up, down) = (self.clone(), self.clone());
        std::thread::spawn(move || {
            pass(client, server, |len| {
                if is_first {
                    up.wait_while(|holding| holding.changes);
                }
                up.up.fetch_add(len, Ordering::SeqCst);
            });
        });
        std::thread::spawn(move || {
            pass(server_too, client_too, |len| {
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

/// Passes bytes on until either end is closed; `before` is told how many, before they go.
fn pass(mut from: TcpStream, mut to: TcpStream, before: impl Fn(u64)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        before(len as u64);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

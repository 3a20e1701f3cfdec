//! A name server for a machine of a network: each host's name leads to the same addresses, which can
//! change.
//!
//! It stands where the machine's resolver asks, so `/etc/nsswitch.conf` must have names looked up by
//! DNS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Namespace;
use crate::PATIENCE;
use crate::run_within;

/// How often a server that is asked nothing looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// The length of a message's header.
const HEADER_BYTES: usize = 12;

/// The type of a question for IPv4 addresses.
const TYPE_A: u16 = 1;

/// A name server, which runs until it is dropped.
pub struct Names(Arc<Mutex<Vec<Ipv4Addr>>>);

impl Names {
    /// Starts one that only this machine can ask.
    pub fn serve(machine: &Namespace, addresses: &[Ipv4Addr]) -> Names {
        let names = Names(Arc::new(Mutex::new(addresses.to_vec())));
        for server in resolvers() {
            let socket = machine.run(|| {
                let _ = add_to_loopback(server);
                UdpSocket::bind((server, 53)).unwrap()
            });
            socket.set_read_timeout(Some(LOOK)).unwrap();
            let there = Arc::downgrade(&names.0);
            std::thread::spawn(move || {
                while let Some(addresses) = there.upgrade() {
                    serve_once(&socket, &addresses);
                }
            });
        }
        names
    }

    /// Has names lead to these addresses from now on.
    pub fn lead_to(&self, addresses: &[Ipv4Addr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }
}

/// The servers that resolvers ask (resolv.conf(5)).
fn resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver"));
    let found: Vec<IpAddr> = servers.filter_map(|server| server.trim().parse().ok()).collect();
    if found.is_empty() { vec![IpAddr::from(Ipv4Addr::LOCALHOST)] } else { found }
}

/// Gives the loopback device an address, unless it has it.
fn add_to_loopback(address: IpAddr) -> crate::Finished {
    let address = address.to_string();
    let mut ip = Command::new("ip");
    run_within(ip.args(["address", "add", &address, "dev", "lo", "nodad"]), PATIENCE)
}

/// Answers the next question, if one comes soon.
fn serve_once(socket: &UdpSocket, addresses: &Mutex<Vec<Ipv4Addr>>) {
    let mut question = [0; 512];
    let (len, from) = match socket.recv_from(&mut question) {
        Ok(received) => received,
        Err(error) => {
            assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
            return;
        }
    };
    if let Some(answer) = answer(&question[..len], &addresses.lock().unwrap()) {
        socket.send_to(&answer, from).unwrap();
    }
}

/// The answer to a question (RFC 1035, section 4), which must not be kept.
fn answer(question: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let mut end = HEADER_BYTES;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let asked = question.get(HEADER_BYTES..end + 5)?;
    let kind = u16::from_be_bytes([question[end + 1], question[end + 2]]);
    let found = if kind == TYPE_A { addresses } else { &[] };
    let mut answer = question[..2].to_vec();
    // An answer of an authority, without an error, to one question.
    answer.extend([0x85, 0x80, 0, 1, 0, u8::try_from(found.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(asked);
    for address in found {
        // The name is that of the question; type A, class IN, to be kept for 0 s, 4 bytes.
        answer.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

//! A network of two machines and one cable, with a chosen round trip and bandwidth, and counters of
//! its traffic.
//!
//! Each machine is a network namespace with one TUN device. The cable is two threads of this process
//! that read packets from one device and write them to the other when their time has come. Segmentation
//! is offloaded (the kernel passes up to 64 KiB at once), so a gigabit is little work. Needs root.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::pipe::PipeFlags;

use crate::PATIENCE;
use crate::run_within;

pub use names::Names;
pub use namespace::Namespace;
pub use traffic::{Traffic, Way};

use faults::Faults;
use traffic::Meter;
use tun::Tun;
use wire::Wire;

mod faults;
mod names;
mod namespace;
mod packet;
mod traffic;
mod tun;
mod wire;

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

const DEVICE: &str = "cable";

/// The properties of a cable.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cable {
    /// The round-trip time.
    pub round_trip: Duration,
    /// The bandwidth in bits per second in each direction, if limited.
    pub bits_per_s: Option<u64>,
}

impl std::fmt::Display for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms", self.round_trip.as_secs_f64() * 1000.0)?;
        match self.bits_per_s {
            Some(bits) => write!(f, ", {} Mbit/s", bits / 1_000_000),
            None => write!(f, ", no limit of bandwidth"),
        }
    }
}

/// Two machines and a cable between them. Dropping it removes them.
pub struct Network {
    /// The machine of the mounts.
    pub client: Namespace,
    /// The machine of the server.
    pub server: Namespace,
    meter: Arc<Meter>,
    faults: Arc<Faults>,
    wires: Vec<JoinHandle<()>>,
    /// Closing this ends the threads.
    running: Option<OwnedFd>,
}

impl Network {
    /// Connects two new machines by a cable.
    pub fn new(cable: Cable) -> Network {
        let (client, server) = (Namespace::new(), Namespace::new());
        let (near, far) = (device(&client, CLIENT), device(&server, SERVER));
        // Programs that are started meanwhile must not keep it open.
        let (ended, running) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (near, far, ended) = (Arc::new(near), Arc::new(far), Arc::new(ended));
        let meter = Arc::new(Meter::default());
        let faults = Arc::new(Faults::none());
        let meters = [traffic::Way::Up, traffic::Way::Down].map(|way| (meter.clone(), way));
        let [up, down] = meters;
        let up = Wire::new(cable, near.clone(), far.clone(), up, faults.clone());
        let down = Wire::new(cable, far, near, down, faults.clone());
        let wires = [up, down].map(|wire| {
            let ended = ended.clone();
            std::thread::spawn(move || wire.carry(&ended))
        });
        Network { client, server, meter, faults, wires: wires.into(), running: Some(running) }
    }

    /// Pulls the cable: packets are lost until it is plugged in again.
    pub fn pull(&self) {
        self.cut(Way::Up);
        self.cut(Way::Down);
    }

    /// Plugs the cable in again.
    pub fn plug_in(&self) {
        [Way::Up, Way::Down].iter().for_each(|way| self.faults.cut(*way, false));
    }

    /// Loses everything in one direction, until the cable is plugged in again.
    pub fn cut(&self, way: Way) {
        self.faults.cut(way, true);
    }

    /// Loses so many of a thousand packets from now on. What the kernel passes at once, up to 64 KiB,
    /// counts as one.
    pub fn lose(&self, of_1000: u32) {
        self.faults.lose(of_1000);
    }

    /// Takes the client's address from it, as when it leaves a network.
    pub fn leave(&self) {
        self.client.run(|| ip(&["address", "flush", "dev", DEVICE]));
    }

    /// Gives the client another address, as when it joins a network.
    pub fn join(&self, address: Ipv4Addr) {
        let address = format!("{address}/24");
        self.client.run(|| ip(&["address", "add", &address, "dev", DEVICE]));
    }

    /// Gives the server another address, in the place of the one that it has.
    pub fn move_server(&self, to: Ipv4Addr) {
        let address = format!("{to}/24");
        self.server.run(|| {
            ip(&["address", "flush", "dev", DEVICE]);
            ip(&["address", "add", &address, "dev", DEVICE]);
        });
    }

    /// The traffic so far.
    pub fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    /// The shortest round trip of several small packets sent one after another.
    ///
    /// # Panics
    /// If one is lost.
    pub fn shortest_round_trip(&self) -> Duration {
        const PROBES: usize = 20;
        let wait = Some(PATIENCE);
        let far = self.server.run(|| UdpSocket::bind((SERVER, 0))).unwrap();
        let near = self.client.run(|| UdpSocket::bind((CLIENT, 0))).unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        far.set_read_timeout(wait).unwrap();
        near.set_read_timeout(wait).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..PROBES {
                    let (_, from) = far.recv_from(&mut [0]).unwrap();
                    far.send_to(&[0], from).unwrap();
                }
            });
            let probes = (0..PROBES).map(|_| {
                let begin = Instant::now();
                near.send(&[0]).unwrap();
                near.recv(&mut [0]).unwrap();
                begin.elapsed()
            });
            probes.min().expect("there are some")
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.running.take();
        for wire in self.wires.drain(..) {
            let _ = wire.join();
        }
    }
}

fn device(namespace: &Namespace, address: Ipv4Addr) -> Tun {
    namespace.run(|| {
        let tun = Tun::open(DEVICE);
        let address = format!("{address}/24");
        // Packets must queue in the cable, which counts drops, and not in the device.
        let device = ["link", "set", "dev", DEVICE, "txqueuelen", "10000", "mtu", "1500"];
        let quiet = ["link", "set", "dev", DEVICE, "addrgenmode", "none"];
        ip(&device);
        ip(&quiet);
        ip(&["address", "add", &address, "dev", DEVICE]);
        ip(&["link", "set", "dev", DEVICE, "up"]);
        // A connection must not profit from what earlier ones learned about the cable.
        std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1").unwrap();
        tun
    })
}

fn ip(args: &[&str]) {
    run_within(Command::new("ip").args(args), PATIENCE).succeeded();
}

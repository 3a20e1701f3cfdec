//! Servers whose name leads to other addresses by the time at which a mount connects again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use xfer_tests::network::{Cable, Names, Network, SERVER};
use xfer_tests::{Mount, PATIENCE, Server, World, wait_until};

/// No test has such a host (RFC 6761).
const HOST: &str = "server.test";

/// Where the server goes. Resolvers prefer addresses near the client's own to this one.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// Where nothing is: what is sent there is lost without a word.
const NOWHERE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 0, 3), Ipv4Addr::new(10, 77, 0, 4), Ipv4Addr::new(10, 77, 0, 9)];

/// An address that the client gets besides its own.
const JOINED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 7);

/// The longest time until a mount is connected again that knows the new address. A single try at an
/// address where nothing is takes longer. Of several addresses, each is tried a quarter of a second
/// after the one before.
const AT_ONCE: Duration = Duration::from_secs(8);

/// The longest time if such a try has just begun when the name leads elsewhere.
const SOON: Duration = Duration::from_secs(18);

/// A server that has moved while a mount of it was connected.
struct Moved {
    world: World,
    network: Network,
    names: Names,
    mount: Mount,
}

impl Moved {
    /// Its name leads there when the mount notices.
    fn leading_to(addresses: &[Ipv4Addr]) -> Moved {
        let cable = Cable { round_trip: Duration::from_millis(5), bits_per_s: None };
        let network = Network::new(cable);
        let names = Names::serve(&network.client, &[SERVER]);
        let world = network
            .server
            .run(|| World::with_server(&["alice"], |store| Server::start(store, "0.0.0.0:0")));
        let mount = || {
            let options = ["-o", "wait=40", "-o", "silence=3"];
            let mounting = world.mounting("alice").by_name(HOST);
            options.iter().fold(mounting, |mounting, option| mounting.arg(option)).start()
        };
        let first = network.client.run(mount);
        first.shell("mkdir d && echo cold > d/cold");
        first.unmount();
        let mut mount = network.client.run(mount);
        fs::write(mount.path("file"), "before").unwrap();
        mount.sync();
        names.lead_to(addresses);
        network.move_server(MOVED);
        fs::write(mount.path("file"), "after").unwrap();
        mount.says("the connection to the server is lost");
        Moved { world, network, names, mount }
    }

    /// The addresses of the server, in the order in which they are tried.
    fn addresses(&self) -> Vec<SocketAddr> {
        let port = self.world.server.address.port();
        self.network.client.run(|| (HOST, port).to_socket_addrs().unwrap().collect())
    }

    /// Waits until the mount has tried in vain to connect again.
    fn wait_for_a_failure(&self) {
        wait_until("a try to fail", PATIENCE, || {
            let status = self.mount.xfer("status", &[]).succeeded().stdout;
            status.contains("no answer while connecting")
        });
    }

    /// Goes on with the mount, which must be connected again by then.
    fn goes_on_within(self, limit: Duration) {
        let begin = Instant::now();
        fs::File::open(self.mount.path("file")).unwrap().sync_all().unwrap();
        assert_eq!(fs::read_to_string(self.mount.path("d/cold")).unwrap(), "cold\n");
        assert!(begin.elapsed() < limit, "{:?}\n{}", begin.elapsed(), self.mount.said());
        self.mount.unmount();
        let mount = || self.world.mounting("alice").by_name(HOST).start();
        let mount = self.network.client.run(mount);
        assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "after");
        mount.unmount();
    }
}

#[test]
fn a_server_whose_name_leads_elsewhere_by_then_is_found_there_at_once() {
    Moved::leading_to(&[MOVED]).goes_on_within(AT_ONCE);
}

#[test]
fn a_server_whose_name_leads_elsewhere_only_later_is_found_there_soon() {
    let moved = Moved::leading_to(&[SERVER]);
    moved.wait_for_a_failure();
    moved.names.lead_to(&[MOVED]);
    moved.goes_on_within(SOON);
}

#[test]
fn a_try_that_hangs_makes_way_for_another_when_the_machine_joins_a_network() {
    let moved = Moved::leading_to(&[SERVER]);
    moved.wait_for_a_failure();
    let before = moved.network.traffic().packets_up;
    wait_until("the next to begin", PATIENCE, || moved.network.traffic().packets_up > before);
    moved.names.lead_to(&[MOVED]);
    moved.network.join(JOINED);
    moved.goes_on_within(AT_ONCE);
}

#[test]
fn a_server_of_whose_addresses_only_the_last_answers_is_found_there_at_once() {
    let moved = Moved::leading_to(&[NOWHERE.as_slice(), &[MOVED]].concat());
    let addresses: Vec<_> = moved.addresses().iter().map(SocketAddr::ip).collect();
    assert_eq!((addresses.len(), addresses[NOWHERE.len()]), (NOWHERE.len() + 1, MOVED.into()));
    moved.goes_on_within(AT_ONCE);
}

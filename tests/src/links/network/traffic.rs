//! A cable's traffic, and how often one side had to wait for the other.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

use super::packet::Shape;

/// The direction of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// The traffic on a cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Bytes from the client, counted as IP packets.
    pub bytes_up: u64,
    /// Bytes from the server, counted as IP packets.
    pub bytes_down: u64,
    /// Packets from the client.
    pub packets_up: u64,
    /// Packets from the server.
    pub packets_down: u64,
    /// Packets dropped because the queue was full, in both directions.
    pub dropped: u64,
    /// The length of the longest chain of messages, each sent after its predecessor had arrived at
    /// the sender. Two are a round trip. A stream of data is one such message, however long it is.
    pub chain: u64,
}

impl Traffic {
    /// The bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes_up + self.bytes_down
    }

    /// An upper bound on the round trips that were waited for: a message sent while an answer is in
    /// flight may not have needed that answer.
    pub fn round_trips(&self) -> u64 {
        self.chain / 2
    }
}

impl Sub for Traffic {
    type Output = Traffic;

    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            bytes_up: self.bytes_up - earlier.bytes_up,
            bytes_down: self.bytes_down - earlier.bytes_down,
            packets_up: self.packets_up - earlier.packets_up,
            packets_down: self.packets_down - earlier.packets_down,
            dropped: self.dropped - earlier.dropped,
            chain: self.chain - earlier.chain,
        }
    }
}

/// Counts the traffic.
#[derive(Debug, Default)]
pub(super) struct Meter {
    up: End,
    down: End,
    dropped: AtomicU64,
}

/// The packets that left one end.
#[derive(Debug, Default)]
struct End {
    bytes: AtomicU64,
    packets: AtomicU64,
    /// The longest chain of messages that has arrived here.
    chain: AtomicU64,
}

impl Meter {
    /// Counts a packet that leaves its sender; returns the length of the chain that it continues.
    pub(super) fn leaves(&self, way: Way, shape: Shape) -> u64 {
        let (from, _) = self.ends(way);
        from.bytes.fetch_add(shape.bytes, Ordering::Relaxed);
        from.packets.fetch_add(shape.packets, Ordering::Relaxed);
        from.chain.load(Ordering::Relaxed)
    }

    /// Counts its arrival. A packet without data does not lengthen a chain: no side waits for it.
    pub(super) fn arrives(&self, way: Way, shape: Shape, chain: u64) {
        let (_, to) = self.ends(way);
        to.chain.fetch_max(chain + u64::from(shape.has_data), Ordering::Relaxed);
    }

    pub(super) fn drops(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            bytes_up: load(&self.up.bytes),
            bytes_down: load(&self.down.bytes),
            packets_up: load(&self.up.packets),
            packets_down: load(&self.down.packets),
            dropped: load(&self.dropped),
            chain: load(&self.up.chain),
        }
    }

    fn ends(&self, way: Way) -> (&End, &End) {
        match way {
            Way::Up => (&self.up, &self.down),
            Way::Down => (&self.down, &self.up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Shape = Shape { bytes: 100, packets: 1, has_data: true };

    #[test]
    fn questions_that_wait_for_answers_are_round_trips_and_a_burst_is_one() {
        let meter = Meter::default();
        for _ in 0..5 {
            for way in [Way::Up, Way::Down] {
                let chain = meter.leaves(way, DATA);
                meter.arrives(way, DATA, chain);
            }
        }
        assert_eq!(meter.traffic().round_trips(), 5);
        let before = meter.traffic();
        for way in [Way::Up, Way::Down] {
            let chains: Vec<u64> = (0..7).map(|_| meter.leaves(way, DATA)).collect();
            chains.iter().for_each(|chain| meter.arrives(way, DATA, *chain));
        }
        let burst = meter.traffic() - before;
        assert_eq!((burst.round_trips(), burst.packets_up, burst.bytes_down), (1, 7, 700));
    }
}

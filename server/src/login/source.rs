//! The source of a connection, by which connections and wrong passwords are counted.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// An IPv4 address, or the /64 of an IPv6 address: a network gives each customer a whole /64, so
/// single addresses in it cost nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source(IpAddr);

impl Source {
    /// The source that this address belongs to.
    pub fn of(address: IpAddr) -> Source {
        Source(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Counts for each source. Sources with a count of zero take no memory.
#[derive(Default, Debug)]
pub(crate) struct Counts(HashMap<Source, usize>);

impl Counts {
    /// A source's count.
    pub(crate) fn of(&self, source: Source) -> usize {
        self.0.get(&source).copied().unwrap_or(0)
    }

    /// The largest count of any source.
    pub(crate) fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or(0)
    }

    /// Adds one to a source's count.
    pub(crate) fn add(&mut self, source: Source) {
        *self.0.entry(source).or_default() += 1;
    }

    /// Takes one from a source's count.
    pub(crate) fn remove(&mut self, source: Source) {
        if let Some(count) = self.0.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&source);
            }
        }
    }

    /// Whether all counts are zero.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(address: &str, source: &str) {
        assert_eq!(Source::of(address.parse().unwrap()).to_string(), source);
    }

    #[test]
    fn an_address_is_counted_by_what_it_costs_to_change_it() {
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64");
        check("2001:db8:1:2::", "2001:db8:1:2::/64");
    }
}

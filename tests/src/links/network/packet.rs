//! A packet from a TUN device: a header about offloads, then the IP packet.

/// The length of `struct virtio_net_hdr`, which precedes every packet.
pub const OFFLOAD_BYTES: usize = 10;

/// The facts about a packet that a cable needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Its size on a wire in bytes; an unsegmented packet would have a header for each segment.
    pub bytes: u64,
    /// The number of packets that it would be on a wire.
    pub packets: u64,
    /// Whether it carries data, or only acknowledges.
    pub has_data: bool,
}

/// Examines a packet with its offload header.
pub fn shape(packet: &[u8]) -> Shape {
    let (offload, ip) = packet.split_at(OFFLOAD_BYTES.min(packet.len()));
    let whole = Shape { bytes: ip.len() as u64, packets: 1, has_data: true };
    let Some(headers) = headers_len(ip) else { return whole };
    let data = ip.len().saturating_sub(headers);
    let segment = usize::from(u16::from_ne_bytes([offload[4], offload[5]]));
    let packets = if segment > 0 { data.div_ceil(segment).max(1) } else { 1 };
    let bytes = ip.len() + (packets - 1) * headers;
    Shape { bytes: bytes as u64, packets: packets as u64, has_data: data > 0 }
}

/// The length of the IPv4 and TCP headers, if the packet has them.
fn headers_len(ip: &[u8]) -> Option<usize> {
    const TCP: u8 = 6;
    let first = *ip.first()?;
    if first >> 4 != 4 || *ip.get(9)? != TCP {
        return None;
    }
    let network = usize::from(first & 15) * 4;
    let transport = usize::from(ip.get(network + 12)? >> 4) * 4;
    Some(network + transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(data: usize, segment: u16) -> Vec<u8> {
        let mut packet = vec![0; OFFLOAD_BYTES];
        packet[4..6].copy_from_slice(&segment.to_ne_bytes());
        let mut headers = vec![0; 52];
        (headers[0], headers[9], headers[32]) = (0x45, 6, 0x80);
        packet.extend(headers);
        packet.resize(packet.len() + data, 0);
        packet
    }

    #[test]
    fn a_packet_left_unsegmented_counts_as_the_segments_it_stands_for() {
        let one = Shape { bytes: 152, packets: 1, has_data: true };
        assert_eq!(shape(&packet(100, 0)), one);
        let three = Shape { bytes: 3 * 52 + 3000, packets: 3, has_data: true };
        assert_eq!(shape(&packet(3000, 1448)), three);
        assert!(!shape(&packet(0, 0)).has_data);
    }
}

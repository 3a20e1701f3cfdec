//! A TUN device: a process reads and writes the packets of a network namespace through it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::packet::OFFLOAD_BYTES;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// Checksums may be missing, and TCP segments (over IPv4 and IPv6) may stay joined.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4;

const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

/// The longest packet that the kernel passes, with its header.
pub const PACKET_BYTES_MAX: usize = OFFLOAD_BYTES + (64 << 10);

/// An open device; dropping it removes the device.
#[derive(Debug)]
pub struct Tun(File);

/// The part of `struct ifreq` that TUNSETIFF reads.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

impl Tun {
    /// Creates a device in the network namespace of the calling thread.
    pub fn open(name: &str) -> Tun {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").expect("a cable needs /dev/net/tun, and root");
        let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let header = OFFLOAD_BYTES as libc::c_int;
        // SAFETY: the request is as long as `struct ifreq`, and outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) });
        // SAFETY: the argument is an integer that outlives the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header) });
        // SAFETY: the argument is a number, not an address.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) });
        Tun(file)
    }

    /// Reads one packet, if there is one.
    pub fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        match (&self.0).read(buffer) {
            Ok(len) => Some(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("reading from a TUN device: {error}"),
        }
    }

    /// Writes one packet; returns whether the other end accepted it.
    pub fn write(&self, packet: &[u8]) -> bool {
        (&self.0).write(packet).is_ok()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[track_caller]
fn check(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

//! The first line of a file or of standard input, where a secret may be kept.
//!
//! It is read byte by byte into one buffer that is overwritten when dropped. So this process keeps
//! no other copy, and the next reader of the input finds everything after the line.

use std::io;
use std::os::fd::AsFd;

use zeroize::Zeroizing;

/// The byte-order mark that some editors put at the start of a file; the user did not type it.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// The same mark in UTF-16, in both byte orders.
const MARKS_UTF16: [&[u8]; 2] = [&[0xff, 0xfe], &[0xfe, 0xff]];

/// Reads the first line, without its end and without a byte-order mark. If it is longer than
/// `bytes_max`, returns just enough of it to show that.
///
/// # Errors
/// If it can't be read, or is in UTF-16.
pub fn first_line(input: impl AsFd, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Allocate the full capacity at once: a buffer that grows leaves copies behind.
    let read_max = MARK.len() + bytes_max + 2;
    let mut line = Zeroizing::new(Vec::with_capacity(read_max));
    let mut byte = Zeroizing::new([0]);
    while line.len() < read_max {
        match rustix::io::read(input.as_fd(), &mut *byte) {
            Ok(0) => break,
            Ok(_) if *byte == *b"\n" => break,
            Ok(_) => line.push(byte[0]),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if MARKS_UTF16.iter().any(|mark| line.starts_with(mark)) {
        let error = "it is a text in UTF-16; save it as UTF-8";
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    if line.starts_with(MARK) {
        line.drain(..MARK.len());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    line.truncate(bytes_max + 1);
    Ok(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MAX: usize = 8;

    fn read(input: &[u8]) -> io::Result<Vec<u8>> {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, input).unwrap();
        drop(writer);
        first_line(&reader, MAX).map(|line| line.to_vec())
    }

    #[test]
    fn a_secret_is_the_first_line_and_all_of_it() {
        for (input, line) in [
            (&b"secret\nmore\n"[..], &b"secret"[..]),
            (b"secret\r\n", b"secret"),
            (b" se \r\r\n", b" se \r"),
            (b"", b""),
            (b"\nx", b""),
            (b"12345678", b"12345678"),
            (b"12345678\r\n", b"12345678"),
            (b"123456789", b"123456789"),
            (b"1234567890123", b"123456789"),
        ] {
            assert_eq!(read(input).unwrap(), line);
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_secret() {
        assert_eq!(read(b"\xef\xbb\xbfsecret\r\n").unwrap(), b"secret");
        assert_eq!(read(b"\xef\xbb\xbf12345678\n").unwrap(), b"12345678");
        assert_eq!(read(b"\xef\xbb\xbf").unwrap(), b"");
        for utf16 in [&b"\xff\xfes\0e\0"[..], b"\xfe\xff\0s\0e"] {
            assert!(read(utf16).unwrap_err().to_string().contains("UTF-8"));
        }
    }
}

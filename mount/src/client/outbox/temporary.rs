//! Names that common tools give files which are not whole yet.
//!
//! A file under such a name is not sent; it is once it is renamed.

use xfer_protocol::Name;

/// Whether common tools use such a name while a file is not whole yet.
pub(super) fn is_temporary(name: &Name) -> bool {
    let name = name.as_bytes();
    let hidden = name.starts_with(b".");
    let suffixes: [&[u8]; 6] = [b"~", b".part", b".partial", b".crdownload", b".tmp", b".filepart"];
    let prefixes: [&[u8]; 4] = [b".goutputstream-", b".~lock", b".nfs", b".fuse_hidden"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
        || (hidden && is_vim_swap(name))
        || (hidden && is_rsync_temporary(name))
        || is_vim_probe(name)
}

/// `.name.swp`, and `.swo`, `.swn` and so on when there are several; and `.swx`.
fn is_vim_swap(name: &[u8]) -> bool {
    matches!(name, [.., b'.', b's', b'w', b'a'..=b'z'])
}

/// `.name.XXXXXX`, where the last six are letters and digits.
fn is_rsync_temporary(name: &[u8]) -> bool {
    name.len() > 8
        && name[name.len() - 7] == b'.'
        && name[name.len() - 6..].iter().all(u8::is_ascii_alphanumeric)
}

/// vim makes a file `4913` (or a multiple of 123 more) to see whether it can write here.
fn is_vim_probe(name: &[u8]) -> bool {
    let number = std::str::from_utf8(name).ok().and_then(|name| name.parse::<u32>().ok());
    number.is_some_and(|number| (4913..10_000).contains(&number) && (number - 4913) % 123 == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, temporary: bool) {
        assert_eq!(is_temporary(&Name::new(name.as_bytes()).unwrap()), temporary, "{name}");
    }

    #[test]
    fn temporary_names_of_common_tools_wait_for_their_rename() {
        check(".report.txt.swp", true);
        check(".report.txt.swo", true);
        check(".goutputstream-ABC123", true);
        check("movie.mkv.part", true);
        check(".~lock.letter.odt#", true);
        check(".photo.jpg.a1B2c3", true);
        check("notes.txt~", true);
        check("4913", true);
    }

    #[test]
    fn ordinary_names_are_sent() {
        check("report.txt", false);
        check(".bashrc", false);
        check("party", false);
        check("2024", false);
        check(".config", false);
    }
}

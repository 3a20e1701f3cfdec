//! Names that common tools give to incomplete files.
//!
//! A file with such a name is not sent until it is renamed. The name is all that is judged here.

use xfer_protocol::Name;

/// Whether common tools give a file such a name while it is incomplete.
pub(in crate::core) fn is_temporary(name: &Name) -> bool {
    let name = name.as_bytes();
    let hidden = name.starts_with(b".");
    let suffixes: [&[u8]; 7] =
        [b"~", b".part", b".partial", b".crdownload", b".tmp", b".filepart", b".lock"];
    let prefixes: [&[u8]; 4] = [b".goutputstream-", b".~lock", b".nfs", b".fuse_hidden"];
    suffixes.iter().any(|suffix| name.ends_with(suffix))
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
        || (hidden && is_vim_swap(name))
        || (hidden && is_rsync_temporary(name))
        || is_vim_probe(name)
        || is_emacs_save(name)
        || is_random(name)
        || is_sqlite_companion(name)
}

/// `.name.swp`, and `.swo`, `.swn` and so on when there are several; and `.swx`, `.swpx`.
fn is_vim_swap(name: &[u8]) -> bool {
    let name = name.strip_suffix(b"px").unwrap_or(name);
    matches!(name, [.., b'.', b's', b'w', b'a'..=b'z'] | [.., b'.', b's', b'w'])
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

/// `#name#`, under which emacs saves automatically; and `.#name`, with which it locks.
fn is_emacs_save(name: &[u8]) -> bool {
    matches!(name, [b'#', _, .., b'#']) || name.starts_with(b".#")
}

/// The names that mkstemp(3) and its like make from the patterns of common programs, which rename a
/// file when it is complete: `sedXXXXXX` (`sed -i`), `XXXXXXXX` of which perl leaves the first two
/// (`perl -i`), `ziXXXXXX` (zip), `stXXXXXX` (`ar`, `strip`), `NAME.oXXXXXX` (patch),
/// `tmp.XXXXXXXXXX` (mktemp), `.tmpXXXXXX` (Rust's tempfile), and `tmp` with eight of lower case,
/// digits and `_`, and maybe an extension (Python's tempfile).
fn is_random(name: &[u8]) -> bool {
    let after =
        |prefix: &[u8], len| name.strip_prefix(prefix).is_some_and(|rest| is_drawn(rest, len));
    let of_patch = name.len() > 8
        && name[..name.len() - 6].ends_with(b".o")
        && is_drawn(&name[name.len() - 6..], 6);
    [b"sed", &b"XX"[..], b"zi", b"st"].iter().any(|prefix| after(prefix, 6))
        || after(b"tmp.", 10)
        || after(b".tmp", 6)
        || of_patch
        || name.strip_prefix(b"tmp").is_some_and(is_drawn_by_python)
}

/// Whether letters and digits look random: with a capital, or a digit before a letter. A word, or
/// one with a number at its end, is taken for an ordinary name: `sedatives`, `station1`.
fn is_drawn(rest: &[u8], len: usize) -> bool {
    rest.len() == len
        && rest.iter().all(u8::is_ascii_alphanumeric)
        && (rest.iter().any(u8::is_ascii_uppercase)
            || rest.windows(2).any(|two| two[0].is_ascii_digit() && two[1].is_ascii_lowercase()))
}

/// Eight of lower case, digits and `_`, and maybe an extension.
fn is_drawn_by_python(rest: &[u8]) -> bool {
    let Some((drawn, extension)) = rest.split_at_checked(8) else { return false };
    let is_drawn = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    drawn.iter().all(is_drawn) && (extension.is_empty() || extension.starts_with(b"."))
}

/// The files that SQLite keeps beside an open database: `x.db-journal`, `x.sqlite-wal`.
fn is_sqlite_companion(name: &[u8]) -> bool {
    let companions: [&[u8]; 3] = [b"-journal", b"-wal", b"-shm"];
    let databases: [&[u8]; 4] = [b".db", b".db3", b".sqlite", b".sqlite3"];
    let database = companions.iter().find_map(|companion| name.strip_suffix(*companion));
    database.is_some_and(|name| databases.iter().any(|extension| name.ends_with(extension)))
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
        check("#letter.txt#", true);
        check(".#letter.txt", true);
        check("sedaB3xYz", true);
        check("XXdwq3Rt", true);
        check("tmp.GxYrEPuY4v", true);
        check(".tmpAb3dEf", true);
        check("tmpk2_a8cq1", true);
        check("tmpk2_a8cq1.txt", true);
        check("tmpdgnxcrrc", true);
        check("zi2abSTs", true);
        check("stNl5kWm", true);
        check("p.txt.oO9nAis", true);
        check("index.lock", true);
        check(".Makefile.swpx", true);
        check("notes.db-journal", true);
        check("notes.sqlite3-wal", true);
    }

    #[test]
    fn ordinary_names_are_sent() {
        check("report.txt", false);
        check(".bashrc", false);
        check("party", false);
        check("2024", false);
        check(".config", false);
        check("#1", false);
        check("sedatives", false);
        check("sediment-2", false);
        check("station1", false);
        check("zigzag12", false);
        check("manual.overview", false);
        check("XXL", false);
        check("tmp", false);
        check("tmpfiles.txt", false);
        check("tmpdocuments", false);
        check("daily-journal", false);
    }
}

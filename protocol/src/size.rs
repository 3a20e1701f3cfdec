//! How sizes and numbers of things are read and written, the same in all of xfer's programs.

/// The units, largest first: each with its name and its size in bytes.
const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The most digits after the point: enough for a byte of a PiB.
const DECIMALS_MAX: usize = 16;

/// Parses a size in bytes: a number and a unit, like `10GiB`, `1.5G`, `500MB` or `4096`. A fraction
/// of a byte is dropped.
///
/// As with GNU coreutils (`info coreutils 'Block size'`), `K` and `KiB` are 1024 and `KB` is 1000. Capitals
/// don't matter.
pub fn parse(text: &str) -> Option<u64> {
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(end);
    let unit = u128::from(unit_bytes(unit.trim_start())?);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let part =
        unit * u128::from(decimals.parse::<u64>().ok()?) / 10_u128.pow(decimals.len() as u32);
    let bytes = u128::from(whole.parse::<u64>().ok()?).checked_mul(unit)?.checked_add(part)?;
    u64::try_from(bytes).ok()
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let Some(letter) = unit.chars().next() else { return Some(1) };
    let power = "bkmgtp".find(letter)? as u32;
    match &unit[1..] {
        "" => Some(1024_u64.pow(power)),
        "ib" if power > 0 => Some(1024_u64.pow(power)),
        "b" if power > 0 => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// Formats a size in bytes in the largest unit that fits in it, with one decimal unless it is exact:
/// `10 GiB`, `1.5 GiB`.
pub fn display(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
    }
}

/// A number of things, by the word for one of them: `1 change`, `3 changes`, `2 directories`.
pub fn count(number: u64, one: &str) -> String {
    let stem = one.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o']));
    match (number, stem) {
        (1, _) => format!("1 {one}"),
        (_, None) if one.ends_with("ch") => format!("{number} {one}es"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// A number of changes, with the size of their data: `3 changes (1.5 MiB)`.
pub fn changes(number: usize, bytes: usize) -> String {
    format!("{} ({})", count(number as u64, "change"), display(bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: Option<u64>) {
        assert_eq!(parse(text), bytes, "{text:?}");
    }

    #[test]
    fn one_thing_is_not_called_several() {
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(0, "entry"), "0 entries");
        assert_eq!(changes(1, 5), "1 change (5 B)");
        assert_eq!(changes(2, 3 << 10), "2 changes (3 KiB)");
    }

    #[test]
    fn sizes_are_read_as_coreutils_reads_them() {
        check("4096", Some(4096));
        check("0", Some(0));
        check("7B", Some(7));
        check("10GiB", Some(10 << 30));
        check("10 gib", Some(10 << 30));
        check("500MB", Some(500_000_000));
        check("1T", Some(1 << 40));
        check("2k", Some(2048));
        check("16383P", Some(16383 << 50));
    }

    #[test]
    fn sizes_may_have_decimals() {
        check("1.5GiB", Some(3 << 29));
        check("0.5k", Some(512));
        check("1.25MB", Some(1_250_000));
        check("2.0", Some(2));
        check("1.0001K", Some(1024));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1X", "1KiBs", "1ib", "1bb", "99999999999P", "16384P", "1é"]
        {
            check(text, None);
        }
        for text in [".", ".5G", "1.G", "1.2.3G", "1.00000000000000001G", "1,5G"] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_are_written_shortly() {
        assert_eq!(display(0), "0 B");
        assert_eq!(display(1023), "1023 B");
        assert_eq!(display(10 << 30), "10 GiB");
        assert_eq!(display(3 << 29), "1.5 GiB");
        assert_eq!(display((1 << 30) + 1), "1.0 GiB");
        assert_eq!(display(u64::MAX), "16384.0 PiB");
    }

    proptest::proptest! {
        #[test]
        fn a_size_of_whole_units_is_read_as_it_is_written(count in 0..1024_u64, shift in 0..6_u32) {
            let bytes = count << (10 * shift);
            proptest::prop_assert_eq!(parse(&display(bytes)), Some(bytes));
        }
    }
}

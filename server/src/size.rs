//! Sizes as people write and read them.

/// The units, largest first: what they are called, and how many bytes one is.
const UNITS: [(&str, u64); 5] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size: digits and a unit, like `10GiB`, `500MB`, `1T` or `4096`.
///
/// As with coreutils, `K`, `KiB` are 1024 and `KB` is 1000; capitals don't matter.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    number.parse::<u64>().ok()?.checked_mul(unit_bytes(unit.trim_start())?)
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

/// Writes a size with three digits or so, like `1.5 GiB`.
pub fn display(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: Option<u64>) {
        assert_eq!(parse(text), bytes, "{text:?}");
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
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5G", "1X", "1KiBs", "1ib", "1bb", "99999999999P", "1é"] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_are_written_shortly() {
        assert_eq!(display(0), "0 B");
        assert_eq!(display(1023), "1023 B");
        assert_eq!(display(10 << 30), "10 GiB");
        assert_eq!(display(3 << 29), "1.5 GiB");
    }
}

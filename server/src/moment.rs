//! Times as people read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Formats a time, given in seconds since 1970, in UTC: a server's users are in many places.
pub fn display(secs: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(secs).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{secs} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_readable() {
        assert_eq!(display(0), "1970-01-01T00:00:00Z");
        assert_eq!(display(i64::MAX), format!("{} s", i64::MAX));
    }
}

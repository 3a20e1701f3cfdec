//! Times and spans of time as people read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Formats a time, given in seconds since 1970, in UTC: a server's users are in many places.
pub fn display(secs: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(secs).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{secs} s"))
}

/// A span of time in its two largest units.
pub fn span(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min {} s", secs % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_exact_as_people_want_them() {
        let spans = [0, 59, 61, 3_599, 7_260, 86_399, 90_000];
        let expected =
            ["0 s", "59 s", "1 min 1 s", "59 min 59 s", "2 h 1 min", "23 h 59 min", "1 d 1 h"];
        assert_eq!(spans.map(span), expected);
    }

    #[test]
    fn moments_are_readable() {
        assert_eq!(display(0), "1970-01-01T00:00:00Z");
        assert_eq!(display(i64::MAX), format!("{} s", i64::MAX));
    }
}

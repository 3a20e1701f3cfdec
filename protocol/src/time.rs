//! Moments, as they are stored and sent.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment: seconds and nanoseconds since 1970-01-01T00:00:00Z, as in POSIX `struct timespec`.
///
/// Seconds may be negative; nanoseconds are always counted forward and below one second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
pub struct Timestamp {
    secs: i64,
    nanos: u32,
}

impl Timestamp {
    /// The moment `secs` seconds and `nanos` nanoseconds after the epoch; `None` if `nanos` is a
    /// second or more.
    pub fn new(secs: i64, nanos: u32) -> Option<Timestamp> {
        (nanos < 1_000_000_000).then_some(Timestamp { secs, nanos })
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn secs(self) -> i64 {
        self.secs
    }

    /// Nanoseconds within the second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Formats the moment to the second as in RFC 3339, in UTC; as seconds since the epoch if its
    /// year does not have four digits.
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.secs)
            .ok()
            .and_then(|date| date.format(&Rfc3339).ok())
            .unwrap_or_else(|| self.secs.to_string())
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Timestamp {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => Timestamp { secs: after.as_secs() as i64, nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let secs = -(before.as_secs() as i64);
                match before.subsec_nanos() {
                    0 => Timestamp { secs, nanos: 0 },
                    nanos => Timestamp { secs: secs - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}

impl From<Timestamp> for std::time::SystemTime {
    fn from(time: Timestamp) -> std::time::SystemTime {
        use std::time::{Duration, UNIX_EPOCH};
        let nanos = Duration::from_nanos(u64::from(time.nanos));
        if time.secs >= 0 {
            UNIX_EPOCH + Duration::from_secs(time.secs as u64) + nanos
        } else {
            UNIX_EPOCH - Duration::from_secs(time.secs.unsigned_abs()) + nanos
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            secs: i64,
            nanos: u32,
        }
        let raw = Raw::deserialize(deserializer)?;
        Timestamp::new(raw.secs, raw.nanos)
            .ok_or_else(|| serde::de::Error::custom("a second has less than 10^9 nanoseconds"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_system_time_survives_the_way_there_and_back(
            secs in -10_000_000_000i64..10_000_000_000,
            nanos in 0u32..1_000_000_000,
        ) {
            let time = Timestamp::new(secs, nanos).unwrap();
            let there: std::time::SystemTime = time.into();
            prop_assert_eq!(Timestamp::from(there), time);
        }
    }

    #[test]
    fn a_moment_is_written_as_a_date_where_there_is_one() {
        let check = |secs, text| {
            assert_eq!(Timestamp::new(secs, 999_999_999).unwrap().to_rfc3339(), text);
        };
        check(981_173_106, "2001-02-03T04:05:06Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(i64::MAX, "9223372036854775807");
    }

    #[test]
    fn a_second_of_nanoseconds_is_refused() {
        assert_eq!(Timestamp::new(0, 1_000_000_000), None);
    }
}

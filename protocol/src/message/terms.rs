//! What a client and the server agree on when a log link is opened.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a client asks for when it opens a log link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Terms {
    /// Whether the client hands its seat over when another client of the user's asks for it.
    pub handoff: bool,
    /// How long the server may be silent; the server may want a longer time, and says so in its
    /// grant.
    pub silence: Silence,
}

impl Terms {
    /// The terms with a silence that is at least so long.
    #[must_use]
    pub fn with_silence_of_at_least(self, shortest: Silence) -> Terms {
        Terms { silence: self.silence.max(shortest), ..self }
    }
}

/// How long a side may be silent, while the other waits for something, before its link counts as
/// dead: from 3 s to 10 s, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Silence(u16);

impl Silence {
    /// The shortest one. A link that loses packets, or a busy machine, may well be silent for a second.
    pub const SHORTEST: Silence = Silence(3_000);

    /// The longest one, and the default.
    pub const LONGEST: Silence = Silence(10_000);

    /// The silence of so many milliseconds, if it is neither too short nor too long.
    pub fn of_ms(ms: u16) -> Option<Silence> {
        Some(Silence(ms)).filter(|silence| (Silence::SHORTEST..=Silence::LONGEST).contains(silence))
    }

    /// Parses a silence as options give it: in whole seconds.
    pub fn parse(text: &str) -> Option<Silence> {
        let seconds: u16 = text.parse().ok()?;
        Silence::of_ms(seconds.checked_mul(1000)?)
    }

    /// Its length.
    pub const fn time(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }

    /// How often each side sends something on an otherwise quiet link while the client waits for
    /// something. Three of these fit in, so that two may be late.
    pub const fn heartbeat(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 3 / 10)
    }
}

impl Default for Silence {
    fn default() -> Silence {
        Silence::LONGEST
    }
}

impl From<Silence> for u16 {
    fn from(silence: Silence) -> u16 {
        silence.0
    }
}

impl TryFrom<u16> for Silence {
    type Error = &'static str;

    fn try_from(ms: u16) -> Result<Silence, &'static str> {
        Silence::of_ms(ms).ok_or("a silence that is too short or too long")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn three_heartbeats_fit_into_a_silence() {
        for ms in u16::from(Silence::SHORTEST)..=Silence::LONGEST.into() {
            let silence = Silence::of_ms(ms).unwrap();
            let beats = silence.heartbeat() * 3;
            assert!(beats < silence.time() && silence.heartbeat() * 4 > silence.time());
        }
    }

    #[test]
    fn a_silence_has_bounds_also_when_it_comes_from_a_peer() {
        for ms in [0, 2_999, 10_001, u16::MAX] {
            assert_eq!(Silence::of_ms(ms), None);
            let sent = encode(&ms).unwrap();
            assert!(decode::<Silence>(&sent).is_err(), "{ms} ms");
        }
        let sent = encode(&Silence::SHORTEST).unwrap();
        assert_eq!(decode::<Silence>(&sent).unwrap(), Silence::SHORTEST);
    }

    #[test]
    fn the_longer_of_two_silences_holds() {
        let (short, long) = (Silence::SHORTEST, Silence::LONGEST);
        for (asked, shortest) in [(short, short), (short, long), (long, short)] {
            let terms = Terms { handoff: true, silence: asked };
            let agreed = terms.with_silence_of_at_least(shortest);
            let expected = if asked == short && shortest == short { short } else { long };
            assert_eq!(agreed, Terms { handoff: true, silence: expected });
        }
    }
}

//! Trying again while a server is too busy for one more connection.
//!
//! **Invariant:** a login is not tried again once its password may have been sent, unless the
//! server refused it as busy.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::{Duration, Instant};

use xfer_protocol::message::Refusal;

use super::error::{EndpointError, Phase};

/// The pauses before trying again: the first and the longest.
const AGAIN: Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);

/// The longest time to try again, at each step to a session, while the server is busy.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(30);

/// The longest time to try again while the peer hangs up. It may be anything, and the user should
/// soon learn that it is no xfer server.
const HANGS_UP_MAX: Duration = Duration::from_secs(10);

/// Makes an attempt again and again while the server may just be busy, for as long as `limit`.
pub(super) async fn though_busy<T, F>(
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, EndpointError>
where
    F: Future<Output = Result<T, EndpointError>>,
{
    let start = Instant::now();
    let (mut pause, mut is_busy) = (AGAIN.start, false);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            // A peer that has said that it is busy is an xfer server.
            Err(EndpointError::HangsUp(_)) if is_busy => EndpointError::Refused(Refusal::Busy),
            Err(error) => error,
        };
        is_busy |= matches!(error, EndpointError::Refused(Refusal::Busy));
        let patience = patience_with(&error).map(|patience| patience.min(limit));
        if patience.is_none_or(|patience| start.elapsed() + pause >= patience) {
            return Err(error);
        }
        tracing::debug!("connecting again: {error}");
        tokio::time::sleep(spread(pause)).await;
        pause = (pause * 2).min(AGAIN.end);
    }
}

/// The longest time to try again after an error, if the server may just be busy.
fn patience_with(error: &EndpointError) -> Option<Duration> {
    match error {
        EndpointError::Refused(Refusal::Busy) => Some(BUSY_MAX),
        EndpointError::HangsUp(_) => Some(HANGS_UP_MAX),
        // Not once the password was sent: the session may have begun.
        EndpointError::Broken(Phase::Handshake | Phase::Hello | Phase::Attach, _) => Some(BUSY_MAX),
        EndpointError::Broken(
            Phase::Resolve | Phase::Connect | Phase::Login | Phase::Resume,
            _,
        )
        | EndpointError::Refused(_)
        | EndpointError::NotXfer(_)
        | EndpointError::NotFound(_)
        | EndpointError::NothingThere
        | EndpointError::Unreachable(_)
        | EndpointError::TimedOut(_)
        | EndpointError::Certificate(_)
        | EndpointError::Tls(_)
        | EndpointError::KeySwapped
        | EndpointError::Version { .. }
        | EndpointError::Nonsense(_) => None,
    }
}

/// A random time between half of a pause and all of it, so that clients that were turned away
/// together don't come again together.
pub(crate) fn spread(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) >> 32;
    pause / 2 + pause.mul_f64(random as f64 / f64::from(u32::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_turned_away_together_come_again_at_different_times() {
        let pause = Duration::from_secs(1);
        let pauses: Vec<Duration> = (0..100).map(|_| spread(pause)).collect();
        assert!(pauses.iter().all(|spread| (pause / 2..=pause).contains(spread)), "{pauses:?}");
        let early = pauses.iter().filter(|spread| **spread < pause * 3 / 4).count();
        assert!((10..90).contains(&early), "{pauses:?}");
    }
}

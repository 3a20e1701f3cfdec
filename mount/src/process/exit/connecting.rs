//! The exit codes and lines for the reasons why no session began: with the options that help.

use xfer_client::connect::{ConnectError, EndpointError, TrustError};
use xfer_protocol::message::Refusal;

use super::{Exit, Failure};

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        Failure::new(Exit::from(&error), line(&error))
    }
}

/// The line for an error, with the option that helps, if there is one.
fn line(error: &ConnectError) -> String {
    match error {
        ConnectError::Authorities { file, why } => format!("--ca {}: {why}", file.display()),
        ConnectError::Endpoint { error: EndpointError::Certificate(_), .. } => {
            format!("{error}, or trust it with --fingerprint")
        }
        ConnectError::Endpoint { error: EndpointError::Refused(Refusal::InUse { .. }), .. } => {
            format!("{error}; use --takeover to take the tree from that one")
        }
        ConnectError::Endpoint { endpoint, error: EndpointError::Refused(Refusal::UnknownKey) } => {
            format!("{error}: xfer login {endpoint}")
        }
        ConnectError::Trust(TrustError::Unknown { shown, .. }) => format!(
            "{error}: if `xfer-server fingerprint` on the server prints the same, use \
             --fingerprint {shown} (in an fstab: -o fingerprint={shown})"
        ),
        ConnectError::Trust(TrustError::KnownHosts { .. }) => match error.to_string() {
            line if line.contains("; run: ") => line,
            line => format!("{line}; mend it, or give another with --known-hosts"),
        },
        ConnectError::Endpoint { .. }
        | ConnectError::Trust(
            TrustError::Changed { .. }
            | TrustError::NotAsAsked { .. }
            | TrustError::Declined { .. }
            | TrustError::Interrupted,
        ) => error.to_string(),
    }
}

impl From<&ConnectError> for Exit {
    fn from(error: &ConnectError) -> Exit {
        match error {
            ConnectError::Authorities { .. } => Exit::Usage,
            ConnectError::Endpoint { error, .. } => of_endpoint(error),
            ConnectError::Trust(TrustError::KnownHosts { .. }) => Exit::Usage,
            ConnectError::Trust(TrustError::Interrupted) => Exit::Interrupted,
            ConnectError::Trust(
                TrustError::Changed { .. }
                | TrustError::NotAsAsked { .. }
                | TrustError::Unknown { .. }
                | TrustError::Declined { .. },
            ) => Exit::Key,
        }
    }
}

fn of_endpoint(error: &EndpointError) -> Exit {
    match error {
        EndpointError::NotFound(_)
        | EndpointError::NothingThere
        | EndpointError::Unreachable(_)
        | EndpointError::TimedOut(_) => Exit::Unreachable,
        EndpointError::NotXfer(_)
        | EndpointError::HangsUp(_)
        | EndpointError::Certificate(_)
        | EndpointError::Tls(_)
        | EndpointError::Version { .. }
        | EndpointError::Nonsense(_) => Exit::NotXfer,
        EndpointError::KeySwapped => Exit::Key,
        EndpointError::Broken(..) => Exit::ServerTrouble,
        EndpointError::Refused(refusal) => of_refusal(refusal),
    }
}

fn of_refusal(refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::WrongPassword
        | Refusal::UnknownKey
        | Refusal::KeysOnly
        | Refusal::Disabled
        | Refusal::UsedInvitation
        | Refusal::PasswordNeeded => Exit::WrongPassword,
        Refusal::TooManyKeys => Exit::Other,
        Refusal::Blocked { .. } => Exit::Blocked,
        Refusal::InUse { .. } | Refusal::Claimed => Exit::InUse,
        Refusal::NoSession
        | Refusal::RolledBack
        | Refusal::Stopping
        | Refusal::Busy
        | Refusal::Internal => Exit::ServerTrouble,
    }
}

#[cfg(test)]
mod tests {
    use xfer_client::connect::Fingerprint;

    use super::*;

    fn check(error: ConnectError, end: &str) {
        let line = Failure::from(error).line;
        assert!(line.ends_with(end), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn an_error_that_an_option_helps_with_names_it() {
        let at = |error| ConnectError::Endpoint { endpoint: "host:1".to_owned(), error };
        let (host, address) = ("laptop".to_owned(), "192.0.2.1".to_owned());
        let since = xfer_protocol::Timestamp::default();
        let in_use = EndpointError::Refused(Refusal::InUse { host, address, since });
        check(
            at(in_use),
            ", since 1970-01-01 00:00:00 UTC; use --takeover to take the tree from that one",
        );
        let invalid = EndpointError::Certificate("expired".to_owned());
        check(at(invalid), "expired; replace it, or trust it with --fingerprint");
        let shown: Fingerprint =
            format!("sha256:{}", "ab".repeat(32)).parse().expect("a fingerprint");
        let unknown = TrustError::Unknown { endpoint: "host:1".to_owned(), shown };
        check(
            unknown.into(),
            &format!("use --fingerprint {shown} (in an fstab: -o fingerprint={shown})"),
        );
    }
}

//! The exit codes for the reasons why no session began.

use xfer_client::connect::{ConnectError, EndpointError, TrustError};
use xfer_protocol::message::Refusal;

use super::{Exit, Failure};

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        Failure::new(Exit::from(&error), error.to_string())
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
        Refusal::WrongPassword => Exit::WrongPassword,
        Refusal::Blocked { .. } => Exit::Blocked,
        Refusal::InUse { .. } | Refusal::Claimed => Exit::InUse,
        Refusal::NoSession | Refusal::Stopping | Refusal::Busy | Refusal::Internal => {
            Exit::ServerTrouble
        }
    }
}

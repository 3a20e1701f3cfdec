//! The decision whether to trust a server, by the fingerprint of its certificate.
//!
//! Certificates of authorities are verified in the TLS handshake, and not here.
//!
//! **Invariant:** a user who can't be asked has not agreed: without a terminal, an unknown
//! certificate is refused. A certificate that differs from the known one is refused in every mode.

mod fingerprint;
mod known_hosts;

use std::io;
use std::path::PathBuf;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use known_hosts::{KnownHosts, state_directory};

/// The proof of its identity that a server must give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrustMode {
    /// Its known certificate. If none is known, the user is asked.
    Ask,
    /// Its known certificate. If none is known, the one that it shows becomes known.
    AcceptNew,
    /// Exactly this certificate. Known hosts are neither read nor written.
    Fingerprint(Fingerprint),
    /// Its known certificate, which must be this one. If none is known, this one becomes known: an
    /// invitation has named it.
    Vouched(Fingerprint),
    /// A certificate for its name, signed by one of the authorities in this file.
    Authorities(PathBuf),
}

/// The rule by which to decide, and the known certificates.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    /// The proof that is required.
    pub mode: TrustMode,
    /// The known hosts file.
    pub known_hosts: KnownHosts,
}

/// The reason why a server is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The server shows another certificate than the one in the known hosts file.
    #[error(
        "the certificate of {endpoint} has changed: it was {known} ({}, line {line}) and now is {shown}; \
         if its administrator confirms the new one, delete that line and try again, \
         otherwise someone may be posing as the server",
        file.display()
    )]
    Changed {
        /// The server.
        endpoint: String,
        /// The known certificate.
        known: Fingerprint,
        /// The certificate that it shows.
        shown: Fingerprint,
        /// The known hosts file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The server shows another certificate than the one that was asked for.
    #[error(
        "{endpoint} shows the certificate {shown}, not {expected} as asked for; \
         compare it with the output of `xfer-server fingerprint` on the server"
    )]
    NotAsAsked {
        /// The server.
        endpoint: String,
        /// The certificate that was asked for.
        expected: Fingerprint,
        /// The certificate that it shows.
        shown: Fingerprint,
    },
    /// The server is unknown, and there is no terminal to ask on.
    #[error("{endpoint} is unknown and there is no terminal to ask on; its certificate is {shown}")]
    Unknown {
        /// The server.
        endpoint: String,
        /// The certificate that it shows.
        shown: Fingerprint,
    },
    /// The server is unknown, and the user did not say yes.
    #[error("{endpoint} was not trusted; nothing was sent to it")]
    Declined {
        /// The server.
        endpoint: String,
    },
    /// The user interrupted the question.
    #[error("interrupted")]
    Interrupted,
    /// The known hosts file can't be used.
    #[error("known hosts file {}: {error}", file.display())]
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// The problem with it.
        error: io::Error,
    },
}

/// Asks the user questions that are answered by a line.
pub trait Asker {
    /// The user's answer, as a line.
    ///
    /// If the user can't be asked, or interrupts the question.
    fn ask(&mut self, question: &str) -> Result<String, NoAnswer>;
}

/// The reason why a question has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// There is no terminal to ask on.
    Nobody,
    /// The user interrupted the question.
    Interrupted,
}

impl TrustPolicy {
    /// Decides about the certificate that `endpoint` shows. Asks if need be, and remembers a yes.
    ///
    /// If the certificate is not trusted, or the known hosts file can't be used.
    pub fn decide(
        &self,
        endpoint: &str,
        shown: Fingerprint,
        asker: &mut dyn Asker,
    ) -> Result<(), TrustError> {
        match &self.mode {
            // The authorities' signature was verified in the handshake.
            TrustMode::Authorities(_) => Ok(()),
            TrustMode::Fingerprint(expected) | TrustMode::Vouched(expected)
                if *expected != shown =>
            {
                Err(TrustError::NotAsAsked {
                    endpoint: endpoint.to_owned(),
                    expected: *expected,
                    shown,
                })
            }
            TrustMode::Fingerprint(_) => Ok(()),
            TrustMode::AcceptNew | TrustMode::Vouched(_) | TrustMode::Ask
                if self.is_known(endpoint, shown)? =>
            {
                Ok(())
            }
            TrustMode::AcceptNew | TrustMode::Vouched(_) => self.remember(endpoint, shown),
            TrustMode::Ask => {
                agree(endpoint, shown, asker)?;
                self.remember(endpoint, shown)
            }
        }
    }

    fn is_known(&self, endpoint: &str, shown: Fingerprint) -> Result<bool, TrustError> {
        let keys = self.known_hosts.lookup(endpoint).map_err(|error| self.file_error(error))?;
        match keys.first() {
            None => Ok(false),
            Some(_) if keys.iter().any(|key| key.fingerprint == shown) => Ok(true),
            Some(first) => Err(TrustError::Changed {
                endpoint: endpoint.to_owned(),
                known: first.fingerprint,
                shown,
                file: self.known_hosts.path().to_owned(),
                line: first.line,
            }),
        }
    }

    fn remember(&self, endpoint: &str, shown: Fingerprint) -> Result<(), TrustError> {
        self.known_hosts.add(endpoint, shown).map_err(|error| self.file_error(error))
    }

    fn file_error(&self, error: io::Error) -> TrustError {
        TrustError::KnownHosts { file: self.known_hosts.path().to_owned(), error }
    }
}

/// Asks until the answer is yes or no. An empty answer is a no.
fn agree(endpoint: &str, shown: Fingerprint, asker: &mut dyn Asker) -> Result<(), TrustError> {
    let mut question = format!(
        "The server {endpoint} is not known yet. Its certificate is\n  {shown}\n\
         Does `xfer-server fingerprint` on the server say the same, and do you trust it (yes/no/the fingerprint)? "
    );
    loop {
        let answer = asker.ask(&question).map_err(|why| match why {
            NoAnswer::Nobody => TrustError::Unknown { endpoint: endpoint.to_owned(), shown },
            NoAnswer::Interrupted => TrustError::Interrupted,
        })?;
        let answer = answer.trim().to_ascii_lowercase();
        let declined = || TrustError::Declined { endpoint: endpoint.to_owned() };
        match (answer.as_str(), answer.parse::<Fingerprint>()) {
            ("yes", _) => return Ok(()),
            ("no" | "", _) => return Err(declined()),
            (_, Ok(expected)) if expected == shown => return Ok(()),
            (_, Ok(expected)) => {
                let endpoint = endpoint.to_owned();
                return Err(TrustError::NotAsAsked { endpoint, expected, shown });
            }
            (_, Err(_)) => {
                "Please type yes, no or the fingerprint: ".clone_into(&mut question);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Script(Vec<String>, usize);

    impl Asker for Script {
        fn ask(&mut self, _question: &str) -> Result<String, NoAnswer> {
            self.1 += 1;
            match self.0.is_empty() {
                true => Err(NoAnswer::Nobody),
                false => Ok(self.0.remove(0)),
            }
        }
    }

    struct Case {
        _directory: tempfile::TempDir,
        policy: TrustPolicy,
    }

    fn case(mode: TrustMode) -> Case {
        let directory = tempfile::tempdir().unwrap();
        let known_hosts = KnownHosts::new(directory.path().join("known_hosts"));
        Case { _directory: directory, policy: TrustPolicy { mode, known_hosts } }
    }

    impl Case {
        fn decide(&self, key: &[u8], answers: &[&str]) -> (Result<(), TrustError>, usize) {
            let answers = answers.iter().map(|answer| (*answer).to_owned());
            let mut script = Script(answers.collect(), 0);
            (self.policy.decide("h:1", Fingerprint::of(key), &mut script), script.1)
        }
    }

    #[test]
    fn a_yes_is_asked_for_once_and_remembered() {
        let case = case(TrustMode::Ask);
        let (first, asked) = case.decide(b"key", &["perhaps\n", "Yes\n"]);
        assert!(first.is_ok() && asked == 2);
        let (second, asked) = case.decide(b"key", &[]);
        assert!(second.is_ok() && asked == 0);
    }

    #[test]
    fn the_fingerprint_itself_is_a_yes_and_another_one_is_a_no() {
        let case = case(TrustMode::Ask);
        let pasted = |key: &[u8]| format!("{}\n", Fingerprint::of(key));
        let (refused, asked) = case.decide(b"key", &[&pasted(b"other")]);
        assert!(matches!(refused, Err(TrustError::NotAsAsked { .. })) && asked == 1);
        assert!(!case.policy.known_hosts.path().exists());
        let (accepted, asked) = case.decide(b"key", &["sha256:12", &pasted(b"key").to_uppercase()]);
        assert!(accepted.is_ok() && asked == 2);
        assert!(case.decide(b"key", &[]).0.is_ok(), "it is remembered");
    }

    #[test]
    fn a_no_and_an_end_of_input_are_not_remembered() {
        let case = case(TrustMode::Ask);
        assert!(matches!(case.decide(b"key", &["no\n"]).0, Err(TrustError::Declined { .. })));
        assert!(matches!(case.decide(b"key", &[""]).0, Err(TrustError::Declined { .. })));
        assert!(!case.policy.known_hosts.path().exists());
    }

    #[test]
    fn an_unknown_key_is_refused_when_nobody_can_be_asked() {
        let (refused, _) = case(TrustMode::Ask).decide(b"key", &[]);
        let Err(error @ TrustError::Unknown { .. }) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("its certificate is sha256:"));
    }

    #[test]
    fn a_changed_key_is_refused_in_every_mode_that_knows_hosts() {
        let vouched = TrustMode::Vouched(Fingerprint::of(b"new"));
        for mode in [TrustMode::Ask, TrustMode::AcceptNew, vouched] {
            let case = case(mode);
            case.policy.known_hosts.add("h:1", Fingerprint::of(b"old")).unwrap();
            let (refused, asked) = case.decide(b"new", &["yes\n"]);
            let Err(error @ TrustError::Changed { line: 1, .. }) = refused else {
                panic!("{refused:?}")
            };
            let text = error.to_string();
            assert!(text.contains(&Fingerprint::of(b"old").to_string()));
            assert!(text.contains(&Fingerprint::of(b"new").to_string()));
            assert!(text.contains("known_hosts, line 1") && asked == 0);
        }
    }

    #[test]
    fn accept_new_remembers_without_asking() {
        let case = case(TrustMode::AcceptNew);
        let (accepted, asked) = case.decide(b"key", &[]);
        assert!(accepted.is_ok() && asked == 0);
        assert!(matches!(case.decide(b"other", &[]).0, Err(TrustError::Changed { .. })));
    }

    #[test]
    fn a_certificate_that_is_vouched_for_is_exact_and_remembered_without_asking() {
        let case = case(TrustMode::Vouched(Fingerprint::of(b"key")));
        assert!(matches!(case.decide(b"other", &[]).0, Err(TrustError::NotAsAsked { .. })));
        assert!(!case.policy.known_hosts.path().exists());
        for _ in 0..2 {
            let (accepted, asked) = case.decide(b"key", &[]);
            assert!(accepted.is_ok() && asked == 0);
        }
        assert_eq!(case.policy.known_hosts.lookup("h:1").unwrap().len(), 1);
    }

    #[test]
    fn a_fingerprint_is_exact_and_leaves_known_hosts_alone() {
        let case = case(TrustMode::Fingerprint(Fingerprint::of(b"key")));
        assert!(case.decide(b"key", &[]).0.is_ok());
        assert!(matches!(case.decide(b"other", &[]).0, Err(TrustError::NotAsAsked { .. })));
        assert!(!case.policy.known_hosts.path().exists());
    }
}

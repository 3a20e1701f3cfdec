//! How sessions begin and how they fail to, against small servers.

#![allow(missing_docs, clippy::unwrap_used)]

mod peer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use peer::{Manner, Server};
use tempfile::TempDir;
use xfer_client::connect::{
    Asker, ConnectError, Credentials, EndpointError, Fingerprint, Identity, KnownHosts, Login,
    NewSession, NoAnswer, TrustError, TrustMode, TrustPolicy, reach,
};
use xfer_mount::process::exit::{Exit, Failure};
use xfer_protocol::Timestamp;
use xfer_protocol::message::{Password, Purpose, Refusal, Terms};

/// A user who can't be asked.
struct Nobody;

impl Asker for Nobody {
    fn ask(&mut self, _question: &str) -> Result<String, NoAnswer> {
        Err(NoAnswer::Nobody)
    }
}

struct Yes;

impl Asker for Yes {
    fn ask(&mut self, _question: &str) -> Result<String, NoAnswer> {
        Ok("yes".to_owned())
    }
}

fn known_hosts() -> (TempDir, KnownHosts) {
    let directory = tempfile::tempdir().unwrap();
    let hosts = KnownHosts::new(directory.path().join("known_hosts"));
    (directory, hosts)
}

async fn login(
    target: &str,
    mode: TrustMode,
    hosts: &KnownHosts,
    asker: &mut dyn Asker,
    password: &[u8],
) -> Result<Login, ConnectError> {
    let policy = TrustPolicy { mode, known_hosts: hosts.clone() };
    let contact = reach(&target.parse().unwrap(), &policy.mode).await?;
    let peer = contact.trust(&policy, asker)?;
    let identity = Identity::Password(Password(password.to_vec()));
    peer.login(identity, Purpose::Mount, None, Terms::default()).await
}

/// Logs in to a server of this manner, trusting any key.
async fn try_login(manner: Manner, password: &[u8]) -> Result<Login, ConnectError> {
    let server = Server::start(manner).await;
    let (_directory, hosts) = known_hosts();
    login(&server.target(), TrustMode::AcceptNew, &hosts, &mut Nobody, password).await
}

/// Opens one more link of a session.
async fn dial(session: &NewSession) -> Result<(), EndpointError> {
    session.dial.read_link(Credentials::new(&session.link.grant)).await.map(drop)
}

async fn check_refused(manner: Manner, exit: Exit, part: &str) {
    let Err(error) = try_login(manner, b"secret").await else { panic!("{manner:?}: let in") };
    let Failure { exit: found, line } = Failure::from(error);
    assert_eq!(found, exit, "{manner:?}: {line}");
    assert!(line.contains(part), "{manner:?}: {line}");
    assert_eq!(line.lines().count(), 1);
}

#[tokio::test]
async fn a_login_gives_a_session_and_more_links() {
    let login = try_login(Manner::Xfer, b"secret").await.unwrap();
    assert_eq!(login.session.link.grant, peer::grant());
    assert!(login.warnings.is_empty());
    for _ in 0..3 {
        dial(&login.session).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_begins_and_gets_its_links_at_a_server_that_turns_some_away() {
    let server = Server::start(Manner::Crowded).await;
    let (_directory, hosts) = known_hosts();
    let mode = TrustMode::AcceptNew;
    let login = login(&server.target(), mode, &hosts, &mut Nobody, b"secret").await.unwrap();
    dial(&login.session).await.unwrap();
}

#[tokio::test]
async fn a_login_is_tried_again_however_the_server_says_that_it_is_busy() {
    let server = Server::start(Manner::BusyAtFirst).await;
    let (_directory, hosts) = known_hosts();
    let mode = TrustMode::AcceptNew;
    login(&server.target(), mode, &hosts, &mut Nobody, b"secret").await.unwrap();
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_server_that_stays_busy_is_called_busy_and_not_something_else() {
    check_refused(Manner::BusyOrHangsUp, Exit::ServerTrouble, "too busy").await;
}

#[tokio::test]
async fn a_pinned_key_is_trusted_and_another_is_not() {
    let server = Server::start(Manner::Xfer).await;
    let (_directory, hosts) = known_hosts();
    let pin = TrustMode::Fingerprint(server.fingerprint);
    login(&server.target(), pin, &hosts, &mut Nobody, b"secret").await.unwrap();
    let other = TrustMode::Fingerprint(Fingerprint::of(b"another"));
    let refused = login(&server.target(), other, &hosts, &mut Yes, b"secret").await;
    assert!(matches!(refused.err(), Some(ConnectError::Trust(TrustError::NotAsAsked { .. }))));
}

#[tokio::test]
async fn a_server_is_trusted_on_first_use_only_by_who_can_be_asked() {
    let server = Server::start(Manner::Xfer).await;
    let (_directory, hosts) = known_hosts();
    let refused = login(&server.target(), TrustMode::Ask, &hosts, &mut Nobody, b"secret").await;
    let error = refused.err().unwrap();
    assert!(matches!(error, ConnectError::Trust(TrustError::Unknown { .. })));
    assert!(error.to_string().contains(&server.fingerprint.to_string()));
    login(&server.target(), TrustMode::Ask, &hosts, &mut Yes, b"secret").await.unwrap();
    login(&server.target(), TrustMode::Ask, &hosts, &mut Nobody, b"secret").await.unwrap();
}

#[tokio::test]
async fn a_key_that_changed_is_refused() {
    let server = Server::start(Manner::Xfer).await;
    let (_directory, hosts) = known_hosts();
    let endpoint = format!("localhost:{}", server.address.port());
    hosts.add(&endpoint, Fingerprint::of(b"old")).unwrap();
    for mode in [TrustMode::Ask, TrustMode::AcceptNew] {
        let error = login(&server.target(), mode, &hosts, &mut Yes, b"secret").await.err().unwrap();
        assert!(matches!(error, ConnectError::Trust(TrustError::Changed { .. })), "{error}");
        assert_eq!(Exit::from(&error), Exit::Key);
    }
}

#[tokio::test]
async fn authorities_vouch_for_names_of_their_own() {
    let server = Server::start(Manner::Xfer).await;
    let (directory, hosts) = known_hosts();
    let write = |name: &str, pem: &str| -> PathBuf {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let good = TrustMode::Authorities(write("good.pem", &server.certificate_pem));
    let login_good = login(&server.target(), good.clone(), &hosts, &mut Nobody, b"secret").await;
    dial(&login_good.unwrap().session).await.unwrap();
    let by_address = format!("alice@127.0.0.1:{}", server.address.port());
    let error = login(&by_address, good, &hosts, &mut Yes, b"secret").await.err().unwrap();
    assert!(error.to_string().contains("certificate is not valid"), "{error}");
    let other = Server::start(Manner::Xfer).await;
    let other = TrustMode::Authorities(write("other.pem", &other.certificate_pem));
    let error = login(&server.target(), other, &hosts, &mut Yes, b"secret").await.err().unwrap();
    assert_eq!(Exit::from(&error), Exit::NotXfer, "{error}");
    let none = TrustMode::Authorities(write("none.pem", "hello"));
    let error = login(&server.target(), none, &hosts, &mut Yes, b"secret").await.err().unwrap();
    assert_eq!(Exit::from(&error), Exit::Usage, "{error}");
}

#[tokio::test]
async fn what_is_not_an_xfer_server_is_told_apart() {
    check_refused(Manner::PlainText, Exit::NotXfer, "does not speak TLS;").await;
    check_refused(Manner::OldTls, Exit::NotXfer, "does not speak TLS 1.3").await;
    check_refused(Manner::OtherProtocol, Exit::NotXfer, "TLS for another protocol").await;
    check_refused(Manner::OtherGreeting, Exit::NotXfer, "it did not send an xfer greeting").await;
    check_refused(Manner::HangsUp, Exit::NotXfer, "overloaded, or not an xfer server").await;
    check_refused(Manner::Newer, Exit::NotXfer, "versions 8 to 9").await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_login_is_told_in_plain_words() {
    let line = "the connection broke during login (the server closed it); try again";
    check_refused(Manner::DiesInLogin, Exit::ServerTrouble, line).await;
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let begin = Instant::now();
    check_refused(Manner::Silent, Exit::Unreachable, "no answer during the TLS handshake").await;
    assert!((9..20).contains(&begin.elapsed().as_secs()));
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_directory, hosts) = known_hosts();
    let target = format!("alice@127.0.0.1:{}", free.port());
    let begin = Instant::now();
    let error = login(&target, TrustMode::Ask, &hosts, &mut Nobody, b"x").await.err().unwrap();
    assert!(error.to_string().contains("is xfer-server running there"), "{error}");
    assert_eq!(Exit::from(&error), Exit::Unreachable);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn each_refusal_has_its_line_and_code() {
    let Err(error) = try_login(Manner::Xfer, b"wrong").await else { panic!("let in") };
    assert_eq!(Exit::from(&error), Exit::WrongPassword);
    assert!(matches!(
        error,
        ConnectError::Endpoint { error: EndpointError::Refused(Refusal::WrongPassword), .. }
    ));
    let in_use = || Refusal::InUse {
        host: "laptop".to_owned(),
        address: "10.0.0.7".to_owned(),
        since: Timestamp::new(1_700_000_000, 0).unwrap(),
    };
    let line = "the account is in use on laptop (10.0.0.7), since 2023-11-14 22:13:20 UTC; \
                use --takeover to take the tree from that one";
    check_refused(Manner::Refuses(in_use), Exit::InUse, line).await;
    let blocked = || Refusal::Blocked { seconds: 42 };
    check_refused(
        Manner::Refuses(blocked),
        Exit::Blocked,
        "blocked after too many wrong passwords; try again in 42 s",
    )
    .await;
    check_refused(Manner::Refuses(|| Refusal::Busy), Exit::ServerTrouble, "too busy").await;
    check_refused(Manner::Refuses(|| Refusal::Stopping), Exit::ServerTrouble, "stopping").await;
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_warned_of_and_no_more() {
    let login = try_login(Manner::Ahead, b"secret").await.unwrap();
    assert_eq!(login.warnings.len(), 1);
    assert!(login.warnings[0].contains("ahead of this machine's"));
}

//! What is done with an account without a session: an invitation is used, devices are enrolled and
//! revoked, and a device logs in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use xfer_client::connect::{EndpointError, Identity, SigningKey};
use xfer_client::files::Files;
use xfer_protocol::Timestamp;
use xfer_protocol::message::{Binding, Done, InviteCode, Password, Purpose, Refusal, Task};
use xfer_store::{CodeHash, Invitation};
use xfer_tests::peers::{Host, Machine, Peer, name};

use super::{LOG, Round, Scene, options};

pub(super) const SCENE: Scene = Scene::on(1, 100, |round| Box::pin(play(round)));

const CODE: [u8; 16] = [7; 16];

async fn play(round: Arc<Round>) {
    let host = Round::host(&["alice"]).await;
    let alice = host.account(&name("alice")).await.id;
    let expires = Timestamp::from(SystemTime::now() + Duration::from_secs(60));
    let code = CodeHash(Sha256::digest(CODE).into());
    host.store.keys.invite(alice, Invitation { code, expires }).await.unwrap();
    let [laptop, desktop] = [(); 2].map(|()| Arc::new(SigningKey::generate().unwrap()));
    let invited = Identity::Invitation(InviteCode(CODE));
    let by_password = Identity::Password(Password(b"right".to_vec()));
    let doing = Doing { round: &round, host: &host };

    let user = name("alice");
    let enrolled = doing.task(&invited, || enrol(&laptop)).await;
    assert_eq!(enrolled, Ok(Done::Enrolled { user: user.clone() }));
    let other = doing.task(&invited, || enrol(&desktop)).await;
    assert_eq!(other, Err(Refusal::UsedInvitation));
    let enrolled = doing.task(&by_password, || enrol(&desktop)).await;
    assert_eq!(enrolled, Ok(Done::Enrolled { user }));
    let [by_laptop, by_desktop] = [&laptop, &desktop].map(|key| Identity::Device(key.clone()));
    let stolen = doing.task(&by_laptop, || Task::Revoke(desktop.public())).await;
    assert_eq!(stolen, Err(Refusal::PasswordNeeded));
    let Ok(Done::Keys(keys)) = doing.task(&by_laptop, || Task::Keys).await else {
        panic!("no keys")
    };
    assert_eq!(keys.len(), 2);

    let machine = Machine { device: Some(desktop.clone()), ..Machine::default() };
    let peer = doing.mount(&machine).await;
    let files = Files::of(peer.client);
    files.write("file", &bytes::Bytes::from_static(b"text")).await.unwrap();
    files.sync().await.unwrap();
    // The desktop's session ends with its key, and nothing of it is lost.
    let revoked = doing.task(&by_password, || Task::Revoke(desktop.public())).await;
    // If the answer was lost, the key is not known when it is revoked again.
    assert!(matches!(revoked, Ok(Done::Revoked { .. })), "{revoked:?}");
    assert_eq!(doing.task(&by_desktop, || Task::Keys).await, Err(Refusal::UnknownKey));
    drop(files);

    let revoked = doing.task(&by_laptop, || Task::Revoke(laptop.public())).await;
    // If the answer was lost, the key is not known when it is asked again.
    let is_gone = matches!(revoked, Ok(Done::Revoked { .. }) | Err(Refusal::UnknownKey));
    assert!(is_gone, "{revoked:?}");
    assert_eq!(host.store.keys.of(alice).await.unwrap(), []);
    let files = Files::of(round.look_afterwards(&host).await.client);
    assert_eq!(files.read("file").await.unwrap(), b"text");
    files.finish().await.unwrap();
}

/// The request to enrol a device; all simulated connections have one binding.
fn enrol(key: &SigningKey) -> Task {
    Task::Enrol {
        key: key.public(),
        proof: key.prove_device("alice", Binding::default()),
        label: "a machine".to_owned(),
        password: None,
    }
}

/// Does tasks over links that may be cut. A user whom that happens to tries again.
struct Doing<'a> {
    round: &'a Round,
    host: &'a Host,
}

impl Doing<'_> {
    async fn task(&self, identity: &Identity, task: impl Fn() -> Task) -> Result<Done, Refusal> {
        for _ in 0..2 {
            match self.try_task(identity, task()).await {
                Ok(done) => return Ok(done),
                Err(EndpointError::Refused(refusal)) => return Err(refusal),
                Err(EndpointError::Broken(..) | EndpointError::TimedOut(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the link was cut twice")
    }

    async fn try_task(&self, identity: &Identity, task: Task) -> Result<Done, EndpointError> {
        let cable = &self.round.cables[0];
        self.host.perform_over(cable, "alice", identity.clone(), task).await
    }

    async fn mount(&self, machine: &Machine) -> Peer {
        let cable = &self.round.cables[0];
        for _ in 0..2 {
            let mounted = self.host.mount_over(cable, machine, "alice", Purpose::Mount, options());
            match mounted.await {
                Ok(peer) => return peer,
                Err(EndpointError::Broken(..) | EndpointError::TimedOut(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the link was cut twice")
    }
}

#[test]
fn a_task_that_is_cut_off_after_any_byte_can_be_repeated_and_is_done_once() {
    SCENE.cut_each(0, LOG);
}

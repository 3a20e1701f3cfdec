//! What the store holds of a user's tree just after its server has crashed: the tree of a prefix of the
//! log, with all that was durable. Only changes in place that no commit covers may have left some of
//! their bytes.

use xfer_protocol::Ino;
use xfer_protocol::tree::Need;
use xfer_store::AccountId;
use xfer_tests::cable::Said;
use xfer_tests::peers::Host;

use crate::history::{History, is_listed};
use crate::in_place;

/// Fails the test unless the store holds the tree that a history has reached.
pub async fn audit(host: &Host, account: AccountId, history: &History) {
    let (whole, trees) = (history.whole(), &host.store.trees);
    let pending: Vec<&Said> = history.pending().collect();
    for ino in whole.inos() {
        let needs = vec![Need::Node(ino)];
        let found = trees.load(account, needs).await.expect("the store answers").nodes;
        let (expected, found) = (whole.node(ino).expect("it is listed"), found[0].1.as_ref());
        assert!(
            found.is_some_and(|found| *found == *expected || is_listed(found, &expected)),
            "{ino}: the store has {found:?}, not {expected:?}"
        );
        if expected.is_directory() {
            let needs = vec![Need::Children(ino)];
            let found = trees.load(account, needs).await.expect("the store answers").entries;
            let found = found.into_iter().filter_map(|(_, name, child)| Some((name, child?)));
            assert_eq!(found.collect::<Vec<_>>(), whole.entries(ino), "in {ino}");
        }
        audit_bytes(host, history, ino, &pending).await;
    }
}

async fn audit_bytes(host: &Host, history: &History, ino: Ino, pending: &[&Said]) {
    let known = history.model().bytes(ino).unwrap_or_default();
    for (start, there) in in_place::there(host, history, ino).await {
        for (at, byte) in (start..).zip(there) {
            let is_right = known[at as usize] == byte
                || pending.iter().any(|said| in_place::may_set(said, ino, at, byte));
            assert!(is_right, "{ino} has {byte} at {at}, not {}", known[at as usize]);
        }
    }
}

//! `xfer keys`: the machines that log in to an account by a key.

use serde::Serialize;
use xfer_client::connect::Identity;
use xfer_protocol::Timestamp;
use xfer_protocol::message::{DeviceKey, PublicKey};
use xfer_protocol::shown::shown;

use super::{Reached, target};
use crate::command::config::PasswordSource;
use crate::command::identity;
use crate::command::xfer_line::KeysLine;
use crate::process::exit::Failure;
use crate::process::output::{print_json, print_line};

/// A key as it is listed for programs.
#[derive(Serialize)]
struct Listed {
    key: String,
    label: String,
    enrolled: String,
    used: Option<String>,
    expires: Option<String>,
    here: bool,
}

pub(super) fn run(mut line: KeysLine) -> Result<(), Failure> {
    let target = target(&line.target)?;
    let reached = Reached::server(&target, line.server, &mut line.password)?;
    let source = PasswordSource::from(line.password);
    let (label, own) = (reached.peer.label(), identity::device(reached.peer.label())?);
    let own_key = own.as_ref().and_then(key_of);
    let keys_by = |identity: &Identity| reached.runtime.block_on(reached.peer.keys(identity));
    let Some(revoked) = line.revoke else {
        let keys = keys_by(&identity::obtain(&source, label)?)?;
        return list(&keys, own_key, line.json);
    };
    // Another machine's key needs more than a key.
    let identity = identity::by_password(&source, label)?;
    let key = find(&keys_by(&identity)?, &revoked, label)?;
    reached.runtime.block_on(reached.peer.revoke(&identity, key))?;
    print_line(&format!("key {} of {label} is revoked", hex::encode(&key.0[..6])))
}

fn key_of(identity: &Identity) -> Option<PublicKey> {
    match identity {
        Identity::Device(key) => Some(key.public()),
        Identity::Password(_) | Identity::Invitation(_) => None,
    }
}

fn list(keys: &[DeviceKey], own: Option<PublicKey>, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&keys.iter().map(|known| listed(known, own)).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        return print_line("no machine logs in to this account by a key");
    }
    keys.iter().try_for_each(|known| print_line(&row(known, own)))
}

fn row(known: &DeviceKey, own: Option<PublicKey>) -> String {
    let used = known.used.map_or("never used".to_owned(), |at| format!("used {}", at.to_rfc3339()));
    let expires =
        known.expires.map_or(String::new(), |at| format!(", expires {}", at.to_rfc3339()));
    let here = if own == Some(known.key) { ", this machine" } else { "" };
    let (key, label) = (hex::encode(&known.key.0[..6]), shown(&known.label));
    format!("{key}  {label}  enrolled {}, {used}{expires}{here}", known.enrolled.to_rfc3339())
}

fn listed(known: &DeviceKey, own: Option<PublicKey>) -> Listed {
    Listed {
        key: hex::encode(known.key.0),
        label: known.label.clone(),
        enrolled: known.enrolled.to_rfc3339(),
        used: known.used.map(Timestamp::to_rfc3339),
        expires: known.expires.map(Timestamp::to_rfc3339),
        here: own == Some(known.key),
    }
}

/// The one key that the text means: its beginning, or its label.
fn find(keys: &[DeviceKey], text: &str, label: &str) -> Result<PublicKey, Failure> {
    let is_meant = |known: &&DeviceKey| {
        let begins = !text.is_empty() && hex::encode(known.key.0).starts_with(text);
        begins || known.label == text
    };
    let mut meant = keys.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(known), None) => Ok(known.key),
        (Some(_), Some(_)) => {
            let line = format!("'{text}' means several keys of {label}; give more of the key");
            Err(Failure::usage(line))
        }
        (None, _) => {
            let line = format!("{label} has no key '{text}'; see: xfer keys {label}");
            Err(Failure::usage(line))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn known(byte: u8, label: &str) -> DeviceKey {
        let (key, label) = (PublicKey([byte; 32]), label.to_owned());
        DeviceKey { key, label, enrolled: Timestamp::default(), used: None, expires: None }
    }

    #[test]
    fn a_key_is_meant_by_its_beginning_or_its_label_alone() {
        let keys = [known(0xab, "laptop"), known(0xac, "desktop"), known(0xad, "desktop")];
        let find = |text| find(&keys, text, "alice@host:1").map_err(|failure| failure.line);
        assert_eq!(find("ab"), Ok(keys[0].key));
        assert_eq!(find("laptop"), Ok(keys[0].key));
        assert!(find("desktop").unwrap_err().contains("several"));
        assert!(find("a").unwrap_err().contains("several"));
        assert!(find("").unwrap_err().contains("xfer keys alice@host:1"));
    }

    #[test]
    fn a_row_says_which_key_is_this_machines() {
        let keys = [known(0xab, "lap\x1btop"), known(0xac, "desktop")];
        let own = Some(keys[1].key);
        assert_eq!(
            row(&keys[0], own),
            "abababababab  lap\\u{1b}top  enrolled 1970-01-01T00:00:00Z, never used"
        );
        assert!(row(&keys[1], own).ends_with(", this machine"));
    }
}

//! `xfer passwd`: sets the account's password.

use xfer_client::connect::Identity;
use xfer_protocol::message::KeysThen;

use super::{Reached, target};
use crate::command::cli::PasswordLine;
use crate::command::config::PasswordSource;
use crate::command::terminal::{agrees, terminal};
use crate::command::xfer_line::PasswdLine;
use crate::command::{identity, password};
use crate::process::exit::Failure;
use crate::process::output::print_line;

pub(super) fn run(line: PasswdLine) -> Result<(), Failure> {
    let target = target(&line.target)?;
    if terminal().is_none() {
        let line = "there is no terminal to ask for the passwords on; run `xfer passwd` on one, or have \
                    the administrator set it";
        return Err(Failure::usage(line));
    }
    let reached = Reached::server(&target, line.server, &mut PasswordLine::default())?;
    let label = reached.peer.label();
    let old = identity::by_password(&PasswordSource::Prompt, label)?;
    let keys = reached.runtime.block_on(reached.peer.keys(&old))?;
    let own = match identity::device(label)? {
        Some(Identity::Device(key)) => Some(key.public()),
        Some(_) | None => None,
    };
    let new = password::obtain_new(&PasswordSource::Prompt, label)?;
    let others = keys.iter().filter(|known| Some(known.key) != own).count();
    let revoked = match (line.revoke_keys, line.keep_keys) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => others > 0 && wants_to_revoke(others),
    };
    let then = if revoked { KeysThen::AreRevokedBut(own) } else { KeysThen::Stay };
    reached.runtime.block_on(reached.peer.set_password(&old, new, then))?;
    print_line(&format!("the password of {label} is changed"))
}

fn wants_to_revoke(others: usize) -> bool {
    agrees(&match others {
        1 => "1 other machine logs in by a key. Log it out too? [y/N] ".to_owned(),
        _ => format!("{others} other machines log in by a key. Log them out too? [y/N] "),
    })
}

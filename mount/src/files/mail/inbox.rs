//! `xfer inbox`: lists what others have sent, or does something for each of it.

use super::super::opening::Opened;
use super::super::show::Output;
use super::super::tree::Changes;
use super::arrival::{Arrival, all};
use super::following::Follower;
use super::target;
use crate::command::file_lines::InboxLine;
use crate::process::exit::Failure;

/// Lists what others have sent, or does something for each of it.
pub(in crate::files) fn inbox(line: InboxLine) -> Result<(), Failure> {
    if line.follow || line.mounted || line.exec.is_some() || line.notify {
        return Follower::new(line)?.run();
    }
    let opened = Opened::open(&target(&line.account)?, line.access)?;
    let mut output = Output::new();
    let arrivals = all(&opened);
    match line.json {
        true => output.json(&arrivals.iter().map(Arrival::described).collect::<Vec<_>>()),
        false => arrivals.iter().for_each(|arrival| arrival.print(&mut output)),
    }
    output.end().and(opened.close(Changes::None))
}

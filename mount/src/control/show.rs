//! Output for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use xfer_protocol::shown::{Shown, shown};
use xfer_protocol::size;
use xfer_terminal::plain;

use super::{DORMANT, Disconnected, Status};

/// The most unsent files of a mount that are named below the table.
const UNSENT_MAX: usize = 5;

/// A table with one line for each mount, and below it why some don't work, what is not sent, and what
/// is kept of their accounts.
pub(super) fn table(mounts: &[Status]) -> String {
    let mut rows = vec![["MOUNTPOINT", "SERVER", "STATE", "NOT DURABLE", "USED"].map(String::from)];
    rows.extend(mounts.iter().map(|mount| {
        [
            mount.mountpoint.clone(),
            mount.account(),
            state_word(mount).to_owned(),
            not_durable(mount),
            bytes_of(mount.used_bytes, mount.quota_bytes),
        ]
        .map(|cell| shown(&cell))
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or_default());
    let mut text = String::new();
    for [mountpoint, server, state, pending, used] in &rows {
        let [w0, w1, w2, w3] = widths;
        let _ =
            writeln!(text, "{mountpoint:w0$}  {server:w1$}  {state:w2$}  {pending:w3$}  {used}");
    }
    for mount in mounts {
        if let Some(why) = why_it_does_not_work(mount) {
            let _ = writeln!(text, "{}: {}", Shown(&mount.mountpoint), Shown(&why));
        }
        text.push_str(&unsent_of(mount));
    }
    for (account, rescues) in rescued(mounts) {
        let _ = writeln!(text, "{}: rescues: {rescues}; see: xfer rescue list", Shown(&account));
    }
    text
}

/// Why a mount does not work, or not without waiting, and what is done about that.
fn why_it_does_not_work(mount: &Status) -> Option<String> {
    match &mount.disconnected {
        _ if mount.is_lost() => Some(mount.state.clone()),
        _ if mount.state == DORMANT => Some(format!("the tree is {}", seat(mount))),
        Some(lost) => Some(format!("connection {}", connection(lost))),
        None => None,
    }
}

/// The state of a mount in a word. Why a session is over takes a sentence.
fn state_word(mount: &Status) -> &str {
    if mount.is_lost() { "lost" } else { &mount.state }
}

/// What a mount has in its outbox that is not sent: some of it by name, what failed first.
fn unsent_of(mount: &Status) -> String {
    let counts = unsent(mount);
    if counts.is_empty() {
        return String::new();
    }
    let mut named: Vec<&(String, String)> = mount.unsent.iter().collect();
    named.sort_by_key(|(_, state)| state.starts_with("waiting"));
    let mut text = format!("{}: not sent: {counts}\n", Shown(&mount.mountpoint));
    for (path, state) in named.iter().take(UNSENT_MAX) {
        let below = path.strip_prefix("outbox/").unwrap_or(path);
        let (to, name) = below.split_once('/').unwrap_or((below, ""));
        let _ = writeln!(text, "  {} to {}: {}", Shown(name), Shown(to), Shown(state));
    }
    let all = mount.unsent_waiting + mount.unsent_failed + mount.unsent_held;
    let more = all.saturating_sub(named.len().min(UNSENT_MAX) as u64);
    if more > 0 {
        let _ = writeln!(text, "  and {more} more: xfer outbox {}", Shown(&mount.account()));
    }
    text
}

/// The accounts of mounts that have rescues, and how many.
fn rescued(mounts: &[Status]) -> BTreeMap<String, u64> {
    let rescued = mounts.iter().filter(|mount| mount.rescues > 0);
    rescued.map(|mount| (mount.account(), mount.rescues)).collect()
}

/// The full status of one mount.
pub(super) fn details(mount: &Status) -> String {
    let mut rows = vec![
        ("mount point", mount.mountpoint.clone()),
        ("server", mount.account()),
        ("state", mount.state.clone()),
        ("mounted", if mount.elsewhere { "not here any more" } else { "here" }.to_owned()),
        ("tree", seat(mount)),
        ("connection", plain(&link(mount))),
        ("round trip", round_trip(mount.rtt_ms)),
        ("not durable", not_durable(mount)),
        ("durable up to", format!("{} of {}", mount.durable_seq, mount.applied_seq)),
        ("used", bytes_of(mount.used_bytes, mount.quota_bytes)),
        ("nodes", format!("{} of {}", mount.used_nodes, mount.quota_nodes)),
        ("cached data", size::display(mount.cache_bytes)),
        ("cached tree", size::display(mount.tree_bytes)),
        ("deliveries", deliveries(mount)),
    ];
    if mount.rescues > 0 {
        rows.push(("rescues", format!("{}; see: xfer rescue list", mount.rescues)));
    }
    if !mount.unsent.is_empty() {
        rows.push(("not sent", unsent(mount)));
    }
    let files = mount.unsent.iter().map(|(path, state)| ("", format!("{path}: {state}")));
    rows.extend(files);
    rows.extend(mount.errors.iter().map(|error| ("error", plain(error))));
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:13}  {}", Shown(&value));
    }
    text
}

/// How the connection to the server is. A session that is over has none.
fn link(mount: &Status) -> String {
    match &mount.disconnected {
        Some(lost) => connection(lost),
        None if mount.is_lost() => "none".to_owned(),
        None => "up".to_owned(),
    }
}

/// Describes the changes of an account that wait here for its next mount.
pub(super) fn waiting(account: &str, changes: usize) -> String {
    let changes = match changes {
        0 => "changes".to_owned(),
        _ => size::count(changes as u64, "change"),
    };
    let account = Shown(account);
    format!(
        "{account}: {changes} of an earlier mount kept here; the next mount of {account} sends them"
    )
}

/// Describes the round-trip time, in milliseconds.
pub(super) fn round_trip(ms: Option<f64>) -> String {
    ms.map_or_else(|| "not measured".to_owned(), |ms| format!("{ms:.1} ms"))
}

/// Describes the changes that are not durable yet.
pub(super) fn pending(ops: u64, bytes: u64) -> String {
    match ops {
        0 => "nothing".to_owned(),
        _ => format!("{}, {}", size::count(ops, "change"), size::display(bytes)),
    }
}

fn not_durable(mount: &Status) -> String {
    let mut text = pending(mount.pending_ops, mount.pending_bytes);
    if mount.waits_for_room {
        text.push_str("; the server's disk is full, so they wait until it has room");
    }
    if let Some(since) = &mount.kept_here_since {
        let _ = write!(text, "; on this machine only since {}", local(since));
    }
    text
}

/// A moment in this machine's time zone: the time of day, with the date unless it is today's. The
/// text as it is, if that is not known.
fn local(moment: &str) -> String {
    let Ok(moment) = OffsetDateTime::parse(moment, &Rfc3339) else { return moment.to_owned() };
    let Ok(zone) = UtcOffset::current_local_offset() else { return moment.to_string() };
    let (moment, now) = (moment.to_offset(zone), OffsetDateTime::now_utc().to_offset(zone));
    let time = format!("{:02}:{:02}", moment.hour(), moment.minute());
    if moment.date() == now.date() { time } else { format!("{} {time}", moment.date()) }
}

/// Describes which mount of the account has the tree.
fn seat(mount: &Status) -> String {
    match (mount.state == DORMANT, &mount.other) {
        (true, Some(other)) => format!("with the client on {other}"),
        (true, None) => "perhaps with another client".to_owned(),
        (false, Some(other)) => format!("with this mount; the client on {other} asks for it"),
        (false, None) => "with this mount".to_owned(),
    }
}

/// Describes a connection that was lost.
pub(super) fn connection(lost: &Disconnected) -> String {
    let Disconnected { seconds, why, last_try, next_try_seconds } = lost;
    let last = last_try.iter().map(|why| format!("; the last try failed: {why}"));
    let last: String = last.collect();
    let next = match next_try_seconds {
        0.0 => "trying now".to_owned(),
        next => format!("next try in {next:.0} s"),
    };
    format!("lost {seconds:.0} s ago: {why}{last}; {next}")
}

/// Describes the deliveries that are not in the inbox yet.
fn deliveries(mount: &Status) -> String {
    match (mount.deliveries_waiting, mount.deliveries_without_room) {
        (waiting, 0) => format!("{waiting} waiting"),
        (waiting, without) => format!(
            "{waiting} waiting, {without} of them for room: remove something, since arrivals leave \
             a tenth of the quota free"
        ),
    }
}

/// Describes the items in the outbox that are not sent.
fn unsent(mount: &Status) -> String {
    let counts = [
        (mount.unsent_waiting, "waiting"),
        (mount.unsent_failed, "failed"),
        (mount.unsent_held, "held"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    counts.join(", ")
}

fn bytes_of(used: u64, quota: u64) -> String {
    format!("{} of {}", size::display(used), size::display(quota))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_mount_and_its_columns_align() {
        let mount = Status {
            mountpoint: "/home/alice/remote".to_owned(),
            user: "alice".to_owned(),
            server: "host:33000".to_owned(),
            state: "connected".to_owned(),
            pending_ops: 2,
            pending_bytes: 2048,
            quota_bytes: 1 << 30,
            ..Status::default()
        };
        let text = table(std::slice::from_ref(&mount));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("STATE"), lines[1].find("connected"));
        assert!(lines[1].ends_with("2 changes, 2 KiB  0 B of 1 GiB"));
        let since = Some("2026-11-30T10:42:00Z".to_owned());
        let kept = Status { kept_here_since: since, rescues: 3, ..mount };
        let text = table(&[kept.clone(), kept]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[2].contains("2 changes, 2 KiB; on this machine only since "), "{text}");
        assert_eq!(lines[3..], ["alice@host:33000: rescues: 3; see: xfer rescue list"]);
    }

    #[test]
    fn why_a_session_is_over_stands_below_the_table() {
        let why =
            "lost: an administrator has ended the session; what was not on the server is kept";
        let mount = Status {
            mountpoint: "/mnt".to_owned(),
            user: "alice".to_owned(),
            server: "host:1".to_owned(),
            state: why.to_owned(),
            ..Status::default()
        };
        let text = table(&[mount.clone(), Status { state: "connected".to_owned(), ..mount }]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("/mnt        alice@host:1  lost       "), "{text}");
        assert_eq!(lines[3..], [format!("/mnt: {why}")]);
        assert!(lines[..3].iter().all(|line| line.len() < 80), "{text}");
    }

    #[test]
    fn what_is_not_sent_is_named_below_the_table_what_failed_first() {
        let unsent = |name: &str, state: &str| (format!("outbox/bob/{name}"), state.to_owned());
        let mut mount = Status {
            mountpoint: "/mnt".to_owned(),
            user: "alice".to_owned(),
            server: "host:1".to_owned(),
            unsent_waiting: 1,
            unsent_failed: 1,
            unsent: vec![unsent("a", "waiting: no room"), unsent("b\n", "failed: no space")],
            ..Status::default()
        };
        let below = |mount: &Status| {
            let text = table(std::slice::from_ref(mount));
            text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let first = "/mnt: not sent: 1 waiting, 1 failed";
        let [b, a] = ["  b\\n to bob: failed: no space", "  a to bob: waiting: no room"];
        assert_eq!(below(&mount), [first, b, a]);
        mount.unsent_waiting = 149;
        mount.unsent.extend((0..98).map(|index| unsent(&format!("w{index}"), "waiting: no room")));
        assert_eq!(below(&mount).len(), 7);
        assert_eq!(below(&mount)[6], "  and 145 more: xfer outbox alice@host:1");
        assert!(below(&Status::default()).is_empty());
    }

    #[test]
    fn a_connection_that_was_lost_is_shown_with_the_next_try() {
        let lost = Disconnected {
            seconds: 41.7,
            why: "the server fell silent".to_owned(),
            last_try: Some("it does not answer".to_owned()),
            next_try_seconds: 2.6,
        };
        let line = "lost 42 s ago: the server fell silent; the last try failed: it does not answer; \
                    next try in 3 s";
        assert_eq!(connection(&lost), line);
        let first = Disconnected { last_try: None, next_try_seconds: 0.0, ..lost };
        assert_eq!(connection(&first), "lost 42 s ago: the server fell silent; trying now");
        let mount = Status { disconnected: Some(first), ..Status::default() };
        assert!(
            table(std::slice::from_ref(&mount))
                .ends_with(": connection lost 42 s ago: the server fell silent; trying now\n")
        );
        let away =
            Status { state: DORMANT.to_owned(), other: Some("pot".to_owned()), ..mount.clone() };
        assert!(table(&[away]).ends_with(": the tree is with the client on pot\n"));
        assert!(details(&mount).contains("connection     lost 42 s ago"));
        assert!(details(&Status::default()).contains("connection     up"));
        let over = Status { state: "lost: taken over by pot".to_owned(), ..Status::default() };
        assert!(over.is_lost() && details(&over).contains("connection     none"));
    }

    #[test]
    fn nothing_that_others_chose_moves_the_cursor_or_makes_a_line_of_its_own() {
        let mount = Status {
            mountpoint: "/mnt\x1b[2J".to_owned(),
            state: "lost: taken over by \u{202e}pot\u{2028}".to_owned(),
            errors: vec!["a\nerror  b".to_owned()],
            ..Status::default()
        };
        let texts = [table(std::slice::from_ref(&mount)), details(&mount)];
        for text in &texts {
            assert!(text.contains("/mnt\\u{1b}[2J") && text.contains("\\u{202e}pot\\u{2028}"));
            assert!(text.lines().all(|line| line.chars().all(xfer_protocol::shown::is_visible)));
        }
        let (state, errors) = ("lost: taken over".to_owned(), vec![String::new()]);
        let plain = Status { state, errors, ..Status::default() };
        let plain = [table(std::slice::from_ref(&plain)), details(&plain)];
        assert_eq!(texts.map(|text| text.lines().count()), plain.map(|text| text.lines().count()));
    }
}

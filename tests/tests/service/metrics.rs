//! What a server measures is what happens: each metric moves by as much as was done.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use xfer_protocol::Name;
use xfer_tests::accounts::Hashing;
use xfer_tests::files::drop_kernel_caches;
use xfer_tests::metrics::{Metrics, Pages, server, world};
use xfer_tests::programs::run_within;
use xfer_tests::sending::arrives;
use xfer_tests::{PATIENCE, Server, World, wait_until};

/// Fails the test unless these series have moved by this much, within the time that the server takes.
#[track_caller]
fn moved(pages: Pages, before: &Metrics, by: &[(&str, f64)]) {
    let mut now = pages.read();
    wait_until(&format!("{by:?}"), PATIENCE, || {
        now = pages.read();
        by.iter().all(|(series, by)| now.of(series) - before.of(series) == *by)
    });
}

/// A lock on the database of a store, which keeps others from writing to it until this is dropped.
pub struct Locked(Child);

impl Locked {
    pub fn new(store: &Path) -> Locked {
        const LOCK: &str = "import sqlite3, sys\n\
            database = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
            database.execute('BEGIN IMMEDIATE')\n\
            print('locked', flush=True)\n\
            sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", LOCK]).arg(store.join("xfer.db"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        xfer_tests::programs::wait_for_line(&mut child, "locked");
        Locked(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn sessions_and_links_are_counted_while_they_are_there() {
    let (world, pages) = world(&["alice", "bob"]);
    let before = pages.read();
    for series in ["xfer_sessions{state=\"attached\"}", "xfer_links{kind=\"log\"}"] {
        assert_eq!(before.of(series), 0.0);
    }
    let alice = world.mount("alice");
    let bob = world.mount("bob");
    bob.shell("ls");
    moved(
        pages,
        &before,
        &[
            ("xfer_sessions{state=\"attached\"}", 2.0),
            ("xfer_sessions{state=\"away\"}", 0.0),
            ("xfer_links{kind=\"log\"}", 2.0),
            ("xfer_sessions_begun_total{by=\"login\"}", 2.0),
        ],
    );
    assert!(pages.read().of("xfer_links{kind=\"read\"}") >= 1.0);
    alice.signal(Signal::KILL);
    pages.wait_for("xfer_sessions{state=\"away\"}", 1.0);
    pages.wait_for("xfer_links{kind=\"log\"}", 1.0);
    assert_eq!(pages.read().of("xfer_sessions{state=\"attached\"}"), 1.0);
    bob.unmount();
    pages.wait_for("xfer_sessions{state=\"attached\"}", 0.0);
    pages.wait_for("xfer_links{kind=\"read\"}", 0.0);
    assert_eq!(pages.read().of("xfer_sessions{state=\"away\"}"), 1.0);
    assert_eq!(pages.read().of("xfer_sessions_begun_total{by=\"login\"}"), 2.0);
}

#[test]
fn a_session_that_goes_on_is_counted_as_resumed() {
    let (mut world, _) = world(&["alice"]);
    let mount = world.mount("alice");
    let (store, address) = (world.server.store().to_owned(), world.server.address.to_string());
    assert_eq!(world.server.terminate(), Some(0));
    world.server = Server::start_with(&store, &address, &["--metrics", "127.0.0.1:0"]);
    let pages = Pages::of(&world.server);
    pages.wait_for("xfer_sessions_begun_total{by=\"resume\"}", 1.0);
    assert_eq!(pages.read().of("xfer_sessions_begun_total{by=\"login\"}"), 0.0);
    mount.unmount();
}

#[test]
fn changes_and_bytes_are_counted_once_also_after_their_session() {
    const BYTES: u64 = 3 << 20;
    let (world, pages) = world(&["alice"]);
    let mount = world.mount("alice");
    let before = pages.read();
    mount.shell("mkdir d1 d2 d3 d4 d5 d6 d7");
    mount.sync();
    moved(pages, &before, &[("xfer_ops_applied_total", 7.0), ("xfer_ops_not_durable", 0.0)]);
    assert!(pages.read().of("xfer_frames_total") > before.of("xfer_frames_total"));
    mount.shell(&format!("head -c {BYTES} /dev/urandom > file; sync file"));
    let written = [
        ("xfer_received_bytes_total", BYTES as f64),
        ("xfer_written_bytes_total", BYTES as f64),
        ("xfer_sent_bytes_total", 0.0),
    ];
    moved(pages, &before, &written);
    assert!(pages.read().of("xfer_barriers_total") > before.of("xfer_barriers_total"));
    // A copy is made on the server, which receives nothing.
    mount.shell("cp --reflink=never file d1/copy; printf x >> d1/copy; sync d1/copy");
    let copied = pages.read();
    assert_eq!(
        copied.of("xfer_received_bytes_total") - before.of("xfer_received_bytes_total"),
        BYTES as f64 + 1.0
    );
    assert!(copied.of("xfer_written_bytes_total") > copied.of("xfer_received_bytes_total"));
    mount.unmount();
    pages.wait_for("xfer_sessions{state=\"attached\"}", 0.0);
    let ended = pages.read();
    for series in
        ["xfer_ops_applied_total", "xfer_received_bytes_total", "xfer_commit_seconds_count"]
    {
        assert!(ended.of(series) >= copied.of(series), "{series}");
    }
    // A new session reads what its cache does not have.
    drop_kernel_caches();
    let mount = world.mount("alice");
    assert_eq!(fs::read(mount.path("file")).unwrap().len() as u64, BYTES);
    moved(
        pages,
        &ended,
        &[("xfer_sent_bytes_total", BYTES as f64), ("xfer_received_bytes_total", 0.0)],
    );
    let data = "xfer_reads_total{about=\"data\"}";
    assert!(pages.read().of(data) > ended.of(data));
    mount.shell("ls d1 > /dev/null; ! ls nothing 2> /dev/null");
    let subjects = ["node", "listing", "data", "other"];
    let all = |metrics: &Metrics| -> f64 {
        subjects
            .iter()
            .map(|about| metrics.of(&format!("xfer_reads_total{{about=\"{about}\"}}")))
            .sum()
    };
    let listed = world.server.command(&["session", "list", "--json"]).succeeded().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let counts = &listed[0]["counts"];
    // The session's own counters are the source, and other sessions' reads were counted before.
    assert!(all(&pages.read()) - all(&ended) >= counts["reads"].as_f64().unwrap());
    mount.unmount();
}

#[test]
fn each_commit_is_in_the_histogram_and_one_that_waits_takes_as_long_as_it_does() {
    let (world, pages) = world(&["alice"]);
    let mount = world.mount("alice");
    mount.sync();
    let before = pages.read();
    mount.shell("for n in 1 2 3 4 5; do echo $n > file; sync file; done");
    let commits = |metrics: &Metrics| metrics.of("xfer_commit_seconds_count");
    let done = pages.read();
    assert!(commits(&done) - commits(&before) >= 5.0);
    let transactions = "xfer_transaction_seconds_count";
    assert!(done.of(transactions) - before.of(transactions) >= 5.0);
    // The same as the session's counter says, which begins with the session.
    let listed = world.server.command(&["session", "list", "--json"]).succeeded().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["counts"]["commits"].as_f64().unwrap(), commits(&pages.read()));
    // A database that others write to for a while.
    let before = pages.read();
    let locked = Locked::new(world.server.store());
    let start = std::time::Instant::now();
    let mut sync = Command::new("bash")
        .arg("-c")
        .arg("echo more > file; sync file")
        .current_dir(mount.root())
        .spawn()
        .unwrap();
    wait_until("an op that waits", PATIENCE, || pages.read().of("xfer_ops_not_durable") > 0.0);
    wait_until("a wait of two seconds", PATIENCE, || start.elapsed().as_secs_f64() > 2.0);
    let waited = start.elapsed().as_secs_f64();
    drop(locked);
    assert!(sync.wait().unwrap().success());
    pages.wait_for("xfer_ops_not_durable", 0.0);
    let after = pages.read();
    let sum = "xfer_commit_seconds_sum";
    let took = after.of(sum) - before.of(sum);
    // The lock began before the op, and the check of that after it.
    assert!(
        (waited / 2.0..start.elapsed().as_secs_f64() + 1.0).contains(&took),
        "{took} of {waited}"
    );
    mount.unmount();
}

#[test]
fn what_waits_is_shown_while_it_waits() {
    let (world, pages) = world(&["alice", "bob"]);
    let (alice, bob) = (world.mount("alice"), world.mount("bob"));
    alice.sync();
    bob.sync();
    let locked = Locked::new(world.server.store());
    // Alice's batch is in a commit that can't go on, her next one is full, and more messages come.
    let mut writer = Command::new("bash")
        .arg("-c")
        .arg("head -c 128M /dev/urandom > big")
        .current_dir(alice.root())
        .spawn()
        .unwrap();
    wait_until("messages that wait", PATIENCE, || pages.read().of("xfer_messages_waiting") >= 1.0);
    assert!(pages.read().of("xfer_ops_not_durable") > 0.0);
    // Bob's waits for the transaction after that.
    bob.shell("echo text > file");
    pages.wait_for("xfer_batches_waiting", 1.0);
    drop(locked);
    assert!(writer.wait().unwrap().success());
    alice.sync();
    bob.sync();
    for series in ["xfer_messages_waiting", "xfer_batches_waiting", "xfer_ops_not_durable"] {
        pages.wait_for(series, 0.0);
    }
    alice.unmount();
    bob.unmount();
}

#[test]
fn passwords_that_wait_for_their_turn_are_shown_and_keys_do_not_wait() {
    let alice = Name::new(b"alice").unwrap();
    let mut world = World::with_hashing(&[alice], Hashing::Costly);
    assert_eq!(world.server.terminate(), Some(0));
    world.server = server(world.server.store());
    let pages = Pages::of(&world.server);
    let (account, password) =
        (format!("alice@{}", world.server.address), world.password_file("alice"));
    let trust = ["--fingerprint", &world.server.fingerprint];
    let password = ["--password-file", password.to_str().unwrap()];
    world.xfer(&[&["login", &account][..], &trust, &password].concat()).succeeded();
    assert_eq!(pages.read().of("xfer_passwords_waiting"), 0.0);
    let logins = || {
        let mut command = world.mounting("alice").command();
        command.arg("-f").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut clients: Vec<Child> = (0..6).map(|_| logins()).collect();
    // Two are checked at a time.
    pages.wait_for("xfer_passwords_waiting", 4.0);
    // The key of a machine needs no check of that kind, and does not wait for theirs.
    let mount = world.mounting("alice").by_key().start();
    assert!(pages.read().of("xfer_passwords_waiting") > 0.0);
    mount.unmount();
    clients.iter_mut().for_each(|client| client.kill().unwrap());
    clients.iter_mut().for_each(|client| assert!(!client.wait().unwrap().success()));
    pages.wait_for("xfer_passwords_waiting", 0.0);
}

#[test]
fn logins_are_counted_by_what_was_shown_and_what_came_of_it() {
    let (world, pages) = world(&["alice", "carol"]);
    let wrong = world.outside().join("wrong");
    xfer_tests::world::write_secret(&wrong, "wrong");
    let before = pages.read();
    world.mount("alice").unmount();
    moved(pages, &before, &[("xfer_logins_total{by=\"password\",outcome=\"accepted\"}", 1.0)]);
    let refuse = |user: &str| {
        let mut command = world.mounting(user).password_file(&wrong).command();
        run_within(command.arg("-f"), PATIENCE)
    };
    (0..5).for_each(|_| drop(refuse("alice").refused(9)));
    (0..2).for_each(|_| drop(refuse("alice").refused(10)));
    moved(
        pages,
        &before,
        &[
            ("xfer_logins_total{by=\"password\",outcome=\"wrong\"}", 5.0),
            ("xfer_logins_total{by=\"password\",outcome=\"blocked\"}", 2.0),
            ("xfer_lockouts", 1.0),
        ],
    );
    // A key is made by a password, or by an invitation.
    let (carol, target) = (world.password_file("carol"), format!("carol@{}", world.server.address));
    let trust = ["--fingerprint", &world.server.fingerprint];
    let file = ["--password-file", carol.to_str().unwrap()];
    world.xfer(&[&["login", &target][..], &trust, &file].concat()).succeeded();
    world.mounting("carol").by_key().start().unmount();
    moved(
        pages,
        &before,
        &[
            ("xfer_logins_total{by=\"password\",outcome=\"accepted\"}", 2.0),
            ("xfer_logins_total{by=\"key\",outcome=\"accepted\"}", 1.0),
        ],
    );
    let host = world.server.address.to_string();
    let line =
        world.server.command(&["user", "invite", "carol", "--host", &host]).succeeded().stdout;
    let word = line.split('\'').nth(1).unwrap();
    let (first, second) = (world.home(), world.outside());
    let log_in = |home: &Path| {
        let mut command = world.xfer_command(&[&["login", word][..], &file].concat());
        run_within(command.env("HOME", home), PATIENCE)
    };
    log_in(&first).succeeded();
    log_in(&second).refused(9);
    world.server.command(&["user", "disable", "carol"]).succeeded();
    run_within(world.mounting("carol").command().arg("-f"), PATIENCE).refused(9);
    moved(
        pages,
        &before,
        &[
            ("xfer_logins_total{by=\"invitation\",outcome=\"accepted\"}", 1.0),
            ("xfer_logins_total{by=\"invitation\",outcome=\"wrong\"}", 1.0),
            ("xfer_logins_total{by=\"password\",outcome=\"refused\"}", 1.0),
        ],
    );
}

#[test]
fn accounts_deliveries_and_space_are_those_of_the_store() {
    const BYTES: u64 = 5 << 20;
    let (world, pages) = world(&["alice", "bob"]);
    pages.wait_for("xfer_store_contents", 0.0);
    let before = pages.read();
    assert_eq!(before.of("xfer_accounts"), 2.0);
    world.add_user("carol");
    pages.wait_for("xfer_accounts", 3.0);
    let alice = world.mount("alice");
    alice.shell(&format!("head -c {BYTES} /dev/urandom > file; sync file; mv file outbox/bob/"));
    pages.wait_for("xfer_deliveries_waiting", 1.0);
    let sent = pages.read().of("xfer_deliveries_waiting_bytes");
    assert!((BYTES as f64..BYTES as f64 + 8192.0).contains(&sent), "{sent}");
    // What waits for a user who is removed is kept, and counted.
    world.server.command(&["user", "remove", "bob", "--yes"]).succeeded();
    pages.wait_for("xfer_accounts", 2.0);
    let kept = pages.read();
    assert_eq!(kept.of("xfer_deliveries_waiting"), 1.0);
    assert_eq!(kept.of("xfer_deliveries_waiting_bytes"), sent);
    world.server.command(&["user", "restore", "bob"]).succeeded();
    // Counted again within ten seconds.
    wait_until("the contents' size", PATIENCE, || {
        let now = pages.read();
        let bytes = now.of("xfer_store_contents_bytes");
        now.of("xfer_store_contents") == 1.0 && (BYTES as f64..BYTES as f64 * 1.1).contains(&bytes)
    });
    let store = world.server.store().to_owned();
    let size = |name: &str| fs::metadata(store.join(name)).unwrap().size();
    wait_until("the database's size", PATIENCE, || {
        let shown = pages.read().of("xfer_store_database_bytes");
        shown == (size("xfer.db") + size("xfer.db-wal")) as f64
    });
    let disk = rustix::fs::statvfs(&store).unwrap();
    let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let now = pages.read();
    assert_eq!(now.of("xfer_store_disk_bytes"), all as f64);
    // Others use the disk too.
    assert!((now.of("xfer_store_disk_free_bytes") - free as f64).abs() < 0.1 * all as f64);
    let bob = world.mount("bob");
    arrives(&bob, "inbox/alice/file");
    pages.wait_for("xfer_deliveries_waiting", 0.0);
    pages.wait_for("xfer_deliveries_waiting_bytes", 0.0);
    alice.unmount();
    bob.unmount();
}

#[test]
fn the_process_and_the_program_are_those_that_run() {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let (world, pages) = world(&[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let metrics = pages.read();
    assert!((start..now).contains(&metrics.of("process_start_time_seconds")));
    let proc = Path::new("/proc").join(world.server.pid().to_string());
    let usage = || xfer_tests::load::Usage::of(world.server.pid());
    let resident = fs::read_to_string(proc.join("status")).unwrap();
    let resident = resident.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: f64 = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let shown = metrics.of("process_resident_memory_bytes") / 1024.0;
    assert!((resident * 0.7..resident * 1.3).contains(&shown), "{shown} kB of {resident} kB");
    let open = || fs::read_dir(proc.join("fd")).unwrap().count() as f64;
    // The connection that asks is one of them.
    wait_until("the descriptors", PATIENCE, || pages.read().of("process_open_fds") == open() + 1.0);
    let limit = fs::read_to_string(proc.join("limits")).unwrap();
    let limit = limit.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let limit: f64 = limit.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(metrics.of("process_max_fds"), limit);
    let used = metrics.of("process_cpu_seconds_total");
    assert!(used > 0.0 && usage().cpu.as_secs_f64() + 0.1 >= used, "{used}");
    let version = env!("CARGO_PKG_VERSION");
    let protocol = xfer_protocol::message::VERSION;
    let format = xfer_store::embedded::FORMAT;
    let info = format!(
        "xfer_build_info{{version=\"{version}\",protocol=\"{protocol}\",store_format=\"{format}\"}}"
    );
    assert_eq!(metrics.of(&info), 1.0);
}

#[test]
fn the_page_is_one_that_promtool_takes() {
    let (world, pages) = world(&["alice"]);
    let mount = world.mount("alice");
    mount.shell("echo text > file; sync file");
    let page = pages.get("/metrics").body;
    mount.unmount();
    if run_within(Command::new("which").arg("promtool"), PATIENCE).code != Some(0) {
        println!("not checked: promtool is not there");
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The rows of the table of metrics in the handbook: name and kind.
fn documented() -> Vec<(String, String)> {
    let page = include_str!("../../../docs/OPERATIONS.md");
    let (_, table) =
        page.split_once("| metric | kind | unit | meaning |\n|---|---|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())).collect()
}

#[test]
fn the_handbook_lists_the_metrics_that_there_are() {
    let (_world, pages) = world(&[]);
    pages.wait_for("xfer_store_contents", 0.0);
    let mut documented = documented();
    documented.sort();
    let shown: Vec<_> = pages.read().kinds.into_iter().collect();
    assert_eq!(documented, shown);
}

/// The names of metrics in an expression of Prometheus.
fn named_in(expression: &str) -> Vec<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_of_word(c));
    let is_metric = |word: &&str| word.starts_with("xfer_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_shows_each_metric_and_none_that_there_is_not() {
    let (_world, pages) = world(&[]);
    pages.wait_for("xfer_store_contents", 0.0);
    let dashboard = include_str!("../../../packaging/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut named = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let found = named_in(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{panel}");
            named.extend(found);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        named.extend(named_in(variable["query"].as_str().unwrap()));
    }
    let shown = pages.read();
    let of_series =
        |name: &String| shown.values.keys().any(|series| series.split('{').next() == Some(name));
    let missing: Vec<_> = named.iter().filter(|name| !of_series(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let is_named = |metric: &&String| named.iter().any(|name| name.starts_with(metric.as_str()));
    let unused: Vec<_> = shown.kinds.keys().filter(|metric| !is_named(metric)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

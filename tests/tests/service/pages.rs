//! The pages for those who watch a server: who reaches them, what they say of its state, and that nothing
//! that comes over them holds the server up.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use xfer_tests::load::Usage;
use xfer_tests::metrics::{Answer, Pages, server, world};
use xfer_tests::programs::{Running, program, run_within};
use xfer_tests::{PATIENCE, Server, World, wait_until};

fn run(store: &Path, metrics: &str) -> Command {
    let mut command = Command::new(program("xfer-server"));
    command.args(["run", "--listen", "127.0.0.1:0", "--metrics", metrics, "--store"]).arg(store);
    command
}

#[test]
fn metrics_are_off_unless_they_are_wanted() {
    let world = World::new(&[]);
    assert!(!world.server.said().contains("metrics"), "{}", world.server.said());
    let shown =
        run_within(Command::new(program("xfer-server")).args(["run", "--print-config"]), PATIENCE);
    assert!(shown.succeeded().stdout.contains("# the default\nmetrics = \"off\"\n"));
}

#[test]
fn an_address_that_other_machines_reach_is_taken_only_if_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let line = run_within(&mut run(&store, "0.0.0.0:0"), PATIENCE).refused(2);
    assert!(line.contains("say public:0.0.0.0:0 if that is meant"), "{line}");
    assert!(!store.exists());
    let mut server = Server::start_with(&store, "127.0.0.1:0", &["--metrics", "public:0.0.0.0:0"]);
    let Pages(address) = Pages::of(&server);
    assert!(address.ip().is_unspecified(), "{address}");
    let pages = Pages(([127, 0, 0, 1], address.port()).into());
    assert_eq!(pages.get("/ready").status, 200);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn an_address_in_use_is_said_before_clients_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = run_within(&mut run(&directory.path().join("store"), &address), PATIENCE);
    let line = done.clone().refused(5);
    let expected = format!("xfer-server: cannot listen on {address} for metrics");
    assert!(line.starts_with(&expected) && line.ends_with("choose another --metrics"), "{line}");
    assert_eq!(done.stdout, "");
}

#[test]
fn one_port_for_clients_and_for_metrics_is_said_to_be_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new(program("xfer-server"));
    command.args(["run", "--listen", &free, "--metrics", &free, "--store"]).arg(directory.path());
    let line = run_within(&mut command, PATIENCE);
    assert_eq!(line.code, Some(5), "{line}");
    let last = line.stderr.lines().last().unwrap();
    assert!(last.contains("--metrics has that port"), "{line}");
}

#[test]
fn a_client_of_pages_that_says_no_more_is_still_answered() {
    let (_world, pages) = world(&["alice"]);
    let answer = pages.ask_and_close("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    check(&answer, 200, "the store is there");
}

#[track_caller]
fn check(answer: &Answer, status: u16, line: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (status, format!("{line}\n").as_str()));
}

#[test]
fn a_server_is_ready_from_when_clients_can_log_in_until_it_stops() {
    let (mut world, _) = world(&["alice"]);
    assert_eq!(world.server.terminate(), Some(0));
    let store = world.server.store().to_owned();
    // A database that somebody else writes to is waited for.
    let locked = super::metrics::Locked::new(&store);
    let mut starting = Running::start(&mut run(&store, "127.0.0.1:0"));
    let address = starting.line("the address of metrics", |line| {
        let (_, address) = line.split_once("metrics can be read address=")?;
        address.trim().parse().ok()
    });
    let pages = Pages(address);
    for page in ["/ready", "/health", "/metrics"] {
        check(&pages.get(page), 503, "the server is starting");
    }
    drop(locked);
    wait_until("the server to be ready", PATIENCE, || pages.get("/ready").status == 200);
    check(&pages.get("/ready"), 200, "clients can log in");
    check(&pages.get("/health"), 200, "the store is there");
    starting.signal(Signal::TERM);
    assert_eq!(starting.ended_within(PATIENCE), Some(0));
    // A client that does not answer is waited for.
    world.server = server(&store);
    let pages = Pages::of(&world.server);
    let mount = world.mount("alice");
    mount.signal(Signal::STOP);
    let pid = rustix::process::Pid::from_raw(world.server.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_until("the server to stop", PATIENCE, || pages.get("/ready").status == 503);
    check(&pages.get("/ready"), 503, "the server is stopping");
    check(&pages.get("/health"), 200, "the store is there");
    assert_eq!(pages.get("/metrics").status, 200);
    assert_eq!(world.server.ended(), Some(0));
    mount.signal(Signal::CONT);
    world.server = server(&store);
    mount.unmount();
}

#[test]
fn a_server_without_its_store_is_not_healthy() {
    let (mut world, pages) = world(&["alice"]);
    let mut mount = world.mount("alice");
    mount.signal(Signal::STOP);
    let store = world.server.store().to_owned();
    fs::rename(&store, store.with_extension("moved")).unwrap();
    let answer = pages.get("/health");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.starts_with("the store was removed or replaced while it was in use"));
    assert_eq!(answer.body.lines().count(), 1, "{answer:?}");
    assert_eq!(world.server.ended(), Some(16));
    mount.signal(Signal::CONT);
    mount.unmounted_by_force();
}

#[test]
fn pages_that_there_are_not_and_other_methods_are_refused() {
    let (_world, pages) = world(&[]);
    check(&pages.get("/"), 404, "there are /metrics, /health and /ready");
    check(&pages.get("/metrics/x"), 404, "there are /metrics, /health and /ready");
    let ask = |request: &str| pages.ask(request).unwrap();
    let post = ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    check(&post, 405, "only GET and HEAD");
    assert!(post.head.to_lowercase().contains("allow: get, head"), "{post:?}");
    let head = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(
        ask("GET /ready?verbose HTTP/1.0\r\n\r\n".replace("1.0", "1.1").as_str()).status,
        200
    );
    assert_eq!(ask("nonsense\r\n\r\n").status, 400);
    // A head that is too long is not read to its end.
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(pages.ask(&long).is_none_or(|answer| answer.status == 431));
    assert_eq!(pages.get("/metrics").status, 200);
}

/// Lets this process have many connections.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn clients_that_hold_connections_hold_neither_the_server_up_nor_memory_nor_others_out() {
    const CONNECTIONS: usize = 1000;
    const MIB: u64 = 1 << 20;
    raise_limit();
    let (world, pages) = world(&["alice"]);
    let mount = world.mount("alice");
    // What a login and the first page need is taken before.
    pages.read();
    let before = Usage::of(world.server.pid()).resident;
    let head = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(4000));
    let mut slow: Vec<TcpStream> = Vec::new();
    for n in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(pages.0).unwrap();
        // A third of each kind: silent, in the middle of a head, and without a reader for the answer.
        let said = match n % 3 {
            0 => "",
            1 => head.as_str(),
            _ => "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        // It may have been closed already, to make room.
        let _ = stream.write_all(said.as_bytes());
        slow.push(stream);
    }
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", world.server.pid())).unwrap().count();
    wait_until("the most to be closed", PATIENCE, || descriptors() < 300);
    let after = Usage::of(world.server.pid()).resident;
    assert!(after < before + 32 * MIB, "{before} bytes before, {after} after");
    // One more byte now and then keeps none of them alive.
    mount.shell("echo text > file; sync file");
    assert_eq!(pages.get("/metrics").status, 200);
    wait_until("all of them to be closed", PATIENCE, || {
        for stream in &mut slow {
            let _ = stream.write_all(b"x");
        }
        pages.read().of("process_open_fds") < 100.0
    });
    mount.unmount();
}

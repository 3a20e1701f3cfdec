//! What a server and systemd tell each other, with a socket in systemd's place.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use xfer_tests::programs::program;
use xfer_tests::waiting::holds_for;
use xfer_tests::{PATIENCE, Server, World};

/// What the server says next that begins like this.
fn wait_for(socket: &UnixDatagram, beginning: &str) -> String {
    let mut said = [0; 4096];
    loop {
        let len = socket.recv(&mut said).unwrap_or_else(|error| panic!("{beginning}: {error}"));
        let text = String::from_utf8_lossy(&said[..len]).into_owned();
        if text.starts_with(beginning) {
            return text;
        }
    }
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready_and_alive_and_stuck_and_when_it_ends() {
    let directory = tempfile::Builder::new().prefix("xfer-").tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(program("xfer-server"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let store = directory.path().join("store");
    let mut server = Server::start_as(command, &store, "127.0.0.1:0", &[]);
    let ready = wait_for(&socket, "READY=1");
    assert!(ready.contains(&format!("STATUS=listening on {}", server.address)), "{ready}");
    (0..3).for_each(|_| drop(wait_for(&socket, "WATCHDOG=1")));
    // One that is stuck falls silent, so that systemd starts it anew.
    server.signal(Signal::STOP);
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4096]).is_ok() {}
    let is_silent = || socket.recv(&mut [0; 4096]).is_err();
    assert!(holds_for(Duration::from_secs(2), is_silent), "it speaks though it is stopped");
    server.signal(Signal::CONT);
    socket.set_nonblocking(false).unwrap();
    (0..3).for_each(|_| drop(wait_for(&socket, "WATCHDOG=1")));
    assert_eq!(server.terminate(), Some(0));
    wait_for(&socket, "STOPPING=1");
}

#[test]
fn a_port_that_was_opened_for_the_server_is_the_one_that_it_serves() {
    // As systemd passes a socket: sd_listen_fds(3).
    const PASS: &str = "import os, socket, sys\n\
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(64)\n\
        print('opened', s.getsockname()[1], flush=True)\n\
        if s.fileno() != 3: os.dup2(s.fileno(), 3)\n\
        os.set_inheritable(3, True)\n\
        os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let mut world = World::new(&["alice"]);
    assert_eq!(world.server.terminate(), Some(0));
    let store = world.server.store().to_owned();
    let mut command = Command::new("python3");
    command.args(["-c", PASS]).arg(program("xfer-server"));
    // The address on the command line is not used.
    world.server = Server::start_as(command, &store, "127.0.0.1:1", &[]);
    let opened = format!("opened {}\n", world.server.address.port());
    assert!(world.server.said().contains(&opened), "{}", world.server.said());
    let mount = world.mount("alice");
    mount.shell("echo text > file");
    mount.unmount();
    assert_eq!(world.server.terminate(), Some(0));
}

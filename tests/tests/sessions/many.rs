//! Many users at once: real mounts on one server, and sessions driven as by the load driver.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use xfer_client::core::{Core, New};
use xfer_client::drive::Client;
use xfer_protocol::{Ino, Name};
use xfer_tests::accounts::Hashing;
use xfer_tests::load::{Crowd, Kind, Plan, Until, raise_descriptor_limit};
use xfer_tests::mount::is_mounted;
use xfer_tests::peers::{OWNER, name, roomy};
use xfer_tests::scale::count;
use xfer_tests::{Mount, PATIENCE, Random, Relay, World, by_hand, shell, wait_until};

/// The number of concurrent mounts: more would only queue for password checks.
const MOUNTING: usize = 8;

const DATA_BYTES: usize = 100 << 10;

fn user(number: usize) -> String {
    format!("user-{number:03}")
}

/// Runs `work` for each number below `count`, `at_a_time` at once; returns the results in order.
fn for_each<T: Send>(count: usize, at_a_time: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        numbers.take_while(|number| *number < count).map(|n| (n, work(n))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time.min(count)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The content of a user's files.
fn data(number: usize) -> Vec<u8> {
    Random::new(number as u64).bytes(DATA_BYTES)
}

/// A program's work on a mount: write, sync, read, rename, list, and send.
fn work_on(mount: &Mount, number: usize, neighbour: usize) {
    let data = data(number);
    fs::create_dir(mount.path("work")).unwrap();
    for part in 0..5 {
        let path = mount.path(&format!("work/new-{part}"));
        let mut file = File::create(&path).unwrap();
        file.write_all(&data).unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);
        fs::rename(&path, mount.path(&format!("work/done-{part}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(mount.path("work"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["done-0", "done-1", "done-2", "done-3", "done-4"]);
    fs::copy(mount.path("work/done-0"), mount.path(&format!("outbox/{}/letter", user(neighbour))))
        .unwrap();
}

#[test]
fn fifty_mounts_of_one_server_work_at_once() {
    let count = count("XFER_MANY_MOUNTS", 50);
    let names: Vec<String> = (0..count).map(user).collect();
    let users: Vec<Name> = names.iter().map(|user| Name::new(user.as_bytes()).unwrap()).collect();
    let world = World::of_many(&users);
    let mounts = for_each(count, MOUNTING, |number| world.mount(&names[number]));
    let before = |number: usize| (number + count - 1) % count;
    for_each(count, count, |number| work_on(&mounts[number], number, (number + 1) % count));
    for_each(count, count, |number| {
        let letter = mounts[number].path(&format!("inbox/{}/letter", names[before(number)]));
        wait_until(&format!("{} to arrive", letter.display()), PATIENCE, || letter.exists());
        assert_eq!(fs::read(&letter).unwrap(), data(before(number)));
    });
    let pids: Vec<u32> = mounts.iter().map(Mount::pid).collect();
    let roots: Vec<_> = mounts.iter().map(|mount| mount.root().to_owned()).collect();
    let mounts = std::sync::Mutex::new(mounts);
    for_each(count, MOUNTING, |_| {
        let mount = mounts.lock().unwrap().pop().unwrap();
        mount.unmount();
    });
    assert!(roots.iter().all(|root| !is_mounted(root)), "a mount is left");
    let left: Vec<_> =
        pids.iter().filter(|pid| fs::exists(format!("/proc/{pid}")).unwrap()).collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    let sessions = world.server.command(&["session", "list"]).succeeded().stdout;
    assert!(!sessions.contains("user-"), "{sessions}");
}

/// The plan of `cargo bench --bench sessions`, but shorter.
fn short() -> Plan {
    Plan { until: Until::Rounds(3), pause: Duration::ZERO, seed: Random::seed() }
}

#[test]
fn a_hundred_driven_sessions_find_everything_as_they_left_it() {
    raise_descriptor_limit();
    let sessions = count("XFER_MANY_SESSIONS", 100);
    let report = Arc::new(Crowd::new(sessions, Hashing::Cheap)).run(&short());
    assert_eq!(report.failed(), 0, "{:#?}", report.told().collect::<Vec<_>>());
    let figures = &report.figures;
    assert_eq!(figures.count(Kind::Sync), 3 * sessions);
    assert_eq!(figures.count(Kind::Send), 3 * sessions);
    // The users who start over half way, and those who check at the end.
    assert_eq!(figures.count(Kind::Login), sessions.div_ceil(10));
    // Letters are among them, although the last ones arrive after their readers are done.
    assert!(figures.count(Kind::Read) > sessions, "{}", figures.count(Kind::Read));
    let (transactions, batches) = report.commits;
    assert!(transactions > 0 && transactions < batches, "nobody shared: {:?}", report.commits);
}

/// How long the login of an account takes at least whose password is costly to check.
const COSTLY_LOGIN_MIN: Duration = Duration::from_secs(2);

#[test]
fn a_client_that_comes_back_has_no_password_checked() {
    let world = World::with_hashing(&[name("alice")], Hashing::Costly);
    let relay = Relay::to(world.server.address);
    let begin = Instant::now();
    let mount = world.mounting("alice").through(relay.address).start();
    let login = begin.elapsed();
    assert!(login > COSTLY_LOGIN_MIN, "{login:?}");
    // The best of some, since a busy machine takes its time.
    let back = [0; 4].map(|_| {
        let begin = Instant::now();
        relay.break_connections();
        let mut file = File::create(mount.path("file")).unwrap();
        file.write_all(b"text").unwrap();
        file.sync_all().unwrap();
        begin.elapsed()
    });
    println!("the login took {login:?}, and coming back {back:?}");
    assert!(*back.iter().min().unwrap() * 3 < login, "{login:?} {back:?}");
    assert_eq!(mount.said().matches("the connection to the server is back").count(), back.len());
    mount.unmount();
}

/// How long clients may take to come back after a restart.
const BACK_MAX: Duration = Duration::from_secs(20);

#[test]
fn clients_that_all_come_back_at_once_are_served_within_seconds() {
    raise_descriptor_limit();
    let count = count("XFER_COMING_BACK", 200);
    let names: Vec<Name> = (0..count).map(Crowd::name).collect();
    let mut world = World::of_many(&names);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = world.outside();
    let clients: Vec<Arc<Client>> = runtime.block_on(async {
        let mut clients = Vec::new();
        for name in &names {
            let session = by_hand::login(&world.server, name, &home).await.unwrap();
            clients.push(Client::start(session, roomy(&name.to_string())));
        }
        clients
    });
    world.server.kill();
    world.server.restart();
    let start = Instant::now();
    let back = runtime.block_on(async {
        let make = |client: Arc<Client>| async move {
            let new = New::File { mode: 0o644 };
            let file = name("file");
            client.call(move |core: &mut Core| core.make(Ino::ROOT, &file, &new, OWNER)).await?;
            client.sync().await
        };
        let made: Vec<_> =
            clients.iter().map(|client| tokio::spawn(make(client.clone()))).collect();
        for made in made {
            assert_eq!(made.await.unwrap(), Ok(()));
        }
        start.elapsed()
    });
    println!("{count} clients were back after {back:?}");
    assert!(back < BACK_MAX, "{back:?}");
    runtime.block_on(async {
        for client in clients {
            client.finish().await.unwrap();
        }
    });
}

#[test]
fn the_driver_shows_operations_that_fail() {
    let crowd = Arc::new(Crowd::new(1, Hashing::Cheap));
    // Too little for a file of the smallest size.
    crowd.server.command(&["user", "quota", "user-000", "--quota", "1KiB"]).succeeded();
    let report = crowd.run(&short());
    let (figures, failed) = (&report.figures, report.figures.failed(Kind::Create));
    assert!(failed > 0 && report.failed() == failed, "{report:?}");
    assert_eq!((figures.count(Kind::Create), figures.count(Kind::Sync)), (0, 3));
    let told: Vec<_> = report.told().collect();
    assert!(told.iter().all(|line| line.starts_with("create: user-000: ")), "{told:?}");
}

#[test]
fn the_driver_shows_a_session_that_is_lost() {
    let crowd = Arc::new(Crowd::new(1, Hashing::Cheap));
    let pause = Duration::from_millis(20);
    let plan = Plan { until: Until::Over(PATIENCE), pause, ..short() };
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| crowd.run(&plan));
        // The login alone takes fewer transactions.
        wait_until("the session to work", PATIENCE, || crowd.commits().0 > 20);
        crowd.server.command(&["session", "end", "user-000"]).succeeded();
        run.join().unwrap()
    });
    let told: Vec<_> = report.told().collect();
    let lost = "login: user-000: the session is over (";
    assert!(told.iter().any(|line| line.starts_with(lost)), "{told:?}");
    assert!(report.failed() > 0 && report.span < PATIENCE, "{report:?}");
}

#[test]
fn the_driver_shows_bytes_that_are_not_what_was_written() {
    let crowd = Arc::new(Crowd::new(2, Hashing::Cheap));
    let report = crowd.run(&short());
    assert_eq!(report.failed(), 0, "{:#?}", report.told().collect::<Vec<_>>());
    assert_eq!(crowd.check(&report.outcome).failed_all(), 0);
    // In place, since the server has the files open.
    let flip = "printf X | dd of=\"$1\" conv=notrunc status=none";
    let find = format!("find contents -type f -exec bash -c '{flip}' _ {{}} ';'");
    shell(crowd.server.store(), &find);
    let checked = crowd.check(&report.outcome);
    assert!(checked.failed(Kind::Read) > 0, "{checked:?}");
}

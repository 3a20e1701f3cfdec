//! A whole run: all users log in, work at once, and log out; then some check that all their files exist.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use xfer_protocol::Name;

use super::crowd::Crowd;
use super::figures::Figures;
use super::mix::Worker;
use super::usage::Usage;

/// One user in this many logs out and in again half way.
const ONE_STARTS_OVER_OF: usize = 10;

/// The most users that check their files at the end.
const CHECKED_MAX: usize = 10;

/// The end of a run's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After this many rounds of each session.
    Rounds(usize),
    /// After this time; the round in progress is finished.
    Over(Duration),
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When the work ends.
    pub until: Until,
    /// The pause of a session after each round.
    pub pause: Duration,
    /// The seed of the sessions' random choices.
    pub seed: u64,
}

/// The results of a run.
#[derive(Debug)]
pub struct Report {
    /// The number of sessions.
    pub sessions: usize,
    /// The time until all had logged in.
    pub login_span: Duration,
    /// The time that they worked.
    pub span: Duration,
    /// The operations during the work.
    pub figures: Figures,
    /// The logins before it, and the checks after it.
    pub around: Figures,
    /// The transactions that the server committed during the work, and the sessions' batches in them.
    pub commits: (u64, u64),
    /// The usage of the server's process.
    pub server: Course,
    /// The usage of the process with all the clients.
    pub clients: Course,
    /// The files that must be in the store from now on.
    pub outcome: Outcome,
}

/// A process's usage at several moments of a run.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Before the first login.
    pub before: Usage,
    /// After the last login.
    pub logged_in: Usage,
    /// At the end of the work.
    pub worked: Usage,
}

/// The files of each user, by the user's number.
#[derive(Clone, Debug, Default)]
pub struct Outcome(Vec<(usize, Vec<Name>)>);

impl Report {
    /// The number of failures.
    pub fn failed(&self) -> usize {
        self.figures.failed_all() + self.around.failed_all()
    }

    /// Descriptions of the first failures.
    pub fn told(&self) -> impl Iterator<Item = &String> {
        self.around.told.iter().chain(&self.figures.told)
    }
}

impl Crowd {
    /// Lets all users log in, work at once and log out.
    pub fn run(self: &Arc<Crowd>, plan: &Plan) -> Report {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.run_all(*plan))
    }

    /// Lets some of the users log in again and check that all their files exist.
    pub fn check(self: &Arc<Crowd>, outcome: &Outcome) -> Figures {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.check_all(outcome))
    }

    async fn run_all(self: &Arc<Crowd>, plan: Plan) -> Report {
        let before = self.usage();
        let start = Instant::now();
        let (workers, mut around) = self.login_all(plan.seed).await;
        let login_span = start.elapsed();
        let logged_in = self.usage();
        let commits_before = self.commits();
        let start = Instant::now();
        let mut working = JoinSet::new();
        workers.into_iter().enumerate().for_each(|(index, worker)| {
            let over = index % ONE_STARTS_OVER_OF == 0;
            working.spawn(work(worker, plan, over));
        });
        let workers = working.join_all().await;
        let span = start.elapsed();
        let (commits, worked) = (self.commits(), self.usage());
        let (figures, outcome) = logout_all(workers).await;
        around.add(self.check_all(&outcome).await);
        let course = |of: fn(&(Usage, Usage)) -> Usage| Course {
            before: of(&before),
            logged_in: of(&logged_in),
            worked: of(&worked),
        };
        Report {
            sessions: self.users,
            login_span,
            span,
            figures,
            around,
            commits: (commits.0 - commits_before.0, commits.1 - commits_before.1),
            server: course(|usage| usage.0),
            clients: course(|usage| usage.1),
            outcome,
        }
    }

    async fn login_all(self: &Arc<Crowd>, seed: u64) -> (Vec<Worker>, Figures) {
        let mut logins = JoinSet::new();
        for user in 0..self.users {
            logins.spawn(Worker::login(self.clone(), user, seed));
        }
        let (mut workers, mut around) = (Vec::new(), Figures::default());
        for login in logins.join_all().await {
            match login {
                Ok(mut worker) => {
                    around.add(std::mem::take(&mut worker.figures));
                    workers.push(worker);
                }
                Err(figures) => around.add(figures),
            }
        }
        (workers, around)
    }

    async fn check_all(self: &Arc<Crowd>, outcome: &Outcome) -> Figures {
        let mut checks = JoinSet::new();
        let step = outcome.0.len().div_ceil(CHECKED_MAX).max(1);
        for (user, files) in outcome.0.iter().step_by(step).cloned() {
            checks.spawn(Worker::check(self.clone(), user, files));
        }
        let mut sum = Figures::default();
        checks.join_all().await.into_iter().for_each(|figures| sum.add(figures));
        sum
    }

    /// The usage of the server's process and of this one.
    fn usage(&self) -> (Usage, Usage) {
        (Usage::of(self.server.pid()), Usage::own())
    }
}

/// Works until the plan's end, or until the session is over.
async fn work(mut worker: Worker, plan: Plan, mut start_over: bool) -> Worker {
    let start = Instant::now();
    for round in 0.. {
        let (done, half) = match plan.until {
            Until::Rounds(rounds) => (round >= rounds, round >= rounds / 2),
            Until::Over(span) => (start.elapsed() >= span, start.elapsed() >= span / 2),
        };
        if done || !worker.check_session() {
            break;
        }
        if half && std::mem::take(&mut start_over) {
            worker.start_over().await;
        }
        worker.round().await;
        tokio::time::sleep(plan.pause).await;
    }
    worker
}

async fn logout_all(workers: Vec<Worker>) -> (Figures, Outcome) {
    let mut logouts = JoinSet::new();
    for worker in workers {
        let user = worker.user();
        logouts.spawn(async move { (user, worker.finish().await) });
    }
    let (mut sum, mut outcome) = (Figures::default(), Outcome::default());
    for (user, (figures, files)) in logouts.join_all().await {
        sum.add(figures);
        outcome.0.push((user, files));
    }
    (sum, outcome)
}

//! A whole run: all log in, all work at once, all log out, and some look whether all is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use xfer_protocol::Name;

use super::crowd::Crowd;
use super::figures::Figures;
use super::mix::Worker;
use super::usage::Usage;

/// One user in so many logs out and in again half way.
const ONE_STARTS_OVER_OF: usize = 10;

/// How many users look, at the end, whether all they made is there.
const CHECKED_MAX: usize = 10;

/// When a run's work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// After so many rounds of each session.
    Rounds(usize),
    /// After so long; the round that is under way is finished.
    Over(Duration),
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When it is done.
    pub until: Until,
    /// How long a session pauses after each round.
    pub pause: Duration,
    /// What the sessions' random choices follow from.
    pub seed: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// How many sessions there were.
    pub sessions: usize,
    /// How long all took to log in.
    pub login_span: Duration,
    /// How long they worked.
    pub span: Duration,
    /// What they did, as they worked.
    pub figures: Figures,
    /// Their logins, and what was looked at in the end.
    pub around: Figures,
    /// Transactions that the server committed as they worked, and sessions' batches in them.
    pub commits: (u64, u64),
    /// The server's process.
    pub server: Course,
    /// The process of all the clients.
    pub clients: Course,
    /// What must be in the store from now on.
    pub outcome: Outcome,
}

/// What a process took up in the course of a run.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Before anybody logged in.
    pub before: Usage,
    /// When all were logged in.
    pub logged_in: Usage,
    /// When they had worked.
    pub worked: Usage,
}

/// The files of each user.
#[derive(Clone, Debug, Default)]
pub struct Outcome(Vec<(usize, Vec<Name>)>);

impl Report {
    /// How much failed.
    pub fn failed(&self) -> usize {
        self.figures.failed_all() + self.around.failed_all()
    }

    /// The first failures, in words.
    pub fn told(&self) -> impl Iterator<Item = &String> {
        self.around.told.iter().chain(&self.figures.told)
    }
}

impl Crowd {
    /// Lets all users work at once.
    pub fn run(self: &Arc<Crowd>, plan: &Plan) -> Report {
        let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.run_all(*plan))
    }

    /// Lets some of the users log in anew and look whether all they made is there.
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

    /// What the server takes up, and what this process does.
    fn usage(&self) -> (Usage, Usage) {
        (Usage::of(self.server.pid()), Usage::own())
    }
}

/// Works until the plan says that it is done, or the session is over.
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

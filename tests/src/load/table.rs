//! Figures as people read them: a line for each run, and one for each kind of operation.

use std::time::Duration;

use super::figures::Kind;
use super::run::{Course, Report};

const MIB: f64 = 1024.0 * 1024.0;

/// Prints the reports in order.
pub fn print(reports: &[Report]) {
    println!("\n== throughput");
    println!(
        "{:>8} {:>9} {:>7} {:>9} {:>9} {:>9} {:>10} {:>13} {:>7}",
        "sessions",
        "logins s",
        "work s",
        "ops/s",
        "MiB/s w",
        "MiB/s r",
        "commits/s",
        "batches/comm.",
        "failed"
    );
    reports.iter().for_each(print_throughput);
    println!("\n== latencies, ms");
    println!(
        "{:>8} {:<16} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "sessions", "operation", "count", "p50", "p95", "p99", "max", "failed"
    );
    for report in reports {
        Kind::ALL.into_iter().for_each(|kind| print_kind(report, kind));
    }
    println!("\n== processes (a session: what was added since before the first login)");
    println!(
        "{:>8} {:<8} {:>9} {:>9} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9} {:>8}",
        "sessions",
        "process",
        "rss MiB",
        "worked",
        "most",
        "KiB/sess.",
        "worked",
        "cpu s",
        "s/sess.",
        "ms/op",
        "threads"
    );
    for report in reports {
        print_course(report, "server", &report.server, memory(report, &report.server));
        // All runs share this process for their clients, so its memory says nothing about one run.
        print_course(report, "clients", &report.clients, ["-"; 5].map(str::to_owned));
    }
    for report in reports.iter().filter(|report| report.failed() > 0) {
        println!("\n== {} sessions: {} operations failed", report.sessions, report.failed());
        report.told().for_each(|line| println!("{line}"));
    }
}

fn print_throughput(report: &Report) {
    let Report { sessions, login_span, span, figures, commits: (transactions, batches), .. } =
        report;
    let seconds = span.as_secs_f64();
    println!(
        "{sessions:>8} {:>9.1} {seconds:>7.1} {:>9.1} {:>9.2} {:>9.2} {:>10.1} {:>13.2} {:>7}",
        login_span.as_secs_f64(),
        figures.count_all() as f64 / seconds,
        figures.written as f64 / MIB / seconds,
        figures.read as f64 / MIB / seconds,
        *transactions as f64 / seconds,
        *batches as f64 / (*transactions).max(1) as f64,
        report.failed(),
    );
}

fn print_kind(report: &Report, kind: Kind) {
    let Report { sessions, figures, around, .. } = report;
    let (label, failed) = (kind.label(), figures.failed(kind) + around.failed(kind));
    let figures = if kind == Kind::Login { around } else { figures };
    let count = figures.count(kind);
    let [p50, p95, p99, max] = match figures.percentiles(kind, [0.5, 0.95, 0.99, 1.0]) {
        Some(times) => times.map(|time| format!("{:.2}", ms(time))),
        None => Default::default(),
    };
    println!(
        "{sessions:>8} {label:<16} {count:>8} {p50:>9} {p95:>9} {p99:>9} {max:>9} {failed:>7}"
    );
}

fn print_course(report: &Report, process: &str, course: &Course, memory: [String; 5]) {
    let sessions = report.sessions;
    let cpu = (course.worked - course.logged_in).cpu;
    let [logged_in, worked, most, logged_in_each, worked_each] = memory;
    println!(
        "{sessions:>8} {process:<8} {logged_in:>9} {worked:>9} {most:>9} {logged_in_each:>10} \
         {worked_each:>10} {:>9.2} {:>9.3} {:>9.3} {:>8}",
        cpu.as_secs_f64(),
        cpu.as_secs_f64() / sessions as f64,
        ms(cpu) / report.figures.count_all().max(1) as f64,
        course.worked.threads,
    );
}

fn memory(report: &Report, course: &Course) -> [String; 5] {
    let (logged_in, worked) = (course.logged_in - course.before, course.worked - course.before);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
    let each = |bytes: u64| format!("{:.0}", bytes as f64 / 1024.0 / report.sessions as f64);
    [
        mib(course.logged_in.resident),
        mib(course.worked.resident),
        mib(course.worked.resident_max),
        each(logged_in.resident),
        each(worked.resident),
    ]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

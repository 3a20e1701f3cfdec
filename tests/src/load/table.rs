//! Figures as people read them: a line a run, and a line a kind of operation.

use std::time::Duration;

use super::figures::{Figures, Kind};
use super::run::{Course, Report};

const MIB: f64 = 1024.0 * 1024.0;

/// Prints what runs measured, from the fewest sessions to the most.
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
        print_kind(report.sessions, &report.around, Kind::Login);
        Kind::ALL
            .into_iter()
            .filter(|kind| *kind != Kind::Login)
            .for_each(|kind| print_kind(report.sessions, &report.figures, kind));
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
        print_course(report, "server", &report.server);
        print_course(report, "clients", &report.clients);
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

fn print_kind(sessions: usize, figures: &Figures, kind: Kind) {
    let (label, count, failed) = (kind.label(), figures.count(kind), figures.failed(kind));
    let [p50, p95, p99, max] = match figures.percentiles(kind, [0.5, 0.95, 0.99, 1.0]) {
        Some(times) => times.map(|time| format!("{:.2}", ms(time))),
        None => Default::default(),
    };
    println!(
        "{sessions:>8} {label:<16} {count:>8} {p50:>9} {p95:>9} {p99:>9} {max:>9} {failed:>7}"
    );
}

fn print_course(report: &Report, process: &str, course: &Course) {
    let sessions = report.sessions as f64;
    let (logged_in, worked) = (course.logged_in - course.before, course.worked - course.before);
    let cpu = (course.worked - course.logged_in).cpu;
    let each = |bytes: u64| bytes as f64 / 1024.0 / sessions;
    println!(
        "{:>8} {process:<8} {:>9.1} {:>9.1} {:>9.1} {:>10.0} {:>10.0} {:>9.2} {:>9.3} {:>9.3} {:>8}",
        report.sessions,
        course.logged_in.resident as f64 / MIB,
        course.worked.resident as f64 / MIB,
        course.worked.resident_max as f64 / MIB,
        each(logged_in.resident),
        each(worked.resident),
        cpu.as_secs_f64(),
        cpu.as_secs_f64() / sessions,
        ms(cpu) / report.figures.count_all().max(1) as f64,
        course.worked.threads,
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

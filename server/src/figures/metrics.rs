//! The figures as Prometheus reads them: text of version 0.0.4, with the names, kinds and units that
//! docs/OPERATIONS.md lists.
//!
//! Names of metrics are a promise, like exit codes: dashboards and alerts name them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::{Build, Figures, Process, Queued, Storing};
use crate::engine::{CommitTimes, Counts, ENDS_SECS, Latencies, Sessions};
use crate::login::outcomes::LoginCount;

/// The type of [`text`] in HTTP.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The figures as text.
///
/// # Errors
/// Never: text can always be written to.
pub fn text(figures: Figures) -> Result<String, fmt::Error> {
    let (mut registry, mut text) = (Registry::default(), String::new());
    registry.register_collector(Box::new(Shown(figures)));
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Figures that are encoded.
#[derive(Debug)]
struct Shown(Figures);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Figures { build, process, sessions, logins, counts, commits, queued, store } = &self.0;
        let mut page = Page(encoder);
        page.build(build)?;
        page.sessions(sessions)?;
        page.logins(logins)?;
        page.counts(counts)?;
        page.commits(commits)?;
        page.queued(queued)?;
        store.as_ref().map_or(Ok(()), |store| page.store(store))?;
        page.process(process)
    }
}

/// The page of metrics. Each method writes those of one subject.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn build(&mut self, build: &Build) -> fmt::Result {
        let Build { version, protocol, store_format } = build;
        let help = "The versions of the program, of its protocol and of the store's format";
        let mut metric = self.0.encode_descriptor("xfer_build", help, None, MetricType::Info)?;
        metric.encode_info(&[
            ("version", version.clone()),
            ("protocol", protocol.to_string()),
            ("store_format", store_format.to_string()),
        ])
    }

    fn sessions(&mut self, sessions: &Sessions) -> fmt::Result {
        let Sessions { attached, away, log_links, read_links, begun, resumed } = *sessions;
        let by_state = [("attached", attached), ("away", away)];
        self.gauges(
            "xfer_sessions",
            "Sessions, by whether their clients are connected",
            "state",
            &by_state,
        )?;
        let by_kind = [("log", log_links), ("read", read_links)];
        self.gauges("xfer_links", "Connections of sessions", "kind", &by_kind)?;
        let by_way = [("login", begun), ("resume", resumed)];
        self.counters("xfer_sessions_begun", "Sessions that began, and that went on", "by", &by_way)
    }

    fn logins(&mut self, logins: &[LoginCount]) -> fmt::Result {
        let help = "Checks of what clients showed, by what it was and what came of it";
        let mut metric =
            self.0.encode_descriptor("xfer_logins", help, None, MetricType::Counter)?;
        for LoginCount { by, outcome, count } in logins {
            let labels = [("by", by.name()), ("outcome", outcome.name())];
            metric.encode_family(&labels)?.encode_counter(count, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn counts(&mut self, counts: &Counts) -> fmt::Result {
        let Counts {
            frames,
            ops,
            // The count of `xfer_commit_seconds`.
            commits: _,
            barriers,
            reads,
            looks,
            listings,
            fetches,
            bytes_in,
            bytes_out,
            bytes_written,
        } = *counts;
        self.counter("xfer_frames", "Messages of clients on log links", frames)?;
        self.counter("xfer_ops_applied", "Changes of trees that were applied", ops)?;
        self.counter("xfer_barriers", "Requests to make changes durable soon (fsync)", barriers)?;
        let others = reads.saturating_sub(looks + listings + fetches);
        let by_subject =
            [("node", looks), ("listing", listings), ("data", fetches), ("other", others)];
        self.counters("xfer_reads", "Questions on read links", "about", &by_subject)?;
        self.counter("xfer_received_bytes", "Data of files received with changes", bytes_in)?;
        self.counter("xfer_sent_bytes", "Data of files sent to clients that read", bytes_out)?;
        let help = "Data written into contents: received, or copied on the server";
        self.counter("xfer_written_bytes", help, bytes_written)
    }

    fn commits(&mut self, commits: &CommitTimes) -> fmt::Result {
        let CommitTimes { transaction, batch } = commits;
        let help = "Time until a session's batch of changes is durable, from when a program waits for it (fsync), \
                    or it is large or a second old";
        self.histogram("xfer_commit_seconds", help, batch)?;
        let help = "Time that the store takes for a transaction with the batches of all sessions that wait";
        self.histogram("xfer_transaction_seconds", help, transaction)
    }

    fn queued(&mut self, queued: &Queued) -> fmt::Result {
        let Queued { batches, messages, ops_not_durable, passwords } = *queued;
        self.gauge("xfer_batches_waiting", "Batches that wait for a transaction", batches)?;
        self.gauge(
            "xfer_messages_waiting",
            "Messages of clients that wait to be handled",
            messages,
        )?;
        let help = "Changes that are applied and not durable yet";
        self.gauge("xfer_ops_not_durable", help, ops_not_durable)?;
        let help = "Clients that wait for a password to be checked";
        self.gauge("xfer_passwords_waiting", help, passwords)
    }

    fn store(&mut self, store: &Storing) -> fmt::Result {
        let Storing {
            accounts,
            lockouts,
            deliveries_waiting,
            deliveries_waiting_bytes,
            database_bytes,
            contents,
            contents_bytes,
            disk_free_bytes,
            disk_bytes,
        } = *store;
        self.gauge("xfer_accounts", "Accounts", accounts)?;
        self.gauge("xfer_lockouts", "Lockouts in force after wrong passwords", lockouts)?;
        let help = "Deliveries that wait in inboxes";
        self.gauge("xfer_deliveries_waiting", help, deliveries_waiting)?;
        let help = "The size of the deliveries that wait in inboxes";
        self.gauge("xfer_deliveries_waiting_bytes", help, deliveries_waiting_bytes)?;
        let help = "The size of the database's file and its log";
        self.gauge("xfer_store_database_bytes", help, database_bytes)?;
        if let (Some(count), Some(bytes)) = (contents, contents_bytes) {
            self.gauge("xfer_store_contents", "Files of contents", count)?;
            let help = "The space that is allocated for contents";
            self.gauge("xfer_store_contents_bytes", help, bytes)?;
        }
        let help = "The free space on the store's disk";
        self.gauge("xfer_store_disk_free_bytes", help, disk_free_bytes)?;
        self.gauge("xfer_store_disk_bytes", "The size of the store's disk", disk_bytes)
    }

    /// With the names that Prometheus's own libraries give them.
    fn process(&mut self, process: &Process) -> fmt::Result {
        let Process { started_secs, cpu_secs, resident_bytes, open_descriptors, descriptors_max } =
            *process;
        let help = "When the process started, in seconds since 1970";
        self.gauge("process_start_time_seconds", help, started_secs)?;
        let help = "Time of all cores that the process has used";
        let mut metric =
            self.0.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        metric.encode_counter(&cpu_secs, NO_EXEMPLAR)?;
        let optional = [
            ("process_resident_memory_bytes", "Memory of the process", resident_bytes),
            ("process_open_fds", "Open descriptors", open_descriptors),
            ("process_max_fds", "The most descriptors that may be open", descriptors_max),
        ];
        for (name, help, value) in optional {
            value.map_or(Ok(()), |value| self.gauge(name, help, value))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, of: &[(&str, u64)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in of {
            metric.encode_family(&[(label, *of)])?.encode_gauge(value)?;
        }
        Ok(())
    }

    /// Its name gets the end `_total`.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter(&value, NO_EXEMPLAR)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, of: &[(&str, u64)]) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in of {
            metric.encode_family(&[(label, *of)])?.encode_counter(value, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, of: &Latencies) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let ends = ENDS_SECS.into_iter().chain([f64::INFINITY]);
        let ranges: Vec<(f64, u64)> = ends.zip(of.ranges.iter().copied()).collect();
        metric.encode_histogram(of.sum_secs, of.count, &ranges, None::<&NoExemplars>)
    }
}

type NoExemplars = std::collections::HashMap<usize, Exemplar<NoLabelSet, f64>>;

const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

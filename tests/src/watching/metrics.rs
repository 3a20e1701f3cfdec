//! A server's metrics, read as a scraper reads them: by HTTP, and by a parser that takes nothing that the
//! format does not allow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use crate::{PATIENCE, Server, World, wait_until};

/// The pages of a server.
#[derive(Clone, Copy, Debug)]
pub struct Pages(pub SocketAddr);

/// An answer of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, without the status.
    pub head: String,
    /// Its body.
    pub body: String,
}

/// What a server measures, at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metrics {
    /// The kind of each metric.
    pub kinds: BTreeMap<String, String>,
    /// The value of each series, by its name and labels: `xfer_links{kind="log"}`.
    pub values: BTreeMap<String, f64>,
}

/// A world whose server has pages, and where they are.
pub fn world(users: &[&str]) -> (World, Pages) {
    let world = World::with_server(users, server);
    let pages = Pages::of(&world.server);
    (world, pages)
}

/// Starts a server with pages.
pub fn server(store: &Path) -> Server {
    Server::start_with(store, "127.0.0.1:0", &["--metrics", "127.0.0.1:0"])
}

impl Pages {
    /// Those that a server's log names.
    pub fn of(server: &Server) -> Pages {
        Pages::named_in(&server.said())
    }

    /// Those that this log names.
    pub fn named_in(said: &str) -> Pages {
        let line = said.lines().find(|line| line.contains("metrics can be read")).expect("a line");
        let address = line.split("address=").nth(1).expect("an address").trim();
        Pages(address.parse().expect("an address"))
    }

    /// Asks for a page.
    pub fn get(self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: xfer\r\n\r\n")).expect("an answer")
    }

    /// Sends this; `None` if the answer is cut off.
    pub fn ask(self, request: &str) -> Option<Answer> {
        Pages::answer(self.request(request)?)
    }

    /// The same by a client that then says that it says no more.
    pub fn ask_and_close(self, request: &str) -> Option<Answer> {
        let connection = self.request(request)?;
        connection.shutdown(Shutdown::Write).ok()?;
        Pages::answer(connection)
    }

    fn request(self, request: &str) -> Option<TcpStream> {
        let mut connection = TcpStream::connect(self.0).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        connection.write_all(request.as_bytes()).ok()?;
        Some(connection)
    }

    fn answer(mut connection: TcpStream) -> Option<Answer> {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let (status, head) = head.split_once("\r\n")?;
        let status = status.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// The metrics now.
    pub fn read(self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{answer:?}");
        let of_type = "content-type: text/plain; version=0.0.4; charset=utf-8";
        assert!(answer.head.to_lowercase().contains(of_type), "{}", answer.head);
        Metrics::parse(&answer.body)
    }

    /// Waits until a series has this value.
    #[track_caller]
    pub fn wait_for(self, series: &str, value: f64) {
        let mut found = f64::NAN;
        wait_until(&format!("{series} {value}"), PATIENCE, || {
            found = self.read().values.get(series).copied().unwrap_or(f64::NAN);
            found == value
        });
    }
}

impl Metrics {
    /// Parses a page.
    ///
    /// # Panics
    /// If a line is not one of the format, a metric has no help or kind or is described twice, a series
    /// appears twice, or a histogram's ranges don't add up.
    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        let (mut helped, mut present) = (Vec::new(), String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect(line);
                assert!(!help.is_empty() && !helped.contains(&name), "{line}");
                helped.push(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(helped.last(), Some(&name), "{line}");
                present = name.to_owned();
                assert!(metrics.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let name = series.split('{').next().expect(line);
                let ends: &[&str] = match metrics.kinds[&present].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(ends.iter().any(|end| format!("{present}{end}") == name), "{line}");
                check_labels(&series[name.len()..]);
                let value: f64 = value.parse().expect(line);
                assert!(value.is_finite() && value >= 0.0, "{line}");
                assert!(metrics.values.insert(series.to_owned(), value).is_none(), "{line}");
            }
        }
        metrics.check_histograms(text);
        metrics
    }

    /// The value of a series.
    #[track_caller]
    pub fn of(&self, series: &str) -> f64 {
        *self.values.get(series).unwrap_or_else(|| panic!("no {series}: {self:#?}"))
    }

    /// Its ranges, in the order of the page, never fall, and the last one holds all.
    fn check_histograms(&self, text: &str) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let start = format!("{name}_bucket{{");
            let ranges: Vec<f64> = text
                .lines()
                .filter(|line| line.starts_with(&start))
                .map(|line| line.rsplit_once(' ').expect(line).1.parse().expect(line))
                .collect();
            assert!(ranges.is_sorted() && ranges.len() > 2, "{name}: {ranges:?}");
            assert_eq!(ranges.last(), Some(&self.of(&format!("{name}_bucket{{le=\"+Inf\"}}"))));
            assert_eq!(ranges.last(), Some(&self.of(&format!("{name}_count"))), "{name}");
        }
    }
}

/// Labels as `{name="value",...}`, or nothing.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(labels);
    for label in inner.split(',') {
        let (name, value) = label.split_once('=').expect(labels);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{labels}");
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect(labels);
        assert!(!value.contains(['"', '\\', '\n']), "{labels}");
    }
}

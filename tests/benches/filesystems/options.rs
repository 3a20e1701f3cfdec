//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use xfer_tests::network::Cable;

/// Compare xfer with other filesystems over a network of a chosen round trip and bandwidth
#[derive(Parser, Debug)]
pub struct Options {
    /// The round trip in ms [default: both 0.2, without a limit of bandwidth, and 20 at 1000 Mbit/s]
    #[arg(long, value_name = "MS")]
    rtt: Option<f64>,
    /// The bandwidth in Mbit/s, with --rtt [default: no limit]
    #[arg(long, value_name = "MBIT", requires = "rtt")]
    rate: Option<u64>,
    /// How many runs to take the medians of [default: 5]
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// One run of each, and none longer than 60 s
    #[arg(long)]
    quick: bool,
    /// How long a program may take, in seconds [default: 600]
    #[arg(long, value_name = "S")]
    limit: Option<u64>,
    /// Only rows whose names contain one of these
    #[arg(long, value_name = "WORD,...", default_value = "")]
    pub rows: Words,
    /// Only filesystems whose names contain one of these
    #[arg(long = "fs", value_name = "WORD,...", default_value = "")]
    pub filesystems: Words,
    /// Also write and read so many GiB on xfer, and see how much memory that takes; 0 for not
    #[arg(long = "memory", value_name = "GIB", default_value_t = 0)]
    pub memory_gib: usize,
    /// Also draw flame graphs of xfer's processes into this directory, one for each row, with --rtt
    #[arg(long, value_name = "DIR", value_parser = in_project, requires = "rtt")]
    pub profile: Option<PathBuf>,
    /// The directory on the disk to use
    #[arg(long, value_name = "DIR", default_value = "/var/tmp", value_parser = in_project)]
    pub dir: PathBuf,
    /// What `cargo bench` says to every program
    #[arg(long, hide = true)]
    bench: bool,
}

/// A path, relative to the project's directory: `cargo bench` runs in another one.
fn in_project(path: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path))
}

/// Words, one of which a name must contain. An empty list matches every name.
#[derive(Clone, Debug)]
pub struct Words(Vec<String>);

impl std::str::FromStr for Words {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Words, Self::Err> {
        Ok(Words(text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()))
    }
}

impl Words {
    /// Whether a name is selected.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }
}

impl Options {
    /// The cables to measure over.
    pub fn cables(&self) -> Vec<Cable> {
        let cable = |ms: f64, mbit: Option<u64>| Cable {
            round_trip: Duration::from_secs_f64(ms / 1000.0),
            bits_per_s: mbit.map(|mbit| mbit * 1_000_000),
        };
        match self.rtt {
            Some(ms) => vec![cable(ms, self.rate)],
            None => vec![cable(0.2, None), cable(20.0, Some(1000))],
        }
    }

    /// The number of timed runs.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// The time limit of a program.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit.unwrap_or(if self.quick { 60 } else { 600 }))
    }
}

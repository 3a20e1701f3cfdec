//! What several runs of a row on a filesystem come to. One that failed spoils the figure: what does
//! its work only sometimes has no speed.

use std::time::Duration;

use super::requests::Requests;
use super::sample::Sample;
use super::timed::Stop;

/// A place in the table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    samples: Vec<Sample>,
    stop: Option<Stop>,
    counted: Option<Sample>,
}

impl Cell {
    /// Takes what a timed run gave.
    pub fn add(&mut self, measured: Result<Sample, Stop>) {
        match measured {
            Ok(sample) => self.samples.push(sample),
            Err(stop) => self.stop(stop),
        }
    }

    /// Takes what a run gave that was made to count requests, and not to be timed.
    pub fn add_counted(&mut self, measured: Result<Sample, Stop>) {
        match measured {
            Ok(sample) => self.counted = Some(sample),
            Err(stop) => self.stop(stop),
        }
    }

    /// Takes what a run gave that was made for something else than figures.
    pub fn add_unmeasured(&mut self, measured: Result<Sample, Stop>) {
        if let Err(stop) = measured {
            self.stop(stop);
        }
    }

    fn stop(&mut self, stop: Stop) {
        // A failure says more than a limit that was reached in another run.
        if !matches!(self.stop, Some(Stop::Failed(_))) {
            self.stop = Some(stop);
        }
    }

    /// Whether another run would change anything.
    pub fn is_decided(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether figures may be shown; else what is to be shown instead.
    fn must_be_good(&self) -> Result<(), String> {
        match &self.stop {
            Some(Stop::Failed(_)) => Err("failed".to_owned()),
            Some(Stop::Over(limit)) => Err(format!("> {} s", limit.as_secs_f64())),
            None => Ok(()),
        }
    }

    /// Why there is no figure.
    pub fn failure(&self) -> Option<&str> {
        match &self.stop {
            Some(Stop::Failed(why)) => Some(why),
            Some(Stop::Over(_)) | None => None,
        }
    }

    /// The median of something that was measured, or what is to be shown instead.
    ///
    /// # Errors
    /// If a run failed or took too long, or there was none.
    pub fn median<T: Ord + Copy>(&self, what: impl Fn(&Sample) -> T) -> Result<T, String> {
        self.must_be_good()?;
        median(self.samples.iter().map(what).collect()).ok_or_else(|| "-".to_owned())
    }

    /// What the kernel asked of the filesystem, or what is to be shown instead.
    ///
    /// # Errors
    /// As [`Cell::median`], or if it could not be counted.
    pub fn requests(&self) -> Result<&Requests, String> {
        self.must_be_good()?;
        let counted = self.counted.as_ref().and_then(|sample| sample.requests.as_ref());
        counted.ok_or_else(|| "n/a".to_owned())
    }

    /// The median time.
    ///
    /// # Errors
    /// As [`Cell::median`].
    pub fn time(&self) -> Result<Duration, String> {
        self.median(|sample| sample.took)
    }

    /// The most of something that was measured in any run.
    pub fn most(&self, what: impl Fn(&Sample) -> u64) -> Option<u64> {
        self.samples.iter().map(what).max()
    }
}

/// The value in the middle; of an even number, the larger of the two.
fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(ms: u64) -> Result<Sample, Stop> {
        Ok(Sample { took: Duration::from_millis(ms), ..Sample::default() })
    }

    fn time_of(runs: Vec<Result<Sample, Stop>>) -> Result<u128, String> {
        let mut cell = Cell::default();
        runs.into_iter().for_each(|run| cell.add(run));
        cell.time().map(|time| time.as_millis())
    }

    #[test]
    fn the_figure_is_the_one_in_the_middle() {
        assert_eq!(time_of(vec![took(9), took(1), took(5), took(90), took(2)]), Ok(5));
        assert_eq!(time_of(vec![took(4), took(6)]), Ok(6));
        assert_eq!(time_of(vec![]), Err("-".to_owned()));
    }

    #[test]
    fn what_was_counted_is_not_shown_of_a_row_that_failed() {
        let mut cell = Cell::default();
        let requests = Some(Requests::default());
        cell.add_counted(Ok(Sample { requests, ..Sample::default() }));
        cell.add(took(1));
        assert_eq!(cell.requests(), Ok(&Requests::default()));
        cell.add(Err(Stop::Failed("why".to_owned())));
        assert_eq!(cell.requests(), Err("failed".to_owned()));
    }

    #[test]
    fn one_run_that_failed_or_took_too_long_leaves_no_figure() {
        let over = || Err(Stop::Over(Duration::from_secs(60)));
        let failed = || Err(Stop::Failed("why".to_owned()));
        assert_eq!(time_of(vec![took(1), over(), took(1)]), Err("> 60 s".to_owned()));
        assert_eq!(time_of(vec![took(1), failed(), took(1)]), Err("failed".to_owned()));
        assert_eq!(time_of(vec![failed(), over()]), Err("failed".to_owned()));
    }
}

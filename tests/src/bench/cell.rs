//! The result of several runs of a row on a filesystem. A single failure spoils the figure: a
//! filesystem that does the work only sometimes has no speed.

use std::time::Duration;

use super::requests::Requests;
use super::sample::Sample;
use super::timed::Stop;

/// One cell of the table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    samples: Vec<Sample>,
    stop: Option<Stop>,
    counted: Option<Sample>,
}

impl Cell {
    /// Adds the result of a timed run.
    pub fn add(&mut self, measured: Result<Sample, Stop>) {
        match measured {
            Ok(sample) => self.samples.push(sample),
            Err(stop) => self.stop(stop),
        }
    }

    /// Adds the result of a run that counted requests and was not timed.
    pub fn add_counted(&mut self, measured: Result<Sample, Stop>) {
        match measured {
            Ok(sample) => self.counted = Some(sample),
            Err(stop) => self.stop(stop),
        }
    }

    /// Adds the result of a run made for another purpose than figures.
    pub fn add_unmeasured(&mut self, measured: Result<Sample, Stop>) {
        if let Err(stop) = measured {
            self.stop(stop);
        }
    }

    fn stop(&mut self, stop: Stop) {
        // A failure matters more than another run's time limit.
        if !matches!(self.stop, Some(Stop::Failed(_))) {
            self.stop = Some(stop);
        }
    }

    /// Whether further runs can't change the result.
    pub fn is_decided(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether figures may be shown; the error is the text to show instead.
    fn must_be_good(&self) -> Result<(), String> {
        match &self.stop {
            Some(Stop::Failed(_)) => Err("failed".to_owned()),
            Some(Stop::Over(limit)) => Err(format!("> {} s", limit.as_secs_f64())),
            None => Ok(()),
        }
    }

    /// The reason why there is no figure.
    pub fn failure(&self) -> Option<&str> {
        match &self.stop {
            Some(Stop::Failed(why)) => Some(why),
            Some(Stop::Over(_)) | None => None,
        }
    }

    /// The median of one measurement, or the text to show instead.
    ///
    /// # Errors
    /// If a run failed or exceeded its limit, or there were no runs.
    pub fn median<T: Ord + Copy>(&self, what: impl Fn(&Sample) -> T) -> Result<T, String> {
        self.must_be_good()?;
        median(self.samples.iter().map(what).collect()).ok_or_else(|| "-".to_owned())
    }

    /// The kernel's requests to the filesystem, or the text to show instead.
    ///
    /// # Errors
    /// As for [`Cell::median`], or if the requests could not be counted.
    pub fn requests(&self) -> Result<&Requests, String> {
        self.must_be_good()?;
        let counted = self.counted.as_ref().and_then(|sample| sample.requests.as_ref());
        counted.ok_or_else(|| "n/a".to_owned())
    }

    /// The median time.
    ///
    /// # Errors
    /// As for [`Cell::median`].
    pub fn time(&self) -> Result<Duration, String> {
        self.median(|sample| sample.took)
    }

    /// The largest value of one measurement in any run.
    pub fn most(&self, what: impl Fn(&Sample) -> u64) -> Option<u64> {
        self.samples.iter().map(what).max()
    }
}

/// The middle value; of an even number of values, the larger of the two.
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

//! Times of calls, and what is said of many of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::client::{Around, Error, Result};

/// How many messages of failures are kept.
const MESSAGES: usize = 5;

/// The value below which the share `q` (0 to 1) of the sorted values lies: the nearest rank, so always a value that was
/// measured. Zero where there are none.
pub fn percentile(sorted: &[Duration], q: f64) -> Duration {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

/// What one worker measured, or several of them together.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    times: BTreeMap<&'static str, Vec<Duration>>,
    failures: usize,
    /// Each with what it is known again by: messages that differ in an id or in a path alone are one.
    messages: Vec<(String, String)>,
}

impl Samples {
    /// Waits for a call and keeps how long it took; a failed one is kept as a failure, without its time.
    pub async fn time<T>(&mut self, what: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let result = call.await;
        match &result {
            Ok(_) => self.keep(what, start.elapsed()),
            Err(error) => self.fail(error),
        }
        result
    }

    /// Keeps a time.
    pub fn keep(&mut self, what: &'static str, time: Duration) {
        self.times.entry(what).or_default().push(time);
    }

    /// Counts a failure, and keeps its message if it is the first of its call and code.
    pub fn fail(&mut self, error: &Error) {
        self.failures += 1;
        let kind = match error {
            Error::Rpc { rpc, code, .. } => format!("{rpc} {code:?}"),
            error => error.to_string(),
        };
        self.keep_message((kind, error.to_string()));
    }

    fn keep_message(&mut self, message: (String, String)) {
        if self.messages.len() < MESSAGES && !self.messages.iter().any(|(kind, _)| *kind == message.0) {
            self.messages.push(message);
        }
    }

    /// Adds what another worker measured.
    pub fn merge(&mut self, other: Self) {
        for (what, mut times) in other.times {
            self.times.entry(what).or_default().append(&mut times);
        }
        self.failures += other.failures;
        other.messages.into_iter().for_each(|message| self.keep_message(message));
    }

    /// Each thing that was timed with its times, sorted.
    pub fn sorted(mut self) -> BTreeMap<&'static str, Vec<Duration>> {
        self.times.values_mut().for_each(|times| times.sort_unstable());
        self.times
    }

    /// How many calls failed.
    pub fn failures(&self) -> usize {
        self.failures
    }

    /// The first few messages of failures.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(|(_, message)| message.as_str())
    }
}

impl Around for Samples {
    async fn call<T>(&mut self, rpc: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.time(rpc, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_a_value_of_the_nearest_rank() {
        let hundred = millis(1..=100);
        for (q, expected) in [(0.0, 1), (0.5, 50), (0.9, 90), (0.99, 99), (0.991, 100), (1.0, 100)] {
            assert_eq!(percentile(&hundred, q), Duration::from_millis(expected), "{q}");
        }
        assert_eq!(percentile(&millis([7]), 0.5), Duration::from_millis(7));
        assert_eq!(percentile(&millis([1, 2, 3]), 0.5), Duration::from_millis(2));
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn merging_keeps_every_time_and_each_kind_of_failure_once() {
        let failure = Error::Answer { rpc: "CreateVolume", what: "no volume".to_owned() };
        let mut all = Samples::default();
        for worker in 0..3 {
            let mut samples = Samples::default();
            samples.keep("CreateVolume", Duration::from_millis(3 - worker));
            samples.fail(&failure);
            all.merge(samples);
        }
        assert_eq!((all.failures(), all.messages().count()), (3, 1));
        assert_eq!(all.sorted()["CreateVolume"], millis([1, 2, 3]));
    }
}

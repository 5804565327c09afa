//! Steps: done, timed, counted and shown.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::client::{Around, Error, Result};
use crate::demo::{Event, Show};

/// A step failed, and has been shown: what depends on it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

/// Why a step did not come as expected, in words.
#[derive(Debug)]
pub(crate) struct Mismatch(pub(crate) String);

impl From<Error> for Mismatch {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// What came of a step: the text that is shown, and what later steps need.
pub(crate) struct Came<T = ()> {
    pub(crate) text: String,
    pub(crate) said: Option<String>,
    pub(crate) value: T,
}

/// A step that came as expected, with nothing for later ones.
pub(crate) fn came(text: impl Into<String>) -> Came {
    came_with(text, ())
}

/// The same, with something.
pub(crate) fn came_with<T>(text: impl Into<String>, value: T) -> Came<T> {
    Came { text: text.into(), said: None, value }
}

/// The steps of a demo.
pub(crate) struct Script<'a> {
    show: &'a mut dyn Show,
    start: Instant,
    steps: usize,
    failed: usize,
}

impl<'a> Script<'a> {
    pub(crate) fn new(show: &'a mut dyn Show) -> Self {
        Self { show, start: Instant::now(), steps: 0, failed: 0 }
    }

    /// Shows an event. A reader that has gone away does not end the demo: what was made is taken back all the same.
    pub(crate) fn show(&mut self, event: &Event) {
        let _reader_gone = self.show.show(event);
    }

    pub(crate) fn section(&mut self, title: &str, plugin: Option<&str>) {
        self.show(&Event::Section { title: title.to_owned(), plugin: plugin.map(str::to_owned) });
    }

    /// Does a step. `expected` says what should come of it, for when it does not.
    pub(crate) async fn step<T>(
        &mut self,
        call: &str,
        expected: &str,
        step: impl Future<Output = Result<Came<T>, Mismatch>>,
    ) -> Result<T, Failed> {
        let start = Instant::now();
        let result = step.await;
        let micros = micros(start.elapsed());
        self.steps += 1;
        match result {
            Ok(Came { text, said, value }) => {
                self.show(&Event::Step { call: call.to_owned(), text, said, expected: None, ok: true, micros });
                Ok(value)
            }
            Err(Mismatch(text)) => {
                self.failed += 1;
                let expected = Some(expected.to_owned());
                self.show(&Event::Step { call: call.to_owned(), text, said: None, expected, ok: false, micros });
                Err(Failed)
            }
        }
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    pub(crate) fn end(&mut self, interrupted: bool, kept: Option<String>) {
        let (steps, failed, micros) = (self.steps, self.failed, micros(self.start.elapsed()));
        self.show(&Event::End { steps, failed, interrupted, micros, kept });
    }
}

/// What is taken back after a failure or an interrupt is shown too.
impl Around for Script<'_> {
    async fn call<T>(&mut self, rpc: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let start = Instant::now();
        let result = call.await;
        let (ok, text) = match &result {
            Ok(_) => (true, "taken back".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        self.steps += 1;
        self.failed += usize::from(!ok);
        let expected = (!ok).then(|| "that it can be taken back".to_owned());
        let (call, micros) = (rpc.to_owned(), micros(start.elapsed()));
        self.show(&Event::Step { call, text, said: None, expected, ok, micros });
        result
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

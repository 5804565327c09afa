//! Processes of tests, in a guest or beside guests of their own, and what came of them.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Error, Result};
use dunnage_test_vm::{Guest, Hardware, Job, Kernel};

use super::super::cargo_test::count;
use super::binaries::Binary;
use crate::command::Log;
use crate::matrix::{Results, VARIABLE};
use crate::session::Session;
use crate::summary::Outcome;

/// Where tests in a guest note what they cover.
const NOTES: &str = "/run/covered";

/// Tests of one binary that run in one process.
pub(super) struct Tests<'a> {
    pub(super) binary: &'a Binary,
    pub(super) names: Vec<String>,
    /// It is told how long they took.
    pub(super) timed: bool,
}

impl Display for Tests<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.binary.name(), self.names.join(" "))
    }
}

/// What came of all so far.
pub(super) struct Ran {
    log: Log,
    /// What a line begins with, where several guests tell at once.
    prefix: String,
    pub(super) outcome: Outcome,
    results: Results,
}

impl Ran {
    pub(super) fn new(log: &Path, prefix: String) -> Result<Self> {
        Ok(Self { log: Log::append(log)?, prefix, outcome: Outcome::default(), results: Results::default() })
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let line = format!("{}{line}", self.prefix);
        println!("{line}");
        self.log.line(&line)
    }

    fn see(&mut self, line: &str) {
        count(&mut self.outcome, line);
        self.results.see(line);
    }

    /// Runs tests by `run`, which has their lines seen, and gives whether their process succeeded and what they noted.
    fn run(&mut self, tests: &Tests<'_>, run: impl FnOnce(&mut Self) -> Result<(bool, String)>) -> Result<()> {
        let (failed, started) = (self.outcome.failed, Instant::now());
        self.tell(&format!("$ {tests}"))?;
        self.results.begin(&tests.binary.program);
        match run(self) {
            Ok((succeeded, notes)) => {
                self.results.noted(&notes)?;
                if succeeded != (self.outcome.failed == failed) {
                    // It died before it could count.
                    self.fail(&format!("{tests} failed"))?;
                }
            }
            Err(error) => self.fail(&format!("{error:#}"))?,
        }
        if tests.timed {
            let result = if self.outcome.failed == failed { "ok" } else { "FAILED" };
            let took = started.elapsed().as_secs_f64();
            self.outcome.notes.push(format!("{result:7} {took:7.1} s  {tests}"));
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, note: &str) -> Result<()> {
        self.tell(note)?;
        self.outcome.failed += 1;
        self.outcome.notes.push(note.to_owned());
        Ok(())
    }

    /// Adds what came of others, and keeps what tests covered.
    pub(super) fn end(self, session: &Session, sum: &mut Outcome) -> Result<()> {
        sum.passed += self.outcome.passed;
        sum.failed += self.outcome.failed;
        sum.skipped += self.outcome.skipped;
        sum.notes.extend(self.outcome.notes);
        self.results.keep(session)
    }
}

/// Runs all that are in the queue in a guest, and where one is lost in another one. What is left there after an error has
/// not run.
pub(super) fn within(
    session: &Session,
    kernel: &Kernel,
    queue: &Mutex<VecDeque<Tests<'_>>>,
    name: &str,
    ran: &mut Ran,
) -> Result<()> {
    let folder = session.target.join("vm").join(name);
    let mut guest: Option<Guest> = None;
    loop {
        let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = match guest.take() {
            Some(running) => running,
            None if queue().is_empty() => return Ok(()),
            None => {
                ran.tell(&format!("booting a guest; its console: {}", folder.join("console.log").display()))?;
                Guest::boot(kernel, &folder, &Hardware::default())?
            }
        };
        let Some(tests) = queue().pop_front() else { return Ok(()) };
        let job = Job::new(&tests.binary.program, &tests.binary.folder).args(["--exact"]).args(tests.names.clone());
        let job = job.env("DUNNAGE_GUEST", "1").env("DUNNAGE_REQUIRE_ALL", "1").env(VARIABLE, NOTES);
        ran.run(&tests, |ran| {
            let mut told = Ok(());
            let succeeded = running.run(&job, |line| {
                told = std::mem::replace(&mut told, Ok(())).and_then(|()| ran.tell(line));
                ran.see(line);
            })?;
            told?;
            let notes = notes(&mut running)?;
            guest = Some(running);
            Ok((succeeded, notes))
        })?;
    }
}

/// What was noted in the guest, which is not noted there any more.
fn notes(guest: &mut Guest) -> Result<String> {
    let take = format!("[ ! -e {NOTES} ] || {{ cat {NOTES} && rm {NOTES}; }}");
    let mut notes = String::new();
    let took = guest.run(&Job::new("/bin/sh".as_ref(), "/".as_ref()).args(["-c", &take]), |line| {
        notes.push_str(line);
        notes.push('\n');
    })?;
    took.then_some(notes).ok_or_else(|| Error::msg("the guest does not give what tests covered"))
}

/// Runs tests that boot guests of their own, on this machine.
pub(super) fn across(session: &Session, tests: &Tests<'_>, ran: &mut Ran, log: &Path) -> Result<()> {
    let command = session.command(&tests.binary.program.to_string_lossy()).folder(&tests.binary.folder);
    let notes = Results::notes(session)?;
    let command = command.args(["--exact", "--test-threads", "1"]).args(&tests.names).env(VARIABLE, &notes);
    let command = command.env("DUNNAGE_GUESTS", session.target.join("vm")).env("DUNNAGE_REQUIRE_ALL", "1");
    ran.run(tests, |ran| {
        let status = command.watch(log, |line| ran.see(line))?;
        Ok((status.success(), fs::read_to_string(&notes).context("cannot read what tests covered")?))
    })
}

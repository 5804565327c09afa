//! The jobs there are, and what becomes of each: in memory, filled from the records when the root is opened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::job::Job;
use crate::capacity::Bytes;
use crate::copying::{CopyProgress, TargetKey};
use crate::error::{Error, ErrorKind};

/// After this a job that failed is tried again; twice as long each time that it does not get on.
const SOON: Duration = Duration::from_secs(1);
/// How long it is left alone at the most.
const LATE: Duration = Duration::from_secs(60);

pub(super) struct Table<E> {
    pub(super) entries: BTreeMap<TargetKey, Entry<E>>,
    /// How many threads there are.
    pub(super) threads: usize,
    /// How many calls wait for a job.
    pub(super) waiting: usize,
    /// How many attempts have failed.
    pub(super) failed: u64,
    pub(super) closing: bool,
}

pub(super) struct Entry<E> {
    /// As it is on disk.
    pub(super) job: Job<E>,
    /// How far it is, durable or not.
    pub(super) done: Bytes,
    pub(super) total: Bytes,
    /// How far an attempt has ever come.
    pub(super) furthest: Bytes,
    pub(super) phase: Phase,
    /// Why the last attempt failed, until it gets on.
    pub(super) error: Option<Error>,
    /// How many attempts in a row failed without getting on.
    pub(super) failures: u32,
    /// Whether the disk may say something else of it: a write failed, and may have been done all the same.
    pub(super) doubtful: bool,
    /// Whether it was never started, and could not be removed either: who begins it again has its place.
    pub(super) is_left: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody works on it: it was not started yet, or it was stopped.
    Idle,
    /// It is to be worked on, not before this moment.
    Due(Instant),
    /// A thread works on it.
    Running(Until),
}

/// Until when a thread is to work on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Until it is done, or fails.
    Done,
    /// It is to end: somebody waits for that.
    Stopped,
    /// It is to end, and nobody waits for that any more: the job is gone on with then.
    Interrupted,
}

/// What a thread is to do next.
pub(super) enum Next<E> {
    Work(Box<Job<E>>),
    Wait(Duration),
    Nothing,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), threads: 0, waiting: 0, failed: 0, closing: false }
    }
}

impl<E: Clone> Table<E> {
    /// Takes the job that has been due for the longest time.
    pub(super) fn next(&mut self) -> Next<E> {
        let due = |entry: &Entry<E>| match entry.phase {
            Phase::Due(moment) => Some(moment),
            _ => None,
        };
        let first = self.entries.values_mut().filter(|entry| due(entry).is_some()).min_by_key(|entry| due(entry));
        let Some(first) = first.filter(|_| !self.closing) else { return Next::Nothing };
        let wait = due(first).map_or(Duration::ZERO, |moment| moment.saturating_duration_since(Instant::now()));
        if !wait.is_zero() {
            return Next::Wait(wait);
        }
        first.phase = Phase::Running(Until::Done);
        Next::Work(Box::new(first.job.clone()))
    }

    /// How many jobs there is work on.
    pub(super) fn busy(&self) -> usize {
        self.entries.values().filter(|entry| entry.phase != Phase::Idle).count()
    }

    /// Whether the one who works on this job is to end.
    pub(super) fn is_stopped(&self, key: &TargetKey) -> bool {
        let running = self.entries.get(key).map(|entry| entry.phase);
        self.closing || running != Some(Phase::Running(Until::Done))
    }
}

impl<E> Entry<E> {
    pub(super) fn new(job: Job<E>) -> Self {
        let (done, total) = (job.done, job.total);
        Self {
            job,
            done,
            total,
            furthest: done,
            phase: Phase::Idle,
            error: None,
            failures: 0,
            doubtful: false,
            is_left: false,
        }
    }

    /// An attempt failed. Answers after what time there is another one, if there is.
    pub(super) fn failed(&mut self, error: Error) -> Option<Duration> {
        self.done = self.job.done;
        match self.phase {
            Phase::Running(Until::Stopped) => self.phase = Phase::Idle,
            Phase::Running(Until::Interrupted) => self.phase = Phase::Due(Instant::now()),
            _ => return Some(self.put_off(error)),
        }
        None
    }

    fn put_off(&mut self, error: Error) -> Duration {
        self.failures += 1;
        self.error = Some(error);
        let pause = LATE.min(SOON.saturating_mul(1 << (self.failures - 1).min(16)));
        self.phase = Phase::Due(Instant::now() + pause);
        pause
    }

    /// What people see of it.
    pub(super) fn progress(&self) -> CopyProgress {
        let mut progress = self.job.progress();
        (progress.done, progress.total, progress.error) = (self.done, self.total, self.error.clone());
        progress
    }

    /// What a call is told that need not wait any longer.
    pub(super) fn running(&self) -> Error {
        let progress = self.progress();
        Error::new(ErrorKind::Running, format!("{progress} is copied: the same call repeated tells how it ended"))
    }
}

//! Which call runs on which thread: the bookkeeping, without the threads.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use dunnage_driver_api::BackendName;

use super::job::{Job, Rejected};
use super::{Lane, WorkersOptions};
use crate::operations::Refused;

/// How the threads of a backend are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkersCount {
    /// Threads that work or wait for work.
    pub live: usize,
    /// Threads that hang in a call.
    pub stuck: usize,
    /// Calls that wait for a thread, or for an earlier call of their lane.
    pub queued: usize,
    /// Calls that were refused since the start of the process.
    pub refused: u64,
}

/// What a thread does next.
pub(super) enum Next {
    Job { place: u64, job: Box<dyn Job> },
    Wait(Duration),
    End,
}

/// How a thread leaves a call.
pub(super) struct Left {
    /// Whether it goes on with the next one.
    pub(super) stays: bool,
    /// For how many seconds it was in the call, if it was written off.
    pub(super) was_stuck: Option<f64>,
}

/// What was found stuck.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) stuck: Vec<(Option<Lane>, f64)>,
    pub(super) refused: Vec<Rejected>,
    /// How many threads may have to be started in place of those.
    pub(super) places: usize,
    pub(super) next: Option<Instant>,
}

/// Every lane with a call that is ready or running is in `lanes`; `live + stuck` is never above the total.
pub(super) struct Pool {
    backend: BackendName,
    options: WorkersOptions,
    ready: VecDeque<Ready>,
    lanes: HashMap<Lane, Behind>,
    busy: HashMap<u64, Busy>,
    next_place: u64,
    idle: usize,
    live: usize,
    stuck: usize,
    refused: u64,
    watched: bool,
    closed: bool,
}

struct Ready {
    lane: Option<Lane>,
    job: Box<dyn Job>,
}

/// The calls of one lane behind the one that is ready or running.
#[derive(Default)]
struct Behind {
    waiting: VecDeque<Box<dyn Job>>,
    stuck_since: Option<Instant>,
}

struct Busy {
    lane: Option<Lane>,
    since: Instant,
    stuck: bool,
}

impl Pool {
    pub(super) fn new(backend: BackendName, options: WorkersOptions) -> Self {
        let threads = options.threads.max(1);
        let options = WorkersOptions { threads, total: options.total.max(threads), ..options };
        Self {
            backend,
            options,
            ready: VecDeque::new(),
            lanes: HashMap::new(),
            busy: HashMap::new(),
            next_place: 0,
            idle: 0,
            live: 0,
            stuck: 0,
            refused: 0,
            watched: false,
            closed: false,
        }
    }

    /// Lets a call in, or says why not.
    pub(super) fn admit(&mut self, lane: Option<Lane>, job: Box<dyn Job>) -> Result<(), Refused> {
        if self.room() == 0 {
            self.refused += 1;
            return Err(self.all_stuck());
        }
        if let Some(lane) = &lane {
            if let Some(behind) = self.lanes.get_mut(lane) {
                let Some(since) = behind.stuck_since else {
                    behind.waiting.push_back(job);
                    return Ok(());
                };
                self.refused += 1;
                return Err(lane_stuck(&self.backend, lane, since.elapsed()));
            }
            self.lanes.insert(lane.clone(), Behind::default());
        } else if let Some(busy) = self.busy.values().find(|busy| busy.stuck && busy.lane.is_none()) {
            self.refused += 1;
            return Err(store_stuck(&self.backend, busy.since.elapsed()));
        }
        self.ready.push_back(Ready { lane, job });
        Ok(())
    }

    /// Whether a watch has to be started; from then on there is one until a sweep finds nothing at work.
    pub(super) fn start_watch(&mut self) -> bool {
        !std::mem::replace(&mut self.watched, true)
    }

    /// Takes the place of a thread that is to be started, where one more is needed and allowed.
    pub(super) fn take_place(&mut self) -> bool {
        let needed = self.ready.len() > self.idle && self.live < self.options.threads.min(self.room());
        self.live += usize::from(needed);
        needed
    }

    /// Whether there is a call to be taken up and a thread that waits for one.
    pub(super) fn can_wake(&self) -> bool {
        self.idle > 0 && !self.ready.is_empty()
    }

    /// The thread could not be started. Where there is no other, nobody will take up what is ready.
    pub(super) fn give_up_place(&mut self, error: &io::Error) -> Vec<Rejected> {
        self.live -= 1;
        if self.live > 0 {
            return Vec::new();
        }
        let why = Refused::Thread { backend: self.backend.clone(), why: error.to_string() };
        self.reject_ready(&why)
    }

    /// What a thread does now.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.closed {
            self.live -= 1;
            return Next::End;
        }
        let Some(Ready { lane, job }) = self.ready.pop_front() else { return Next::Wait(self.options.idle) };
        let place = self.next_place;
        self.next_place += 1;
        self.busy.insert(place, Busy { lane, since: now, stuck: false });
        Next::Job { place, job }
    }

    pub(super) fn rest(&mut self) {
        self.idle += 1;
    }

    /// A thread has been woken; gives whether it goes on.
    pub(super) fn rise(&mut self, timed_out: bool) -> bool {
        self.idle -= 1;
        let ends = timed_out && self.ready.is_empty();
        self.live -= usize::from(ends);
        !ends
    }

    /// A call has ended: the next one of its lane is ready.
    pub(super) fn finish(&mut self, place: u64) -> Left {
        let Some(Busy { lane, since, stuck }) = self.busy.remove(&place) else {
            return Left { stays: true, was_stuck: None };
        };
        if let Some(lane) = lane {
            match self.lanes.get_mut(&lane).and_then(|behind| behind.waiting.pop_front()) {
                Some(job) => self.ready.push_back(Ready { lane: Some(lane), job }),
                None => drop(self.lanes.remove(&lane)),
            }
        }
        if !stuck {
            return Left { stays: true, was_stuck: None };
        }
        self.stuck -= 1;
        let stays = self.live < self.options.threads;
        self.live += usize::from(stays);
        Left { stays, was_stuck: Some(since.elapsed().as_secs_f64()) }
    }

    /// Writes off the threads that have been in one call for too long.
    pub(super) fn sweep(&mut self, now: Instant) -> Swept {
        let mut swept = Swept::default();
        let mut due = (!self.ready.is_empty()).then(|| now + self.options.stuck_after);
        for busy in self.busy.values_mut().filter(|busy| !busy.stuck) {
            let limit = busy.since + self.options.stuck_after;
            if now < limit {
                due = Some(due.map_or(limit, |due| due.min(limit)));
                continue;
            }
            busy.stuck = true;
            self.live -= 1;
            self.stuck += 1;
            let stuck_for = now - busy.since;
            swept.stuck.push((busy.lane.clone(), stuck_for.as_secs_f64()));
            if let Some((lane, behind)) = busy.lane.as_ref().and_then(|lane| Some((lane, self.lanes.get_mut(lane)?))) {
                behind.stuck_since = Some(busy.since);
                let why = lane_stuck(&self.backend, lane, stuck_for);
                swept.refused.extend(behind.waiting.drain(..).map(|job| Rejected { job, why: why.clone() }));
            }
            if busy.lane.is_none() {
                let why = store_stuck(&self.backend, stuck_for);
                let (asking, others): (VecDeque<Ready>, _) =
                    std::mem::take(&mut self.ready).into_iter().partition(|ready| ready.lane.is_none());
                self.ready = others;
                swept.refused.extend(asking.into_iter().map(|Ready { job, .. }| Rejected { job, why: why.clone() }));
            }
        }
        self.refused += swept.refused.len() as u64;
        if self.room() == 0 {
            let why = self.all_stuck();
            swept.refused.append(&mut self.reject_ready(&why));
        }
        swept.places = swept.stuck.len().min(self.ready.len());
        swept.next = due;
        self.watched = due.is_some();
        swept
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn count(&self) -> WorkersCount {
        let behind: usize = self.lanes.values().map(|behind| behind.waiting.len()).sum();
        WorkersCount { live: self.live, stuck: self.stuck, queued: self.ready.len() + behind, refused: self.refused }
    }

    /// How many threads there may be beside those that are stuck.
    fn room(&self) -> usize {
        self.options.total - self.stuck
    }

    fn all_stuck(&self) -> Refused {
        Refused::Backend { backend: self.backend.clone(), threads: self.stuck }
    }

    /// Takes out all that is ready and what waits behind it.
    fn reject_ready(&mut self, why: &Refused) -> Vec<Rejected> {
        let mut jobs = Vec::new();
        for Ready { lane, job } in self.ready.drain(..) {
            jobs.push(job);
            let behind = lane.and_then(|lane| self.lanes.remove(&lane));
            jobs.extend(behind.into_iter().flat_map(|behind| behind.waiting));
        }
        self.refused += jobs.len() as u64;
        jobs.into_iter().map(|job| Rejected { job, why: why.clone() }).collect()
    }
}

fn store_stuck(backend: &BackendName, stuck_for: Duration) -> Refused {
    Refused::Store { backend: backend.clone(), stuck_for }
}

fn lane_stuck(backend: &BackendName, lane: &Lane, stuck_for: Duration) -> Refused {
    Refused::Lane { backend: backend.clone(), lane: lane.clone(), stuck_for }
}

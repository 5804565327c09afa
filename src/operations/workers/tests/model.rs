//! The bookkeeping under every order of events, with threads and a clock of the test's own.

use std::io;

use proptest::prelude::*;

use super::job::Job;
use super::pool::{Left, Next, Pool};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A call comes, in one of four lanes or none.
    Call(Option<u8>),
    /// A thread that has nothing to do looks for work.
    Look,
    /// A call ends.
    End(usize),
    /// Time passes, in parts of the limit, and the watch looks.
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::option::of(0..LANES).prop_map(Step::Call),
        3 => Just(Step::Look),
        2 => any::<usize>().prop_map(Step::End),
        1 => (0..4_u32).prop_map(Step::Pass),
    ]
}

const LIMIT: Duration = Duration::from_secs(3000);
/// Two volumes, each with its changes and its reads.
const LANES: u8 = 4;
const THREADS: usize = 2;
const TOTAL: usize = 4;

struct Play {
    pool: Pool,
    now: Instant,
    /// Threads that run and are in no call.
    free: usize,
    /// Calls that run: the place, the lane, since when.
    running: Vec<(u64, Option<u8>, Instant)>,
    let_in: usize,
    out: usize,
}

fn lane_of(number: u8) -> Lane {
    let volume = VolumeKey::of_name(&(number / 2).to_string());
    if number.is_multiple_of(2) { Lane::Changes(volume) } else { Lane::Reads(volume) }
}

struct Nothing(Option<u8>, mpsc::Sender<Option<u8>>);

impl Job for Nothing {
    fn run(&mut self) {
        self.1.send(self.0).unwrap();
    }
    fn answer(self: Box<Self>) {}
    fn refuse(self: Box<Self>, _: Refused) {}
}

impl Play {
    fn step(&mut self, step: Step, jobs: &(mpsc::Sender<Option<u8>>, mpsc::Receiver<Option<u8>>)) {
        match step {
            Step::Call(lane) => {
                let stuck = self.running.iter().any(|(_, other, since)| *other == lane && self.now >= *since + LIMIT);
                let full = self.pool.count().stuck == TOTAL;
                let answer = self.pool.admit(lane.map(lane_of), Box::new(Nothing(lane, jobs.0.clone())));
                assert_eq!(answer.is_err(), stuck || full, "{answer:?}");
                self.let_in += usize::from(answer.is_ok());
                self.free += usize::from(self.pool.take_place());
            }
            Step::Look if self.free > 0 => {
                if let Next::Job { place, mut job } = self.pool.next(self.now) {
                    job.run();
                    self.free -= 1;
                    self.running.push((place, jobs.1.recv().unwrap(), self.now));
                }
            }
            Step::End(which) if !self.running.is_empty() => {
                let (place, ..) = self.running.remove(which % self.running.len());
                let Left { stays, .. } = self.pool.finish(place);
                self.free += usize::from(stays);
                self.out += 1;
            }
            Step::Pass(parts) => {
                self.now += LIMIT / 3 * parts;
                let swept = self.pool.sweep(self.now);
                self.out += swept.refused.len();
                for _ in 0..swept.places {
                    self.free += usize::from(self.pool.take_place());
                }
            }
            Step::Look | Step::End(_) => {}
        }
    }

    fn check(&self) {
        let count = self.pool.count();
        let running = |lane| self.running.iter().filter(|(_, other, _)| *other == Some(lane)).count();
        assert!((0..LANES).all(|lane| running(lane) <= 1), "two calls of one lane run at once");
        assert!(count.live <= THREADS && count.live + count.stuck <= TOTAL, "{count:?}");
        assert_eq!(count.live + count.stuck, self.free + self.running.len(), "a thread is lost");
        assert_eq!(self.let_in, self.out + self.running.len() + count.queued, "a call is lost");
        assert!(count.queued == 0 || count.live > 0, "calls wait that no thread will ever take: {count:?}");
    }
}

proptest! {
    #[test]
    fn no_call_and_no_thread_is_lost_and_no_limit_passed(steps in prop::collection::vec(step(), 1..80)) {
        let options =
            WorkersOptions { threads: THREADS, total: TOTAL, stuck_after: LIMIT, idle: Duration::from_secs(60) };
        let pool = Pool::new("scratch".parse().unwrap(), options);
        let mut play = Play { pool, now: Instant::now(), free: 0, running: Vec::new(), let_in: 0, out: 0 };
        let jobs = mpsc::channel();
        for step in steps {
            play.step(step, &jobs);
            play.check();
        }
    }
}

#[test]
fn calls_for_which_no_thread_can_be_started_are_refused() {
    let mut pool = Pool::new("scratch".parse().unwrap(), WorkersOptions::default());
    let jobs = mpsc::channel();
    pool.admit(volume("a"), Box::new(Nothing(None, jobs.0.clone()))).unwrap();
    assert!(pool.take_place());
    pool.admit(volume("a"), Box::new(Nothing(None, jobs.0.clone()))).unwrap();
    let rejected = pool.give_up_place(&io::Error::from_raw_os_error(libc::EAGAIN));
    assert_eq!(rejected.len(), 2);
    assert!(rejected.iter().all(|rejected| matches!(rejected.why, Refused::Thread { .. })));
    assert_eq!(pool.count(), WorkersCount { refused: 2, ..WorkersCount::default() });
}

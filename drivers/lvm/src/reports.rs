//! One report answers many calls.
//!
//! A report costs what a change costs, and waits for whoever changes the group. So calls that come while one is made wait
//! for it together, and it stays good for a moment. What this process changes is put into the last report, and into that
//! which is being made, when its command has ended: so no call ever misses a change that was answered. After a failed
//! change nothing is known, and the next call asks LVM. A failed report is an error for those who waited for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunnage_driver_api::{Commands, Error, ErrorKind, Result};

use crate::group::Group;
use crate::report::{Logical, Report};

/// How long a report is good for: what others do to the group is seen so much later.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// The reports of one group.
pub(crate) struct Reports {
    group: Group,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last: Option<Last>,
    failed: Option<(Instant, Error)>,
    is_running: bool,
    /// What has changed since the running one began.
    since: Vec<Change>,
    /// Whether what the running one says may be wrong.
    is_doubtful: bool,
    /// What creates and growths that are running will take.
    reserved: u64,
}

struct Last {
    began: Instant,
    ended: Instant,
    report: Arc<Report>,
}

/// What a command of ours did to the group.
#[derive(Debug, Clone)]
enum Change {
    /// Made it, or changed it; takes so much more of the group's room.
    Put(String, Box<Logical>, u64),
    Removed(String),
}

/// Room that is spoken for until this is dropped.
#[must_use]
pub(crate) struct Reservation<'a> {
    reports: &'a Reports,
    bytes: u64,
}

impl Reports {
    pub(crate) fn new(group: Group) -> Self {
        Self { group, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The group as it is, or was a moment ago with what this process has changed since.
    ///
    /// # Errors
    /// Where LVM cannot tell.
    pub(crate) fn get(&self, commands: &dyn Commands) -> Result<Arc<Report>> {
        self.get_by(GOOD_FOR, || self.group.report(commands))
    }

    /// The group as it is now.
    ///
    /// # Errors
    /// Where LVM cannot tell.
    pub(crate) fn get_fresh(&self, commands: &dyn Commands) -> Result<Arc<Report>> {
        self.get_by(Duration::ZERO, || self.group.report(commands))
    }

    fn get_by(&self, good_for: Duration, report: impl FnOnce() -> Result<Report>) -> Result<Arc<Report>> {
        let arrived = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(last) = &state.last
                && (last.began >= arrived || last.ended.elapsed() < good_for)
            {
                return Ok(last.report.clone());
            }
            if let Some((when, error)) = &state.failed
                && *when >= arrived
            {
                return Err(error.clone());
            }
            if !state.is_running {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.is_running, state.is_doubtful) = (true, false);
        state.since.clear();
        drop(state);
        let running = Running(self);
        let began = Instant::now();
        let report = report();
        let mut state = self.lock();
        let result = state.take_in(began, report);
        drop(state);
        drop(running);
        result
    }

    /// Whether what is to be taken fits, by the last report and what is spoken for, and speaks for it if so.
    ///
    /// # Errors
    /// Those of `fits`, and where LVM cannot tell.
    pub(crate) fn reserve(
        &self,
        commands: &dyn Commands,
        bytes: u64,
        fits: impl Fn(&Report, u64) -> Result<()>,
    ) -> Result<Reservation<'_>> {
        let take = |report: Arc<Report>| {
            let mut state = self.lock();
            // What was made meanwhile is in the last report and no longer spoken for.
            let report = state.last.as_ref().map_or(report, |last| last.report.clone());
            fits(&report, state.reserved)?;
            state.reserved = state.reserved.saturating_add(bytes);
            Ok::<_, Error>(Reservation { reports: self, bytes })
        };
        match take(self.get(commands)?) {
            // What has gone since the last report is not in it.
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => take(self.get_fresh(commands)?),
            taken => taken,
        }
    }

    /// What is spoken for.
    pub(crate) fn reserved(&self) -> u64 {
        self.lock().reserved
    }

    /// A command of ours has removed this.
    pub(crate) fn removed(&self, name: &str) {
        self.lock().change(Change::Removed(name.into()));
    }

    /// A command of ours has failed, or changed what is not told here: the next call asks LVM.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        (state.last, state.is_doubtful) = (None, true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the report that was running, with what has changed since it began.
    fn take_in(&mut self, began: Instant, report: Result<Report>) -> Result<Arc<Report>> {
        let ended = Instant::now();
        match report {
            Ok(mut report) => {
                self.since.drain(..).for_each(|change| change.apply(&mut report));
                let report = Arc::new(report);
                self.last = (!self.is_doubtful).then(|| Last { began, ended, report: report.clone() });
                self.failed = None;
                Ok(report)
            }
            Err(error) => {
                self.last = None;
                self.failed = Some((ended, error.clone()));
                Err(error)
            }
        }
    }

    fn change(&mut self, change: Change) {
        if let Some(last) = &mut self.last {
            change.clone().apply(Arc::make_mut(&mut last.report));
        }
        if self.is_running {
            self.since.push(change);
        }
    }
}

impl Change {
    /// Makes the report say it. One that says it already stays as it is.
    fn apply(self, report: &mut Report) {
        match self {
            Self::Put(name, logical, takes) => {
                let is_known = report.logical.get(&name).is_some_and(|known| {
                    known.size == logical.size && known.entry == logical.entry && known.pool == logical.pool
                });
                if !is_known {
                    report.free = report.free.saturating_sub(takes);
                    report.put(name, *logical);
                }
            }
            Self::Removed(name) => report.remove(&name),
        }
    }
}

impl Reservation<'_> {
    /// The command has done what the room was spoken for: the logical volume is in the group as `logical`, and has taken
    /// the room of the group itself where `takes` says so.
    pub(crate) fn made(self, name: &str, logical: Logical, takes: bool) {
        let mut state = self.reports.lock();
        state.change(Change::Put(name.into(), Box::new(logical), if takes { self.bytes } else { 0 }));
        state.reserved = state.reserved.saturating_sub(self.bytes);
        drop(state);
        std::mem::forget(self);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.reports.lock();
        state.reserved = state.reserved.saturating_sub(self.bytes);
    }
}

/// Lets the others go on also when a report panicked.
struct Running<'a>(&'a Reports);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().is_running = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use dunnage_driver_api::{Command, Output};

    use super::*;
    use crate::report::tests::text;

    fn reports() -> Reports {
        Reports::new(Group::new("vg", &["/dev/sdb".into()]))
    }

    fn logical(size: u64) -> Logical {
        Logical {
            uuid: None,
            size,
            layout: "linear".into(),
            pool: String::new(),
            data_percent: None,
            metadata_percent: None,
            health: String::new(),
            when_full: String::new(),
            zeroes: false,
            entry: None,
        }
    }

    fn never() -> Result<Report> {
        panic!("it was asked for")
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_crowd_asks_once_and_a_late_comer_that_wants_it_fresh_asks_again() {
        let (reports, asked, crowd) = (reports(), AtomicUsize::new(0), Barrier::new(16));
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
            // Long enough for the others to come.
            std::thread::sleep(Duration::from_millis(20));
            Ok(Report::default())
        };
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    crowd.wait();
                    reports.get_by(HOUR, ask).unwrap()
                });
            }
        });
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        reports.get_by(Duration::ZERO, ask).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_failed_report_is_an_error_for_all_who_wait_and_is_asked_for_again() {
        let (reports, crowd) = (reports(), Barrier::new(8));
        let fail = || {
            std::thread::sleep(Duration::from_millis(20));
            Err(Error::internal("the disk does not answer"))
        };
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        crowd.wait();
                        reports.get_by(HOUR, fail).unwrap_err().kind()
                    })
                })
                .collect();
            assert!(calls.into_iter().all(|call| call.join().unwrap() == ErrorKind::Internal));
        });
        reports.get_by(HOUR, || Ok(Report::default())).unwrap();
    }

    #[test]
    fn a_change_that_ends_while_a_report_is_made_is_in_it() {
        let reports = reports();
        let changed = || {
            reports.lock().change(Change::Put("new".into(), Box::new(logical(8)), 0));
            reports.removed("old");
            // As it was before both.
            let mut report = Report::default();
            report.put("old".into(), logical(4));
            Ok(report)
        };
        let report = reports.get_by(HOUR, changed).unwrap();
        assert_eq!(report.logical.keys().collect::<Vec<_>>(), ["new"]);
        reports.removed("new");
        assert!(reports.get_by(HOUR, never).unwrap().logical.is_empty(), "the last report says it too");
    }

    #[test]
    fn after_a_failed_change_nothing_is_known() {
        let reports = reports();
        let doubtful = || {
            reports.forget();
            Ok(Report::default())
        };
        reports.get_by(HOUR, doubtful).unwrap();
        let asked = AtomicUsize::new(0);
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(Report::default())
        };
        reports.get_by(HOUR, ask).unwrap();
        reports.forget();
        reports.get_by(HOUR, ask).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    /// LVM, with so much free in the group.
    struct Free(AtomicU64);

    impl Commands for Free {
        fn run(&self, _: &Command) -> Result<Output> {
            let free = format!("\"vg_free\":\"{}\"", self.0.load(Ordering::Relaxed));
            let report = text("", 0, &[]).replace("\"vg_free\":\"1073741824\"", &free);
            Ok(Output::new(ExitStatus::from_raw(0), report, ""))
        }
    }

    #[test]
    fn room_is_spoken_for_until_what_takes_it_is_in_the_report() {
        let (reports, lvm) = (reports(), Free(AtomicU64::new(100)));
        let reserve = |bytes: u64| {
            reports.reserve(&lvm, bytes, |report, reserved| match report.free >= reserved + bytes {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::ResourceExhausted, "full")),
            })
        };
        let first = reserve(60).unwrap();
        assert!(reserve(60).is_err(), "it is spoken for");
        lvm.0.store(40, Ordering::Relaxed);
        first.made("a", logical(60), true);
        assert_eq!(reports.reserved(), 0);
        assert!(reserve(60).is_err(), "it is taken");
        drop(reserve(40).unwrap());
        drop(reserve(40).unwrap());
        // Somebody has removed something since the last report.
        lvm.0.store(80, Ordering::Relaxed);
        drop(reserve(80).unwrap());
    }
}

//! The tests that need a stock Debian kernel, in guests that have it.
//!
//! Whatever lies in a module `in_guest`, in any test binary of the workspace, runs in a guest and nowhere else. What lies
//! in a module `across_guests` runs on this machine and boots several guests of its own. What lies in a module `at_length`
//! of these runs only where it is named, each test in a process of its own that is told with its time.

mod binaries;
mod run;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Error, Result, ensure};
use dunnage_test_vm::Kernel;

use super::packages;
use crate::privilege;
use crate::session::Session;
use crate::summary::Outcome;
use binaries::Binary;
use run::{Ran, Tests};

/// What the names of tests have in them that run in a guest.
pub(crate) const MODULE: &str = "in_guest::";
/// What the names of those tests have in them that are run only where they are named: all of them together take longer
/// than everything else.
const AT_LENGTH: &str = "at_length::";
/// What the names of tests have in them that boot guests of their own.
pub(crate) const ACROSS: &str = "across_guests::";
const STEP: &str = "vm";
/// How many guests run tests at length at once, where the machine has a processor for each: each has 3 GiB of memory.
const GUESTS: usize = 4;

/// Runs all but those at length.
pub(crate) fn run(session: &mut Session) -> Result<Outcome> {
    run_those(session, &[])
}

/// Runs those whose names have one of `parts` in them, or all but those at length where there is none.
pub(crate) fn run_those(session: &mut Session, parts: &[String]) -> Result<Outcome> {
    packages::install(session)?;
    let log = session.log(STEP);
    let kernel = kernel(session)?;
    let binaries = binaries::build(session, &log)?;
    let within = chosen(session, &binaries, MODULE, parts)?;
    let across = chosen(session, &binaries, ACROSS, parts)?;
    ensure!(
        !within.is_empty() || !across.is_empty(),
        "no test binary has such a test in a module {MODULE} or {ACROSS}"
    );
    let mut sum = Outcome::default();
    run_within(session, &kernel, within, &log, &mut sum)?;
    let mut ran = Ran::new(&log, String::new())?;
    across.iter().try_for_each(|tests| run::across(session, tests, &mut ran, &log))?;
    ran.end(session, &mut sum)?;
    Ok(sum)
}

/// The names of all tests, each with that of its binary before it.
pub(crate) fn test_names(session: &Session, log: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for binary in binaries::build(session, log)? {
        names.extend(binary.tests(session, "")?.into_iter().map(|test| format!("{} {test}", binary.name())));
    }
    Ok(names)
}

fn chosen<'a>(session: &Session, all: &'a [Binary], module: &str, parts: &[String]) -> Result<Vec<Tests<'a>>> {
    let mut chosen = Vec::new();
    for binary in all {
        let mut names = binary.tests(session, module)?;
        names.retain(|name| match parts {
            [] => !name.contains(AT_LENGTH),
            parts => parts.iter().any(|part| name.contains(part)),
        });
        let (long, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains(AT_LENGTH));
        chosen.extend(long.into_iter().map(|name| Tests { binary, names: vec![name], timed: true }));
        if !names.is_empty() {
            chosen.push(Tests { binary, names, timed: false });
        }
    }
    Ok(chosen)
}

/// Those at length in several guests at once: each is alone in its guest. All others in one, which has two processors.
fn run_within(session: &Session, kernel: &Kernel, all: Vec<Tests<'_>>, log: &Path, sum: &mut Outcome) -> Result<()> {
    let (long, short): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(|tests| tests.timed);
    let mut ran = Ran::new(log, String::new())?;
    run::within(session, kernel, &Mutex::new(short), "guest", &mut ran)?;
    ran.end(session, sum)?;
    let guests = thread::available_parallelism().map_or(1, |processors| processors.get().min(GUESTS)).min(long.len());
    let queue = Mutex::new(long);
    let ended = thread::scope(|scope| {
        let work = |number| {
            let mut ran = Ran::new(log, format!("{number}: "))?;
            let ended = run::within(session, kernel, &queue, &format!("guest-{number}"), &mut ran);
            Ok::<_, Error>((ran, ended))
        };
        let working: Vec<_> = (1..=guests).map(|number| scope.spawn(move || work(number))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| Error::msg("a thread panicked"));
        working.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    for ran in ended {
        let (mut ran, ended) = ran?;
        // What the others have run is told all the same.
        ended.or_else(|error| ran.fail(&format!("{error:#}")))?;
        ran.end(session, sum)?;
    }
    for tests in queue.into_inner().unwrap_or_else(PoisonError::into_inner) {
        sum.failed += 1;
        sum.notes.push(format!("did not run: {tests}"));
    }
    Ok(())
}

/// Where apt's lists are missing, or too old for what the archive has, they are fetched once.
fn kernel(session: &Session) -> Result<Kernel> {
    let cache = session.target.join("vm");
    Kernel::fetch(&cache).or_else(|error| {
        println!("{error:#}");
        privilege::as_root(session, "apt-get", &["update", "-q"])?.run(&session.log(STEP))?;
        Kernel::fetch(&cache)
    })
}

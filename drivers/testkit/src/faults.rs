//! What goes wrong at which step of a scenario, and the calls that it goes wrong in.

mod commands;
mod operations;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use commands::{FaultyCommands, for_each_command};
pub use operations::for_each_operation;
pub(crate) use operations::{Effect, Outcome};

/// No scenario has as many steps: one that still meets a fault then is called for ever.
const MOST: usize = 2000;

/// What goes wrong with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The program ends with status 5 and a complaint, and has done nothing.
    Exit,
    /// The program is killed by a signal, and has done nothing.
    Signal,
    /// The program does not end within its time and is killed, and has done nothing. Nobody waits for that.
    TimeOut,
    /// The program is not installed.
    NotInstalled,
    /// The operation is an error of the disk (EIO), and nothing is done.
    Io,
    /// There is no room for the operation (ENOSPC), and nothing is done.
    NoSpace,
    /// All is done, and an error is told all the same.
    DoneAndFails,
    /// It fails, and so does everything after it that changes something, until the call ends: nor can be undone what
    /// came before.
    AllFail,
}

/// Makes one step of a scenario go wrong: the n-th of those in its calls [`during`](Self::during) which it may.
#[derive(Debug)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether a step counts now.
    armed: bool,
    plan: Option<Plan>,
    /// How many steps came that the plan is about.
    met: usize,
    /// The step that went wrong.
    hit: Option<String>,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    nth: usize,
    /// The program that it is about, where it is about one.
    program: Option<String>,
}

impl Faults {
    fn new(plan: Option<Plan>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { plan, ..State::default() })))
    }

    /// A call whose steps count, and may go wrong. What is called otherwise never does.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        /// Also where the call panics.
        struct Armed<'a>(&'a Faults);
        impl Drop for Armed<'_> {
            fn drop(&mut self) {
                self.0.lock().armed = false;
            }
        }
        self.lock().armed = true;
        let _armed = Armed(self);
        call()
    }

    /// A call [`during`](Self::during) which a step may go wrong, and the same once more without: the answer of that.
    ///
    /// # Panics
    /// Where the second one fails, or both succeed with different answers.
    #[expect(clippy::panic, reason = "it is how a test fails")]
    pub fn repeated<T: PartialEq + Debug, E: Debug>(&self, mut call: impl FnMut() -> Result<T, E>) -> T {
        let first = self.during(&mut call);
        match (first, call()) {
            (Ok(first), Ok(again)) => {
                assert_eq!(first, again, "a repeated call has the answer of the first");
                again
            }
            (Err(_), Ok(again)) => again,
            (first, Err(error)) => panic!("a call fails when it is repeated: {error:?}; it was before: {first:?}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong with a step, if anything does. `is_about` says whether the fault can be had of this step.
    fn meet(&self, step: &str, program: Option<&str>, is_about: impl FnOnce(Fault) -> bool) -> Option<Fault> {
        let state = &mut *self.lock();
        if !state.armed {
            return None;
        }
        let Some(plan) = &state.plan else {
            state.met += 1;
            return None;
        };
        let is_other = plan.program.is_some() && plan.program.as_deref() != program;
        if is_other || !is_about(plan.fault) {
            return None;
        }
        state.met += 1;
        let is_hit = state.met == plan.nth || (state.met > plan.nth && plan.fault == Fault::AllFail);
        if state.met == plan.nth {
            state.hit = Some(step.into());
        }
        is_hit.then_some(plan.fault)
    }
}

/// Says where the scenario was when it panicked.
struct Telling<'a>(&'a Faults);

impl Drop for Telling<'_> {
    #[expect(clippy::print_stderr, reason = "the output of a test is where its reader looks for why it failed")]
    fn drop(&mut self) {
        let state = self.0.lock();
        if let (true, Some(plan)) = (std::thread::panicking(), &state.plan) {
            let step = state.hit.as_deref().unwrap_or("not reached");
            eprintln!("the scenario fails with {:?} at its step {}: {step}", plan.fault, plan.nth);
        }
    }
}

/// Goes through the scenario without a fault, and then with each of these at its first step, its second, until it has no
/// more. Gives how often something went wrong.
fn for_each(faults: &[Fault], mut scenario: impl FnMut(&Arc<Faults>)) -> usize {
    let none = Faults::new(None);
    scenario(&none);
    assert!(none.lock().met > 0, "no call of the scenario has a step that could fail: the test does not test");
    let mut hits = 0;
    for fault in faults {
        for nth in 1.. {
            assert!(nth < MOST, "the scenario has {nth} steps and more");
            let faults = Faults::new(Some(Plan { fault: *fault, nth, program: None }));
            let telling = Telling(&faults);
            scenario(&faults);
            drop(telling);
            if faults.lock().hit.is_none() {
                break;
            }
            hits += 1;
        }
    }
    hits
}

//! Programs that fail on purpose.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use dunnage_driver_api::{Command, Commands, Error, Output, Result};

use super::{Fault, Faults, Plan, for_each};

const FAULTS: [Fault; 6] =
    [Fault::Exit, Fault::Signal, Fault::TimeOut, Fault::NotInstalled, Fault::DoneAndFails, Fault::AllFail];

/// Runs programs by others ([`System`](dunnage_driver_api::System), or the fake of a storage), knows what it ran, and
/// makes one of them go wrong.
pub struct FaultyCommands {
    inner: Arc<dyn Commands>,
    faults: Arc<Faults>,
    ran: Mutex<Vec<String>>,
}

impl FaultyCommands {
    /// Of which the n-th run of a program goes wrong: `nth` is 1 for the first one.
    pub fn new(inner: impl Commands + 'static, program: &str, nth: usize, fault: Fault) -> Arc<Self> {
        let faults = Faults::new(Some(Plan { fault, nth, program: Some(program.into()) }));
        faults.lock().armed = true;
        Self::with(Arc::new(inner), &faults)
    }

    fn with(inner: Arc<dyn Commands>, faults: &Arc<Faults>) -> Arc<Self> {
        Arc::new(Self { inner, faults: faults.clone(), ran: Mutex::default() })
    }

    /// The command lines so far, also of what went wrong, the program first.
    pub fn ran(&self) -> Vec<String> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Commands for FaultyCommands {
    fn run(&self, command: &Command) -> Result<Output> {
        let program = command.tool().program;
        let words = command.arguments().iter().map(|argument| argument.to_string_lossy());
        let line = std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ");
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        let ended =
            |status| Ok(Output::new(ExitStatus::from_raw(status), "", format!("{program}: it fails on purpose")));
        match self.faults.meet(&line, Some(program), |fault| FAULTS.contains(&fault)) {
            None => self.inner.run(command),
            Some(Fault::Signal) => ended(9),
            Some(Fault::TimeOut) => {
                Err(Error::internal(format!("{program} did not end within its time and was killed")))
            }
            Some(Fault::NotInstalled) => {
                let package = command.tool().package;
                Err(Error::precondition(format!(
                    "{program} is not installed on this node: install the package {package}"
                )))
            }
            Some(Fault::DoneAndFails) => self.inner.run(command).and_then(|_| ended(5 << 8)),
            Some(_) => ended(5 << 8),
        }
    }
}

/// Goes through a scenario again and again, each time with another of its commands going wrong in another way: it fails,
/// is killed, hangs, is not installed, is done and reported as failed, or fails with all that come after it.
///
/// The scenario makes a place of its own, opens the driver with the commands it is given, and makes its calls by
/// [`Faults::repeated`] or within [`Faults::during`]: commands outside these do not fail. It asserts that a repeated call
/// ends right, and that nothing is left in the end. Gives how many commands went wrong.
///
/// ```no_run
/// # use std::path::Path;
/// # use dunnage_driver_api::{Driver, System};
/// use dunnage_testkit::{Opened, for_each_command};
///
/// # fn test<D: Driver>(acme: impl Fn(&Path) -> D) {
/// for_each_command(System, |faults, commands| {
///     let folder = tempfile::tempdir().unwrap();
///     let store = Opened::new(&acme(folder.path()), commands).unwrap();
///     let volume = faults.repeated(|| store.create("pvc-1", 1 << 20));
///     faults.repeated(|| store.delete(&volume));
///     assert_eq!(store.list().unwrap(), []);
/// });
/// # }
/// ```
///
/// # Panics
/// Where the scenario does, and where none of its calls runs a command.
pub fn for_each_command(
    inner: impl Commands + 'static,
    mut scenario: impl FnMut(&Faults, Arc<FaultyCommands>),
) -> usize {
    let inner: Arc<dyn Commands> = Arc::new(inner);
    for_each(&FAULTS, |faults| scenario(faults, FaultyCommands::with(inner.clone(), faults)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dunnage_driver_api::{ErrorKind, System, Tool};

    use super::*;

    const TOUCH: Tool = Tool { program: "touch", package: "coreutils" };
    const RM: Tool = Tool { program: "rm", package: "coreutils" };

    fn run(commands: &dyn Commands, tool: Tool, file: &Path) -> Result<()> {
        let command = tool.command().arg(file);
        commands.run(&command)?.success(&command).map(drop)
    }

    #[test]
    fn the_run_that_was_named_goes_wrong_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        for (fault, kind, words, is_done) in [
            (Fault::Exit, ErrorKind::Internal, "exit status: 5): touch: it fails", false),
            (Fault::Signal, ErrorKind::Internal, "signal: 9", false),
            (Fault::TimeOut, ErrorKind::Internal, "did not end within", false),
            (Fault::NotInstalled, ErrorKind::FailedPrecondition, "install the package coreutils", false),
            (Fault::DoneAndFails, ErrorKind::Internal, "exit status: 5", true),
        ] {
            let commands = FaultyCommands::new(System, "touch", 2, fault);
            run(&*commands, TOUCH, &file("a")).unwrap();
            run(&*commands, RM, &file("a")).unwrap();
            let error = run(&*commands, TOUCH, &file("b")).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(words), "{fault:?}: {error}");
            assert_eq!(file("b").exists(), is_done, "{fault:?}");
            run(&*commands, TOUCH, &file("c")).unwrap();
            assert_eq!(commands.ran().len(), 4);
            assert_eq!(commands.ran()[1], format!("rm {}", file("a").display()));
            let _ = std::fs::remove_file(file("b"));
        }
    }

    #[test]
    fn a_scenario_is_gone_through_with_each_command_going_wrong_in_each_way() {
        let mut ended = Vec::new();
        let hits = for_each_command(System, |faults, commands| {
            let folder = tempfile::tempdir().unwrap();
            let files = ["a", "b"].map(|name| folder.path().join(name));
            run(&*commands, TOUCH, &files[0]).unwrap();
            let made = faults.during(|| files.iter().try_for_each(|file| run(&*commands, TOUCH, file)));
            ended.push((made.is_ok(), files[1].exists()));
            faults.repeated(|| run(&*commands, TOUCH, &files[1]));
            assert!(files[1].exists());
        });
        // Three commands that count, of which the third is after what is looked at.
        assert_eq!(hits, 6 * 3);
        let count = |wanted| ended.iter().filter(|one| **one == wanted).count();
        assert_eq!(count((true, true)), 1 + 6 + 6, "without a fault, with one in the third, and with one too late");
        assert_eq!((count((false, true)), count((false, false))), (1, 11));
    }

    #[test]
    #[should_panic(expected = "fails when it is repeated")]
    fn a_call_that_cannot_be_repeated_is_told() {
        for_each_command(System, |faults, commands| {
            let folder = tempfile::tempdir().unwrap();
            let made = folder.path().join("made");
            faults.repeated(|| match std::fs::create_dir(&made) {
                Ok(()) => run(&*commands, TOUCH, &made.join("file")),
                Err(error) => Err(Error::io("cannot make it", error)),
            });
        });
    }

    #[test]
    #[should_panic(expected = "the test does not test")]
    fn a_scenario_without_a_command_is_no_test() {
        for_each_command(System, |_, _| ());
    }
}

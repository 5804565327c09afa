use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};

use super::*;
use crate::sessions::tests::fake;
use crate::wanted::UnitId;

/// Ends each command with the same, and remembers it.
struct Says(i32, Mutex<Vec<String>>);

impl Commands for Says {
    fn run(&self, command: &Command) -> Result<Output> {
        let line = command.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        self.1.lock().unwrap().push(line.join(" "));
        Ok(Output::new(ExitStatus::from_raw(self.0 << 8), "", "said"))
    }
}

fn wanted(lun: u64, serial: &str) -> Wanted {
    let portal = "127.0.0.1:1".parse().unwrap();
    Wanted { iqn: "iqn.a".into(), lun, unit: UnitId::Serial(serial.into()), portal }
}

fn context(code: i32) -> Context {
    Context::new(Duration::from_secs(5), Arc::new(Says(code, Mutex::default())))
}

fn options() -> Options {
    Options { initiator: "iqn.node".into(), iface: "dunnage-0".into(), loss_seconds: 1, keep_alive_seconds: 1 }
}

#[test]
fn a_unit_that_is_another_one_is_refused_and_not_waited_for() {
    let (sys, dev) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fake(sys.path(), "session1", "iqn.a", 0, "theirs");
    let initiator = Initiator::of(sys.path(), dev.path());
    let until = Instant::now() + Duration::from_secs(60);
    let error = initiator.bring(&context(0), &wanted(0, "ours"), &options(), None, until).unwrap_err();
    assert!(error.to_string().contains("has another unit there") && error.to_string().contains("theirs"), "{error}");
}

#[test]
fn a_target_that_nobody_listens_for_is_told_without_a_login() {
    let (sys, dev) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let initiator = Initiator::of(sys.path(), dev.path());
    let until = Instant::now() + Duration::from_secs(5);
    let error = initiator.bring(&context(0), &wanted(0, "ours"), &options(), None, until).unwrap_err();
    assert!(
        error.kind() == ErrorKind::FailedPrecondition && error.to_string().contains("cannot be reached"),
        "{error}"
    );
}

fn held(iqn: &str, lun: u64, serial: &str) -> LoggedIn {
    LoggedIn { iqn: iqn.into(), ..LoggedIn::from(&wanted(lun, serial)) }
}

#[test]
fn a_session_stays_that_shows_another_unit_or_that_somebody_else_has_made() {
    let (sys, dev) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fake(sys.path(), "session1", "iqn.a", 0, "one");
    fake(sys.path(), "session2", "iqn.c", 0, "three");
    let initiator = Initiator::of(sys.path(), dev.path());
    // It would end with this error where a program is run.
    let logout = |held: LoggedIn| initiator.logout(&context(1), &held, Instant::now());
    logout(held("iqn.a", 0, "one")).unwrap_err();
    logout(held("iqn.a", 1, "another")).unwrap();
    logout(held("iqn.a", 0, "given to another volume")).unwrap();
    fake(sys.path(), "session1", "iqn.a", 1, "two");
    logout(held("iqn.a", 0, "one")).unwrap();
    std::fs::write(sys.path().join("class/iscsi_session/session2/initiatorname"), "iqn.admin\n").unwrap();
    logout(held("iqn.c", 0, "three")).unwrap();
    // Of none there is nothing but the record to be removed.
    initiator.logout(&context(ended::NO_RECORD), &held("iqn.b", 0, "one"), Instant::now()).unwrap();
}

#[test]
fn what_open_iscsi_complains_of_is_told() {
    let error = run(&Says(8, Mutex::default()), &command("node"), &[21]).unwrap_err();
    assert!(error.report().contains("is iscsid running") && error.report().contains("said"), "{}", error.report());
    run(&Says(21, Mutex::default()), &command("node"), &[21]).unwrap();
}

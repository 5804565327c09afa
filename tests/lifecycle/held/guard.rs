//! The child that thaws what its parent does not.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::*;

/// A guard of the file system that is mounted on `top`, ready.
fn guard(milliseconds: u32, intent: &Path, top: &File) -> Result<(Child, ChildStdin)> {
    let top = format!("/proc/{}/fd/{}", std::process::id(), top.as_raw_fd());
    let mut child = Command::new(DUNNAGE)
        .args(["guard-frozen", &milliseconds.to_string()])
        .arg(intent)
        .arg(top)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "{line:?}");
    let stdin = child.stdin.take().context("no input")?;
    Ok((child, stdin))
}

/// A disk that is mounted, its folder opened, and a file that says it is frozen.
fn disk(setup: &Setup) -> Result<(std::path::PathBuf, File, std::path::PathBuf)> {
    let folder = setup.scratch().folder("disk")?;
    mount_new(&setup.scratch().path().join("image"), 32, &folder, &["mkfs.ext4", "-q"], "loop")?;
    let intent = setup.scratch().path().join("intent");
    fs::write(&intent, "what is frozen")?;
    let top = File::open(&folder)?;
    Ok((folder, top, intent))
}

fn is_frozen(folder: &Path) -> bool {
    // Freezing what is frozen is refused; what was not is thawed again.
    let freeze = |what: &str| Command::new("fsfreeze").arg(what).arg(folder).stderr(Stdio::null()).status();
    let was = freeze("--freeze").is_ok_and(|status| !status.success());
    if !was {
        let _ = freeze("--unfreeze");
    }
    was
}

fn freeze(folder: &Path) -> Result<()> {
    ensure!(Command::new("fsfreeze").arg("--freeze").arg(folder).status()?.success(), "it cannot be frozen");
    Ok(())
}

#[test]
fn a_freeze_that_took_longer_than_it_was_to_last_is_thawed_when_it_is_told() -> Result<()> {
    let test = "a_freeze_that_took_longer_than_it_was_to_last_is_thawed_when_it_is_told";
    if !can_run(test, &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let (folder, top, intent) = disk(&setup)?;
    let (mut guard, mut stdin) = guard(1, &intent, &top)?;
    // The time is up long before.
    std::thread::sleep(Duration::from_millis(50));
    freeze(&folder)?;
    stdin.write_all(b"f")?;
    wait_until("the guard to thaw", Duration::from_secs(60), || Ok(!is_frozen(&folder)))?;
    ensure!(guard.try_wait()?.is_none(), "it does not leave its parent");
    stdin.write_all(b"k")?;
    assert_eq!(guard.wait()?.code(), Some(3));
    Ok(())
}

#[test]
fn the_end_of_the_parent_thaws_and_leaves_no_word_for_the_next_start() -> Result<()> {
    let test = "the_end_of_the_parent_thaws_and_leaves_no_word_for_the_next_start";
    if !can_run(test, &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let (folder, top, intent) = disk(&setup)?;
    let (mut guard, stdin) = guard(600_000, &intent, &top)?;
    // Killed in the moment between the freeze and the word of it.
    freeze(&folder)?;
    drop(stdin);
    assert_eq!(guard.wait()?.code(), Some(3));
    ensure!(!is_frozen(&folder), "it stays frozen");
    let mut left = String::new();
    File::open(intent)?.read_to_string(&mut left)?;
    assert_eq!(left, "");
    Ok(())
}

#[test]
fn a_guard_that_is_not_needed_thaws_nothing() -> Result<()> {
    if !can_run("a_guard_that_is_not_needed_thaws_nothing", &[Need::Root])? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let (folder, top, intent) = disk(&setup)?;
    let (mut guard, mut stdin) = guard(600_000, &intent, &top)?;
    let frozen = Frozen::new(&folder)?;
    stdin.write_all(b"k")?;
    assert_eq!(guard.wait()?.code(), Some(0));
    ensure!(is_frozen(&folder), "it was somebody else's");
    drop(frozen);
    Ok(())
}

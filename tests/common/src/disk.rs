//! A small disk of a test's own.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program of the system to its end.
///
/// # Errors
/// It is missing or fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program} {arguments:?} ended with {status}");
    Ok(())
}

/// Makes an ext4 of `mebibytes` in the file `image` and mounts it on `folder`; both must lie in the folder of the test,
/// which takes both away.
///
/// # Errors
/// Without root, loop devices or ext4.
pub fn mount_disk(image: &Path, mebibytes: u64, folder: &Path) -> Result<()> {
    mount_new(image, mebibytes, folder, &["mkfs.ext4", "-q", "-F"], "loop")
}

/// The same with another program, with its arguments, that makes the file system, and with other options of mount(8).
///
/// # Errors
/// Those of the programs.
pub fn mount_new(image: &Path, mebibytes: u64, folder: &Path, mkfs: &[&str], options: &str) -> Result<()> {
    File::create(image)?.set_len(mebibytes << 20)?;
    let (image, folder) = (image.display().to_string(), folder.display().to_string());
    let (program, arguments) = mkfs.split_first().context("no program is named")?;
    run(program, &[arguments, &[image.as_str()]].concat())?;
    run("mount", &["-o", options, &image, &folder])
}

/// A file system that takes no write: who writes hangs, as with a disk that does not answer, until this is dropped.
#[derive(Debug)]
pub struct Frozen(String);

impl Frozen {
    /// Freezes the file system that is mounted on `folder`.
    ///
    /// # Errors
    /// Without root, or where it cannot be frozen.
    pub fn new(folder: &Path) -> Result<Self> {
        let folder = folder.display().to_string();
        run("fsfreeze", &["--freeze", &folder])?;
        Ok(Self(folder))
    }
}

impl Drop for Frozen {
    #[allow(clippy::print_stderr, reason = "the harness shows what a failed test printed")]
    fn drop(&mut self) {
        if let Err(error) = run("fsfreeze", &["--unfreeze", &self.0]) {
            eprintln!("{error:#}");
        }
    }
}

//! One guest: a QEMU process, and the jobs it runs.

mod hardware;
mod job;
mod port;
mod power;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};

use crate::initramfs;
use crate::kernel::Kernel;
use crate::program::{QEMU, SETPRIV};

pub use hardware::Hardware;
pub use job::Job;
use port::{Message, Port};
pub use power::Power;

/// Both are far above what is needed, also on a machine that is busy with ten times as much as it can do: only what hangs
/// comes near.
const BOOT: Duration = Duration::from_secs(15 * 60);
const JOB: Duration = Duration::from_secs(30 * 60);
/// How many lines of the console are told when a guest fails.
const TAIL: usize = 40;

/// A running guest. It is killed when this is dropped, and by the kernel when the thread that booted it ends, however
/// that comes.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    port: Port,
    console: PathBuf,
    complaints: PathBuf,
}

impl Guest {
    /// Boots it and waits until it takes jobs. `folder` is for this guest alone, and keeps what its console said.
    ///
    /// Dropping it cuts its power: on its disks is what it had flushed, and perhaps more.
    ///
    /// # Errors
    /// A program is missing, or the guest does not come up: then with the end of what its console said.
    pub fn boot(kernel: &Kernel, folder: &Path, hardware: &Hardware) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let initramfs = folder.join("initramfs.cpio");
        initramfs::write(kernel, &initramfs).context("cannot make the initramfs")?;
        let (console, complaints) = (folder.join("console.log"), folder.join("qemu.log"));
        let mut command = SETPRIV.command()?;
        // The only tie that holds when this process is killed.
        command.args(["--pdeathsig", "KILL"]).arg(QEMU.find()?);
        command.args(arguments(kernel, &initramfs, &console, &hardware.append())).args(hardware.arguments()?);
        Self::start(command, console, complaints)
    }

    fn start(mut command: Command, console: PathBuf, complaints: PathBuf) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&complaints)?);
        let mut qemu = command.spawn().context("cannot start QEMU")?;
        let port = Port::new(&mut qemu)?;
        let mut guest = Self { qemu, port, console, complaints };
        match guest.port.next(BOOT) {
            Ok(Message::Ready) => Ok(guest),
            Ok(other) => bail!("the guest's agent did not begin with what it must: {other:?}"),
            Err(silence) => Err(guest.failure("the guest did not boot", silence, BOOT)),
        }
    }

    /// Runs a job to its end and hands each line of its output to `see`; answers whether it succeeded.
    ///
    /// # Errors
    /// The guest has ended or hangs: with the end of what its console said. It is of no use any more.
    pub fn run(&mut self, job: &Job, mut see: impl FnMut(&str)) -> Result<bool> {
        let started = Instant::now();
        // Where QEMU has ended, what it sent before is told first.
        let _ = self.port.send(&job.line()?);
        loop {
            match self.port.next(JOB.saturating_sub(started.elapsed())) {
                Ok(Message::Line(line)) => see(&line),
                Ok(Message::Ended(status)) => return Ok(status == 0),
                Ok(Message::Ready) => bail!("the guest's agent has started twice"),
                Err(silence) => return Err(self.failure(&format!("the guest was lost in {job}"), silence, JOB)),
            }
        }
    }

    /// The plug, with which another thread may cut its power while it runs a job.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn power(&self) -> Result<Power> {
        Power::of(&self.qemu)
    }

    fn failure(&mut self, what: &str, silence: RecvTimeoutError, limit: Duration) -> Error {
        let how = match silence {
            RecvTimeoutError::Timeout => format!("no end within {} s", limit.as_secs()),
            RecvTimeoutError::Disconnected => {
                self.qemu.wait().map_or_else(|error| error.to_string(), |status| format!("QEMU ended ({status})"))
            }
        };
        let mut text = format!("{what}: {how}");
        for (name, path) in [("QEMU says", &self.complaints), ("the console ends with", &self.console)] {
            let said = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
            let lines: Vec<_> = said.lines().collect();
            if !lines.is_empty() {
                text.push_str(&format!("\n{name}:\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n")));
            }
        }
        Error::msg(text)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has nothing to keep, and where it has ended already there is nothing to do.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn arguments(kernel: &Kernel, initramfs: &Path, console: &Path, append: &str) -> Vec<String> {
    // A guest that panics or whose first program ends is gone at once. Without a policy SELinux denies nothing. On a busy
    // machine the timer ticks too seldom for the kernel's check of it, which then never ends.
    let own = "console=ttyS0 quiet panic=-1 oops=panic no_timer_check mitigations=off selinux=1 security=selinux \
               enforcing=0";
    let arguments = [
        ["-accel", "tcg,thread=multi"],
        ["-cpu", "max"],
        ["-smp", "2"],
        ["-display", "none"],
        ["-monitor", "none"],
        ["-kernel", &kernel.image.display().to_string()],
        ["-initrd", &initramfs.display().to_string()],
        ["-append", &format!("{own}{append}")],
        ["-serial", &format!("file:{}", console.display())],
        [
            "-virtfs",
            &format!(
                "local,path={},mount_tag=machine,security_model=none,readonly=on,multidevs=remap",
                hardware::text("/".as_ref())
            ),
        ],
        ["-device", "virtio-serial-pci"],
        ["-chardev", "stdio,id=agent,signal=off"],
        ["-device", "virtserialport,chardev=agent,name=agent"],
    ];
    let mut arguments: Vec<String> = arguments.concat().iter().map(ToString::to_string).collect();
    arguments.extend(["-nodefaults".into(), "-no-reboot".into()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in the place of QEMU, and what the console has said.
    fn start(script: &str, console: &str) -> (tempfile::TempDir, Result<Guest>) {
        let folder = tempfile::tempdir().unwrap();
        let (log, complaints) = (folder.path().join("console.log"), folder.path().join("qemu.log"));
        fs::write(&log, console).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let guest = Guest::start(command, log, complaints);
        (folder, guest)
    }

    fn job() -> Job {
        Job::new("/bin/true".as_ref(), "/".as_ref())
    }

    #[test]
    fn the_lines_of_a_job_are_handed_on_and_its_status_is_judged() {
        let script =
            r"printf '\036ready\n'; read job; echo ok; printf '\036ended 0\n'; read job; printf '\036ended 101\n'";
        let (_folder, guest) = start(script, "");
        let mut guest = guest.unwrap();
        let mut lines = Vec::new();
        assert!(guest.run(&job(), |line| lines.push(line.to_owned())).unwrap());
        assert_eq!(lines, ["ok"]);
        assert!(!guest.run(&job(), |_| ()).unwrap());
    }

    #[test]
    fn a_guest_that_does_not_boot_is_told_with_what_qemu_and_the_console_said() {
        let console: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let (_folder, guest) = start("echo 'no such machine' >&2; exit 3", &console);
        let text = guest.unwrap_err().to_string();
        for words in ["did not boot", "exit status: 3", "no such machine", "line 99"] {
            assert!(text.contains(words), "{text}");
        }
        assert!(!text.contains("line 59"), "{text}");
    }

    #[test]
    fn a_guest_that_panics_in_a_job_is_told_with_the_job() {
        let (_folder, guest) = start(r"printf '\036ready\n'; read job; echo half", "Kernel panic\n");
        let text = guest.unwrap().run(&job(), |_| ()).unwrap_err().to_string();
        for words in ["lost in true", "QEMU ended", "Kernel panic"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_guest_is_killed_when_it_is_dropped() {
        let (_folder, guest) = start(r"printf '\036ready\n'; exec sleep 1000", "");
        let guest = guest.unwrap();
        let process = format!("/proc/{}", guest.qemu.id());
        assert!(Path::new(&process).exists());
        drop(guest);
        assert!(!Path::new(&process).exists());
    }
}

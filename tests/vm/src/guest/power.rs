//! Cutting the power of a guest while it is at work.

use std::os::fd::OwnedFd;
use std::process::Child;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The plug of a guest, for a thread that does not have the guest itself.
#[derive(Debug)]
pub struct Power(OwnedFd);

impl Power {
    pub(super) fn of(qemu: &Child) -> Result<Self> {
        let process = Pid::from_raw(qemu.id().try_into()?).context("QEMU has no process id")?;
        // By a descriptor: the number may be another process's by the time it is used.
        Ok(Self(pidfd_open(process, PidfdFlags::empty()).context("cannot open the process of QEMU")?))
    }

    /// Cuts it: on the guest's disks is what it had flushed, and perhaps more. Nothing happens where it has ended already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cut(&self) -> Result<()> {
        match pidfd_send_signal(&self.0, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.context("cannot kill QEMU"),
        }
    }
}

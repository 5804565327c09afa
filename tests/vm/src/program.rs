//! The programs that guests are made with.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A program, and Debian's package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program(pub(crate) &'static str, pub(crate) &'static str);

pub(crate) const APT_CACHE: Program = Program("apt-cache", "apt");
pub(crate) const APT_GET: Program = Program("apt-get", "apt");
pub(crate) const BUSYBOX: Program = Program("busybox", "busybox-static");
pub(crate) const CPIO: Program = Program("cpio", "cpio");
pub(crate) const DEPMOD: Program = Program("depmod", "kmod");
pub(crate) const DPKG_DEB: Program = Program("dpkg-deb", "dpkg");
pub(crate) const MODPROBE: Program = Program("modprobe", "kmod");
pub(crate) const QEMU: Program = Program("qemu-system-x86_64", "qemu-system-x86");
pub(crate) const SETPRIV: Program = Program("setpriv", "util-linux");

impl Program {
    /// Where it is; an ordinary user's `PATH` has no sbin.
    pub(crate) fn find(self) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let mut places = env::split_paths(&path).chain(system).map(|folder| folder.join(self.0));
        let found = places.find(|place| place.is_file());
        found.with_context(|| format!("there is no program {}: install Debian's package {}", self.0, self.1))
    }

    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(self.find()?);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs it to its end in `folder`; what it wrote to its standard output.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(
        self,
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let output = self.command()?.current_dir(folder).args(arguments).output();
        let output = output.with_context(|| format!("cannot start {}", self.0))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed ({}): {}", self.0, output.status, complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_its_package() {
        let error = Program("no-such-program", "its-package").find().unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("its-package"), "{error}");
    }
}

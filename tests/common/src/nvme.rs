//! The kernel's NVMe target and initiator, as tests look at them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

use crate::{Setup, run};

const CONFIGFS: &str = "/sys/kernel/config";

/// A target of a test's own: a port that no other test has.
#[derive(Debug)]
pub struct NvmeTarget {
    port: u16,
}

impl NvmeTarget {
    /// Has the kernel ready.
    ///
    /// # Errors
    /// Without root, or the modules.
    pub fn new() -> Result<Self> {
        static PORTS: AtomicU16 = AtomicU16::new(0);
        // The program that is tested has no right to have them loaded.
        run("modprobe", &["-a", "nvmet-tcp", "nvme-tcp"])?;
        if !Path::new(CONFIGFS).join("nvmet").exists() {
            // Two tests may do so at once.
            let _ = run("mount", &["-t", "configfs", "none", CONFIGFS]);
        }
        // One process for each test binary, one after the other.
        let port = 4420 + u16::try_from(std::process::id() % 1000)? * 16 + PORTS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { port })
    }

    /// The keys of a backend on the node `node-7`, whose store has these keys.
    ///
    /// # Errors
    /// The folder of the grants cannot be made.
    pub fn keys(&self, setup: &Setup, store: &str) -> Result<String> {
        let grants = setup.scratch().folder("grants")?;
        let store: String = store.lines().map(|line| format!("\n  {line}")).collect();
        let port = self.port;
        Ok(format!(
            "nodes: [node-7]\naddress: 127.0.0.1\nport: {port}\ngrants: {}\nreconnect_seconds: 1\nqueues: 1\nstore:{store}",
            grants.display()
        ))
    }

    /// Takes all that the kernel's target has of an instance away, as a power cut would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cut_power(&self, instance: &str) -> Result<()> {
        let (own, port) = (format!("*{instance}*"), self.port);
        let script = format!(
            "cd {CONFIGFS}/nvmet
             for one in ports/{port}/subsystems/{own}; do [ ! -L $one ] || rm $one; done
             for one in subsystems/{own}/namespaces/*; do [ ! -d $one ] || {{ echo 0 >$one/enable && rmdir $one; }}; done
             for one in subsystems/{own}/allowed_hosts/*; do [ ! -L $one ] || rm $one; done
             for one in subsystems/{own} ports/{port}; do [ ! -d $one ] || rmdir $one; done"
        );
        run("sh", &["-ec", &script])
    }

    /// The subsystems of the target that have this in their names.
    ///
    /// # Errors
    /// configfs cannot be read.
    pub fn exports(&self, part: &str) -> Result<Vec<String>> {
        let folder = Path::new(CONFIGFS).join("nvmet/subsystems");
        let names = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.contains(part)).collect())
    }

    /// The folder of configfs of a subsystem.
    pub fn subsystem(&self, nqn: &str) -> std::path::PathBuf {
        Path::new(CONFIGFS).join("nvmet/subsystems").join(nqn)
    }

    /// The connections of this kernel to subsystems that have this in their names: `nvme3`.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn connections(&self, part: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/class/nvme").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("subsysnqn")).is_ok_and(|nqn| nqn.contains(part)) {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }
}

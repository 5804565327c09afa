//! The kernel's iSCSI target and open-iscsi, as tests look at them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::{Setup, run};

const CONFIGFS: &str = "/sys/kernel/config";

/// A target of a test's own: a port that no other test has.
#[derive(Debug)]
pub struct IscsiTarget {
    port: u16,
}

impl IscsiTarget {
    /// Has the kernel ready, and open-iscsi running.
    ///
    /// # Errors
    /// Without root, the modules, or open-iscsi.
    pub fn new() -> Result<Self> {
        static PORTS: AtomicU16 = AtomicU16::new(0);
        static BEGUN: Mutex<bool> = Mutex::new(false);
        let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            // The program that is tested has no right to have them loaded; no udev is there to do it.
            run("modprobe", &["-a", "iscsi_target_mod", "target_core_iblock", "iscsi_tcp", "sd_mod"])?;
            if !Path::new(CONFIGFS).join("target").exists() {
                run("mount", &["-t", "configfs", "none", CONFIGFS])?;
            }
            fs::create_dir_all("/run/lock/iscsi")?;
            // It goes on in the background, for all test binaries, until the guest ends.
            if !is_running("iscsid") {
                run("iscsid", &[])?;
            }
            *begun = true;
        }
        // One process for each test binary, one after the other.
        let port = 3260 + u16::try_from(std::process::id() % 1000)? * 16 + PORTS.fetch_add(1, Ordering::Relaxed);
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
        Ok(format!("nodes: [node-7]\naddress: 127.0.0.1\nport: {port}\ngrants: {}\nstore:{store}", grants.display()))
    }

    /// Takes all that the kernel's target has of an instance away, as a power cut would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cut_power(&self, instance: &str) -> Result<()> {
        let script = format!(
            "cd {CONFIGFS}/target/iscsi
             for one in *{instance}*; do
                 [ -d $one ] || continue
                 group=$one/tpgt_1
                 echo 0 >$group/enable
                 store=$(readlink -f $group/lun/lun_0/dunnage)
                 for acl in $group/acls/*; do rm $acl/lun_0/dunnage; rmdir $acl/lun_0 $acl; done
                 rmdir $group/np/*
                 rm $group/lun/lun_0/dunnage
                 rmdir $group/lun/lun_0 $group $one $store
             done"
        );
        run("sh", &["-ec", &script])
    }

    /// The targets that have this in their names.
    ///
    /// # Errors
    /// configfs cannot be read.
    pub fn exports(&self, part: &str) -> Result<Vec<String>> {
        let folder = Path::new(CONFIGFS).join("target/iscsi");
        let names = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.contains(part)).collect())
    }

    /// The sessions of this kernel with targets that have this in their names.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn sessions(&self, part: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/class/iscsi_session").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("targetname")).is_ok_and(|name| name.contains(part)) {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn is_running(program: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == program)
}

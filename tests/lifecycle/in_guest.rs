//! What a stock kernel shows of a volume, and the machine's own may not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::volume_capability::AccessType;
use dunnage_test_common::{MIB, Need, can_run, expand, filesystem, run};

use crate::{Rig, bring, size_of, take};

/// A policy of one type for processes and one for files; it denies nothing.
const POLICY: &str = include_str!("in_guest/policy.cil");
const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

#[test]
fn an_ext4_grown_while_it_is_used_shows_it_at_once() -> Result<()> {
    if !can_run("an_ext4_grown_while_it_is_used_shows_it_at_once", &[Need::Root, Need::Guest])? {
        return Ok(());
    }
    let rig = Rig::new()?;
    let bytes = 64 * MIB;
    let volume = rig.sized(&rig.disks, "a", filesystem("ext4"), bytes)?;
    bring(&rig.disks, &volume)?;
    fs::write(volume.target.join("data"), "data")?;
    let before = size_of(&volume.target)?;
    let grown = rig.disks.controller_expand_volume(expand(&volume.id(), 4 * bytes))?;
    ensure!(grown.node_expansion_required && grown.capacity_bytes == 4 * bytes, "{grown:?}");
    assert_eq!(rig.disks.node_expand_volume(volume.expand_on_node(4 * bytes))?.capacity_bytes, 4 * bytes);
    let after = size_of(&volume.target)?;
    ensure!(after >= before + 2 * bytes as u64, "{before} became {after}");
    let usage = rig.disks.node_get_volume_stats(volume.stats())?.usage;
    ensure!(usage.iter().any(|one| one.total == after as i64), "{usage:?}");
    // What has grown is whole: it fills, and is checked when it is staged again.
    fs::write(volume.target.join("more"), vec![7; 2 * bytes as usize])?;
    take(&rig.disks, &volume)?;
    bring(&rig.disks, &volume)?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    assert_eq!(size_of(&volume.target)?, after);
    take(&rig.disks, &volume)
}

/// Loads the policy, of which a kernel without any has nothing yet.
fn load_policy(folder: &Path) -> Result<()> {
    let (source, policy) = (folder.join("policy.cil"), folder.join("policy"));
    fs::write(&source, POLICY)?;
    let output = ["-c", "33", "-f", "/dev/null", "-o", &policy.display().to_string(), &source.display().to_string()];
    run("secilc", &output)?;
    if !Path::new("/sys/fs/selinux/load").exists() {
        run("mount", &["-t", "selinuxfs", "selinuxfs", "/sys/fs/selinux"])?;
    }
    // The kernel wants all of it in one write.
    let policy = fs::read(policy)?;
    let load = fs::File::options().write(true).open("/sys/fs/selinux/load")?;
    let written = rustix::io::write(&load, &policy).context("the kernel does not take the policy")?;
    ensure!(written == policy.len(), "the kernel took {written} of {} bytes", policy.len());
    Ok(())
}

#[test]
fn a_volume_with_a_context_bears_that_label_on_every_file() -> Result<()> {
    let needs = [Need::Root, Need::Guest, Need::Program("secilc"), Need::Program("mkfs.xfs")];
    if !can_run("a_volume_with_a_context_bears_that_label_on_every_file", &needs)? {
        return Ok(());
    }
    let rig = Rig::new()?;
    load_policy(rig.host.setup().scratch().path())?;
    // Not btrfs, which takes no context by fsconfig(2) before Linux 6.8.
    for (fs_type, bytes) in [("ext4", 64 * MIB), ("xfs", 320 * MIB)] {
        let mut capability = filesystem(fs_type);
        if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
            mount.mount_flags.push(format!("context=\"{LABEL}\""));
        }
        let volume = rig.sized(&rig.disks, fs_type, capability, bytes)?;
        bring(&rig.disks, &volume)?;
        fs::write(volume.target.join("data"), "data")?;
        for path in [volume.target.clone(), volume.target.join("data")] {
            let mut label = [0; 256];
            let length = rustix::fs::getxattr(&path, "security.selinux", &mut label)?;
            let label = String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned();
            assert_eq!(label, LABEL, "{fs_type}: {}", path.display());
        }
        // The same again finds it as it is.
        bring(&rig.disks, &volume)?;
        take(&rig.disks, &volume)?;
    }
    Ok(())
}

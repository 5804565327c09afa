//! Programs that are not installed.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Fault, MIB, Need, Strace, can_run, create, filesystem, loop_devices_beneath, mount, mounts_beneath,
};
use tonic::Code;

use crate::{DUNNAGE, FAULTY, files, setup, volume};

/// Where the system has its programs.
const FOLDERS: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/games"];

/// Arguments of strace with which the system has no such program: whoever looks for it does not find it.
fn without(program: &str) -> Vec<String> {
    let mut arguments = vec!["-e".into(), "trace=?access,faccessat,faccessat2".into()];
    arguments.extend(["-e".into(), "inject=?access,faccessat,faccessat2:error=ENOENT".into()]);
    for folder in FOLDERS {
        arguments.extend(["-P".into(), format!("{folder}/{program}")]);
    }
    arguments
}

fn installed(program: &str) -> Result<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists());
    found.with_context(|| format!("{program} is not installed"))
}

#[test]
fn a_missing_mkfs_is_named_by_check_and_stage_leaves_nothing_and_goes_on_once_it_is_installed() -> Result<()> {
    let test = "a_missing_mkfs_is_named_by_check_and_stage_leaves_nothing_and_goes_on_once_it_is_installed";
    if !can_run(test, &[Need::Root, Need::Program("strace"), Need::Program("mkfs.ext4"), Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    for (fs_type, package) in [("ext4", "e2fsprogs"), ("xfs", "xfsprogs")] {
        let program = format!("mkfs.{fs_type}");
        let setup = setup("image", &format!("fs_type: {fs_type}"))?;
        let tools = setup.scratch().folder("tools")?;
        let host = setup.env("PATH", format!("{}:/usr/bin:/bin", tools.display())).start(DUNNAGE)?;
        let scratch = host.setup().scratch().path();

        let mut check = Command::new("strace");
        check.args(["-f", "-qq", "-o", "/dev/null"]).args(without(&program)).arg(DUNNAGE);
        check.args(["check", "--config"]).arg(host.setup().config()).env("PATH", "/usr/bin:/bin");
        let check = check.output()?;
        let said = String::from_utf8_lossy(&check.stdout);
        ensure!(check.status.code() == Some(1), "check ended with {}: {said}", check.status);
        for words in [format!("{program} is not installed"), format!("fix: install the package {package}")] {
            ensure!(said.contains(&words), "{words:?} is not in {said}");
        }

        let client = host.client(FAULTY)?;
        let named =
            client.create_volume(create("named", 320 * MIB, filesystem(fs_type)))?.volume.context("no volume")?;
        let named = dunnage_test_common::Volume::new(named, filesystem(fs_type), &scratch.join("pods/named"), true);
        let unnamed = csi::VolumeCapability { ..mount() };
        let request = create("default", 320 * MIB, unnamed.clone());
        let made = client.create_volume(request)?.volume.context("no volume")?;
        let unnamed = dunnage_test_common::Volume::new(made, unnamed, &scratch.join("pods/default"), true);
        let before = files(scratch)?;
        let hidden = Strace::attach(host.pid()?, &without(&program))?;
        for volume in [&named, &unnamed, &named] {
            let sick = client.under("image", Fault::ProgramFails);
            let status = sick.node_stage_volume(volume.stage()).expect_err("it was formatted without a program");
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            let words = format!("{program} is not installed on this node: install the package {package}");
            ensure!(status.message().contains(&words), "{status:?}");
        }
        ensure!(mounts_beneath(&scratch.join("pods"))?.is_empty(), "a mount is left");
        ensure!(loop_devices_beneath(scratch).is_empty(), "a loop device is left");
        let left: Vec<_> = files(scratch)?.difference(&before).cloned().collect();
        // The folders above a path are the orchestrator's, and stay.
        ensure!(left.iter().all(|path| path.starts_with(scratch.join("pods"))), "left: {left:?}");
        ensure!(!named.staging.as_ref().unwrap().exists(), "a folder is left");

        // Installed: not where the system has it, but where the host looks first.
        symlink(installed(&program)?, tools.join(&program))?;
        for volume in [&named, &unnamed] {
            client.node_stage_volume(volume.stage())?;
            client.node_publish_volume(volume.publish())?;
            std::fs::write(volume.target.join("data"), "data")?;
        }
        hidden.detach()?;
    }
    Ok(())
}

#[test]
fn volumes_that_need_no_program_are_staged_without_any() -> Result<()> {
    let test = "volumes_that_need_no_program_are_staged_without_any";
    if !can_run(test, &[Need::Root, Need::Program("strace")])? {
        return Ok(());
    }
    let host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let raw = volume(&host, &client, "raw", dunnage_test_common::block())?;
    let made = volume(&host, &client, "made", mount())?;
    client.node_stage_volume(made.stage())?;
    client.node_unstage_volume(made.unstage())?;
    let _hidden = Strace::attach(host.pid()?, &without("mkfs.ext4"))?;
    for volume in [&raw, &made] {
        client.node_stage_volume(volume.stage())?;
        client.node_publish_volume(volume.publish())?;
    }
    Ok(())
}

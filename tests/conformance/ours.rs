//! Our own drivers, behind our own host, killed and not.

use anyhow::{Result, ensure};
use dunnage::client::{Endpoint, Interrupt};
use dunnage::conformance::{self, Options, Params, Quiet, Report, Verdict};
use dunnage_test_common::{Fault, Need, Setup, can_run, covers, mount_new};

use crate::wrong;

pub(crate) const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");

/// A disk of the backend's own.
type Disk<'a> = Option<&'a [&'a str]>;

/// Serves one backend by the kit's own start, and runs all cases with these parameters.
fn test(backend: (&str, Disk<'_>), keys: &str, params: &str) -> Result<Report> {
    test_only(&[], backend, keys, params)
}

/// The same with the cases alone that have one of these in their names.
fn test_only(only: &[&str], (driver, disk): (&str, Disk<'_>), keys: &str, params: &str) -> Result<Report> {
    let setup = Setup::new()?.backend("tested", driver, keys)?;
    if let Some(mkfs) = disk {
        mount_new(&setup.scratch().path().join("disk"), 2048, &setup.root("tested"), mkfs, "loop")?;
    }
    test_program(only, DUNNAGE, setup, params)
}

/// All cases or those alone, on a backend called `tested` that is there already and is served by a program.
pub(crate) fn test_program(only: &[&str], program: &str, setup: Setup, params: &str) -> Result<Report> {
    let host = setup.prepare(program)?;
    host.init()?;
    let folder = host.setup().scratch().folder("paths")?;
    let socket = host.socket("tested.csi.dunnage.dev");
    let mut params = Params::parse(params)?;
    params.folder = folder;
    let options = Options {
        endpoint: Endpoint::at(socket)?,
        params,
        only: only.iter().map(ToString::to_string).collect(),
        start: Some(format!("exec {program} serve --config {}", host.setup().config().display())),
        seed: 7,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (_raise, interrupt) = Interrupt::by_hand();
    Ok(runtime.block_on(conformance::run(options, &interrupt, &mut Quiet))?)
}

/// What a case of the kit calls while the plugin is killed.
const KILLED: [(&str, &[&str]); 7] = [
    ("crash/between-calls", &["CreateVolume", "DeleteVolume"]),
    ("crash/between-snapshots", &["CreateSnapshot", "DeleteSnapshot"]),
    ("/between-node-calls", &["NodePublishVolume", "NodeUnpublishVolume"]),
    ("crash/within-create", &["CreateVolume"]),
    ("crash/within-delete", &["DeleteVolume"]),
    ("crash/within-expand", &["ControllerExpandVolume"]),
    ("crash/within-group", &["CreateVolumeGroupSnapshot"]),
];

pub(crate) fn passes(driver: &str, report: &Report, least: usize) -> Result<()> {
    // ADR 13: pods of one node share a volume that is SINGLE_NODE_WRITER, as they do with every plugin in Kubernetes.
    let warned: Vec<_> = report.warnings().map(|(case, _)| case).collect();
    ensure!(report.failed == 0 && warned == ["publish/second-target"], "{}", wrong(report));
    ensure!(report.passed >= least, "{} passed", report.passed);
    for outcome in report.cases.iter().filter(|outcome| outcome.verdict == Verdict::Passed) {
        let calls = KILLED.iter().filter(|(case, _)| outcome.name.ends_with(case)).flat_map(|(_, calls)| *calls);
        calls.for_each(|rpc| covers(driver, rpc, Fault::Killed));
    }
    Ok(())
}

#[test]
fn dir_is_conformant() -> Result<()> {
    if !can_run("dir_is_conformant", &[Need::Root])? {
        return Ok(());
    }
    passes("dir", &test(("dir", None), "quota: none", "{size: 4MiB, kills: 10}")?, 95)
}

#[test]
fn dir_on_a_reflink_file_system_is_conformant() -> Result<()> {
    if !can_run("dir_on_a_reflink_file_system_is_conformant", &[Need::Root, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    passes("dir", &test(("dir", Some(&["mkfs.xfs", "-q"])), "quota: none", "{size: 4MiB, kills: 10}")?, 95)
}

#[test]
fn image_is_conformant_with_file_systems_and_raw_block_and_copies_in_the_background() -> Result<()> {
    if !can_run("image_is_conformant", &[Need::Root, Need::Program("mkfs.ext4")])? {
        return Ok(());
    }
    let params = "{size: 16MiB, kills: 8, mount_flags: [noatime]}";
    passes("image", &test(("image", Some(&["mkfs.ext4", "-q"])), "", params)?, 100)
}

#[test]
fn image_on_a_reflink_file_system_is_conformant_with_its_snapshots_and_clones() -> Result<()> {
    if !can_run("image_on_a_reflink_file_system", &[Need::Root, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    passes("image", &test(("image", Some(&["mkfs.xfs", "-q"])), "", "{size: 16MiB, kills: 8}")?, 110)
}

#[test]
fn changed_blocks_of_one_size_are_conformant() -> Result<()> {
    if !can_run("changed_blocks_of_one_size_are_conformant", &[Need::Root, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    for size in ["4KiB", "1MiB"] {
        let keys = format!("changed_block_size: {size}");
        let report = test_only(&["metadata/"], ("image", Some(&["mkfs.xfs", "-q"])), &keys, "{size: 16MiB}")?;
        ensure!(report.failed == 0 && report.passed >= 7, "{size}: {} passed: {}", report.passed, wrong(&report));
    }
    Ok(())
}

#[test]
fn btrfs_is_conformant() -> Result<()> {
    if !can_run("btrfs_is_conformant", &[Need::Root, Need::Program("mkfs.btrfs")])? {
        return Ok(());
    }
    let params = "
size: 16MiB
kills: 8
parameters: {compression: zstd}
other_parameters: {compression: lzo}
mutable_parameters: [{compression: lzo}, {compression: zstd}]
";
    passes("btrfs", &test(("btrfs", Some(&["mkfs.btrfs", "-q"])), "", params)?, 100)
}

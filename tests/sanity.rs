//! csi-sanity, unmodified, against every driver: behind its own name and behind a shared one, with mounts and raw block.
//!
//! No spec may fail. A spec may be skipped only for a capability that the plugin does not advertise: the lists
//! `sanity/skipped-*.txt` say which, and are compared both ways.

#[path = "sanity/in_guest.rs"]
mod in_guest;
#[path = "sanity/plugin.rs"]
mod plugin;
#[path = "sanity/report.rs"]
mod report;
#[path = "sanity/skipped.rs"]
mod skipped;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Host, Need, Setup, can_run, mount_new, mounts_beneath, run_within};

use report::Report;

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const ONLY: &str = "only.csi.dunnage.dev";
const SHARED: &str = "all.csi.dunnage.dev";
/// A run takes seconds; but where a plugin does not answer, each spec waits for a minute.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Handed to every call that takes secrets, and nowhere to be seen again.
const SECRET: &str = "correct-horse-battery-staple";

#[test]
fn dir_passes_with_mounts() -> Result<()> {
    own_name("dir", "quota: none", "mount")
}

#[test]
fn btrfs_passes_with_mounts() -> Result<()> {
    let case =
        Case { csi_name: ONLY, backend: None, access: "mount", mutable: Some("compression: zstd\n"), sizes: None };
    on_disk("btrfs", "mkfs.btrfs", case, "btrfs")
}

#[test]
fn image_on_xfs_passes_with_mounts() -> Result<()> {
    on_disk("image", "mkfs.xfs", Case { csi_name: ONLY, access: "mount", ..Case::default() }, "image-shared")
}

#[test]
fn image_on_xfs_passes_with_raw_block() -> Result<()> {
    on_disk("image", "mkfs.xfs", Case { csi_name: ONLY, access: "block", ..Case::default() }, "image-shared")
}

#[test]
fn image_on_btrfs_passes_with_mounts() -> Result<()> {
    on_disk("image", "mkfs.btrfs", Case { csi_name: ONLY, access: "mount", ..Case::default() }, "image-shared")
}

/// A driver whose root is a file system of its own that `mkfs` makes.
fn on_disk(driver: &str, mkfs: &'static str, case: Case<'_>, list: &str) -> Result<()> {
    let needs = [needs().as_slice(), &[Need::Program(mkfs)]].concat();
    if !can_run(&format!("csi-sanity on {driver} made by {mkfs} ({})", case.access), &needs)? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("only", driver, "")?;
    mount_new(&setup.scratch().path().join("disk"), 2048, &setup.root("only"), &[mkfs, "-q"], "loop")?;
    run(&setup.start(DUNNAGE)?, case)?.judge(list)
}

#[test]
fn image_passes_with_mounts() -> Result<()> {
    own_name("image", "", "mount")
}

#[test]
fn image_passes_with_raw_block() -> Result<()> {
    own_name("image", "", "block")
}

#[test]
fn dir_behind_a_shared_name_passes_with_mounts() -> Result<()> {
    shared_name("warm", "mount")
}

#[test]
fn image_behind_a_shared_name_passes_with_mounts() -> Result<()> {
    shared_name("cold", "mount")
}

#[test]
fn image_behind_a_shared_name_passes_with_raw_block() -> Result<()> {
    shared_name("cold", "block")
}

fn own_name(driver: &str, fields: &str, access: &str) -> Result<()> {
    if !can_run(&format!("csi-sanity on {driver} ({access})"), &needs())? {
        return Ok(());
    }
    let host = Setup::new()?.backend("only", driver, fields)?.start(DUNNAGE)?;
    run(&host, Case { csi_name: ONLY, access, ..Case::default() })?.judge(driver)
}

fn shared_name(backend: &str, access: &str) -> Result<()> {
    if !can_run(&format!("csi-sanity on {backend} behind a shared name ({access})"), &needs())? {
        return Ok(());
    }
    let setup = Setup::new()?.backend("warm", "dir", "quota: none")?.backend("cold", "image", "")?;
    let host = setup.plugin(SHARED, &["warm", "cold"]).start(DUNNAGE)?;
    run(&host, Case { csi_name: SHARED, backend: Some(backend), access, ..Case::default() })?.judge("shared")
}

fn needs() -> [Need; 2] {
    [Need::Root, Need::File(csi_sanity(), "cargo xtask test --only csi-sanity")]
}

fn csi_sanity() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/csi-sanity");
    env::var_os("DUNNAGE_CSI_SANITY").map_or_else(built, PathBuf::from)
}

struct Finished {
    report: Report,
    advertised: plugin::Advertised,
}

impl Finished {
    fn judge(&self, list: &str) -> Result<()> {
        let failed = self.report.failed();
        ensure!(failed.is_empty(), "{} specs failed:\n{}", failed.len(), failed.join("\n"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sanity/skipped-{list}.txt"));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = skipped::compare(&skipped::parse(&text)?, &self.report, &self.advertised);
        ensure!(wrong.is_empty(), "what was skipped is not as {} has it:\n{}", path.display(), wrong.join("\n"));
        ensure!(self.report.passed() > 0, "not one spec passed");
        Ok(())
    }
}

/// What a run is about.
#[derive(Clone, Copy, Default)]
struct Case<'a> {
    csi_name: &'a str,
    /// The backend of a shared name.
    backend: Option<&'a str>,
    access: &'a str,
    /// What can be changed of a volume, as YAML.
    mutable: Option<&'a str>,
    /// The size of a volume and to what it grows, which come out exactly so; 64 and 96 MiB unless said.
    sizes: Option<(i64, i64)>,
}

fn run(host: &Host, case: Case<'_>) -> Result<Finished> {
    let Case { csi_name, backend, access, mutable, sizes } = case;
    let (size, grown) = sizes.unwrap_or((64 << 20, 96 << 20));
    let scratch = host.setup().scratch();
    let before = mounts_beneath(scratch.path())?;
    // csi-sanity makes the folders `at` and wants their parents.
    let (targets, staging) = (scratch.folder("targets")?, scratch.folder("staging")?);
    let (report, log) = (scratch.path().join("report.json"), scratch.path().join("csi-sanity.log"));
    let mut command = Command::new(csi_sanity());
    command.arg("-csi.endpoint").arg(host.socket(csi_name));
    command.arg("-csi.mountdir").arg(targets.join("at")).arg("-csi.stagingdir").arg(staging.join("at"));
    command.args(["-csi.testvolumeaccesstype", access, "-csi.secrets"]).arg(secrets(scratch.path())?);
    command.args(["-csi.testvolumesize", &size.to_string(), "-csi.testvolumeexpandsize", &grown.to_string()]);
    command.args(["-ginkgo.no-color", "-ginkgo.json-report"]).arg(&report);
    if let Some(backend) = backend {
        let parameters = scratch.path().join("parameters.yaml");
        fs::write(&parameters, format!("backend: {backend}\n")).context("cannot write the parameters")?;
        command.arg("-csi.testvolumeparameters").arg(parameters);
    }
    if let Some(mutable) = mutable {
        let parameters = scratch.path().join("mutable.yaml");
        fs::write(&parameters, mutable).context("cannot write the parameters that can be changed")?;
        command.arg("-csi.testvolumemutableparameters").arg(parameters);
    }
    let status = run_within(&mut command, &log, LIMIT)?;
    let report = Report::read(&report).with_context(|| {
        format!("csi-sanity left no report ({status}): {}", fs::read_to_string(&log).unwrap_or_default())
    })?;
    ensure!(!host.log().contains(SECRET), "a secret is in the log of the host");
    let mounts = mounts_beneath(scratch.path())?;
    ensure!(!report.failed().is_empty() || mounts == before, "left mounted: {mounts:?}");
    Ok(Finished { report, advertised: plugin::advertised(host, csi_name)? })
}

fn secrets(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("secrets.yaml");
    let calls = [
        "CreateVolumeSecret",
        "DeleteVolumeSecret",
        "ControllerValidateVolumeCapabilitiesSecret",
        "ControllerExpandVolumeSecret",
        "ControllerModifyVolumeSecret",
        "CreateSnapshotSecret",
        "DeleteSnapshotSecret",
        "ListSnapshotsSecret",
        "GetSnapshotSecret",
        "NodeStageVolumeSecret",
        "NodePublishVolumeSecret",
    ];
    let text: String = calls.map(|call| format!("{call}:\n  password: {SECRET}\n")).concat();
    fs::write(&path, text).context("cannot write the secrets")?;
    Ok(path)
}

//! Quotas that are not enabled.

use std::path::Path;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, Need, Quotas, Setup, can_run, create, mount, mount_new, run};

use super::{DUNNAGE, FILES};

/// Made as anybody makes it, and mounted so.
fn is_told_and_mended(mkfs: &[&str], words: &str, mend: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
    let setup = Setup::new()?.backend("files", "dir", "quota: project")?;
    let (image, root) = (setup.scratch().path().join("disk"), setup.root("files"));
    mount_new(&image, 320, &root, mkfs, "loop")?;
    let mut host = setup.prepare(DUNNAGE)?;
    host.init()?;
    let check = host.run(&["check"])?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(!check.status.success() && said.contains("does not enforce project quotas"), "{said}");
    ensure!(said.contains(words), "{said}");
    host.spawn()?;
    host.wait_for_log("does not enforce project quotas")?;
    ensure!(host.log().contains(words), "{}", host.log());
    host.kill()?;
    let text = |path: &Path| path.display().to_string();
    run("umount", &[&text(&root)])?;
    mend(&text(&image), &text(&root))?;
    ensure!(host.run(&["check"])?.status.success(), "{:?}", host.run(&["check"])?);
    host.restart()?;
    host.client(FILES)?.create_volume(create("a", MIB, mount()))?;
    Ok(())
}

#[test]
fn an_ext4_without_quotas_is_not_served_and_becomes_so_by_what_it_is_told() -> Result<()> {
    let test = "an_ext4_without_quotas_is_not_served_and_becomes_so_by_what_it_is_told";
    if !can_run(test, &[Need::Root, Need::Guest])? {
        return Ok(());
    }
    is_told_and_mended(&["mkfs.ext4", "-q", "-F"], "`tune2fs -O project,quota DEVICE`", |image, root| {
        run("tune2fs", &["-O", "project,quota", image])?;
        run("mount", &["-o", "loop,prjquota", image, root])
    })
}

#[test]
fn an_xfs_without_quotas_is_not_served_and_becomes_so_by_what_it_is_told() -> Result<()> {
    let test = "an_xfs_without_quotas_is_not_served_and_becomes_so_by_what_it_is_told";
    if !can_run(test, &[Need::Root, Need::Guest, Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    is_told_and_mended(&["mkfs.xfs", "-q", "-f"], "xfs: the mount option `pquota`", |image, root| {
        run("mount", &["-o", "loop,pquota", image, root])
    })
}

#[test]
fn an_ext4_with_the_features_and_without_the_mount_option_is_not_served() -> Result<()> {
    let test = "an_ext4_with_the_features_and_without_the_mount_option_is_not_served";
    if !can_run(test, &[Need::Root, Need::Guest])? {
        return Ok(());
    }
    let mkfs = Quotas::Ext4.mkfs();
    is_told_and_mended(mkfs, "the mount option `prjquota`", |image, root| {
        run("mount", &["-o", "loop,prjquota", image, root])
    })
}

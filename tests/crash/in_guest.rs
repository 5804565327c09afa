//! Kills where the kernel has project quotas.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use dunnage_test_common::{Need, Quotas, Setup, can_run, mount, projects, wait_until};

use crate::at_each_of;
use crate::life::{Kill, LIMIT, Rig};

/// Those between which a project id is chosen, given, limited, noted and freed.
const CALLS: [&str; 4] = ["ioctl", "quotactl_fd", "renameat", "fsync"];

/// With two project ids, of which XFS may still keep one a moment after its folder is gone.
fn leaks_no_id(test: &str, quotas: Quotas) -> Result<()> {
    if !can_run(test, &[Need::Root, Need::Guest, Need::Program("strace"), Need::Program("mkfs.xfs")])? {
        return Ok(());
    }
    let rest = "quota: project\nproject_ids: {first: 1000, last: 1001}";
    let setup = Setup::new()?.backend("a", "dir", rest)?;
    let root = setup.root("a");
    quotas.mount(&setup.scratch().path().join("disk"), &root)?;
    let mut rig = Rig::on("dir", setup, mount(), 16)?;
    let life = |nth| {
        let kills = rig.unused(Kill::Within(nth))?;
        let mut left = BTreeSet::new();
        wait_until("the id to be forgotten", LIMIT, || {
            left = projects(&root)?;
            Ok(left.is_empty())
        })
        .with_context(|| format!("projects are left: {left:?}"))?;
        Ok(kills)
    };
    at_each_of(&CALLS, life, 8)
}

#[test]
fn a_create_and_a_delete_that_are_killed_leak_no_project_id_on_ext4() -> Result<()> {
    leaks_no_id("a_create_and_a_delete_that_are_killed_leak_no_project_id_on_ext4", Quotas::Ext4)
}

#[test]
fn a_create_and_a_delete_that_are_killed_leak_no_project_id_on_xfs() -> Result<()> {
    leaks_no_id("a_create_and_a_delete_that_are_killed_leak_no_project_id_on_xfs", Quotas::Xfs)
}

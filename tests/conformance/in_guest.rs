//! The driver `lvm`, which needs a kernel with a device mapper, behind our own host.

use anyhow::Result;
use dunnage_test_common::{Need, Setup, VolumeGroup, can_run};

use crate::ours::{passes, test_on};

fn can(test: &str) -> Result<bool> {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("lvm"), Need::Program("thin_check")])
}

#[test]
fn thick_logical_volumes_are_conformant() -> Result<()> {
    if !can("thick_logical_volumes_are_conformant")? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let group = VolumeGroup::new(setup.scratch(), &[2048])?;
    let setup = setup.rootless("tested", "lvm", &format!("{}type: thick", group.keys()));
    passes(&test_on(setup, &[], "{size: 16MiB, many: 3, kills: 3, other_parameters: {type: raid1}}")?, 70)
}

#[test]
fn thin_logical_volumes_are_conformant_with_their_snapshots_and_clones() -> Result<()> {
    if !can("thin_logical_volumes_are_conformant_with_their_snapshots_and_clones")? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let group = VolumeGroup::new(setup.scratch(), &[2048])?;
    group.make_pool("pool", 1536)?;
    let setup = setup.rootless("tested", "lvm", &format!("{}type: thin\npool: pool", group.keys()));
    passes(&test_on(setup, &[], "{size: 16MiB, many: 3, kills: 3}")?, 90)
}

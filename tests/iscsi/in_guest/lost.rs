//! Hosts that are started again, and a target that loses its power.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, mount, wait_until};

use super::{LIMIT, Rig, can, wait_until_written};

#[test]
fn a_session_is_found_again_and_exports_come_back() -> Result<()> {
    if !can("a_session_is_found_again_and_exports_come_back")? {
        return Ok(());
    }
    let mut rig = Rig::image()?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    let context = rig.bring(&volume, &rig.one)?;
    fs::write(volume.target.join("data"), "data")?;
    let before = rig.target.sessions(&volume.id())?;
    rig.one.restart()?;
    rig.one.stage(&volume, &context)?;
    rig.one.publish(&volume, &context)?;
    assert_eq!(rig.target.sessions(&volume.id())?, before, "it has logged in once more");
    // A host that is killed is nothing to the kernel.
    rig.storage.kill()?;
    wait_until_written(&volume.target.join("more"), "more")?;
    rig.target.cut_power(&rig.instance)?;
    ensure!(rig.target.exports(&volume.id())?.is_empty());
    rig.restart_storage()?;
    wait_until("the export to be back", LIMIT, || Ok(!rig.target.exports(&volume.id())?.is_empty()))?;
    wait_until_written(&volume.target.join("later"), "later")?;
    assert_eq!(fs::read_to_string(volume.target.join("data"))?, "data");
    assert_eq!(rig.attach(&volume, &rig.one)?, context);
    rig.take(&volume, &rig.one)?;
    rig.is_left_with_nothing(&volume)
}

//! Exports that are not what they were.

use std::fs;

use anyhow::{Context, Result};
use dunnage_test_common::{MIB, mount};
use tonic::Code;

use crate::in_guest::{Rig, can, is, wait_until_written};

#[test]
fn a_namespace_that_is_another_ones_now_is_not_used() -> Result<()> {
    if !can("a_namespace_that_is_another_ones_now_is_not_used")? {
        return Ok(());
    }
    let mut rig = Rig::image()?;
    let volume = rig.create("a", 32 * MIB, mount())?;
    let context = rig.attach(&volume, &rig.one)?;
    let nqn = rig.target.exports(&volume.id())?.pop().context("it is not exported")?;
    let namespace = rig.target.subsystem(&nqn).join("namespaces/1");
    let uuid = fs::read_to_string(namespace.join("device_uuid"))?;
    let set = |uuid: &str| -> Result<()> {
        fs::write(namespace.join("enable"), "0")?;
        fs::write(namespace.join("device_uuid"), uuid)?;
        Ok(fs::write(namespace.join("enable"), "1")?)
    };
    set("12345678-1234-1234-1234-123456789abc")?;
    is(rig.one.stage(&volume, &context), Code::FailedPrecondition, "nothing of another one is touched")?;
    set(uuid.trim())?;
    rig.one.stage(&volume, &context)?;
    rig.one.publish(&volume, &context)?;
    wait_until_written(&volume.target.join("data"), "words")?;
    rig.take(&volume, &rig.one)?;
    // What somebody did to an export while no host ran is made good.
    rig.bring(&volume, &rig.one)?;
    rig.storage.kill()?;
    let other = rig.target.exports(&volume.id())?.pop().context("it is not exported")?;
    fs::write(rig.target.subsystem(&other).join("attr_allow_any_host"), "1").unwrap_or_default();
    rig.restart_storage()?;
    assert_eq!(fs::read_to_string(rig.target.subsystem(&other).join("attr_allow_any_host"))?.trim(), "0");
    assert_eq!(fs::read(volume.target.join("data"))?, b"words");
    rig.take(&volume, &rig.one)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}

//! Nodes that prove who they are.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, mount};
use tonic::Code;

use super::{Rig, can, is};

const PASSWORD: &str = "correct-horse-battery";

#[test]
fn a_node_with_another_secret_is_not_let_in_and_no_secret_is_left_anywhere() -> Result<()> {
    if !can("a_node_with_another_secret_is_not_let_in_and_no_secret_is_left_anywhere")? {
        return Ok(());
    }
    let rig = Rig::image_with("chap: required")?;
    let volume = rig.create("a", 64 * MIB, mount())?;
    is(rig.attach(&volume, &rig.one), Code::InvalidArgument, "brings no secret")?;
    let right = [("username", "node"), ("password", PASSWORD)];
    is(rig.attach_with(&volume, &rig.one, &right[..1]), Code::InvalidArgument, "has no \"password\"")?;
    let context = rig.attach_with(&volume, &rig.one, &right)?;
    let wrong = [("username", "node"), ("password", "wrong-horse-battery")];
    for secrets in [&wrong[..], &[]] {
        is(rig.one.stage_with(&volume, &context, secrets), Code::PermissionDenied, "does not let this node in")?;
    }
    rig.one.stage_with(&volume, &context, &right)?;
    rig.one.publish(&volume, &context)?;
    fs::write(volume.target.join("data"), "data")?;
    rig.take(&volume, &rig.one)?;
    rig.is_left_with_nothing(&volume)?;
    for host in [&rig.storage, &rig.one.host] {
        ensure!(!host.log().contains(PASSWORD), "a secret is in the log");
    }
    let records = fs::read_dir("/etc/iscsi/nodes").into_iter().flatten().flatten();
    let left: Vec<_> = records.map(|one| one.file_name().to_string_lossy().into_owned()).collect();
    ensure!(left.iter().all(|name| !name.contains(&volume.id())), "open-iscsi still has {left:?}");
    Ok(())
}

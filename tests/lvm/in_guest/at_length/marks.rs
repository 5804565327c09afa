//! The tags that make a group an instance, and those that make a logical volume a volume.

use anyhow::{Result, ensure};
use dunnage_test_common::{Fault, MIB, Setup, VolumeGroup, create, mount};
use tonic::Code;

use super::{DUNNAGE, Rig, can, is};

fn prepared(more: &str) -> Result<(dunnage_test_common::Host, VolumeGroup)> {
    let setup = Setup::new()?;
    let group = VolumeGroup::new(setup.scratch(), &[128])?;
    let setup = setup.rootless("disks", "lvm", &format!("{}{more}", group.keys()));
    Ok((setup.prepare(DUNNAGE)?, group))
}

#[test]
fn a_group_is_marked_while_it_is_empty_and_once() -> Result<()> {
    if !can("a_group_is_marked_while_it_is_empty_and_once")? {
        return Ok(());
    }
    let (host, group) = prepared("type: thick\n")?;
    group.lvm(&["lvcreate", "-qq", "--size", "4M", "--name", "theirs", group.name()])?;
    let refused = host.run(&["init"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    ensure!(!refused.status.success() && said.contains("not empty (it has theirs)"), "{said}");
    let tags = || group.lvm(&["vgs", "--noheadings", "--options", "vg_tags,vg_autoactivation", group.name()]);
    assert!(!tags()?.contains("dunnage"), "a group of somebody else's is marked");
    group.lvm(&["lvremove", "-qq", &format!("{}/theirs", group.name())])?;
    // Of several at once one marks it, and all say the same.
    std::thread::scope(|scope| {
        let inits: Vec<_> = (0..3).map(|_| scope.spawn(|| host.init())).collect();
        inits.into_iter().try_for_each(|init| init.join().expect("init panicked"))
    })?;
    let marked = tags()?;
    assert_eq!(marked.matches("dunnage.instance=").count(), 1, "{marked}");
    host.init()?;
    assert_eq!(tags()?, marked);
    Ok(())
}

#[test]
fn a_group_without_its_tag_or_of_another_type_is_not_served() -> Result<()> {
    if !can("a_group_without_its_tag_or_of_another_type_is_not_served")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[128], "")?;
    let volume = rig.create("a", 16 * MIB, mount())?;
    let tags = rig.group.lvm(&["vgs", "--noheadings", "--options", "vg_tags", rig.group.name()])?;
    let tag = tags.split(',').find(|tag| tag.starts_with("dunnage.type")).unwrap().to_owned();
    rig.group.lvm(&["vgchange", "-qq", "--deltag", &tag, rig.group.name()])?;
    rig.group.lvm(&["vgchange", "-qq", "--addtag", "dunnage.type=thin", rig.group.name()])?;
    rig.host.spawn()?;
    rig.host.wait_for_log("marked with type thin")?;
    rig.group.lvm(&["vgchange", "-qq", "--deltag", "dunnage.type=thin", rig.group.name()])?;
    rig.group.lvm(&["vgchange", "-qq", "--addtag", &tag, rig.group.name()])?;
    rig.restart()?;
    assert_eq!(rig.create("a", 16 * MIB, mount())?.made, volume.made);
    Ok(())
}

#[test]
fn a_logical_volume_that_has_lost_a_tag_is_never_said_to_be_gone() -> Result<()> {
    if !can("a_logical_volume_that_has_lost_a_tag_is_never_said_to_be_gone")? {
        return Ok(());
    }
    let mut rig = Rig::thick(&[128], "")?;
    let volume = rig.create("a", 16 * MIB, mount())?;
    let logical = format!("{}/vol-a", rig.group.name());
    rig.group.lvm(&["lvchange", "-qq", "--deltag", "dunnage.fs_type=ext4", &logical])?;
    rig.restart()?;
    let damaged = rig.under(Fault::DamagedRecord);
    is(damaged.delete_volume(volume.delete()), Code::FailedPrecondition, "fs_type is missing")?;
    is(damaged.node_stage_volume(volume.stage()), Code::FailedPrecondition, "fs_type is missing")?;
    let again = create("a", 16 * MIB, mount());
    is(damaged.create_volume(again), Code::FailedPrecondition, "fs_type is missing")?;
    assert_eq!(rig.group.volumes()?, ["vol-a"]);
    rig.group.lvm(&["lvchange", "-qq", "--addtag", "dunnage.fs_type=ext4", &logical])?;
    rig.restart()?;
    rig.delete(&volume)?;
    rig.is_left_with(&[])
}

#[test]
fn two_hosts_never_serve_one_group() -> Result<()> {
    if !can("two_hosts_never_serve_one_group")? {
        return Ok(());
    }
    let rig = Rig::thick(&[128], "")?;
    let setup = Setup::new()?.rootless("disks", "lvm", &format!("{}type: thick\n", rig.group.keys()));
    let mut other = setup.prepare(DUNNAGE)?;
    other.spawn()?;
    other.wait_for_log("is served already")
}

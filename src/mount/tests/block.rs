use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;

use dunnage_driver_api::{AccessMode, ErrorKind};

use super::rig::{MIB, Rig, assert_refused, is_root, raw};
use crate::mount::{Unit, Usage};

fn write(rig: &Rig, target: &str) -> std::io::Result<()> {
    let mut device = OpenOptions::new().write(true).open(rig.path(target))?;
    device.write_all(&[7; 4096])?;
    device.sync_all()
}

#[test]
fn a_raw_block_volume_is_its_device_at_a_file() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    rig.publish("pods/disk", raw(AccessMode::SingleNodeWriter), false).unwrap();
    rig.publish("pods/disk", raw(AccessMode::SingleNodeWriter), false).unwrap();
    assert!(fs::metadata(rig.path("pods/disk")).unwrap().file_type().is_block_device());
    assert_eq!(rig.mounts("pods/disk").len(), 1);
    write(&rig, "pods/disk").unwrap();
    assert_eq!(rig.read_image(0, 4096), [7; 4096]);
    let usage = rig.engine.stats(&rig.volume, &rig.path("pods/disk")).unwrap();
    assert_eq!(usage, [Usage { unit: Unit::Bytes, total: 64 * MIB, available: None, used: None }]);
    rig.unpublish("pods/disk").unwrap();
    assert!(!rig.path("pods/disk").exists());
    rig.unstage().unwrap();
    assert_eq!(rig.node.attached(), None);
}

#[test]
fn a_read_only_raw_block_volume_cannot_be_written_and_its_device_is_writable_again_afterwards() {
    if !is_root() {
        return;
    }
    let mode = AccessMode::SingleNodeMultiWriter;
    let mut rig = Rig::image(64 * MIB);
    rig.stage(raw(mode)).unwrap();
    for target in ["a", "b"] {
        rig.publish(target, raw(mode), true).unwrap();
        write(&rig, target).unwrap_err();
        assert_eq!(rig.read_image(0, 4096), [0; 4096]);
        File::open(rig.path(target)).unwrap().read_exact(&mut [0; 512]).unwrap();
    }
    assert_refused(rig.publish("c", raw(mode), false), ErrorKind::FailedPrecondition, "read-only for all");
    rig.restart();
    rig.unpublish("a").unwrap();
    write(&rig, "b").unwrap_err();
    rig.unpublish("b").unwrap();

    rig.publish("c", raw(mode), false).unwrap();
    write(&rig, "c").unwrap();
    assert_refused(rig.publish("a", raw(mode), true), ErrorKind::FailedPrecondition, "read-only for all");
    write(&rig, "c").unwrap();
}

#[test]
fn a_read_only_target_that_was_unmounted_by_hand_holds_the_device_no_more() {
    if !is_root() {
        return;
    }
    let mode = AccessMode::SingleNodeWriter;
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(mode)).unwrap();
    rig.publish("a", raw(mode), true).unwrap();
    rig.unmount("a");
    rig.publish("a", raw(mode), false).unwrap();
    write(&rig, "a").unwrap();
}

#[test]
fn a_device_that_came_read_only_is_never_made_writable() {
    if !is_root() {
        return;
    }
    let mode = AccessMode::SingleNodeWriter;
    let rig = Rig::image(64 * MIB);
    super::rig::run("losetup", &["-r", "-f", rig.node.image.to_str().unwrap()]);
    rig.stage(raw(mode)).unwrap();
    assert_refused(rig.publish("a", raw(mode), false), ErrorKind::FailedPrecondition, "is read-only");
    rig.publish("a", raw(mode), true).unwrap();
    rig.unpublish("a").unwrap();
    let name = rig.node.attached().unwrap();
    let read_only = format!("/sys/block/{}/ro", name.file_name().unwrap().to_str().unwrap());
    assert_eq!(fs::read_to_string(read_only).unwrap().trim(), "1");
}

#[test]
fn a_folder_in_the_way_of_a_raw_block_target_is_refused() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    fs::create_dir(rig.path("folder")).unwrap();
    let publish = rig.publish("folder", raw(AccessMode::SingleNodeWriter), false);
    assert_refused(publish, ErrorKind::FailedPrecondition, "is not a file");
}

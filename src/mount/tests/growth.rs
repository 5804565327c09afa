use std::fs::File;

use dunnage_driver_api::{AccessMode, Bytes, CapacityRange, ErrorKind, FsType};

use super::rig::{MIB, Rig, assert_refused, is_root, mount, raw};
use crate::mount::Unit;
use crate::mount::grow::can_online;

fn of(fs_type: FsType) -> dunnage_driver_api::VolumeCapability {
    mount(AccessMode::SingleNodeWriter, Some(fs_type), &[])
}

fn grow_image(rig: &Rig, size: u64) {
    File::options().write(true).open(&rig.node.image).unwrap().set_len(size).unwrap();
}

fn total(rig: &Rig, name: &str) -> u64 {
    let usages = rig.engine.stats(&rig.volume, &rig.path(name)).unwrap();
    usages.iter().find(|usage| usage.unit == Unit::Bytes).unwrap().total
}

fn range(required: u64) -> CapacityRange {
    CapacityRange::new(required as i64, 0).unwrap()
}

#[test]
fn a_volume_grows_while_it_is_in_use_at_the_first_call() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let rig = Rig::image(512 * MIB);
        rig.stage(of(fs_type)).unwrap();
        rig.publish("a", of(fs_type), false).unwrap();
        let expand = |path: &str, required| {
            rig.engine.expand(&rig.cx(), &rig.node, &rig.volume, &rig.path(path), range(required))
        };
        assert_refused(expand("a", 1024 * MIB), ErrorKind::OutOfRange, "expand the volume at its controller");
        grow_image(&rig, 1024 * MIB);
        if !can_online(fs_type) {
            println!("not run for {fs_type}: growing it while it is mounted needs CAP_SYS_RESOURCE");
            assert_refused(expand("a", 1024 * MIB), ErrorKind::FailedPrecondition, "CAP_SYS_RESOURCE");
            rig.unpublish("a").unwrap();
            rig.unstage().unwrap();
            rig.stage(of(fs_type)).unwrap();
            rig.publish("a", of(fs_type), false).unwrap();
        }
        assert_eq!(expand("a", 1024 * MIB).unwrap(), Some(Bytes::new(1024 * MIB)), "{fs_type}");
        assert!(total(&rig, "a") > 800 * MIB, "{fs_type}: {}", total(&rig, "a"));
        assert_eq!(expand("staged", 512 * MIB).unwrap(), Some(Bytes::new(1024 * MIB)));
        assert_refused(expand("elsewhere", MIB), ErrorKind::NotFound, "neither staged nor published");
    }
}

#[test]
fn a_file_system_smaller_than_its_device_is_grown_when_it_is_staged() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let rig = Rig::image(512 * MIB);
        rig.stage(of(fs_type)).unwrap();
        rig.unstage().unwrap();
        grow_image(&rig, 1024 * MIB);
        rig.stage(of(fs_type)).unwrap();
        assert!(total(&rig, "staged") > 800 * MIB, "{fs_type}: {}", total(&rig, "staged"));
    }
}

#[test]
fn a_raw_block_volume_shows_its_new_size() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    rig.publish("a", raw(AccessMode::SingleNodeWriter), false).unwrap();
    grow_image(&rig, 128 * MIB);
    let grown = rig.engine.expand(&rig.cx(), &rig.node, &rig.volume, &rig.path("a"), range(128 * MIB)).unwrap();
    assert_eq!(grown, Some(Bytes::new(128 * MIB)));
    assert_eq!(total(&rig, "a"), 128 * MIB);
}

#[test]
fn there_is_nothing_to_grow_for_a_directory_and_nothing_where_it_is_not() {
    if !is_root() {
        return;
    }
    let rig = Rig::directory();
    rig.publish("a", mount(AccessMode::SingleNodeWriter, None, &[]), false).unwrap();
    let expand = |path: &str| rig.engine.expand(&rig.cx(), &rig.node, &rig.volume, &rig.path(path), range(MIB));
    assert_eq!(expand("a").unwrap(), None);
    assert_refused(expand("b"), ErrorKind::NotFound, "neither staged nor published");
}

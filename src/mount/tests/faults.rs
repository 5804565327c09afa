use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dunnage_driver_api::{AccessMode, ErrorKind, FsType};
use rustix::mount::MountFlags;

use super::rig::{MIB, Rig, assert_refused, is_root, mount, raw, run, writer};

/// A FUSE mount whose server is gone.
fn mount_dead(rig: &Rig, name: &str) {
    fs::create_dir_all(rig.path(name)).unwrap();
    let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount("dead", rig.path(name), "fuse", MountFlags::empty(), data.as_c_str()).unwrap();
}

#[test]
fn a_dead_mount_is_replaced_at_stage_and_at_publish() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    mount_dead(&rig, "staged");
    rig.stage(writer()).unwrap();
    mount_dead(&rig, "a");
    rig.publish("a", writer(), false).unwrap();
    for name in ["staged", "a"] {
        assert_eq!(rig.mounts(name).len(), 1);
        assert!(rig.mounts(name)[0].contains("ext4"), "{:?}", rig.mounts(name));
    }
    mount_dead(&rig, "a");
    rig.publish("a", writer(), false).unwrap();
    mount_dead(&rig, "a");
    rig.unpublish("a").unwrap();
    assert!(!rig.path("a").exists());
}

#[test]
fn a_foreign_mount_at_the_staging_path_is_left_alone() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.mount_foreign("staged");
    assert_refused(rig.stage(writer()), ErrorKind::FailedPrecondition, "is mounted at");
    assert_refused(rig.unstage(), ErrorKind::FailedPrecondition, "is mounted at");
    assert_eq!(rig.node.sources.load(Ordering::Relaxed), 0);
    assert_eq!(rig.mounts("staged").len(), 1);
}

#[test]
fn a_foreign_mount_over_a_stage_keeps_it_from_being_unstaged() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.mount_foreign("staged");
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "is mounted at");
    assert_refused(rig.unstage(), ErrorKind::FailedPrecondition, "is mounted at");
    rig.unmount("staged");
    rig.unstage().unwrap();
}

#[test]
fn a_second_mount_of_the_device_elsewhere_keeps_it_from_being_given_back() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    fs::create_dir(rig.path("elsewhere")).unwrap();
    rustix::mount::mount_bind(rig.path("staged"), rig.path("elsewhere")).unwrap();
    let soon = dunnage_driver_api::Context::new(std::time::Duration::ZERO, rig.cx().commands);
    let unstage =
        || rig.engine.unstage(&soon, &|_, record| rig.node.release(record), &rig.volume, &rig.staging("staged"));
    assert_refused(unstage(), ErrorKind::FailedPrecondition, "still in use");
    assert!(rig.node.attached().is_some());
    rig.unmount("elsewhere");
    rig.unstage().unwrap();
    assert_eq!(rig.node.attached(), None);
}

#[test]
fn a_record_of_another_boot_undoes_nothing() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.unmount("staged");
    let records = rig.path("state/node");
    let own = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    fs::rename(&own, records.join("boot-earlier")).unwrap();
    rig.restart();
    rig.unstage().unwrap();
    rig.unpublish("a").unwrap();
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "is not staged at");
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), 0);
    assert!(rig.node.attached().is_some());
    rig.stage(writer()).unwrap();
    rig.unstage().unwrap();
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_concluded_from_it() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    let boot = fs::read_dir(rig.path("state/node")).unwrap().next().unwrap().unwrap().path();
    let record = boot.join(format!("{}.json", rig.volume));
    fs::write(&record, "{\"version\":1,").unwrap();
    for result in [rig.stage(writer()), rig.unstage(), rig.unpublish("a"), rig.publish("a", writer(), false)] {
        assert_refused(result, ErrorKind::Internal, record.to_str().unwrap());
    }
    assert_eq!(rig.mounts("staged").len(), 1);
}

#[test]
fn a_volume_whose_device_is_gone_can_be_unstaged() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    run("losetup", &["-d", rig.node.attached().unwrap().to_str().unwrap()]);
    // Who looks at all devices of the machine just then keeps it until that has ended.
    let late = Instant::now() + Duration::from_secs(60);
    let found = loop {
        let found = rig.engine.volume_health(&rig.volume).unwrap();
        if !found.is_empty() || Instant::now() > late {
            break found;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(found.first().map(|finding| finding.reason), Some("DeviceGone"));
    rig.unstage().unwrap();
    assert_eq!(rig.all_uses().unwrap(), []);
}

#[test]
fn a_volume_that_does_not_exist_leaves_nothing() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    fs::remove_file(&rig.node.image).unwrap();
    assert_refused(rig.stage(writer()), ErrorKind::NotFound, "no such volume");
    assert!(!rig.path("staged").exists());
}

#[test]
fn a_file_system_that_shut_itself_down_is_reported_and_can_be_unstaged() {
    if !is_root() {
        return;
    }
    for fs_type in [FsType::Xfs, FsType::Ext4] {
        let rig = Rig::image(512 * MIB);
        let capability = mount(AccessMode::SingleNodeWriter, Some(fs_type), &[]);
        rig.stage(capability.clone()).unwrap();
        rig.publish("a", capability, false).unwrap();
        assert_eq!(rig.engine.volume_health(&rig.volume).unwrap(), []);
        run("xfs_io", &["-x", "-c", "shutdown", rig.path("staged").to_str().unwrap()]);
        let findings = rig.engine.volume_health(&rig.volume).unwrap();
        assert_eq!(findings.len(), 1, "{fs_type}: {findings:?}");
        assert_eq!(findings[0].reason, "FilesystemError");
        rig.unpublish("a").unwrap();
        rig.unstage().unwrap();
    }
}

#[test]
fn a_file_system_that_found_itself_damaged_is_told_until_it_is_checked() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    assert_eq!(rig.engine.volume_health(&rig.volume).unwrap(), []);
    let device = rig.node.attached().unwrap();
    let trigger = std::path::Path::new("/sys/fs/ext4").join(device.file_name().unwrap()).join("trigger_fs_error");
    std::fs::write(trigger, "a test").unwrap();
    // The kernel notes it a moment later.
    let until = Instant::now() + Duration::from_secs(30);
    let findings = loop {
        let findings = rig.engine.volume_health(&rig.volume).unwrap();
        if !findings.is_empty() || Instant::now() > until {
            break findings;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(findings.iter().map(|found| found.reason).collect::<Vec<_>>(), ["FilesystemDamaged"]);
    rig.unstage().unwrap();
    rig.stage(writer()).unwrap();
    assert_eq!(rig.engine.volume_health(&rig.volume).unwrap(), []);
    rig.unstage().unwrap();
}

#[test]
fn health_and_stats_say_what_is_not_mounted() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    assert_eq!(rig.engine.volume_health(&rig.volume).unwrap(), []);
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    rig.unmount("a");
    rig.unmount("staged");
    let reasons: Vec<_> = rig.engine.volume_health(&rig.volume).unwrap().iter().map(|found| found.reason).collect();
    assert_eq!(reasons, ["StagingMountMissing", "TargetMountMissing"]);
    for path in ["a", "staged", "elsewhere"] {
        assert_refused(rig.engine.stats(&rig.volume, &rig.path(path)), ErrorKind::NotFound, "neither staged nor");
    }
    assert_refused(
        rig.engine.stats(&rig.volume, std::path::Path::new("some/path")),
        ErrorKind::NotFound,
        "neither staged nor",
    );
}

use std::fs;
use std::sync::atomic::Ordering;

use dunnage_driver_api::{AccessMode, ErrorKind, FsType};

use super::rig::{MIB, Rig, assert_refused, is_root, mount, raw, writer};

#[test]
fn a_volume_is_published_once_a_target_and_its_target_is_removed_again() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("pods/a/target", writer(), false).unwrap();
    rig.restart();
    rig.publish("pods/a/target", writer(), false).unwrap();
    rig.publish("b", writer(), false).unwrap();
    fs::write(rig.path("pods/a/target/data"), "seen").unwrap();
    assert_eq!(fs::read(rig.path("b/data")).unwrap(), b"seen");
    assert_eq!(rig.mounts("pods/a/target").len(), 1);

    assert_refused(rig.unstage(), ErrorKind::FailedPrecondition, "is published at");
    assert_eq!(rig.engine.uses(&rig.volume).unwrap().published.len(), 2);
    for target in ["pods/a/target", "b"] {
        rig.unpublish(target).unwrap();
        rig.unpublish(target).unwrap();
        assert!(!rig.path(target).exists());
    }
    rig.unstage().unwrap();
    assert_eq!(rig.all_uses().unwrap(), []);
}

#[test]
fn a_read_only_target_cannot_be_written_while_another_one_can() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("ro", writer(), true).unwrap();
    rig.publish("rw", writer(), false).unwrap();
    fs::write(rig.path("rw/data"), "x").unwrap();
    let error = fs::write(rig.path("ro/data"), "y").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn other_arguments_for_one_target_are_refused() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    let with = |mode, flags: &[&str]| mount(mode, None, flags);
    for (capability, readonly) in [
        (writer(), true),
        (with(AccessMode::SingleNodeMultiWriter, &[]), false),
        (with(AccessMode::SingleNodeWriter, &["noexec"]), false),
        (mount(AccessMode::SingleNodeWriter, Some(FsType::Ext4), &[]), false),
        (raw(AccessMode::SingleNodeWriter), false),
    ] {
        assert_refused(rig.publish("a", capability, readonly), ErrorKind::AlreadyExists, "unpublish it first");
    }
}

#[test]
fn a_single_writer_has_one_target() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let single = || mount(AccessMode::SingleNodeSingleWriter, None, &[]);
    rig.stage(single()).unwrap();
    rig.publish("a", single(), false).unwrap();
    rig.publish("a", single(), false).unwrap();
    assert_refused(rig.publish("b", single(), false), ErrorKind::FailedPrecondition, "one target");
    assert!(!rig.path("b").exists());
    rig.unpublish("a").unwrap();
    rig.publish("b", single(), false).unwrap();
}

#[test]
fn a_publish_without_a_stage_or_unlike_it_is_refused() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "is not staged at");
    rig.stage(mount(AccessMode::SingleNodeWriter, None, &["data=journal"])).unwrap();
    for (capability, words) in [
        (writer(), "other mount options"),
        (mount(AccessMode::SingleNodeWriter, Some(FsType::Xfs), &["data=journal"]), "another file system"),
        (raw(AccessMode::SingleNodeWriter), "for mount access"),
    ] {
        assert_refused(rig.publish("a", capability, false), ErrorKind::FailedPrecondition, words);
    }
    rig.unstage().unwrap();
    rig.stage(mount(AccessMode::SingleNodeReaderOnly, None, &[])).unwrap();
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "read-only");
    rig.publish("a", writer(), true).unwrap();
}

#[test]
fn a_stage_whose_mount_is_gone_is_mended_from_this_boots_record() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    fs::write(rig.path("staged/data"), "kept").unwrap();
    rig.unmount("staged");
    rig.restart();
    rig.publish("a", writer(), false).unwrap();
    assert_eq!(fs::read(rig.path("a/data")).unwrap(), b"kept");
    assert_eq!(rig.mounts("staged").len(), 1);
}

#[test]
fn mending_never_formats_and_never_publishes_the_bare_folder() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.unmount("staged");
    let device = rig.node.attached().unwrap();
    fs::OpenOptions::new().write(true).open(&device).unwrap();
    // What a program that another test has just started holds is let go when it runs.
    super::rig::run_once_free("blkdiscard", &["-z", device.to_str().unwrap()]);
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "holds nothing");
    assert!(!rig.path("a").exists());
}

#[test]
fn what_is_in_the_way_of_a_target_is_left_and_named() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.mount_foreign("foreign");
    fs::write(rig.path("file"), "x").unwrap();
    fs::create_dir(rig.path("aim")).unwrap();
    std::os::unix::fs::symlink(rig.path("aim"), rig.path("link")).unwrap();
    for (target, words) in [("foreign", "is mounted at"), ("file", "is not a folder"), ("link", "is not a folder")] {
        assert_refused(rig.publish(target, writer(), false), ErrorKind::FailedPrecondition, words);
    }
    assert!(rig.mounts("aim").is_empty());
    assert_refused(rig.unpublish("foreign"), ErrorKind::FailedPrecondition, "is mounted at");
    rig.unpublish("file").unwrap();
    assert!(rig.path("file").exists());
}

#[test]
fn a_target_below_a_linked_folder_is_where_the_link_leads() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    fs::create_dir(rig.path("real")).unwrap();
    std::os::unix::fs::symlink(rig.path("real"), rig.path("kubelet")).unwrap();
    rig.publish("kubelet/pods/target", writer(), false).unwrap();
    assert_eq!(rig.mounts("real/pods/target").len(), 1);
    rig.unpublish("kubelet/pods/target").unwrap();
    assert!(!rig.path("real/pods/target").exists());
}

#[test]
fn a_volume_that_is_only_staged_can_leave_for_its_deletion() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    let leave = || rig.engine.unstage_all(&rig.cx(), &|_, record| rig.node.release(record), &rig.volume);
    assert_refused(leave(), ErrorKind::FailedPrecondition, "is published at");
    rig.unpublish("a").unwrap();
    leave().unwrap();
    leave().unwrap();
    assert_eq!(rig.node.attached(), None);
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), 1);
}

#[test]
fn a_target_unmounted_by_hand_counts_no_more() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    rig.unmount("a");
    assert_eq!(rig.engine.uses(&rig.volume).unwrap().published, []);
    rig.unstage().unwrap();
    assert_eq!(rig.node.attached(), None);
}

use std::fs;

use dunnage_driver_api::{AccessMode, ErrorKind, ForeignId};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::rig::{Rig, assert_refused, is_root, mount, raw, writer};
use crate::mount::namespace::{Audience, Namespace};

#[test]
fn a_directory_is_published_without_a_stage() {
    if !is_root() {
        return;
    }
    let rig = Rig::directory();
    rig.publish("a", writer(), false).unwrap();
    rig.publish("b", writer(), true).unwrap();
    fs::write(rig.path("a/data"), "x").unwrap();
    assert_eq!(fs::read(rig.path("b/data")).unwrap(), b"x");
    assert_eq!(fs::write(rig.path("b/data"), "y").unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(rig.engine.stats(&rig.volume, &rig.path("a")).unwrap().len(), 2);
    for target in ["a", "b"] {
        rig.unpublish(target).unwrap();
        assert!(!rig.path(target).exists());
    }
    assert_eq!(fs::read(rig.path("volume/data")).unwrap(), b"x");
    assert_eq!(rig.all_uses().unwrap(), []);
}

#[test]
fn only_options_of_a_mount_are_taken_for_a_directory() {
    if !is_root() {
        return;
    }
    let rig = Rig::directory();
    let with = |flags: &[&str]| mount(AccessMode::SingleNodeWriter, None, flags);
    assert_refused(rig.publish("a", with(&["discard"]), false), ErrorKind::InvalidArgument, "\"discard\"");
    assert_refused(
        rig.publish("a", raw(AccessMode::SingleNodeWriter), false),
        ErrorKind::FailedPrecondition,
        "cannot be a raw block device",
    );
    assert!(!rig.path("a").exists());
    rig.publish("a", with(&["noexec", "nodev", "noatime"]), false).unwrap();
    let line = rig.mounts("a").remove(0);
    for word in ["noexec", "nodev", "noatime"] {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn a_published_directory_has_left_the_peer_group_of_its_source() {
    if !is_root() {
        return;
    }
    let rig = Rig::directory();
    share(&rig, "volume");
    rig.publish("a", writer(), false).unwrap();
    assert!(rig.mounts("volume")[0].contains(" shared:"));
    assert!(!rig.mounts("a")[0].contains(" shared:"), "{:?}", rig.mounts("a"));
}

#[test]
fn in_a_container_targets_lie_below_a_folder_that_is_shared_with_the_host() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::directory();
    rig.engine.namespace = Namespace::new(Audience::HostOfContainer);
    rig.mount_foreign("kubelet");
    assert_refused(rig.publish("kubelet/pods/a", writer(), false), ErrorKind::FailedPrecondition, "is private");
    assert!(!rig.path("kubelet/pods").exists());
    rig.unmount("kubelet");
    share(&rig, "kubelet");
    rig.publish("kubelet/pods/a", writer(), false).unwrap();
}

fn share(rig: &Rig, name: &str) {
    fs::create_dir_all(rig.path(name)).unwrap();
    rustix::mount::mount("shared", rig.path(name), "tmpfs", MountFlags::empty(), None).unwrap();
    rustix::mount::mount_change(rig.path(name), MountPropagationFlags::SHARED).unwrap();
}

#[test]
fn an_id_that_was_never_ours_takes_nothing_away() {
    if !is_root() {
        return;
    }
    let rig = Rig::directory();
    let foreign = ForeignId("unknown".into());
    rig.engine.unpublish_foreign(&foreign, &rig.target("nothing")).unwrap();
    rig.publish("a", writer(), false).unwrap();
    let refused = rig.engine.unpublish_foreign(&foreign, &rig.target("a"));
    assert_refused(refused, ErrorKind::FailedPrecondition, "is not its id");
    assert_eq!(rig.mounts("a").len(), 1);
}

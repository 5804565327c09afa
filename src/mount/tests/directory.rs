use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;

use dunnage_driver_api::{AccessMode, ErrorKind, ForeignId, OwnMount};
use linux_raw_sys::general::{MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::rig::{Rig, assert_refused, is_root, mount, mount_table, parent, raw, writer};
use crate::mount::kernel::Version;
use crate::mount::namespace::{Audience, Namespace};
use crate::mount::sys;

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

/// A rig whose volume lies on a file system of its own, `disk`.
fn on_a_disk() -> Rig {
    let mut rig = Rig::directory();
    rig.mount_foreign("disk");
    fs::create_dir(rig.path("disk/volume")).unwrap();
    rig.node.image = rig.path("disk/volume");
    rig.node.parent = Some(parent(&rig.path("disk")));
    rig
}

#[test]
fn a_directory_is_copied_from_a_mount_that_is_seen_nowhere() {
    if !is_root() {
        return;
    }
    let rig = on_a_disk();
    rig.publish("a", writer(), false).unwrap();
    fs::write(rig.path("a/data"), "x").unwrap();
    let kept = rig.node.parent.as_ref().unwrap().own_mount();
    if Version::running().unwrap() < Version(6, 15) {
        assert!(matches!(kept, OwnMount::Refused), "{kept:?}");
        return;
    }
    let OwnMount::Made(kept) = kept else { panic!("no mount was made: {kept:?}") };
    let number = rustix::fs::statx(kept.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).unwrap();
    let line = format!("{} ", number.stx_mnt_id);
    assert!(!mount_table().lines().any(|one| one.starts_with(&line)), "{}", mount_table());
    rig.publish("b", writer(), true).unwrap();
    let OwnMount::Made(again) = rig.node.parent.as_ref().unwrap().own_mount() else { panic!("it is gone") };
    assert!(Arc::ptr_eq(&kept, &again), "it was made anew");
    assert_eq!(fs::read(rig.path("disk/volume/data")).unwrap(), b"x");
}

#[test]
fn what_is_mounted_in_a_volume_on_a_shared_mount_is_not_shown_at_its_targets() {
    if !is_root() {
        return;
    }
    let rig = on_a_disk();
    rustix::mount::mount_change(rig.path("disk"), MountPropagationFlags::SHARED).unwrap();
    rig.publish("a", writer(), false).unwrap();
    rig.mount_foreign("disk/volume/inner");
    rig.publish("b", writer(), false).unwrap();
    for target in ["a", "b"] {
        assert!(rig.path(target).join("inner").exists());
        assert_eq!(rig.mounts(&format!("{target}/inner")), Vec::<String>::new());
        assert!(!rig.mounts(target)[0].contains(" shared:") && !rig.mounts(target)[0].contains(" master:"));
    }
}

#[test]
fn a_publish_has_the_attributes_that_the_mount_of_the_root_has_now() {
    if !is_root() {
        return;
    }
    let rig = on_a_disk();
    rig.publish("a", writer(), false).unwrap();
    assert!(!rig.mounts("a")[0].contains("nosuid"));
    let disk = fs::File::open(rig.path("disk")).unwrap();
    sys::mount_setattr(disk.as_fd(), (MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY).into(), 0, 0).unwrap();
    rig.publish("b", writer(), false).unwrap();
    assert!(rig.mounts("b")[0].contains(" ro,nosuid"), "{:?}", rig.mounts("b"));
    sys::mount_setattr(disk.as_fd(), 0, (MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY).into(), 0).unwrap();
    rig.publish("c", writer(), false).unwrap();
    fs::write(rig.path("c/data"), "x").unwrap();
}

#[test]
fn what_the_driver_opened_is_shown_whatever_has_its_name() {
    if !is_root() {
        return;
    }
    let mut rig = on_a_disk();
    fs::create_dir_all(rig.path("other/volume/not-it")).unwrap();
    rig.node.parent = Some(parent(&rig.path("other")));
    fs::write(rig.path("disk/volume/data"), "x").unwrap();
    rig.publish("a", writer(), false).unwrap();
    assert_eq!(fs::read(rig.path("a/data")).unwrap(), b"x");
    fs::remove_dir_all(rig.path("other/volume")).unwrap();
    rig.publish("b", writer(), false).unwrap();
    assert_eq!(fs::read(rig.path("b/data")).unwrap(), b"x");
}

#[test]
fn the_mount_that_is_kept_goes_with_the_backend() {
    if !is_root() {
        return;
    }
    let mut rig = on_a_disk();
    rig.publish("a", writer(), false).unwrap();
    rig.unpublish("a").unwrap();
    let busy = rustix::mount::unmount(rig.path("disk"), UnmountFlags::empty());
    assert_eq!(busy, Err(Errno::BUSY), "an open backend holds its file system");
    rig.node.parent = None;
    rig.unmount("disk");
}

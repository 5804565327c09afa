use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunnage_driver_api::{AccessMode, Context, ErrorKind, FsType, Identity};

use super::rig::{Killed, MIB, Rig, assert_refused, is_root, mount, raw, run, writer};

fn of(fs_type: FsType) -> dunnage_driver_api::VolumeCapability {
    mount(AccessMode::SingleNodeWriter, Some(fs_type), &[])
}

#[test]
fn a_volume_is_formatted_once_mounted_once_and_keeps_its_data() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let mut rig = Rig::image(512 * MIB);
        rig.stage(of(fs_type)).unwrap();
        fs::write(rig.path("staged/data"), "kept").unwrap();
        rig.stage(of(fs_type)).unwrap();
        rig.restart();
        rig.stage(of(fs_type)).unwrap();
        assert_eq!(rig.mounts("staged").len(), 1, "{fs_type}");
        assert!(rig.mounts("staged")[0].contains(fs_type.as_str()));

        rig.unstage().unwrap();
        assert_eq!((rig.node.attached(), rig.path("staged").exists()), (None, false), "{fs_type}");
        rig.unstage().unwrap();
        rig.stage(of(fs_type)).unwrap();
        assert_eq!(fs::read(rig.path("staged/data")).unwrap(), b"kept");
        rig.unstage().unwrap();
    }
}

#[test]
fn what_is_on_a_device_is_never_formatted_and_the_device_is_given_back() {
    if !is_root() {
        return;
    }
    for (offset, bytes, words) in
        [(0, &b"LUKS\xba\xbe"[..], "LUKS"), (512, b"LABELONE", "LVM"), (70_000, b"secret plans", "byte 70000")]
    {
        let rig = Rig::image(512 * MIB);
        rig.write_image(offset, bytes);
        assert_refused(rig.stage(writer()), ErrorKind::FailedPrecondition, words);
        assert_eq!(rig.read_image(offset, bytes.len()), bytes);
        assert_eq!((rig.node.attached(), rig.path("staged").exists()), (None, false));
        assert_eq!(rig.all_uses().unwrap(), []);
    }
}

#[test]
fn another_file_system_than_asked_for_is_refused_and_left_as_it_is() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(512 * MIB);
    rig.stage(of(FsType::Ext4)).unwrap();
    rig.unstage().unwrap();
    assert_refused(rig.stage(of(FsType::Xfs)), ErrorKind::FailedPrecondition, "holds an ext4 file system");
    rig.stage(writer()).unwrap();
}

#[test]
fn only_a_device_that_is_known_to_have_been_blank_is_formatted_again() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let rig = Rig::image(512 * MIB);
        // What a killed mkfs leaves: an XFS that is not finished, or any metadata without a superblock.
        if fs_type == FsType::Xfs {
            rig.write_image(0, b"XFSB");
            rig.write_image(126, &[1]);
        }
        rig.write_image(5000, b"remains");
        assert_refused(rig.stage(of(fs_type)), ErrorKind::FailedPrecondition, "no known form");
        let intent = rig.path("state/node").join(format!("{}.formatting", rig.volume));
        let of_device = |identity: &Identity| format!(r#"{{"version":1,"identity":{:?}}}"#, identity.0);
        fs::write(&intent, of_device(&Identity("another device".into()))).unwrap();
        assert_refused(rig.stage(of(fs_type)), ErrorKind::FailedPrecondition, "no known form");
        fs::write(&intent, of_device(&Identity(rig.node.image.display().to_string()))).unwrap();
        rig.stage(of(fs_type)).unwrap();
        assert!(!intent.exists());
        fs::write(rig.path("staged/data"), "kept").unwrap();
        rig.unstage().unwrap();

        // Killed after mkfs had ended: what it finished is not made anew.
        fs::write(&intent, of_device(&Identity(rig.node.image.display().to_string()))).unwrap();
        rig.stage(of(fs_type)).unwrap();
        assert_eq!(fs::read(rig.path("staged/data")).unwrap(), b"kept");
        assert!(!intent.exists());
    }
}

#[test]
fn a_formatting_that_was_cut_off_is_done_again_by_the_next_stage() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let mut rig = Rig::image(512 * MIB);
        let cx = Context::new(
            Duration::from_secs(30),
            Arc::new(Killed { image: rig.node.image.clone(), leaves: b"half of it" }),
        );
        let cut_off = rig.stage_as(&cx, &rig.stage_request(of(fs_type)));
        assert_refused(cut_off, ErrorKind::Internal, "killed");
        rig.restart();
        rig.stage(of(fs_type)).unwrap();
        rig.unstage().unwrap();
        rig.write_image(0, &[0; 2 << 20]);
        rig.write_image(8192, b"half of it");
        assert_refused(rig.stage(of(fs_type)), ErrorKind::FailedPrecondition, "holds");
    }
}

#[test]
fn another_path_or_capability_is_refused_while_it_is_staged() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    let mut elsewhere = rig.stage_request(writer());
    elsewhere.staging_path = rig.staging("elsewhere");
    assert_refused(rig.stage_as(&rig.cx(), &elsewhere), ErrorKind::AlreadyExists, "unstage it there");
    for other in [
        raw(AccessMode::SingleNodeWriter),
        of(FsType::Xfs),
        mount(AccessMode::SingleNodeReaderOnly, None, &[]),
        mount(AccessMode::SingleNodeWriter, None, &["noexec"]),
    ] {
        assert_refused(rig.stage(other), ErrorKind::AlreadyExists, "with another path or capability");
    }
    assert!(!rig.path("elsewhere").exists());
    // Its mount is gone, so that nothing is in the way of another path.
    rig.unmount("staged");
    rig.stage_as(&rig.cx(), &elsewhere).unwrap();
}

#[test]
fn options_are_applied_and_shown_and_an_unknown_one_is_refused_in_the_kernels_words() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let with = |flags: &[&str]| mount(AccessMode::SingleNodeWriter, Some(FsType::Ext4), flags);
    assert_refused(rig.stage(with(&["datax=ordered"])), ErrorKind::InvalidArgument, "Unknown parameter 'datax'");
    assert_refused(rig.stage(with(&["data=oops"])), ErrorKind::InvalidArgument, "data");
    rig.stage(with(&["noexec,nosuid", "noatime", "data=journal"])).unwrap();
    let line = rig.mounts("staged").remove(0);
    for word in ["noexec", "nosuid", "noatime", "data=journal"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[test]
fn a_readers_mode_mounts_the_file_system_read_only() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let rig = Rig::image(512 * MIB);
        rig.stage(mount(AccessMode::SingleNodeReaderOnly, Some(fs_type), &[])).unwrap();
        let line = rig.mounts("staged").remove(0);
        assert!(line.split(" - ").all(|half| half.contains(" ro,") || half.ends_with(" ro")), "{line}");
    }
}

#[test]
fn an_xfs_clone_is_mounted_beside_its_source() {
    if !is_root() {
        return;
    }
    let source = Rig::image(512 * MIB);
    source.stage(of(FsType::Xfs)).unwrap();
    fs::write(source.path("staged/data"), "same").unwrap();
    source.unstage().unwrap();
    let clone = Rig::image(512 * MIB);
    fs::copy(&source.node.image, &clone.node.image).unwrap();
    source.stage(of(FsType::Xfs)).unwrap();
    clone.stage(of(FsType::Xfs)).unwrap();
    assert_eq!(fs::read(clone.path("staged/data")).unwrap(), b"same");
    assert_eq!(fs::read(source.path("staged/data")).unwrap(), b"same");
}

#[test]
fn an_ext4_that_notes_errors_is_repaired_before_it_is_mounted() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(of(FsType::Ext4)).unwrap();
    rig.unstage().unwrap();
    run("debugfs", &["-w", "-R", "set_super_value state 2", rig.node.image.to_str().unwrap()]);
    rig.stage(of(FsType::Ext4)).unwrap();
    rig.unstage().unwrap();
    assert_eq!(rig.read_image(1024 + 0x3a, 1)[0] & 2, 0);
}

#[test]
fn unstage_waits_for_whoever_uses_the_volume_and_undoes_nothing() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    let user = fs::File::create(rig.path("staged/open")).unwrap();
    assert_refused(rig.unstage(), ErrorKind::FailedPrecondition, "in use");
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), 0);
    drop(user);
    rig.unstage().unwrap();
}

#[test]
fn a_group_of_the_volume_is_refused_since_no_file_system_here_has_an_option_for_it() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let mut capability = writer();
    if let dunnage_driver_api::Access::Mount(mount) = &mut capability.access {
        mount.volume_mount_group = Some(1000);
    }
    assert_refused(rig.stage(capability), ErrorKind::InvalidArgument, "volume_mount_group");
    assert_eq!(rig.node.sources.load(Ordering::Relaxed), 0);
}

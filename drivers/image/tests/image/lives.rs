//! Whole lives of volumes.

use dunnage_driver_api::{Bytes, Driver, ErrorKind, FsType, Severity, VolumeKey};

use crate::support::{MIB, Mount, Root, block, cx, device_of, is_root, mount, opening, read, run, size_of, write};

#[test]
fn what_is_written_is_read_back_after_the_next_attach() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 8 * MIB).unwrap();
    let first = root.source(&volume).unwrap();
    let identity = first.identity.clone();
    assert!(first.reads_zero);
    assert_eq!((size_of(&first.path), first.default_fs_type), (8 * MIB, FsType::Ext4));
    write(&first.path, &[7; 4096], 8 * MIB - 4096);
    root.let_go(first).unwrap();
    assert_eq!(device_of(&root.image("a")), None);

    let second = root.source(&volume).unwrap();
    assert_eq!(second.identity, identity);
    assert_eq!(read(&second.path, 4096, 8 * MIB - 4096), [7; 4096]);
    root.let_go(second).unwrap();
    root.delete(&volume).unwrap();
    assert!(root.find("a").is_none() && !root.image("a").exists());
    root.wait_for_the_trash();
}

#[test]
fn a_new_volume_reads_zero_whatever_the_old_tenant_wrote() {
    if !is_root() {
        return;
    }
    for keys in [r#""allocation": "sparse""#, r#""allocation": "preallocated""#] {
        let root = Root::new(keys);
        for _ in 0..2 {
            let volume = root.create("tenant", 4 * MIB).unwrap();
            let source = root.source(&volume).unwrap();
            assert!(read(&source.path, 4 << 20, 0).iter().all(|byte| *byte == 0), "{keys}");
            write(&source.path, &vec![0xAA; 4 << 20], 0);
            root.let_go(source).unwrap();
            root.delete(&volume).unwrap();
            root.wait_for_the_trash();
        }
    }
}

#[test]
fn a_mounted_volume_grows_and_its_device_shows_the_size_at_once() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    // XFS, since ext4 grows online for CAP_SYS_RESOURCE alone, which root in a container may not have.
    let volume = root.create_as("a", 300 * MIB, mount(FsType::Xfs)).unwrap();
    let source = root.source(&volume).unwrap();
    run("mkfs.xfs", &["-q", source.path.to_str().unwrap()]);
    let target = tempfile::tempdir().unwrap();
    let mounted = Mount::new(&source.path, target.path(), "xfs", "");
    std::fs::write(target.path().join("data"), "kept").unwrap();

    assert_eq!(root.expand(&volume, 600 * MIB).unwrap(), 600 * MIB);
    assert_eq!(root.expand(&volume, 600 * MIB).unwrap(), 600 * MIB);
    root.refresh(&source.release).unwrap();
    assert_eq!(size_of(&source.path), 600 * MIB);
    run("xfs_growfs", &[target.path().to_str().unwrap()]);
    let stat = rustix::fs::statvfs(target.path()).unwrap();
    assert!(stat.f_blocks * stat.f_frsize > 400 * MIB);
    assert_eq!(std::fs::read_to_string(target.path().join("data")).unwrap(), "kept");
    drop(mounted);
    root.let_go(source).unwrap();
    assert_eq!(root.find("a").unwrap().capacity, Bytes::new(600 * MIB));
}

#[test]
fn a_volume_that_grew_while_it_was_bound_has_its_size_at_the_next_source() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let first = root.source(&volume).unwrap();
    root.expand(&volume, 2 * MIB).unwrap();
    let again = root.source(&volume).unwrap();
    assert_eq!((again.path, again.release == first.release), (first.path.clone(), true));
    assert_eq!(size_of(&first.path), 2 * MIB);
}

#[test]
fn every_file_system_fits_the_least_volume_made_for_it() {
    if !is_root() {
        return;
    }
    for fs_type in FsType::ALL {
        let root = Root::new("");
        let volume = root.create_as("least", 1, mount(fs_type)).unwrap();
        let source = root.source(&volume).unwrap();
        assert_eq!(source.default_fs_type, fs_type);
        run(&format!("mkfs.{fs_type}"), &["-q", source.path.to_str().unwrap()]);
        let target = tempfile::tempdir().unwrap();
        let mounted = Mount::new(&source.path, target.path(), fs_type.as_str(), "");
        std::fs::write(target.path().join("data"), [1; 4096]).unwrap();
        drop(mounted);
        root.let_go(source).unwrap();
    }
}

#[test]
fn the_block_size_and_file_system_of_a_volume_outlive_the_configuration() {
    if !is_root() {
        return;
    }
    let root = Root::new(r#""block_size": 512, "fs_type": "xfs""#);
    let volume = root.create("a", 300 * MIB).unwrap();
    let root = root.configured(r#""block_size": 4096"#);
    let source = root.source(&volume).unwrap();
    assert_eq!(source.default_fs_type, FsType::Xfs);
    let queue = format!("/sys/block/{}/queue/logical_block_size", source.path.file_name().unwrap().to_str().unwrap());
    assert_eq!(std::fs::read_to_string(queue).unwrap().trim(), "512");
}

#[test]
fn direct_io_is_used_where_it_works_and_not_missed_where_it_does_not() {
    if !is_root() {
        return;
    }
    let flag = |source: &dunnage_driver_api::DeviceSource| {
        let name = source.path.file_name().unwrap().to_str().unwrap();
        std::fs::read_to_string(format!("/sys/block/{name}/loop/dio")).unwrap().trim() == "1"
    };
    for (keys, direct) in [("", true), (r#""direct_io": false"#, false)] {
        let root = Root::new(keys);
        let works = root.driver().check(&opening()).iter().any(|finding| finding.text.ends_with("takes direct I/O"));
        let source = root.source(&root.create("a", MIB).unwrap()).unwrap();
        assert_eq!(flag(&source), direct && works, "{keys}");
        write(&source.path, &[1; 4096], 0);
    }
}

#[test]
fn volumes_are_listed_in_the_order_of_their_keys() {
    let root = Root::new("");
    for name in ["b", "c", "a"] {
        root.create(name, MIB).unwrap();
    }
    let page = |after: Option<&str>, limit| {
        let volumes =
            root.0.volumes.as_ref().unwrap().list(&cx(), after.map(VolumeKey::of_name).as_ref(), limit).unwrap();
        volumes.into_iter().map(|volume| volume.name).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["a", "b"]);
    assert_eq!(page(Some("b"), 2), ["c"]);
}

#[test]
fn a_late_call_for_a_deleted_volume_does_not_meet_its_successor() {
    let root = Root::new("");
    let old = root.create("a", MIB).unwrap();
    root.delete(&old).unwrap();
    let new = root.create("a", MIB).unwrap();
    assert_ne!(old.generation, new.generation);
    assert_eq!(root.source(&old).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_image_that_is_a_symlink_is_not_followed() {
    let root = Root::new("");
    let outside = tempfile::NamedTempFile::new().unwrap();
    let volume = root.create("a", MIB).unwrap();
    std::fs::remove_file(root.image("a")).unwrap();
    std::os::unix::fs::symlink(outside.path(), root.image("a")).unwrap();
    root.source(&volume).unwrap_err();
    root.expand(&volume, 2 * MIB).unwrap_err();
    assert_eq!(outside.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn an_image_that_was_cut_is_not_attached() {
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    std::fs::File::options().write(true).open(root.image("a")).unwrap().set_len(4096).unwrap();
    let error = root.source(&volume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("has 4096 bytes"), "{error}");
}

#[test]
fn check_finds_nothing_wrong_with_a_good_node_and_says_what_is_promised() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    root.create_as("a", 32 * MIB, block()).unwrap();
    let findings = root.driver().check(&opening());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.text.starts_with("32 MiB are promised")), "{findings:?}");
}

//! Loop devices: one for an image, ours and nobody else's.

use std::fs::File;
use std::sync::Mutex;

use dunnage_driver_api::{ErrorKind, ReleaseRecord};

use crate::support::{Foreign, MIB, Mount, Root, bound, device_of, is_root, mount, run, until};

/// The record with one of its fields changed.
fn altered(record: &ReleaseRecord, pointer: &str, value: serde_json::Value) -> ReleaseRecord {
    let mut json = serde_json::to_value(record).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_repeated_source_gives_the_same_device() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let first = root.source(&volume).unwrap();
    let again = root.source(&volume).unwrap();
    assert_eq!((&first.path, &first.release, &first.identity), (&again.path, &again.release, &again.identity));
    assert_eq!(bound().iter().filter(|(_, image)| *image == root.image("a")).count(), 1);
}

#[test]
fn a_device_stays_bound_while_nobody_has_it_open() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let source = root.source(&root.create("a", MIB).unwrap()).unwrap();
    drop(source.device);
    assert_eq!(device_of(&root.image("a")), Some(source.path));
}

#[test]
fn a_record_is_kept_before_there_is_a_device_and_undoes_it() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let kept = Mutex::default();
    drop(root.source_keeping(&volume, &kept).unwrap());
    let kept = kept.into_inner().unwrap();
    assert_eq!(kept.len(), 1);
    root.release(&kept[0]).unwrap();
    assert_eq!(device_of(&root.image("a")), None);
    root.release(&kept[0]).unwrap();
}

#[test]
fn a_release_succeeds_when_there_is_nothing_left_to_undo() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let source = root.source(&volume).unwrap();
    let record = source.release.clone();
    root.let_go(source).unwrap();
    root.release(&record).unwrap();
    root.delete(&volume).unwrap();
    root.wait_for_the_trash();
    root.release(&record).unwrap();
    root.release(&altered(&record, "/number", 1_000_000.into())).unwrap();
}

#[test]
fn a_release_never_unbinds_a_number_that_became_another_volumes() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let source = root.source(&root.create("new", MIB).unwrap()).unwrap();
    // The number and the inode were another volume's before: its label is not.
    root.release(&altered(&source.release, "/backing/label", "dunnage-old".into())).unwrap();
    root.release(&altered(&source.release, "/backing/inode", 1.into())).unwrap();
    root.refresh(&altered(&source.release, "/backing/label", "dunnage-old".into())).unwrap_err();
    assert_eq!(device_of(&root.image("new")), Some(source.path));
}

#[test]
fn a_mounted_device_is_not_released_and_stays_whole() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create_as("a", 16 * MIB, mount(dunnage_driver_api::FsType::Ext4)).unwrap();
    let source = root.source(&volume).unwrap();
    run("mkfs.ext4", &["-q", source.path.to_str().unwrap()]);
    let target = tempfile::tempdir().unwrap();
    let mounted = Mount::new(&source.path, target.path(), "ext4", "");
    let error = root.release_soon(&source.release).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains(source.path.to_str().unwrap()), "{error}");
    drop(mounted);
    assert_eq!(device_of(&root.image("a")).as_ref(), Some(&source.path));
    root.let_go(source).unwrap();
}

#[test]
fn a_device_that_somebody_holds_open_goes_when_he_closes_it() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let source = root.source(&volume).unwrap();
    let holder = File::open(&source.path).unwrap();
    drop(source.device);
    root.release_soon(&source.release).unwrap_err();
    root.delete(&volume).unwrap_err();
    drop(holder);
    until("the device is gone", || device_of(&root.image("a")).is_none().then_some(()));
    root.release(&source.release).unwrap();
    root.delete(&volume).unwrap();
}

#[test]
fn a_source_after_a_release_that_found_it_busy_keeps_the_device() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let source = root.source(&volume).unwrap();
    root.release_soon(&source.release).unwrap_err();
    let again = root.source(&volume).unwrap();
    drop((source.device, again.device));
    assert_eq!(device_of(&root.image("a")), Some(again.path));
}

#[test]
fn a_volume_with_a_device_is_not_deleted() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    let source = root.source(&volume).unwrap();
    let error = root.delete(&volume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains(source.path.to_str().unwrap()), "{error}");
    assert!(root.image("a").exists());
    assert_eq!(root.find("a").unwrap(), volume);
}

#[test]
fn another_programs_devices_are_left_alone_and_never_doubled() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("a");
    File::create(&file).unwrap().set_len(MIB).unwrap();
    let unrelated = Foreign::of(&file);
    let volume = root.create("a", MIB).unwrap();
    let same_image = Foreign::of(&root.image("a"));

    for error in [root.source(&volume).unwrap_err(), root.delete(&volume).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains(same_image.0.to_str().unwrap()), "{error}");
    }
    drop(same_image);
    let source = until("the image is free", || root.source(&volume).ok());
    root.let_go(source).unwrap();
    root.delete(&volume).unwrap();
    assert_eq!(device_of(&file), Some(unrelated.0.clone()));
}

#[test]
fn eight_threads_attach_and_detach_without_a_mistake() {
    if !is_root() {
        return;
    }
    let root = Root::new("");
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let root = &root;
            scope.spawn(move || {
                let name = format!("v{thread}");
                let volume = root.create(&name, MIB).unwrap();
                for round in 0..20_u8 {
                    let source = root.source(&volume).unwrap();
                    if round > 0 {
                        assert_eq!(crate::support::read(&source.path, 4096, 0), [thread ^ (round - 1); 4096]);
                    }
                    crate::support::write(&source.path, &[thread ^ round; 4096], 0);
                    root.let_go(source).unwrap();
                }
                root.delete(&volume).unwrap();
            });
        }
    });
    assert!(bound().iter().all(|(_, image)| !image.starts_with(root.path())));
}

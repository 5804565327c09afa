//! What a process leaves that is killed between two steps, and what the next one makes of it.

use std::fs::File;
use std::sync::Mutex;

use dunnage_driver_api::{Driver, ErrorKind, ReleaseRecord};
use dunnage_testkit::FuseStore;

use crate::support::{Calls, MIB, Root, device_of, is_root, opening, size_of, until};

#[test]
fn a_create_cut_off_before_its_record_is_made_again() {
    let root = Root::new("");
    File::create(root.image("a")).unwrap().set_len(7 * MIB).unwrap();
    let volume = root.create("a", MIB).unwrap();
    assert_eq!(root.image("a").metadata().unwrap().len(), volume.capacity.get());
}

#[test]
fn an_image_of_a_create_that_is_never_repeated_goes_at_the_next_start() {
    let mut root = Root::new(r#""allocation": "preallocated""#);
    let volume = root.create("kept", MIB).unwrap();
    let remains = File::create(root.image("remains")).unwrap();
    rustix::fs::fallocate(&remains, rustix::fs::FallocateFlags::empty(), 0, MIB).unwrap();
    remains.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).unwrap();
    std::fs::write(root.image("data"), "somebody lost the record of this").unwrap();
    root.restart();
    until("the remains are gone", || (!root.image("remains").exists()).then_some(()));
    assert!(root.image("data").exists() && root.image("kept").exists());
    assert_eq!(root.find("kept").unwrap(), volume);
}

#[test]
fn data_without_a_record_is_never_overwritten() {
    let root = Root::new("");
    std::fs::write(root.image("a"), "data").unwrap();
    let error = root.create("a", MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("images/a holds data"), "{error}");
    assert_eq!(std::fs::read_to_string(root.image("a")).unwrap(), "data");
}

#[test]
fn a_delete_cut_off_before_its_record_went_is_finished_by_the_next() {
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    std::fs::remove_file(root.image("a")).unwrap();
    root.source(&volume).unwrap_err();
    root.delete(&volume).unwrap();
    assert!(root.find("a").is_none());
    root.delete(&volume).unwrap();
}

#[test]
fn a_record_stays_until_its_image_is_gone_durably() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FuseStore::mount(folder.path()).unwrap();
    let driver = serde_json::json!({ "root": folder.path() });
    let driver: dunnage_driver_image::Image = serde_json::from_value(driver).unwrap();
    driver.init(&opening()).unwrap();
    let root = Calls(driver.open(&opening()).unwrap());
    let volume = root.create("a", MIB).unwrap();
    store.fail_folder_syncs(true);
    for _ in 0..2 {
        root.delete(&volume).unwrap_err();
        assert!(!folder.path().join("images/a").exists(), "the test does not test");
        assert_eq!(root.find("a").as_ref(), Some(&volume));
    }
    store.fail_folder_syncs(false);
    root.delete(&volume).unwrap();
    assert!(root.find("a").is_none());
}

#[test]
fn an_expansion_cut_off_before_its_record_gives_the_same_answer_again() {
    let root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    File::options().write(true).open(root.image("a")).unwrap().set_len(4 * MIB).unwrap();
    assert_eq!(root.expand(&volume, 4 * MIB).unwrap(), 4 * MIB);
    // One that asks for less than was reached never cuts.
    File::options().write(true).open(root.image("a")).unwrap().set_len(16 * MIB).unwrap();
    assert_eq!(root.expand(&volume, 8 * MIB).unwrap(), 8 * MIB);
    assert_eq!(root.image("a").metadata().unwrap().len(), 16 * MIB);
}

#[test]
fn lost_images_are_not_taken_for_an_empty_root() {
    let mut root = Root::new("");
    root.create("a", MIB).unwrap();
    root.close();
    std::fs::rename(root.path().join("images"), root.path().join("elsewhere")).unwrap();
    let error = until("the root is refused for its images", || {
        let error = root.driver().open(&opening()).err().unwrap();
        error.to_string().contains("images is missing").then_some(error)
    });
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
}

/// The other process of the next test; alone it does nothing.
#[test]
fn process_that_is_killed_with_a_device_bound() {
    let Some(path) = std::env::var_os("DUNNAGE_TEST_KILLED_ROOT") else { return };
    let driver = serde_json::json!({ "root": path.to_str().unwrap() });
    let driver: dunnage_driver_image::Image = serde_json::from_value(driver).unwrap();
    let root = Calls(until("the root is free", || driver.open(&opening()).ok()));
    let kept = Mutex::default();
    root.source_keeping(&root.find("a").unwrap(), &kept).unwrap();
    let record = serde_json::to_string(&kept.lock().unwrap()[0]).unwrap();
    std::fs::write(std::path::Path::new(&path).join("kept"), record).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_device_of_a_killed_process_is_found_by_the_next_and_by_the_record_it_kept() {
    if !is_root() {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", MIB).unwrap();
    for by_record in [false, true] {
        root.close();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cut_off::process_that_is_killed_with_a_device_bound"])
            .env("DUNNAGE_TEST_KILLED_ROOT", root.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        let orphan = device_of(&root.image("a")).unwrap();
        root.restart();
        root.delete(&volume).unwrap_err();
        let record = if by_record {
            serde_json::from_slice::<ReleaseRecord>(&std::fs::read(root.path().join("kept")).unwrap()).unwrap()
        } else {
            let source = root.source(&volume).unwrap();
            assert_eq!((&source.path, size_of(&orphan)), (&orphan, MIB));
            source.release
        };
        root.release(&record).unwrap();
        assert_eq!(device_of(&root.image("a")), None);
    }
    root.delete(&volume).unwrap();
}

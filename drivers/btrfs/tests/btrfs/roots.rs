//! Which places can be roots.

use std::fs;

use dunnage_driver_api::{Driver, ErrorKind, HealthFinding, HealthStatus, Init, Severity};
use dunnage_testkit::needs_root;

use crate::mirror::Mirror;
use crate::support::{Calls, DISK, Disk, MIB, Root, btrfs, driver, opening, unmount, until};

#[test]
fn another_file_system_is_refused_with_the_remedy() {
    if !needs_root("another_file_system_is_refused_with_the_remedy") {
        return;
    }
    let disk = Disk::made_by("mkfs.ext4", DISK);
    let error = driver(disk.path(), "").init(&opening()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("is not on a btrfs"), "{error}");
    assert!(!disk.path().join(".dunnage").exists());
    let findings = driver(disk.path(), "").check(&opening());
    assert!(findings.iter().any(|finding| finding.severity == Severity::Error && finding.text.contains("btrfs")));
}

#[test]
fn quotas_are_enabled_on_a_new_file_system_alone() {
    if !needs_root("quotas_are_enabled_on_a_new_file_system_alone") {
        return;
    }
    let disk = Disk::new();
    fs::create_dir(disk.path().join("root")).unwrap();
    let driver = driver(&disk.path().join("root"), "");
    assert!(matches!(driver.init(&opening()), Ok(Init::Created(_))));
    let Err(error) = driver.open(&opening()) else { panic!("it is served without quotas") };
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("btrfs quota enable"), "{error}");
    assert!(driver.check(&opening()).iter().any(|finding| finding.severity == Severity::Error));
    btrfs(&["quota", "enable"], disk.path());
    drop(driver.open(&opening()).unwrap());
    let finding = driver.check(&opening()).pop().unwrap();
    assert!(finding.severity < Severity::Error && finding.text.contains("quotas"), "{finding:?}");
}

#[test]
fn quotas_of_the_other_kind_are_refused() {
    if !needs_root("quotas_of_the_other_kind_are_refused") {
        return;
    }
    let mut root = Root::new(r#""quota": "full""#);
    root.close();
    let Err(error) = driver(root.path(), r#""quota": "simple""#).open(&opening()) else { panic!("it is served") };
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("has full quotas enabled"), "{error}");
}

#[test]
fn volumes_keep_under_one_key_what_they_had_under_another() {
    if !needs_root("volumes_keep_under_one_key_what_they_had_under_another") {
        return;
    }
    let root = Root::new(r#""quota": "none""#);
    let volume = root.create("a", 16 * MIB).unwrap();
    btrfs(&["quota", "enable"], root.path());
    let root = root.configured(r#""quota": "full""#);
    root.source(&volume).unwrap();
    assert_eq!(root.usage(&volume).unwrap().total, volume.capacity);
    assert!(crate::support::fill(&root.data("a").join("file"), 20 * MIB).is_err());
}

#[test]
fn a_missing_device_is_told_by_check_and_of_each_volume() {
    if !needs_root("a_missing_device_is_told_by_check_and_of_each_volume") {
        return;
    }
    let mirror = Mirror::new();
    let driver = driver(mirror.path(), "");
    driver.init(&opening()).unwrap();
    let told = || driver.check(&opening()).iter().any(|finding| finding.text.contains("is without its device 2"));
    let of_volume = || {
        let calls = until("the root can be opened", || driver.open(&opening()).ok().map(Calls));
        let volume = calls.find("a").unwrap_or_else(|| calls.create("a", 16 * MIB).unwrap());
        calls.health(&volume)
    };
    assert!(!told());
    assert_eq!(of_volume(), []);
    mirror.lose_one();
    assert!(told());
    let found = of_volume();
    let [HealthFinding { status: HealthStatus::Degraded, reason: "StoreDeviceMissing", message, .. }] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(message.contains("btrfs replace"), "{message}");
}

#[test]
fn data_that_is_not_what_was_written_is_told_until_the_count_is_cleared() {
    if !needs_root("data_that_is_not_what_was_written_is_told_until_the_count_is_cleared") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    let file = root.data("a").join("file");
    std::fs::write(&file, [0xA5; 1 << 20]).unwrap();
    root.close();
    assert!(unmount(root.path()));
    root.disk.overwrite(&[0xA5; 4096], &[0x5A; 4096]);
    root.disk.mount("loop");
    root.restart();
    assert_eq!(root.health(&volume), []);
    assert!(std::fs::read(&file).is_err(), "it is not damaged: the test does not test");
    let found = root.health(&volume);
    let [HealthFinding { status: HealthStatus::Degraded, reason: "StoreDeviceErrors", message, .. }] = &found[..]
    else {
        panic!("{found:?}")
    };
    for words in [root.path().to_str().unwrap(), "corruption_errs of its device 1", "btrfs scrub start"] {
        assert!(message.contains(words), "{words:?} is not in {message}");
    }
    btrfs(&["device", "stats", "-z"], root.path());
    assert_eq!(root.health(&volume), []);
}

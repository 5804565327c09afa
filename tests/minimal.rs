//! The driver that vendors begin with keeps the rules of the contract, also where it is killed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/minimal.rs"]
mod minimal;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use dunnage_driver_api::{
    Backend, CapacityRange, Context, CreateVolume, Driver, DriverEntry, ErrorKind, Fingerprint, Opening, Parameters,
    Result, System, Volume,
};
use minimal::Minimal;

struct Rig {
    folder: tempfile::TempDir,
    backend: Option<Backend>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { folder: tempfile::tempdir().unwrap(), backend: None };
        rig.driver().init(&opening()).unwrap();
        rig.restart();
        rig
    }

    fn driver(&self) -> Minimal {
        serde_json::from_value(serde_json::json!({"root": self.folder.path()})).unwrap()
    }

    /// As after the process was killed and started again.
    fn restart(&mut self) {
        self.backend = None;
        self.backend = Some(self.driver().open(&opening()).unwrap());
    }

    fn create(&self) -> Result<Volume> {
        let request = CreateVolume::new(
            "pvc-1",
            CapacityRange::default(),
            Vec::new(),
            Parameters::default(),
            Fingerprint::of(&BTreeMap::new()),
        );
        self.backend.as_ref().unwrap().create.as_ref().unwrap().create(&cx(), &request)
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data/pvc-1")
    }
}

fn opening() -> Opening {
    Opening::new("first".parse().unwrap(), "node-7".parse().unwrap(), Arc::new(System))
}

fn cx() -> Context {
    Context::new(Duration::from_secs(60), Arc::new(System))
}

#[test]
fn a_volume_whose_delete_was_cut_off_answers_no_create() {
    let mut rig = Rig::new();
    let volume = rig.create().unwrap();
    fs::rename(rig.data(), rig.folder.path().join(".dunnage/trash/old")).unwrap();
    rig.restart();
    let create = rig.backend.as_ref().unwrap().create.clone().unwrap();
    assert!(create.is_half_deleted(&cx(), &volume).unwrap());
    create.delete(&cx(), &volume).unwrap();
    let next = rig.create().unwrap();
    assert!(next.generation != volume.generation && !create.is_half_deleted(&cx(), &next).unwrap());
}

#[test]
fn data_whose_record_was_lost_becomes_no_other_volume() {
    let rig = Rig::new();
    fs::create_dir(rig.data()).unwrap();
    fs::write(rig.data().join("thesis.tex"), "words").unwrap();
    let error = rig.create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert_eq!(fs::read(rig.data().join("thesis.tex")).unwrap(), b"words");
}

#[test]
fn the_remainder_of_a_create_that_was_cut_off_is_taken_over() {
    let rig = Rig::new();
    fs::create_dir(rig.data()).unwrap();
    rig.create().unwrap();
    assert!(fs::read_dir(rig.data()).unwrap().next().is_none());
}

#[test]
fn the_driver_that_vendors_begin_with_is_conformant() {
    if !dunnage_testkit::needs_root("the_driver_that_vendors_begin_with_is_conformant") {
        return;
    }
    let driver = DriverEntry::of::<Minimal>();
    let report = dunnage_testkit::conformance(driver, "size: 4MiB", |root| {
        fs::create_dir(root).unwrap();
        format!("root: {}", root.display())
    });
    let warned: Vec<_> = report.warnings().map(|(case, _)| case).collect();
    assert_eq!(warned, ["publish/second-target"], "what ADR 13 says, and nothing else");
    assert!(report.passed > 50, "{}", report.passed);
}

#[test]
fn each_call_can_be_repeated_wherever_the_disk_fails() {
    if !dunnage_testkit::needs_root("each_call_can_be_repeated_wherever_the_disk_fails") {
        return;
    }
    let hits = dunnage_testkit::for_each_operation(|faults, root| {
        let driver: Minimal = serde_json::from_value(serde_json::json!({"root": root})).unwrap();
        let store = dunnage_testkit::Opened::new(&driver, Arc::new(System)).unwrap();
        let volume = faults.repeated(|| store.create("pvc-1", 1 << 20));
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&volume));
        faults.repeated(|| store.delete(&volume));
        assert_eq!(store.list().unwrap(), []);
        assert_eq!(std::fs::read_dir(root.join("data")).unwrap().count(), 0);
    });
    assert!(hits > 50, "{hits}");
}

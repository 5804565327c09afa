use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    Backend, Driver, Fingerprint, Generation, Init, Opening, Severity, Staging, System, VolumeId,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::Dir;

pub(crate) struct Rig {
    pub(crate) temp: TempDir,
    pub(crate) backend: Option<Backend>,
}

pub(crate) fn opening() -> Opening {
    Opening::new("scratch".parse().unwrap(), "node-7".parse().unwrap(), Arc::new(System))
}

pub(crate) fn dir(root: &Path, more: serde_json::Value) -> Dir {
    let mut config = json!({"root": root, "quota": "none"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

pub(crate) fn cx() -> Context {
    Context::new(Duration::from_secs(60), Arc::new(System))
}

pub(crate) fn request(name: &str, required: i64, limit: i64) -> CreateVolume {
    let capacity = CapacityRange::new(required, limit).unwrap();
    CreateVolume::new(name, capacity, Vec::new(), Parameters::default(), Fingerprint::of(&BTreeMap::new()))
}

impl Rig {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = dir(temp.path(), json!({}));
        assert!(matches!(dir.init(&opening()).unwrap(), Init::Created(_)));
        let backend = Some(dir.open(&opening()).unwrap());
        Self { temp, backend }
    }

    /// As after the process was killed and started again.
    pub(crate) fn restart(&mut self) {
        self.backend = None;
        let late = Instant::now() + Duration::from_secs(60);
        while self.backend.is_none() {
            // The threads of the one before let go of its lock when they end.
            let opened = dir(self.temp.path(), json!({})).open(&opening());
            assert!(Instant::now() < late, "{:?}", opened.err());
            self.backend = opened.ok();
        }
    }

    pub(crate) fn backend(&self) -> &Backend {
        self.backend.as_ref().unwrap()
    }

    pub(crate) fn create(&self, name: &str) -> Result<Volume> {
        self.backend().create.as_ref().unwrap().create(&cx(), &request(name, 4096, 0))
    }

    pub(crate) fn delete(&self, volume: &Volume) -> Result<()> {
        self.backend().create.as_ref().unwrap().delete(&cx(), volume)
    }

    pub(crate) fn volumes(&self) -> std::sync::Arc<dyn Volumes> {
        self.backend().volumes.clone().unwrap()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Volume> {
        self.volumes().find(&cx(), &VolumeKey::of_name(name)).unwrap()
    }

    fn expand(&self, volume: &Volume, required: i64, limit: i64) -> Result<Expanded> {
        let range = CapacityRange::new(required, limit).unwrap();
        self.backend().expand.as_ref().unwrap().expand(&cx(), volume, range)
    }

    pub(crate) fn source(&self, volume: &Volume) -> Result<std::os::fd::OwnedFd> {
        let backend = self.backend();
        let id = VolumeId {
            instance: backend.instance.clone(),
            key: volume.key.clone(),
            generation: volume.generation.clone(),
        };
        let keep = |_: &dunnage_driver_api::ReleaseRecord| Ok(());
        let (node, staging) = backend.node.as_ref().unwrap();
        assert_eq!(*staging, Staging::None);
        match node.source(&cx(), &SourceRequest::new(&id, &keep))? {
            Source::Directory(source) => Ok(source.directory),
            other => panic!("not a directory: {other:?}"),
        }
    }

    pub(crate) fn data(&self, name: &str) -> std::path::PathBuf {
        self.temp.path().join("volumes").join(VolumeKey::of_name(name).as_str())
    }
}

pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("it fails").kind()
}

#[test]
fn a_whole_life() {
    let mut rig = Rig::new();
    let volume = rig.create("pvc-1").unwrap();
    assert_eq!(fs::metadata(rig.data("pvc-1")).unwrap().permissions().mode() & 0o7777, 0o777);
    fs::write(rig.data("pvc-1").join("file"), "words").unwrap();
    rig.restart();
    assert_eq!(rig.find("pvc-1").as_ref(), Some(&volume));
    assert_eq!(rig.volumes().list(&cx(), None, 10).unwrap(), std::slice::from_ref(&volume));
    let source = rig.source(&volume).unwrap();
    let (ours, real) = (rustix::fs::fstat(&source).unwrap(), rustix::fs::stat(rig.data("pvc-1")).unwrap());
    assert_eq!((ours.st_dev, ours.st_ino), (real.st_dev, real.st_ino));
    rig.delete(&volume).unwrap();
    rig.delete(&volume).unwrap();
    assert_eq!(rig.find("pvc-1"), None);
    assert_eq!(kind(rig.source(&volume)), ErrorKind::NotFound);
    assert!(!rig.data("pvc-1").exists());
}

#[test]
fn a_late_call_for_a_deleted_volume_does_not_meet_its_successor() {
    let rig = Rig::new();
    let first = rig.create("pvc-1").unwrap();
    rig.delete(&first).unwrap();
    let second = rig.create("pvc-1").unwrap();
    assert_eq!(kind(rig.source(&first)), ErrorKind::NotFound);
    rig.source(&second).unwrap();
    assert!(fs::read_dir(rig.data("pvc-1")).unwrap().next().is_none());
    let mut other = second;
    other.generation = Generation::from_uuid([0; 16]);
    assert_eq!(kind(rig.source(&other)), ErrorKind::NotFound);
}

#[test]
fn a_create_cut_off_after_its_folder_is_made_again() {
    let mut rig = Rig::new();
    rig.backend = None;
    fs::create_dir(rig.data("pvc-1")).unwrap();
    fs::set_permissions(rig.data("pvc-1"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(rig.temp.path().join(".dunnage/volumes/.mzxw6ytboi.pvc-1"), "{\"version\"").unwrap();
    rig.restart();
    assert_eq!(rig.find("pvc-1"), None);
    assert_eq!(rig.volumes().list(&cx(), None, 10).unwrap(), []);
    let volume = rig.create("pvc-1").unwrap();
    assert_eq!(fs::metadata(rig.data("pvc-1")).unwrap().permissions().mode() & 0o7777, 0o777);
    rig.source(&volume).unwrap();
}

#[test]
fn the_empty_folder_of_a_create_that_was_cut_off_goes_at_the_next_start() {
    let mut rig = Rig::new();
    rig.create("kept").unwrap();
    let volumes = rig.temp.path().join("volumes");
    fs::create_dir(volumes.join("cut-off")).unwrap();
    fs::create_dir_all(volumes.join("nobodys/data")).unwrap();
    rig.restart();
    let until = Instant::now() + Duration::from_secs(60);
    while volumes.join("cut-off").exists() {
        assert!(Instant::now() < until, "the remains of a create stay");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut left: Vec<_> = fs::read_dir(&volumes).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["kept", "nobodys"]);
}

#[test]
fn a_delete_cut_off_after_its_data_went_serves_nobody_and_is_finished_by_the_next() {
    let mut rig = Rig::new();
    let volume = rig.create("pvc-1").unwrap();
    fs::rename(rig.data("pvc-1"), rig.temp.path().join(".dunnage/trash/old.1")).unwrap();
    rig.restart();
    assert_eq!(rig.find("pvc-1").as_ref(), Some(&volume));
    let error = rig.source(&volume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("delete it again"), "{error}");
    rig.delete(&volume).unwrap();
    assert_eq!(rig.find("pvc-1"), None);
}

#[test]
fn data_without_a_record_is_never_removed_nor_given_to_another() {
    let mut rig = Rig::new();
    rig.backend = None;
    fs::create_dir(rig.data("pvc-1")).unwrap();
    fs::write(rig.data("pvc-1").join("thesis.tex"), "words").unwrap();
    rig.restart();
    let error = rig.create("pvc-1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("restore the record, or move it away"), "{error}");
    assert_eq!(fs::read_to_string(rig.data("pvc-1").join("thesis.tex")).unwrap(), "words");
    assert_eq!(rig.find("pvc-1"), None);
}

#[test]
fn a_symlink_in_the_place_of_a_volume_is_never_followed() {
    let rig = Rig::new();
    let volume = rig.create("pvc-1").unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    fs::remove_dir(rig.data("pvc-1")).unwrap();
    symlink(outside.path(), rig.data("pvc-1")).unwrap();
    assert!(rig.source(&volume).is_err());
    rig.delete(&volume).unwrap();
    symlink(outside.path(), rig.data("pvc-2")).unwrap();
    assert_eq!(kind(rig.create("pvc-2")), ErrorKind::FailedPrecondition);
    assert!(outside.path().join("kept").exists());
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let rig = Rig::new();
    let records = rig.temp.path().join(".dunnage/volumes");
    // A folder where the record must go: the rename fails, for root too.
    fs::create_dir(records.join("pvc-1")).unwrap();
    assert!(rig.create("pvc-1").is_err());
    fs::remove_dir(records.join("pvc-1")).unwrap();
    assert_eq!(fs::read_dir(&records).unwrap().count(), 0, "no part of a record");
    rig.create("pvc-1").unwrap();
    assert_eq!(rig.volumes().list(&cx(), None, 10).unwrap().len(), 1);
}

#[test]
fn sizes_are_those_of_the_request_and_never_more_than_the_disk() {
    let rig = Rig::new();
    let create = rig.backend().create.as_ref().unwrap();
    assert_eq!(create.create(&cx(), &request("exact", 12_345, 0)).unwrap().capacity.get(), 12_345);
    assert_eq!(create.create(&cx(), &request("default", 0, 0)).unwrap().capacity, DEFAULT_SIZE);
    assert_eq!(create.create(&cx(), &request("limit", 0, 7)).unwrap().capacity.get(), 7);
    assert_eq!(kind(create.create(&cx(), &request("vast", i64::MAX, 0))), ErrorKind::OutOfRange);
    assert!(!rig.data("vast").exists());
    let sizes = Folder::at(rig.temp.path()).unwrap().sizes().unwrap();
    let full = (sizes.total.get() - 1) as i64;
    if sizes.available.get() < sizes.total.get() - (1 << 30) {
        assert_eq!(kind(create.create(&cx(), &request("large", full, 0))), ErrorKind::ResourceExhausted);
    }
    let room = rig.backend().room.as_ref().unwrap().capacity(&cx(), &Parameters::default()).unwrap();
    assert!(room.available.get() > 0 && room.available <= sizes.total);
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let mut rig = Rig::new();
    let volume = rig.create("pvc-1").unwrap();
    let grown = rig.expand(&volume, 1 << 20, 0).unwrap();
    assert_eq!(grown, Expanded::to(Bytes::new(1 << 20)));
    assert_eq!(rig.expand(&volume, 1 << 20, 0).unwrap(), grown);
    assert_eq!(rig.expand(&volume, 1, 0).unwrap(), grown);
    assert_eq!(kind(rig.expand(&volume, 1, 4096)), ErrorKind::OutOfRange);
    let sizes = Folder::at(rig.temp.path()).unwrap().sizes().unwrap();
    assert_eq!(kind(rig.expand(&volume, i64::MAX, 0)), ErrorKind::OutOfRange);
    assert_eq!(kind(rig.expand(&volume, sizes.total.get() as i64, 0)), ErrorKind::ResourceExhausted);
    rig.restart();
    assert_eq!(rig.find("pvc-1").unwrap().capacity.get(), 1 << 20);
    rig.delete(&volume).unwrap();
    assert_eq!(kind(rig.expand(&volume, 1 << 20, 0)), ErrorKind::NotFound);
}

#[test]
fn eight_threads_make_list_and_remove_at_once() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let rig = &rig;
            scope.spawn(move || {
                for number in 0..20 {
                    let name = format!("{thread}-{number}");
                    let volume = rig.create(&name).unwrap();
                    fs::write(rig.data(&name).join("file"), "x").unwrap();
                    rig.volumes().list(&cx(), None, 1000).unwrap();
                    if number % 2 == 0 {
                        rig.delete(&volume).unwrap();
                    }
                }
            });
        }
    });
    let mut left: Vec<_> = rig.volumes().list(&cx(), None, 1000).unwrap();
    assert_eq!(left.len(), 80);
    assert_eq!(fs::read_dir(rig.temp.path().join("volumes")).unwrap().count(), 80);
    left.dedup_by_key(|volume| volume.key.clone());
    assert_eq!(left.len(), 80);
}

#[test]
fn the_configuration_says_what_it_misses() {
    let temp = tempfile::tempdir().unwrap();
    for (wrong, words) in [
        (json!({"quota": "some"}), "expected `project` or `none`"),
        (json!({"mode": "0999"}), "octal"),
        (json!({"mode": "77"}), "octal"),
        (json!({"mode": "7777"}), "octal"),
        (json!({"mode": "+777"}), "octal"),
        (json!({"colour": "red"}), "unknown field `colour`"),
        (json!({"project_ids": {"first": 0, "last": 5}}), "is no range"),
        (json!({"project_ids": {"first": 9, "last": 5}}), "is no range"),
    ] {
        let mut config = json!({"root": temp.path()});
        config.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let error = serde_json::from_value::<Dir>(config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let unsaid: Dir = serde_json::from_value(json!({"root": temp.path()})).unwrap();
    let error = unsaid.check_keys().unwrap_err();
    for words in ["quota: none", "tune2fs -O project,quota", "prjquota", "pquota"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(unsaid.check(&opening()).last().unwrap().severity, Severity::Error);
    let schema = serde_json::to_value(schemars::schema_for!(Dir)).unwrap();
    assert_eq!(schema["required"], json!(["root", "quota"]));
}

#[test]
fn a_lost_folder_of_data_is_not_made_anew_where_there_is_any_record() {
    let mut rig = Rig::new();
    rig.create("pvc-1").unwrap();
    rig.backend = None;
    fs::write(rig.temp.path().join(".dunnage/volumes/pvc-1"), "broken").unwrap();
    fs::rename(rig.temp.path().join("volumes"), rig.temp.path().join("elsewhere")).unwrap();
    let error = dir(rig.temp.path(), json!({})).open(&opening()).err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("volumes is missing"), "{error}");
    assert!(!rig.temp.path().join("volumes").exists());
}

#[test]
fn check_counts_the_volumes_that_were_made_without_a_quota() {
    let rig = Rig::new();
    let count = |quota| {
        let findings = dir(rig.temp.path(), json!({"quota": quota})).check(&opening());
        findings.into_iter().find(|finding| finding.text.contains("no quota in root"))
    };
    assert_eq!(count("project"), None);
    rig.create("pvc-1").unwrap();
    rig.create("pvc-2").unwrap();
    let finding = count("project").unwrap();
    assert!(finding.severity == Severity::Warning && finding.text.starts_with("2 volumes have"), "{finding:?}");
    assert_eq!(count("none"), None);
}

#[test]
fn a_file_system_without_project_quotas_is_refused_with_the_way_to_enable_them() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let project = dir(memory.path(), json!({"quota": "project"}));
    project.init(&opening()).unwrap();
    let error = project.open(&opening()).err().unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("tune2fs -O project,quota"), "{error}");
    }
    let finding = project.check(&opening()).pop().unwrap();
    assert!(finding.severity == Severity::Error && finding.remedy.contains("prjquota"), "{finding:?}");
}

#[test]
fn the_mode_of_a_volume_is_the_one_configured() {
    let temp = tempfile::tempdir().unwrap();
    let dir = dir(temp.path(), json!({"mode": "2770"}));
    dir.init(&opening()).unwrap();
    let backend = dir.open(&opening()).unwrap();
    backend.create.unwrap().create(&cx(), &request("a", 1, 0)).unwrap();
    assert_eq!(fs::metadata(temp.path().join("volumes/a")).unwrap().permissions().mode() & 0o7777, 0o2770);
    assert_eq!(fs::metadata(temp.path().join("volumes")).unwrap().permissions().mode() & 0o7777, 0o700);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_name_makes_one_folder_in_its_place(name in "(\\.\\./|/|\\.|[a-zA-Z+]|\\PC|\0){1,40}") {
        let rig = Rig::new();
        let volume = rig.create(&name).unwrap();
        prop_assert_eq!(&volume.name, &name);
        prop_assert_eq!(rig.find(&name), Some(volume.clone()));
        prop_assert_eq!(fs::read_dir(rig.temp.path().join("volumes")).unwrap().count(), 1);
        prop_assert_eq!(fs::read_dir(rig.temp.path()).unwrap().count(), 4);
        rig.delete(&volume).unwrap();
        prop_assert_eq!(fs::read_dir(rig.temp.path().join("volumes")).unwrap().count(), 0);
    }
}

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::error::ErrorKind;

fn marked() -> (TempDir, PathBuf, InstanceId) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    let Init::Created(instance) = Root::init(&path, "dir").unwrap() else { panic!("an empty folder was ours") };
    (temp, path, instance)
}

fn refused<T>(result: Result<T>, words: &str) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.report().contains(words), "{error} does not say {words:?}");
}

#[test]
fn init_twice_gives_one_instance_and_open_finds_it() {
    let (_temp, path, instance) = marked();
    assert_eq!(Root::init(&path, "dir").unwrap(), Init::Existing(instance.clone()));
    let root = Root::open(&path, "dir").unwrap();
    assert_eq!(root.instance(), &instance);
    assert_eq!(Root::init(&path, "dir").unwrap(), Init::Existing(instance), "also while it is served");
    assert!(root.sizes().unwrap().total > root.sizes().unwrap().available);
}

#[test]
fn many_at_once_agree_on_one_instance() {
    for _ in 0..20 {
        let temp = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let inits: Vec<_> = (0..4).map(|_| scope.spawn(|| Root::init(temp.path(), "dir").unwrap())).collect();
            inits.into_iter().map(|init| init.join().unwrap()).collect()
        });
        let created = ids.iter().filter(|init| matches!(init, Init::Created(_))).count();
        assert_eq!(created, 1, "{ids:?}");
        let instance = Root::open(temp.path(), "dir").unwrap().instance().clone();
        assert!(ids.iter().all(|(Init::Created(id) | Init::Existing(id))| *id == instance), "{ids:?}");
    }
}

#[test]
fn a_folder_with_anything_in_it_is_refused_and_left_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("thesis.tex"), "words").unwrap();
    refused(Root::init(temp.path(), "dir"), "thesis.tex");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn records_without_a_marker_are_not_taken_for_an_empty_folder() {
    let (_temp, path, _) = marked();
    fs::write(path.join(".dunnage/volumes/pvc-1"), "{}").unwrap();
    fs::remove_file(path.join(".dunnage/instance.json")).unwrap();
    refused(Root::init(&path, "dir"), ".dunnage/volumes");
    refused(Root::open(&path, "dir"), "dunnage init");
}

#[test]
fn an_init_that_was_cut_off_at_any_step_is_finished_by_the_next() {
    let steps: [&dyn Fn(&Path); 4] = [
        &|meta| fs::create_dir(meta).unwrap(),
        &|meta| fs::create_dir(meta.join("volumes")).unwrap(),
        &|meta| fs::create_dir(meta.join("trash")).unwrap(),
        &|meta| fs::write(meta.join("instance.json.mzxw6ytboimzxw6ytboimzxw6y"), "{\"vers").unwrap(),
    ];
    for done in 0..=steps.len() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("lost+found")).unwrap();
        steps[..done].iter().for_each(|step| step(&temp.path().join(".dunnage")));
        assert!(matches!(Root::init(temp.path(), "dir").unwrap(), Init::Created(_)), "after step {done}");
        Root::open(temp.path(), "dir").unwrap();
        let mut left: Vec<_> =
            fs::read_dir(temp.path().join(".dunnage")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["instance.json", "trash", "volumes"]);
    }
}

#[test]
fn what_is_missing_or_not_ours_is_refused_with_its_remedy() {
    let temp = tempfile::tempdir().unwrap();
    refused(Root::init(&temp.path().join("none"), "dir"), "create it, or mount its disk");
    refused(Root::open(&temp.path().join("none"), "dir"), "create it, or mount its disk");
    refused(Root::open(temp.path(), "dir"), "mount it");
    assert_eq!(Root::open(Path::new("relative"), "dir").err().unwrap().kind(), ErrorKind::InvalidArgument);
    fs::write(temp.path().join("file"), "").unwrap();
    refused(Root::init(&temp.path().join("file"), "dir"), "not a folder");
}

#[test]
fn the_marker_of_another_driver_or_release_or_a_broken_one_is_refused() {
    let (_temp, path, _) = marked();
    for result in [Root::init(&path, "image").map(drop), Root::open(&path, "image").map(drop)] {
        refused(result, "is a root of the driver \"dir\", not of \"image\"");
    }
    let file = path.join(".dunnage/instance.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    refused(Root::open(&path, "dir"), "version 2");
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    refused(Root::open(&path, "dir"), "broken");
    refused(Root::init(&path, "dir"), "broken");
    fs::remove_file(&file).unwrap();
    fs::write(path.join("real"), text).unwrap();
    symlink(path.join("real"), &file).unwrap();
    assert!(Root::open(&path, "dir").is_err(), "a marker is never a symlink");
}

#[test]
fn one_root_is_served_once_and_again_after_it_was_closed() {
    let (_temp, path, _) = marked();
    let root = Root::open(&path, "dir").unwrap();
    let records = root.records::<()>().unwrap();
    refused(Root::open(&path, "dir"), "is served already");
    drop(root);
    refused(Root::open(&path, "dir"), "is served already");
    drop(records);
    Root::open(&path, "dir").unwrap();
}

#[test]
fn a_root_whose_records_were_removed_is_not_taken_for_an_empty_one() {
    let (_temp, path, _) = marked();
    fs::remove_dir(path.join(".dunnage/volumes")).unwrap();
    refused(Root::open(&path, "dir").unwrap().records::<()>(), "restore them from a backup");
}

#[test]
fn check_says_what_is_wrong_and_how_to_mend_it() {
    use crate::finding::Severity;
    let (temp, path, _) = marked();
    let _served = Root::open(&path, "dir").unwrap();
    assert!(Root::check(&path, "dir").iter().all(|finding| finding.severity == Severity::Ok));
    for (path, driver) in [(&path, "image"), (&temp.path().join("none"), "dir"), (&path.join(".dunnage"), "dir")] {
        let worst = Root::check(path, driver).into_iter().max_by_key(|finding| finding.severity).unwrap();
        assert!(worst.severity == Severity::Error && !worst.remedy.is_empty(), "{worst:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(Root::check(empty.path(), "dir")[0].remedy.contains("dunnage init"));
    fs::write(empty.path().join("thesis.tex"), "").unwrap();
    let full = &Root::check(empty.path(), "dir")[0];
    assert!(full.text.contains("thesis.tex") && full.remedy.contains("marks no other"), "{full:?}");
}

/// The things that two findings claim both.
fn claimed_by_both(one: &[Finding], other: &[Finding]) -> Vec<String> {
    let claims = |findings: &[Finding]| findings.iter().flat_map(|finding| finding.claims.clone()).collect::<Vec<_>>();
    let other = claims(other);
    claims(one)
        .into_iter()
        .map(|claim| claim.thing)
        .filter(|thing| other.iter().any(|one| one.thing == *thing))
        .collect()
}

#[test]
fn one_root_a_copy_of_it_and_a_neighbour_claim_the_same_things() {
    let (_temp, path, instance) = marked();
    let (_other, neighbour, _) = marked();
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(".dunnage")).unwrap();
    fs::copy(path.join(".dunnage/instance.json"), copy.path().join(".dunnage/instance.json")).unwrap();
    let alias = copy.path().join("alias");
    symlink(&path, &alias).unwrap();
    let check = |path: &Path| Root::check(path, "dir");
    assert_eq!(claimed_by_both(&check(&path), &check(copy.path())), [format!("instance {instance}")]);
    assert_eq!(claimed_by_both(&check(&path), &check(&alias)).len(), 2, "the root and its instance");
    assert_eq!(claimed_by_both(&check(&path), &check(&neighbour)), [""; 0]);
    let promise = |path: &Path| [Root::promises_room(path, Finding::ok("it has room"))];
    assert_eq!(claimed_by_both(&promise(&path), &promise(&neighbour)).len(), 1);
    assert_eq!(claimed_by_both(&promise(&path), &promise(Path::new("/proc"))).len(), 0);
}

#[test]
fn the_records_of_a_root_that_is_served_can_be_read_beside() {
    let (_temp, path, _) = marked();
    let root = Root::open(&path, "dir").unwrap();
    let request = crate::CreateVolume::new(
        "pvc-1",
        crate::CapacityRange::default(),
        Vec::new(),
        crate::Parameters::default(),
        crate::Fingerprint::of(&std::collections::BTreeMap::new()),
    );
    let record = Record { volume: request.volume(crate::Bytes::new(7)).unwrap(), extra: 9_u32 };
    root.records().unwrap().put(&record).unwrap();
    for (name, text) in [("broken", "{"), (".unfinished", "{"), ("No-Key", "{}")] {
        fs::write(path.join(".dunnage/volumes").join(name), text).unwrap();
    }
    let mut found = Vec::new();
    Root::read_records(&path, |record: Record<u32>| found.push(record)).unwrap();
    assert_eq!(found, [record]);
    fs::remove_dir_all(path.join(".dunnage/volumes")).unwrap();
    assert!(Root::read_records(&path, |_: Record<u32>| {}).is_err());
}

#[test]
fn a_root_that_could_not_be_marked_is_the_next_time_and_nothing_else_is_left() {
    if !dunnage_testkit::needs_root("a_root_that_could_not_be_marked_is_the_next_time_and_nothing_else_is_left") {
        return;
    }
    let hits = dunnage_testkit::for_each_operation(|faults, path| {
        let first = faults.during(|| Root::init(path, "dir"));
        let again = Root::init(path, "dir").unwrap();
        let (Init::Created(now) | Init::Existing(now)) = &again;
        if let Ok(Init::Created(then) | Init::Existing(then)) = &first {
            assert_eq!(then, now);
        }
        let mut names: Vec<_> =
            fs::read_dir(path.join(".dunnage")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["instance.json", "trash", "volumes"]);
    });
    assert!(hits > 50, "{hits}");
}

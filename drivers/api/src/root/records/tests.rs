use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use rustix::fs::FileType;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::capacity::CapacityRange;
use crate::error::ErrorKind;
use crate::id::Fingerprint;
use crate::parameters::Parameters;
use crate::root::Root;
use crate::volume::CreateVolume;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Extra {
    project: u32,
}

fn record(name: &str, size: u64) -> Record<Extra> {
    let request = CreateVolume::new(
        name,
        CapacityRange::default(),
        Vec::new(),
        Parameters::default(),
        Fingerprint::of(&BTreeMap::new()),
    );
    Record { volume: request.volume(Bytes::new(size)).unwrap(), extra: Extra { project: 7 } }
}

fn key(name: &str) -> VolumeKey {
    VolumeKey::of_name(name)
}

/// A root whose records are written as an earlier process would have left them.
fn root(names: &[&str]) -> (TempDir, Root, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    Root::init(temp.path(), "dir").unwrap();
    let path = temp.path().join(".dunnage/volumes");
    names.iter().for_each(|name| store(&path, &record(name, 10)));
    let root = Root::open(temp.path(), "dir").unwrap();
    (temp, root, path)
}

fn store(path: &Path, record: &Record<Extra>) {
    fs::write(path.join(record.volume.key.as_str()), encode(record).unwrap()).unwrap();
}

/// The records without the thread in the background, which reads them sooner or later.
fn unfilled(root: &Root) -> Inner {
    Inner {
        folder: root.meta.folder(crate::root::RECORDS).unwrap(),
        syncs: Syncs::default(),
        index: Index::default(),
        held: Arc::default(),
        temporary: ".x.".into(),
        stop: AtomicBool::new(false),
        _lock: root.lock.clone(),
    }
}

fn names(page: &[Volume]) -> Vec<&str> {
    page.iter().map(|volume| volume.name.as_str()).collect()
}

#[test]
fn what_was_put_is_got_back_and_is_gone_after_it_was_removed() {
    let (_temp, root, _) = root(&[]);
    let records = root.records::<Extra>().unwrap();
    let mut one = record("a/../b", 5);
    assert_eq!(records.get(&one.volume.key).unwrap(), None);
    records.put(&one).unwrap();
    assert_eq!(records.get(&one.volume.key).unwrap(), Some(one.clone()));
    one.volume.capacity = Bytes::new(8);
    records.put(&one).unwrap();
    assert_eq!(records.page(None, 10).unwrap(), [one.volume.clone()]);
    assert_eq!(records.promised().unwrap(), Bytes::new(8));
    records.remove(&one.volume.key).unwrap();
    records.remove(&one.volume.key).unwrap();
    assert_eq!(records.get(&one.volume.key).unwrap(), None);
    assert_eq!(records.page(None, 10).unwrap(), []);
    assert_eq!(records.promised().unwrap(), Bytes::ZERO);
}

#[test]
fn the_form_on_disk_is_frozen() {
    let (_temp, root, path) = root(&[]);
    let mut one = record("pvc-1", 1 << 30);
    one.volume.generation = "aaaqeaye".parse().unwrap();
    one.volume.created = 1_700_000_000;
    root.records::<Extra>().unwrap().put(&one).unwrap();
    assert_eq!(
        fs::read_to_string(path.join("pvc-1")).unwrap(),
        "{\"version\":1,\"volume\":{\"key\":\"pvc-1\",\"name\":\"pvc-1\",\"generation\":\"aaaqeaye\",\
         \"capacity\":1073741824,\"fingerprint\":\"4oymiquy7qobjgx36tejs35zeq\",\"created\":1700000000},\
         \"extra\":{\"project\":7}}"
    );
}

#[test]
fn a_broken_record_is_an_error_that_names_it_and_hides_no_other() {
    let (_temp, root, path) = root(&["a", "b", "c", "d", "e", "f"]);
    let text = fs::read_to_string(path.join("b")).unwrap();
    fs::write(path.join("b"), &text[..text.len() / 2]).unwrap();
    fs::write(path.join("c"), "").unwrap();
    fs::write(path.join("d"), text.replace("\"version\":1", "\"version\":2")).unwrap();
    fs::write(path.join("e"), &text).unwrap();
    let records = root.records::<Extra>().unwrap();
    for (name, words) in [("b", "is broken"), ("c", "is broken"), ("d", "version 2"), ("e", "of another volume, b")] {
        let error = records.get(&key(name)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(&format!(".dunnage/volumes/{name}")), "{error}");
    }
    assert_eq!(names(&records.page(None, 2).unwrap()), ["a", "f"]);
    assert_eq!(records.promised().unwrap(), Bytes::new(20), "only what can be read is counted");
}

#[test]
fn what_is_no_file_is_not_taken_for_a_missing_volume() {
    let (_temp, root, path) = root(&[]);
    std::os::unix::fs::symlink("/nowhere", path.join("link")).unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path.join("pipe"), FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let records = root.records::<Extra>().unwrap();
    for name in ["link", "folder", "pipe"] {
        assert!(records.get(&key(name)).is_err(), "{name}");
    }
}
#[test]
fn the_remains_of_a_write_that_was_cut_off_are_no_record_and_go_away() {
    let (_temp, root, path) = root(&["a"]);
    fs::write(path.join(".mzxw6ytboi.b"), "{\"vers").unwrap();
    let records = root.records::<Extra>().unwrap();
    assert_eq!(names(&records.page(None, 10).unwrap()), ["a"]);
    assert!(!path.join(".mzxw6ytboi.b").exists());
    records.put(&record("b", 1)).unwrap();
    assert_eq!(names(&records.page(None, 10).unwrap()), ["a", "b"]);
}

#[test]
fn a_write_that_fails_leaves_the_old_record_and_nothing_else() {
    let (_temp, root, path) = root(&["a"]);
    let records = root.records::<Extra>().unwrap();
    let mut large = record("a", 99);
    large.volume.name = "x".repeat(LARGEST as usize);
    assert!(records.put(&large).is_err());
    assert_eq!(records.get(&key("a")).unwrap().unwrap().volume.capacity, Bytes::new(10));
    assert_eq!(fs::read_dir(path).unwrap().count(), 1);
}

#[test]
fn pages_follow_the_keys_and_end_short() {
    let (_temp, root, _) = root(&["c", "a", "e", "b", "d"]);
    let records = root.records::<Extra>().unwrap();
    assert_eq!(names(&records.page(None, 2).unwrap()), ["a", "b"]);
    assert_eq!(names(&records.page(Some(&key("b")), 2).unwrap()), ["c", "d"]);
    assert_eq!(names(&records.page(Some(&key("d")), 2).unwrap()), ["e"]);
    assert_eq!(names(&records.page(Some(&key("e")), 2).unwrap()), [""; 0]);
    records.remove(&key("b")).unwrap();
    assert_eq!(names(&records.page(Some(&key("b")), 9).unwrap()), ["c", "d", "e"], "a removed key is a place still");
}

#[test]
fn a_list_reads_its_first_record_and_takes_the_others_from_memory() {
    let (_temp, root, path) = root(&["a", "b", "c"]);
    let records = root.records::<Extra>().unwrap();
    let whole = records.page(None, 10).unwrap();
    assert_eq!(records.promised().unwrap(), Bytes::new(30), "all are read by now");
    ["b", "c"].iter().for_each(|name| fs::write(path.join(name), "").unwrap());
    assert_eq!(records.page(None, 10).unwrap(), whole);
    assert_eq!(
        names(&records.page(Some(&key("a")), 10).unwrap()),
        [""; 0],
        "a page whose first cannot be read reads on"
    );
}

#[test]
fn room_that_is_settled_is_counted_once_by_whoever_weighs() {
    let (_temp, root, _) = root(&[]);
    let records = root.records::<Extra>().unwrap();
    let taken = AtomicUsize::new(0);
    let fits = |reserved: Bytes| match taken.load(Ordering::SeqCst) as u64 + reserved.get() < 200 {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::ResourceExhausted, "full")),
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let room = records.reserve_unpromised(Bytes::new(1), fits).expect("it is counted twice");
                    room.settle(|| Ok(taken.fetch_add(1, Ordering::SeqCst))).unwrap();
                }
            });
        }
    });
    assert_eq!((taken.load(Ordering::SeqCst), records.reserved()), (200, Bytes::ZERO));
    let room = records.reserve_unpromised(Bytes::new(1), |_| Ok(())).unwrap();
    room.settle(|| Err::<(), _>(Error::internal("the disk is full"))).unwrap_err();
    assert_eq!(records.reserved(), Bytes::ZERO);
}

#[test]
fn nobody_but_who_weighs_waits_for_a_file_system_that_does_not_answer() {
    let (_temp, root, _) = root(&["old"]);
    let records = root.records::<Extra>().unwrap();
    records.promised().unwrap();
    let room = records.reserve_unpromised(Bytes::new(1), |_| Ok(())).unwrap();
    let ((begun, begins), (end, ends)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            room.settle(|| {
                begun.send(()).unwrap();
                let _ = ends.recv();
                Ok(())
            })
        });
        begins.recv().unwrap();
        records.put(&record("new", 1)).unwrap();
        assert_eq!(records.page(None, 9).unwrap().len(), 2);
        assert_eq!((records.total().unwrap().volumes, records.reserved()), (2, Bytes::new(1)));
        drop(end);
    });
    assert_eq!(records.reserved(), Bytes::ZERO);
}

#[test]
fn reservations_and_volumes_together_never_pass_the_limit() {
    let (_temp, root, _) = root(&["old"]);
    let records = root.records::<Extra>().unwrap();
    let limit = Bytes::new(10 + 30);
    let fits = |taken: Bytes| match taken.plus(Bytes::new(4)) <= limit {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::ResourceExhausted, "full")),
    };
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (records, made, fits) = (&records, &made, &fits);
            scope.spawn(move || {
                for number in 0..10 {
                    if let Ok(room) = records.reserve(Bytes::new(4), fits) {
                        made.fetch_add(1, Ordering::Relaxed);
                        records.put_for(&record(&format!("{thread}-{number}"), 4), room).unwrap();
                    }
                }
            });
        }
    });
    // None counts twice, also while it is put: all that fit were made.
    assert_eq!(made.into_inner(), 7);
    assert_eq!(records.promised().unwrap(), Bytes::new(38));
    assert_eq!(records.reserved(), Bytes::ZERO);
}

#[test]
fn the_index_agrees_with_the_folder_whatever_changes_while_it_is_filled() {
    let old: Vec<_> = (0..400).map(|number| format!("old-{number:03}")).collect();
    for _ in 0..5 {
        let (_temp, root, path) = root(&old.iter().map(String::as_str).collect::<Vec<_>>());
        let records = root.records::<Extra>().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let records = &records;
                scope.spawn(move || {
                    for number in (thread..400).step_by(8) {
                        match number % 4 {
                            0 => records.remove(&key(&format!("old-{number:03}"))).unwrap(),
                            1 => records.put(&record(&format!("old-{number:03}"), 100)).unwrap(),
                            2 => records.put(&record(&format!("new-{number:03}"), 1000)).unwrap(),
                            _ => drop(records.page(None, 50).unwrap()),
                        }
                    }
                });
            }
        });
        let listed: Vec<_> = records.page(None, 1000).unwrap();
        assert_eq!(listed.len(), fs::read_dir(path).unwrap().count());
        let sum: u64 = listed.iter().map(|volume| volume.capacity.get()).sum();
        assert_eq!(records.promised().unwrap(), Bytes::new(sum));
        assert_eq!(sum, 200 * 10 + 100 * 100 + 100 * 1000);
    }
}

#[test]
fn twenty_thousand_are_listed_once_each_while_others_come_and_go() {
    let (_temp, root, path) = root(&[]);
    (0..20_000).for_each(|number| store(&path, &record(&format!("v-{number:05}"), 1)));
    let records = root.records::<Extra>().unwrap();
    let (mut seen, mut after, mut round) = (Vec::new(), None, 0);
    loop {
        let page = records.page(after.as_ref(), 700).unwrap();
        seen.extend(page.iter().map(|volume| volume.name.clone()));
        // One comes before and one behind the place of the list, and its own place goes away.
        records.put(&record(&format!("a-{round:05}"), 1)).unwrap();
        records.put(&record(&format!("z-{round:05}"), 1)).unwrap();
        if page.len() < 700 {
            break;
        }
        after = page.last().map(|volume| volume.key.clone());
        records.remove(after.as_ref().unwrap()).unwrap();
        round += 1;
    }
    let old: Vec<_> = seen.iter().filter(|name| name.starts_with("v-")).cloned().collect();
    assert_eq!(old, (0..20_000).map(|number| format!("v-{number:05}")).collect::<Vec<_>>());
    assert!(seen.is_sorted() && !seen.iter().any(|name| name.starts_with("a-")));
}

#[test]
fn who_needs_the_names_alone_does_not_read_the_records() {
    let (_temp, root, _) = root(&["a", "b"]);
    let inner = unfilled(&root);
    drop(inner.index.ready(Ready::Names, |from| inner.load(from)).unwrap());
    assert_eq!(inner.index.unread(None, 10), [key("a"), key("b")]);
    assert_eq!(inner.index.ready(Ready::Volumes, |from| inner.load(from)).unwrap().promised(), Bytes::new(20));
}

#[test]
fn the_total_is_unknown_until_all_was_read_and_is_not_waited_for() {
    let (_temp, root, _) = root(&["a", "b"]);
    let records = Records::<Extra> { inner: Arc::new(unfilled(&root)), extra: PhantomData };
    let (begun, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| {
            let fail = |_| {
                begun.wait();
                go.wait();
                Err(Error::internal("the disk failed"))
            };
            records.inner.index.ready(Ready::Volumes, fail).map(drop)
        });
        begun.wait();
        assert_eq!(records.total(), None);
        go.wait();
        filler.join().unwrap().unwrap_err();
    });
    // One that failed is begun again.
    let late = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let total = loop {
        if let Some(total) = records.total() {
            break total;
        }
        assert!(std::time::Instant::now() < late, "nobody reads the records");
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert_eq!(total, Total { volumes: 2, capacity: Bytes::new(20) });
}

#[test]
fn what_could_not_be_synced_is_not_answered_until_it_is_durable() {
    if !dunnage_testkit::needs_root("what_could_not_be_synced_is_not_answered_until_it_is_durable") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let store = dunnage_testkit::FuseStore::mount(temp.path()).unwrap();
    Root::init(temp.path(), "dir").unwrap();
    let root = Root::open(temp.path(), "dir").unwrap();
    let records = root.records::<Extra>().unwrap();
    let one = record("a", 5);
    store.fail_folder_syncs(true);
    records.put(&one).unwrap_err();
    assert!(temp.path().join(".dunnage/volumes/a").exists(), "the test does not test");
    records.get(&one.volume.key).unwrap_err();
    records.get(&key("b")).unwrap_err();
    records.page(None, 10).unwrap_err();
    records.contains(&one.volume.key).unwrap_err();
    records.is_empty().unwrap_err();
    records.put(&record("b", 5)).unwrap_err();
    records.remove(&one.volume.key).unwrap_err();
    store.fail_folder_syncs(false);
    assert_eq!(names(&records.page(None, 10).unwrap()), ["a"]);
    assert_eq!(records.get(&one.volume.key).unwrap(), Some(one.clone()));
    assert_eq!(records.get(&key("b")).unwrap(), None);
    store.fail_folder_syncs(true);
    assert_eq!(records.get(&one.volume.key).unwrap(), Some(one.clone()), "what is durable is read without a sync");
    records.remove(&one.volume.key).unwrap_err();
    records.get(&one.volume.key).unwrap_err();
    store.fail_folder_syncs(false);
    assert_eq!(records.get(&one.volume.key).unwrap(), None);
}

#[test]
fn what_failed_and_may_have_been_done_is_listed_as_it_is_found() {
    if !dunnage_testkit::needs_root("what_failed_and_may_have_been_done_is_listed_as_it_is_found") {
        return;
    }
    let one = record("a", 5);
    let larger = record("a", 7);
    let hits = dunnage_testkit::for_each_operation(|faults, path| {
        Root::init(path, "dir").unwrap();
        let root = Root::open(path, "dir").unwrap();
        let records = root.records::<Extra>().unwrap();
        let agree = |what: &str| {
            let found = records.get(&one.volume.key).unwrap().map(|record| record.volume);
            assert_eq!(records.page(None, 10).unwrap(), Vec::from_iter(found.clone()), "{what}");
            assert_eq!(records.contains(&one.volume.key).unwrap(), found.is_some(), "{what}");
            let promised = found.map_or(Bytes::ZERO, |volume| volume.capacity);
            assert_eq!(records.promised().unwrap(), promised, "{what}");
        };
        let _ = faults.during(|| records.put(&one));
        agree("a record that was written");
        let _ = faults.during(|| records.put(&larger));
        agree("a record that was changed");
        let _ = faults.during(|| records.remove(&one.volume.key));
        agree("a record that was removed");
        records.remove(&one.volume.key).unwrap();
        agree("a record that was removed again");
        drop((records, root));
        let root = Root::open(path, "dir").unwrap();
        assert!(root.records::<Extra>().unwrap().is_empty().unwrap());
        assert_eq!(std::fs::read_dir(path.join(".dunnage/volumes")).unwrap().count(), 0, "something is left");
    });
    assert!(hits > 30, "{hits}");
}

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;
use crate::driver::Init;
use crate::id::{Fingerprint, Generation, SnapshotId, VolumeId};
use crate::root::Root;
use crate::snapshot::SourceId;
use crate::volume::Volume;

/// Long enough to be no bound of any test that passes.
const HANG: Duration = Duration::from_secs(60);
/// How many threads the backend has.
const CALLS: usize = 16;

type Steps = dyn Fn(&mut Attempt<'_, u32>) -> Result<()> + Send + Sync;

struct Does(Box<Steps>);

impl Work<u32> for Does {
    fn run(&self, attempt: &mut Attempt<'_, u32>) -> Result<()> {
        (self.0)(attempt)
    }
}

/// A root with its jobs, of which this does each.
struct Rig {
    jobs: Option<Jobs<u32>>,
    path: PathBuf,
    _temp: TempDir,
}

impl Rig {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        assert!(matches!(Root::init(temp.path(), "dir"), Ok(Init::Created(_))));
        Self { jobs: None, path: temp.path().into(), _temp: temp }
    }

    fn doing(steps: impl Fn(&mut Attempt<'_, u32>) -> Result<()> + Send + Sync + 'static) -> Self {
        let mut rig = Self::new();
        rig.open(steps);
        rig
    }

    /// Closes it, and opens it as the next process does.
    fn open(&mut self, steps: impl Fn(&mut Attempt<'_, u32>) -> Result<()> + Send + Sync + 'static) {
        self.open_with(CALLS, steps);
    }

    fn open_with(
        &mut self,
        threads: usize,
        steps: impl Fn(&mut Attempt<'_, u32>) -> Result<()> + Send + Sync + 'static,
    ) {
        self.jobs = None;
        let jobs = Root::open(&self.path, "dir").unwrap().jobs(threads).unwrap();
        jobs.take_up(Arc::new(Does(Box::new(steps)))).unwrap();
        self.jobs = Some(jobs);
    }

    fn start(&self, name: &str) -> TargetKey {
        let job = job(name);
        let key = job.target.key();
        self.put(job).start().unwrap();
        key
    }

    fn put(&self, job: Job<u32>) -> Begun<'_, u32> {
        self.begin(job).unwrap()
    }

    fn record(&self, key: &TargetKey) -> PathBuf {
        self.path.join(".dunnage/jobs").join(key.to_string())
    }
}

impl std::ops::Deref for Rig {
    type Target = Jobs<u32>;

    fn deref(&self) -> &Jobs<u32> {
        self.jobs.as_ref().unwrap()
    }
}

fn generation() -> Generation {
    Generation::from_number(7)
}

fn source_volume() -> VolumeId {
    VolumeId {
        instance: "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap(),
        key: VolumeKey::of_name("source"),
        generation: generation(),
    }
}

/// A job of 100 bytes that makes a volume from the volume `source`.
fn job(name: &str) -> Job<u32> {
    let mut volume = Volume::new(VolumeKey::of_name(name), generation(), Bytes::new(200));
    volume.fingerprint = Fingerprint::of(&Default::default());
    Job::new(Target::Volume(volume), SourceId::Volume(source_volume()), Bytes::new(100), 0)
}

fn soon() -> Instant {
    Instant::now() + HANG
}

fn failing() -> Error {
    Error::internal("the source cannot be read")
}

#[test]
fn a_job_that_ends_leaves_no_record_and_whoever_waits_is_told() {
    let rig = Rig::doing(|attempt| {
        attempt.job.done = Bytes::new(100);
        attempt.keep()
    });
    let key = rig.start("copy");
    rig.wait(&key, soon()).unwrap();
    assert!(!rig.record(&key).exists() && rig.get(&key).is_none() && rig.copies().is_empty());
    rig.wait(&key, Instant::now()).unwrap();
    rig.refuse_volume(&source_volume().key).unwrap();
    rig.start("copy");
}

#[test]
fn from_the_begin_to_the_end_its_source_is_refused_with_the_name_of_the_copy_and_how_far_it_is() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (at, here)) = (Mutex::new(wait), mpsc::channel());
    let rig = Rig::doing(move |attempt| {
        attempt.reached(Bytes::new(43))?;
        at.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let key = &source_volume().key;
    let begun = rig.put(job("copy"));
    assert!(rig.refuse_volume(key).unwrap_err().report().contains("volume \"copy\", 0 %"));
    begun.start().unwrap();
    here.recv_timeout(HANG).unwrap();
    let error = rig.refuse_volume(key).unwrap_err();
    assert_eq!((error.kind(), error.retry_can_help()), (ErrorKind::FailedPrecondition, true));
    assert!(error.report().contains("volume \"copy\", 43 % of 100"), "{}", error.report());
    rig.refuse_volume(&VolumeKey::of_name("another")).unwrap();
    rig.refuse_snapshot(&SnapshotKey::of_name("source")).unwrap();
    let error = rig.wait(&job("copy").target.key(), Instant::now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Running);
    assert!(error.report().contains("43 %"), "{}", error.report());
    assert_eq!(rig.promised(), Bytes::new(200));
    go.send(()).unwrap();
    rig.wait(&job("copy").target.key(), soon()).unwrap();
    rig.refuse_volume(key).unwrap();
    assert_eq!(rig.promised(), Bytes::ZERO);
}

#[test]
fn the_source_of_a_copy_that_is_whole_is_free_before_the_job_ends_and_in_the_next_process() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (at, here)) = (Mutex::new(wait), mpsc::channel());
    let mut rig = Rig::doing(move |attempt| {
        attempt.job.whole = true;
        attempt.keep()?;
        at.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Err(failing())
    });
    let key = rig.start("copy");
    here.recv_timeout(HANG).unwrap();
    rig.refuse_volume(&source_volume().key).unwrap();
    assert!(rig.get(&key).is_some());
    drop(go);
    rig.wait(&key, soon()).unwrap_err();
    rig.open(|_| Err(failing()));
    assert!(rig.get(&key).unwrap().whole);
    rig.refuse_volume(&source_volume().key).unwrap();
}

#[test]
fn a_snapshot_that_is_copied_is_refused_and_one_that_is_made_promises_nothing_here() {
    let rig = Rig::doing(|_| Err(failing()));
    let id =
        SnapshotId { instance: source_volume().instance, key: SnapshotKey::of_name("s"), generation: generation() };
    let restore = Job { source: SourceId::Snapshot(id.clone()), ..job("restore") };
    rig.put(restore).start().unwrap();
    assert!(rig.refuse_snapshot(&id.key).unwrap_err().report().contains("restore"));
    let target = Target::Snapshot { key: SnapshotKey::of_name("t"), name: "t".into(), generation: generation() };
    rig.put(Job { target, ..job("t") }).start().unwrap();
    assert_eq!(rig.promised(), Bytes::new(200));
}

#[test]
fn a_failed_attempt_is_told_and_counted_and_made_again_until_the_job_gets_on() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let (count, (go, wait)) = (attempts.clone(), mpsc::channel::<()>());
    let wait = Mutex::new(wait);
    let rig = Rig::doing(move |attempt| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(failing());
        }
        attempt.job.done = Bytes::new(50);
        attempt.keep()?;
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let key = rig.start("copy");
    let error = rig.wait(&key, soon()).unwrap_err();
    assert_eq!(error.report(), failing().report());
    assert_eq!(rig.failed_attempts(), 1);
    let shown = rig.copies();
    assert_eq!(shown[0].error.as_ref().unwrap().report(), failing().report());
    let refused = rig.refuse_volume(&source_volume().key).unwrap_err().report();
    assert!(refused.contains("and fails: the source cannot be read"), "{refused}");
    // Once it has got on the error is over, and a call waits for the end.
    let late = soon();
    while rig.copies()[0].error.is_some() {
        assert!(Instant::now() < late, "it was not tried again");
        std::thread::sleep(Duration::from_millis(5));
    }
    go.send(()).unwrap();
    rig.wait(&key, soon()).unwrap();
    assert_eq!((attempts.load(Ordering::SeqCst), rig.failed_attempts()), (2, 1));
}

#[test]
fn a_job_that_panics_has_failed_and_holds_up_no_other() {
    let rig = Rig::doing(|attempt| match attempt.job.extra {
        1 => panic!("on purpose"),
        _ => Ok(()),
    });
    let panics = ["a", "b", "c"].map(|name| {
        rig.put(Job { extra: 1, ..job(name) }).start().unwrap();
        job(name).target.key()
    });
    for key in &panics {
        assert!(rig.wait(key, soon()).unwrap_err().report().contains("panicked"));
    }
    let key = rig.start("copy");
    rig.wait(&key, soon()).unwrap();
}

#[test]
fn the_next_to_open_the_root_goes_on_from_where_it_was_kept() {
    let mut rig = Rig::doing(|attempt| {
        (attempt.job.done, attempt.job.extra) = (Bytes::new(30), 9);
        attempt.keep()?;
        attempt.job.done = Bytes::new(60);
        loop {
            attempt.reached(attempt.job.done)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let key = rig.start("copy");
    let late = soon();
    while rig.copies()[0].done != Bytes::new(60) {
        assert!(Instant::now() < late, "it does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (begun, again) = mpsc::channel();
    rig.open(move |attempt| {
        begun.send((attempt.job.done, attempt.job.extra)).unwrap();
        Ok(())
    });
    assert_eq!(again.recv_timeout(HANG).unwrap(), (Bytes::new(30), 9));
    rig.wait(&key, soon()).unwrap();
    assert!(!rig.record(&key).exists());
}

#[test]
fn a_job_that_is_begun_and_not_started_is_none() {
    let rig = Rig::doing(|_| panic!("nobody may work on it"));
    let begun = rig.put(job("copy"));
    assert!(rig.record(&job("copy").target.key()).exists());
    let error = rig.begin(job("copy")).err().unwrap();
    assert!(error.report().contains("already"), "{}", error.report());
    drop(begun);
    assert!(rig.all().is_empty() && !rig.record(&job("copy").target.key()).exists());
    rig.refuse_volume(&source_volume().key).unwrap();
    // Nor is one that cannot be written.
    fs::remove_dir(rig.path.join(".dunnage/jobs")).unwrap();
    rig.begin(job("copy")).err().unwrap();
    assert!(rig.all().is_empty());
}

#[test]
fn a_job_that_was_stopped_is_not_worked_on_and_holds_its_source_until_it_is_removed() {
    let (working, at_work) = mpsc::channel();
    let rig = Rig::doing(move |attempt| {
        working.send(()).unwrap();
        loop {
            attempt.reached(Bytes::new(1))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let key = rig.start("copy");
    at_work.recv_timeout(HANG).unwrap();
    assert_eq!(rig.stop(&key, soon()).unwrap(), Some(job("copy")));
    assert_eq!(rig.failed_attempts(), 0, "to be stopped is no failure");
    rig.refuse_volume(&source_volume().key).unwrap_err();
    assert!(rig.record(&key).exists());
    rig.go_on(&key).unwrap();
    at_work.recv_timeout(HANG).unwrap();
    assert!(rig.stop(&key, soon()).unwrap().is_some());
    rig.remove(&key).unwrap();
    assert!(!rig.record(&key).exists());
    rig.refuse_volume(&source_volume().key).unwrap();
    assert_eq!(rig.stop(&key, soon()).unwrap(), None);
    rig.remove(&key).unwrap();
    // The thread works for others.
    rig.start("another");
    at_work.recv_timeout(HANG).unwrap();
}

#[test]
fn a_step_that_does_not_end_is_not_waited_for_beyond_the_deadline() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (working, at_work)) = (Mutex::new(wait), mpsc::channel());
    let rig = Rig::doing(move |_| {
        working.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let key = rig.start("copy");
    at_work.recv_timeout(HANG).unwrap();
    let error = rig.stop(&key, Instant::now()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Running);
    drop(go);
    // It came to its end before it could stop.
    assert_eq!(rig.stop(&key, soon()).unwrap(), None);
}

#[test]
fn a_job_whose_stop_was_not_waited_for_ends_its_attempt_and_is_gone_on_with() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (working, at_work)) = (Mutex::new(wait), mpsc::channel());
    let rig = Rig::doing(move |attempt| {
        working.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        attempt.reached(Bytes::new(10))
    });
    let key = rig.start("copy");
    at_work.recv_timeout(HANG).unwrap();
    assert_eq!(rig.stop(&key, Instant::now()).unwrap_err().kind(), ErrorKind::Running);
    go.send(()).unwrap();
    at_work.recv_timeout(HANG).unwrap();
    assert_eq!(rig.failed_attempts(), 0, "to be stopped is no failure");
    assert!(rig.copies()[0].error.is_none());
    go.send(()).unwrap();
    rig.wait(&key, soon()).unwrap();
}

#[test]
fn few_are_worked_on_at_once_and_few_calls_wait() {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, running) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let (now, (most, seen)) = (running.clone(), mpsc::channel());
    let rig = Rig::doing(move |_| {
        most.send(now.fetch_add(1, Ordering::SeqCst) + 1).unwrap();
        let _ = wait.lock().unwrap().recv();
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    let keys: Vec<_> = (0..6).map(|number| rig.start(&format!("copy-{number}"))).collect();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            keys.iter().take(CALLS / WAITING).map(|key| scope.spawn(|| rig.wait(key, soon()))).collect();
        let late = soon();
        while rig.shared.lock().waiting < CALLS / WAITING {
            assert!(Instant::now() < late, "they do not wait");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(rig.wait(&keys[5], soon()).unwrap_err().kind(), ErrorKind::Running);
        drop(go);
        waiting.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
    for key in &keys {
        rig.wait(key, soon()).unwrap();
    }
    assert!(seen.try_iter().all(|running| running <= THREADS));
}

#[test]
fn no_call_waits_where_the_backend_has_few_threads() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let mut rig = Rig::new();
    rig.open_with(WAITING - 1, move |_| {
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let key = rig.start("copy");
    // It would not come back before somebody lets the copy go.
    assert_eq!(rig.wait(&key, soon()).unwrap_err().kind(), ErrorKind::Running);
    drop(go);
}

#[test]
fn an_attempt_that_is_made_is_not_told_for_the_one_that_failed() {
    let attempts = AtomicUsize::new(0);
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (working, at_work)) = (Mutex::new(wait), mpsc::channel());
    let rig = Rig::doing(move |_| {
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(failing());
        }
        working.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let key = rig.start("copy");
    at_work.recv_timeout(HANG).unwrap();
    let shortly = Instant::now() + Duration::from_millis(200);
    assert_eq!(rig.wait(&key, shortly).unwrap_err().kind(), ErrorKind::Running);
    assert!(rig.copies()[0].error.is_some(), "people still see why it was begun anew");
    drop(go);
    rig.wait(&key, soon()).unwrap();
}

#[test]
fn a_copy_that_gets_on_past_where_it_failed_is_not_failing() {
    let attempts = AtomicUsize::new(0);
    let (go, wait) = mpsc::channel::<()>();
    let (wait, (working, at_work)) = (Mutex::new(wait), mpsc::channel());
    let rig = Rig::doing(move |attempt| {
        attempt.reached(Bytes::new(10))?;
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(failing());
        }
        working.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        attempt.reached(Bytes::new(11))?;
        working.send(()).unwrap();
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    rig.start("copy");
    at_work.recv_timeout(HANG).unwrap();
    assert!(rig.copies()[0].error.is_some(), "it is where it failed before");
    go.send(()).unwrap();
    at_work.recv_timeout(HANG).unwrap();
    assert!(rig.copies()[0].error.is_none(), "it gets on");
}

#[test]
fn a_job_that_could_neither_be_started_nor_removed_is_begun_again_or_gone_on_with() {
    let rig = Rig::doing(|_| Ok(()));
    let key = job("copy").target.key();
    for again in [true, false] {
        let begun = rig.put(job("copy"));
        assert_eq!(rig.begin(job("copy")).err().unwrap().kind(), ErrorKind::FailedPrecondition);
        // Something that is no file cannot be removed as one.
        fs::remove_file(rig.record(&key)).unwrap();
        fs::create_dir(rig.record(&key)).unwrap();
        drop(begun);
        fs::remove_dir(rig.record(&key)).unwrap();
        assert!(rig.get(&key).is_some(), "it was removed: the test does not test");
        if again {
            rig.put(job("copy")).start().unwrap();
        } else {
            rig.go_on(&key).unwrap();
        }
        rig.wait(&key, soon()).unwrap();
    }
}

#[test]
fn a_broken_record_is_left_alone_and_one_of_a_later_release_is_not_served_without_that() {
    let rig = Rig::new();
    let folder = rig.path.join(".dunnage/jobs");
    let open = |path: &Path| Root::open(path, "dir").unwrap().jobs::<u32>(CALLS);
    drop(open(&rig.path).unwrap());
    let text = String::from_utf8(job::encode(&job("copy")).unwrap()).unwrap();
    fs::write(folder.join("volume.copy"), &text).unwrap();
    fs::write(folder.join("volume.other"), &text).unwrap();
    fs::write(folder.join("volume.torn"), &text[..text.len() / 2]).unwrap();
    fs::write(folder.join("what is this"), "").unwrap();
    fs::write(folder.join(".mzxw6.volume.copy"), &text[..9]).unwrap();
    assert_eq!(open(&rig.path).unwrap().all(), [job("copy")]);
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["volume.copy", "volume.other", "volume.torn", "what is this"]);
    fs::write(folder.join("volume.copy"), text.replace("\"version\":1", "\"version\":2,\"more\":1")).unwrap();
    let error = open(&rig.path).err().unwrap();
    assert!(error.report().contains("version 2"), "{}", error.report());
}

#[test]
fn a_root_whose_jobs_are_at_work_can_be_opened_again_as_soon_as_it_is_closed() {
    let mut rig = Rig::doing(|attempt| {
        loop {
            attempt.reached(Bytes::new(1))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    for name in ["a", "b", "c"] {
        rig.start(name);
    }
    for _ in 0..10 {
        rig.open(|attempt| {
            loop {
                attempt.reached(Bytes::new(1))?;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(rig.all().len(), 3);
    }
}

#[test]
fn a_target_reads_back_from_its_text() {
    for text in ["volume.pvc-1", "snapshot.a.b.c"] {
        assert_eq!(text.parse::<TargetKey>().unwrap().to_string(), text);
    }
    for text in ["pvc-1", "group.a", "volume.", "volume.A", "snapshot../x"] {
        text.parse::<TargetKey>().unwrap_err();
    }
}

#[test]
fn a_checkpoint_that_may_be_on_the_disk_is_taken_back_before_the_work_goes_on() {
    if !dunnage_testkit::needs_root("a_checkpoint_that_may_be_on_the_disk_is_taken_back_before_the_work_goes_on") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let store = Arc::new(dunnage_testkit::FuseStore::mount(temp.path()).unwrap());
    assert!(matches!(Root::init(temp.path(), "dir"), Ok(Init::Created(_))));
    let mut rig = Rig { jobs: None, path: temp.path().into(), _temp: tempfile::tempdir().unwrap() };
    let (disk, record, attempts) = (store.clone(), Mutex::new(PathBuf::new()), AtomicUsize::new(0));
    let record = Arc::new(record);
    let on_disk = record.clone();
    rig.open(move |attempt| {
        let path = on_disk.lock().unwrap().clone();
        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
            disk.fail_folder_syncs(true);
            attempt.job.done = Bytes::new(100);
            let failed = attempt.keep();
            disk.fail_folder_syncs(false);
            // It is there all the same, and the next process would go on from there.
            assert!(fs::read_to_string(&path).unwrap().contains("\"done\":100"));
            return failed;
        }
        assert!(fs::read_to_string(&path).unwrap().contains("\"done\":0"));
        Ok(())
    });
    let job = job("copy");
    let key = job.target.key();
    *record.lock().unwrap() = rig.record(&key);
    rig.put(job).start().unwrap();
    rig.wait(&key, soon()).unwrap_err();
    while rig.get(&key).is_some() {
        assert!(rig.failed_attempts() < 2, "the second attempt found the checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.jobs = None;
}

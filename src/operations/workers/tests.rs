use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::operations::Refused;
use crate::operations::testing::until;

mod dead;
mod model;

fn workers(threads: usize, total: usize, stuck_after: Duration) -> Arc<Workers> {
    let options = WorkersOptions { threads, total, stuck_after, idle: Duration::from_secs(60) };
    Arc::new(Workers::new("scratch-on-the-array".parse().unwrap(), options))
}

/// A limit that no call of a test reaches.
const NEVER: Duration = Duration::from_secs(3600);
/// A limit that a call which hangs soon reaches.
const SOON: Duration = Duration::from_millis(20);

fn volume(name: &str) -> Option<Lane> {
    Some(Lane::Changes(VolumeKey::of_name(name)))
}

type Call<T> = tokio::task::JoinHandle<Result<T, Failure>>;

fn spawn<T: Send + 'static>(
    workers: &Arc<Workers>,
    volume: Option<Lane>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Call<T> {
    let workers = Arc::clone(workers);
    tokio::spawn(async move { workers.run(volume, work).await })
}

/// A call that hangs until the sender is dropped.
fn hang(workers: &Arc<Workers>, volume: Option<Lane>) -> (mpsc::Sender<()>, Call<()>) {
    let (end, ended) = mpsc::channel::<()>();
    let call = spawn(workers, volume, move || {
        // The end is the sender's.
        let _ = ended.recv();
        Ok(())
    });
    (end, call)
}

#[tokio::test]
async fn work_runs_on_a_thread_that_bears_the_name_of_the_backend() {
    let workers = workers(1, 1, NEVER);
    let comm =
        workers.run(None, || std::fs::read_to_string("/proc/thread-self/comm").map_err(|e| Error::io("comm", e)));
    assert_eq!(comm.await.unwrap(), "scratch-on-the-\n");
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_thread_lives_on() {
    let workers = workers(1, 1, NEVER);
    let failed = workers.run::<()>(volume("a"), || panic!("as the test wants it")).await;
    assert!(matches!(failed, Err(Failure::Failed(_))), "{failed:?}");
    let own = workers.run::<()>(volume("a"), || Err(Error::not_found("own error"))).await;
    let Err(Failure::Failed(own)) = own else { panic!("{own:?}") };
    assert_eq!(own.kind(), dunnage_driver_api::ErrorKind::NotFound);
    assert_eq!(workers.count(), WorkersCount { live: 1, ..WorkersCount::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_threads_work_at_once_than_are_allowed_and_no_call_is_lost() {
    let workers = workers(3, 8, NEVER);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls: Vec<_> = (0..2_000)
        .map(|number| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            spawn(&workers, volume(&format!("v{}", number % 50)), move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(number)
            })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), number);
    }
    assert!(most.load(Ordering::SeqCst) <= 3);
    let count = workers.count();
    assert!(count.live <= 3 && count.queued == 0, "{count:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_volume_run_one_at_a_time() {
    let workers = workers(8, 8, NEVER);
    let alone = Arc::new(AtomicBool::new(true));
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let alone = Arc::clone(&alone);
            spawn(&workers, volume("a"), move || {
                assert!(alone.swap(false, Ordering::SeqCst));
                std::thread::yield_now();
                alone.store(true, Ordering::SeqCst);
                Ok(())
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_whose_caller_leaves_while_it_waits_is_never_run() {
    let workers = workers(1, 1, NEVER);
    let (end, first) = hang(&workers, None);
    until(|| workers.count().live == 1).await;
    let ran = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ran);
    let left = spawn(&workers, None, move || {
        flag.store(true, Ordering::SeqCst);
        Ok(())
    });
    until(|| workers.count().queued == 1).await;
    left.abort();
    left.await.unwrap_err();
    drop(end);
    first.await.unwrap().unwrap();
    workers.run(None, || Ok(())).await.unwrap();
    assert!(!ran.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_stuck_thread_is_replaced_and_holds_its_own_volume_alone() {
    let workers = workers(1, 4, SOON);
    let (end, stuck) = hang(&workers, volume("a"));
    until(|| workers.count().live == 1).await;
    let behind = spawn(&workers, volume("a"), || Ok(()));
    let other = spawn(&workers, volume("b"), || Ok("b"));
    assert_eq!(other.await.unwrap().unwrap(), "b");
    let reads = Some(Lane::Reads(VolumeKey::of_name("a")));
    assert_eq!(workers.run(reads, || Ok("read")).await.unwrap(), "read", "a read waits for no change");
    let refusals = [behind.await.unwrap(), workers.run(volume("a"), || Ok(())).await];
    for refused in refusals {
        assert!(matches!(refused, Err(Failure::Refused(Refused::Lane { .. }))), "{refused:?}");
    }
    assert_eq!(workers.count(), WorkersCount { live: 1, stuck: 1, queued: 0, refused: 2 });
    drop(end);
    stuck.await.unwrap().unwrap();
    workers.run(volume("a"), || Ok(())).await.unwrap();
    assert_eq!(workers.count(), WorkersCount { live: 1, stuck: 0, queued: 0, refused: 2 });
}

#[tokio::test]
async fn when_all_threads_are_stuck_calls_are_refused_until_one_comes_back() {
    let workers = workers(2, 3, SOON);
    let hanging: Vec<_> = (0..3).map(|number| hang(&workers, volume(&format!("v{number}")))).collect();
    let queued = spawn(&workers, volume("a"), || Ok(()));
    until(|| workers.count().stuck == 3).await;
    // Either a thread took it up in between, or it was refused with the rest.
    let queued = queued.await.unwrap();
    assert!(matches!(queued, Ok(()) | Err(Failure::Refused(Refused::Backend { threads: 3, .. }))), "{queued:?}");
    let refused = workers.run(volume("a"), || Ok(())).await;
    assert!(matches!(refused, Err(Failure::Refused(Refused::Backend { threads: 3, .. }))), "{refused:?}");
    for (end, call) in hanging {
        drop(end);
        call.await.unwrap().unwrap();
    }
    workers.run(volume("a"), || Ok(())).await.unwrap();
    let count = workers.count();
    assert!((1..=2).contains(&count.live) && count.stuck == 0, "{count:?}");
}

#[tokio::test]
async fn a_store_that_hangs_when_it_is_asked_as_a_whole_takes_no_thread_for_each_time() {
    let workers = workers(1, 4, SOON);
    let (end, stuck) = hang(&workers, None);
    until(|| workers.count().live == 1).await;
    let behind = spawn(&workers, None, || Ok(()));
    let refusals = [behind.await.unwrap(), workers.run(None, || Ok(())).await];
    for refused in refusals {
        assert!(matches!(refused, Err(Failure::Refused(Refused::Store { .. }))), "{refused:?}");
    }
    workers.run(volume("a"), || Ok(())).await.unwrap();
    assert_eq!(workers.count().stuck, 1);
    drop(end);
    stuck.await.unwrap().unwrap();
    workers.run(None, || Ok(())).await.unwrap();
}

#[tokio::test]
async fn threads_without_work_end() {
    let options = WorkersOptions { idle: Duration::from_millis(1), ..WorkersOptions::default() };
    let workers = Workers::new("scratch".parse().unwrap(), options);
    for _ in 0..3 {
        workers.run(None, || Ok(())).await.unwrap();
        until(|| workers.count().live == 0).await;
    }
}

#[tokio::test]
async fn who_drops_the_threads_waits_for_none_that_is_stuck() {
    let workers = workers(2, 2, SOON);
    let shared = Arc::downgrade(&workers.0);
    let (end, call) = hang(&workers, volume("a"));
    until(|| workers.count().stuck == 1).await;
    call.abort();
    call.await.unwrap_err();
    drop(Arc::into_inner(workers).unwrap());
    assert!(shared.upgrade().is_some());
    drop(end);
    until(|| shared.upgrade().is_none()).await;
}

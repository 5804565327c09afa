use std::sync::atomic::{AtomicUsize, Ordering};

use dunnage_driver_api::{InstanceId, VolumeKey};
use tokio::sync::oneshot;

use super::*;
use crate::operations::Key;
use crate::operations::testing::{hung, until};

mod model;

fn key(name: &str) -> Key {
    let instance: InstanceId = "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap();
    Key::volume(instance, VolumeKey::of_name(name))
}

fn stage() -> Request {
    Request::of("NodeStageVolume", &"a")
}

fn patient() -> Deadline {
    Deadline::after(None)
}

fn over() -> Deadline {
    Deadline::after(Some(Duration::ZERO))
}

/// Starts a call that ends when the sender is told what it answers.
fn start(
    operations: &Operations,
    deadline: Deadline,
) -> (oneshot::Sender<u32>, tokio::task::JoinHandle<Result<u32, Failure>>) {
    let (end, ended) = oneshot::channel();
    let operations = operations.clone();
    let call = async move { operations.run([key("a")], stage(), deadline, async { Ok(ended.await.unwrap()) }).await };
    (end, tokio::spawn(call))
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_work() {
    let operations = Operations::default();
    let (end, call) = start(&operations, patient());
    until(|| operations.count().running == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(operations.running()[0].rpc, "NodeStageVolume");
    end.send(7).unwrap();
    until(|| operations.running().is_empty()).await;
}

#[tokio::test]
async fn the_same_request_joins_and_gets_the_same_answer() {
    let operations = Operations::default();
    let (end, first) = start(&operations, patient());
    until(|| operations.count().running == 1).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (operations, runs) = (operations.clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                let work = async move { Ok(runs.fetch_add(1, Ordering::SeqCst) as u32) };
                operations.run([key("a")], stage(), patient(), work).await
            })
        })
        .collect();
    until(|| operations.count().joined == 10).await;
    end.send(7).unwrap();
    for call in [first].into_iter().chain(calls) {
        assert_eq!(call.await.unwrap().unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(operations.count(), OperationsCount { running: 0, started: 1, joined: 10, busy: 0 });
}

#[tokio::test]
async fn another_request_on_one_of_the_keys_is_told_at_once_who_is_at_work() {
    let operations = Operations::default();
    let (_end, _call) = start(&operations, patient());
    until(|| operations.count().running == 1).await;
    let other = Request::of("NodeUnstageVolume", &"a");
    let answer = operations.run([key("b"), key("a")], other.clone(), patient(), hung::<()>()).await;
    let Err(Failure::Busy { key: held, running, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!((held, running), (key("a"), "NodeStageVolume"));
    // All or none: the other key is free.
    operations.run([key("b")], other, patient(), async { Ok(()) }).await.unwrap();
    // An answer of another type is another request, whatever its digest says.
    let answer = operations.run([key("a")], stage(), patient(), hung::<String>()).await;
    assert!(matches!(answer, Err(Failure::Busy { .. })), "{answer:?}");
    assert_eq!(operations.count().busy, 2);
}

#[tokio::test]
async fn who_shares_a_key_keeps_out_only_who_wants_it_alone() {
    let operations = Operations::default();
    let run = |keys: Keys, number: u32| {
        operations.run(keys, Request::of("CreateVolume", &number), patient(), async move { Ok(number) })
    };
    let (end, ended) = oneshot::channel::<u32>();
    let restore =
        operations.run(Keys::new([key("a")], [key("source")]), Request::of("CreateVolume", &0), patient(), async {
            Ok(ended.await.unwrap())
        });
    let (restored, ()) = tokio::join!(restore, async {
        until(|| operations.count().running == 1).await;
        assert_eq!(run(Keys::new([key("b")], [key("source")]), 1).await.unwrap(), 1);
        let delete = run([key("source")].into(), 2).await;
        assert!(matches!(delete, Err(Failure::Busy { .. })), "{delete:?}");
        end.send(7).unwrap();
    });
    assert_eq!(restored.unwrap(), 7);
    run([key("source")].into(), 3).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_an_error_for_every_caller_and_frees_the_keys() {
    let operations = Operations::default();
    let (end, ended) = oneshot::channel::<()>();
    let work = async move {
        ended.await.unwrap();
        panic!("as the test wants it");
    };
    let first = operations.run::<()>([key("a")], stage(), patient(), work);
    let joined = operations.run([key("a")], stage(), patient(), hung::<()>());
    let (first, joined, ()) = tokio::join!(first, joined, async {
        until(|| operations.count().joined == 1).await;
        end.send(()).unwrap();
    });
    for answer in [first, joined] {
        let Err(Failure::Failed(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.kind(), dunnage_driver_api::ErrorKind::Internal);
    }
    operations.run([key("a")], Request::of("DeleteVolume", &()), patient(), async { Ok(()) }).await.unwrap();
}

#[tokio::test]
async fn at_its_deadline_a_call_is_told_that_the_work_goes_on_and_a_retry_gets_its_answer() {
    let operations = Operations::default();
    let (end, call) = start(&operations, over());
    let answer = call.await.unwrap();
    assert!(matches!(answer, Err(Failure::StillRunning { rpc: "NodeStageVolume", .. })), "{answer:?}");
    assert_eq!(operations.count().running, 1);
    // Every caller has a deadline of its own.
    let impatient = operations.run([key("a")], stage(), over(), hung::<u32>()).await;
    assert!(matches!(impatient, Err(Failure::StillRunning { .. })), "{impatient:?}");
    let retry = operations.run([key("a")], stage(), patient(), hung::<u32>());
    let (retry, ()) = tokio::join!(retry, async {
        until(|| operations.count().joined == 2).await;
        end.send(7).unwrap();
    });
    assert_eq!(retry.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_an_answer_finds_the_keys_free() {
    let operations = Operations::default();
    for round in 0..2_000 {
        let request = Request::of("NodePublishVolume", &round);
        operations.run([key("a")], request, patient(), async { Ok(()) }).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_that_stops_starts_nothing_lets_what_runs_be_joined_and_says_what_is_left() {
    let operations = Operations::default();
    let (end, call) = start(&operations, patient());
    until(|| operations.count().running == 1).await;
    let left = operations.drain(Duration::ZERO).await;
    assert_eq!(left.len(), 1);
    assert_eq!(*left[0].keys, [key("a")]);
    let refused = operations.run([key("b")], stage(), patient(), hung::<()>()).await;
    assert!(matches!(refused, Err(Failure::Refused(Refused::Stopping))), "{refused:?}");
    let joined = operations.run([key("a")], stage(), patient(), hung::<u32>());
    let (joined, left, ()) = tokio::join!(joined, operations.drain(Duration::from_secs(600)), async {
        until(|| operations.count().joined == 1).await;
        end.send(7).unwrap();
    });
    assert_eq!((joined.unwrap(), call.await.unwrap().unwrap(), left), (7, 7, Vec::new()));
}

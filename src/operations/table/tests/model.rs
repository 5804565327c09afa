//! The table against a list of what runs.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// A call of request `.1` on the keys whose bits are set in `.0`: of the lower three alone, of the next three shared.
    Call(u8, u8),
    /// The client of the call hangs up.
    HangUp(prop::sample::Index),
    /// The work ends with its number, or by a panic.
    End(prop::sample::Index, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..64_u8, 0..2_u8).prop_map(|(keys, request)| Step::Call(keys, request)),
        1 => any::<prop::sample::Index>().prop_map(Step::HangUp),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, panics)| Step::End(which, panics)),
    ]
}

type Waiter = Pin<Box<dyn Future<Output = Result<u32, Failure>>>>;

/// What the model holds for running.
struct Expected {
    number: u32,
    keys: u8,
    request: u8,
    end: oneshot::Sender<bool>,
    waiters: Vec<Waiter>,
}

const RPCS: [&str; 2] = ["NodeStageVolume", "NodeUnstageVolume"];

fn named(bits: u8) -> impl Iterator<Item = Key> {
    ["a", "b", "c"].into_iter().enumerate().filter(move |(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| key(name))
}

/// Those held alone, and those shared with others: what is both is held alone.
fn parts(keys: u8) -> (u8, u8) {
    let alone = keys & 7;
    (alone, (keys >> 3) & !alone)
}

fn clash(one: u8, other: u8) -> bool {
    let ((alone, shared), (other_alone, other_shared)) = (parts(one), parts(other));
    alone & (other_alone | other_shared) != 0 || shared & other_alone != 0
}

/// A call as far as it comes without waiting.
fn call(
    operations: &Operations,
    keys: u8,
    request: u8,
    number: u32,
) -> (Waiter, Poll<Result<u32, Failure>>, oneshot::Sender<bool>) {
    let (end, ended) = oneshot::channel::<bool>();
    let operations = operations.clone();
    let mut waiter: Waiter = Box::pin(async move {
        let work = async move {
            assert!(!ended.await.unwrap(), "as the test wants it");
            Ok(number)
        };
        let request = Request::of(RPCS[usize::from(request)], &());
        operations.run(Keys::new(named(keys), named(keys >> 3)), request, patient(), work).await
    });
    let state = waiter.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    (waiter, state, end)
}

async fn play(steps: Vec<Step>) {
    let operations = Operations::default();
    let mut running: Vec<Expected> = Vec::new();
    let mut expected = OperationsCount::default();
    for (number, step) in (0..).zip(steps) {
        match step {
            Step::Call(keys, request) => {
                let (waiter, state, end) = call(&operations, keys, request, number);
                let taken = running.iter().any(|other| clash(other.keys, keys));
                // What shares all its keys never meets itself.
                let same = running
                    .iter()
                    .position(|other| taken && parts(other.keys) == parts(keys) && other.request == request);
                if let Some(same) = same {
                    assert!(state.is_pending());
                    running[same].waiters.push(waiter);
                    expected.joined += 1;
                } else if taken {
                    let Poll::Ready(Err(Failure::Busy { running: rpc, .. })) = state else { panic!("{state:?}") };
                    let holds = |other: &Expected| clash(other.keys, keys) && RPCS[usize::from(other.request)] == rpc;
                    assert!(running.iter().any(holds), "{rpc} does not hold it");
                    expected.busy += 1;
                } else {
                    assert!(state.is_pending());
                    running.push(Expected { number, keys, request, end, waiters: vec![waiter] });
                    expected.started += 1;
                }
            }
            Step::HangUp(which) if !running.is_empty() => drop(which.get_mut(&mut running).waiters.pop()),
            Step::End(which, panics) if !running.is_empty() => {
                let ended = running.remove(which.index(running.len()));
                ended.end.send(panics).unwrap();
                for waiter in ended.waiters {
                    match waiter.await {
                        Ok(number) => assert!(!panics && number == ended.number),
                        Err(failure) => assert!(panics && matches!(failure, Failure::Failed(_)), "{failure:?}"),
                    }
                }
                // Without a waiter, its end is seen in the table alone.
                until(|| operations.count().running == running.len()).await;
            }
            Step::HangUp(_) | Step::End(..) => {}
        }
        expected.running = running.len();
        assert_eq!(operations.count(), expected);
    }
}

proptest! {
    #[test]
    fn every_interleaving_of_calls_is_answered_as_the_list_of_running_ones_says(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(play(steps));
    }
}

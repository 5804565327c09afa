//! Measurements of a plugin in this process.

use std::collections::HashMap;

use crate::bench::{Mode, Options, Report, plot, run, table};
use crate::client::fake::{Fake, Protocol};
use crate::client::{Access, Interrupt};

fn options(fake: &Fake, mode: Mode) -> Options {
    Options {
        endpoint: fake.endpoint.clone(),
        against: None,
        mode,
        lives: 20,
        workers: vec![1, 4],
        fill: 0,
        size: 1 << 20,
        access: Access::Block,
        parameters: HashMap::new(),
        page_size: 3,
        pid: None,
        dir: fake.folder.path().join("bench"),
    }
}

async fn measure(options: &Options) -> Report {
    let (_raise, interrupt) = Interrupt::by_hand();
    run(options, &interrupt, |_| {}).await.unwrap()
}

#[tokio::test]
async fn whole_lives_are_counted_timed_and_leave_nothing() {
    let fake = Fake::serve(Protocol { stages: true, attaches: true, ..Protocol::default() });
    let report = measure(&options(&fake, Mode::Lives)).await;
    assert_eq!(report.phases.iter().map(|phase| (phase.workers, phase.done)).collect::<Vec<_>>(), [(1, 20), (4, 20)]);
    let calls: Vec<_> = report.phases[1].calls.iter().map(|call| (call.call.as_str(), call.count)).collect();
    assert!(calls.contains(&("whole life", 20)) && calls.contains(&("NodeUnstageVolume", 20)), "{calls:?}");
    assert_eq!((report.failures(), fake.volumes()), (0, 0));
    assert!(report.phases[0].rss_peak >= report.phases[0].rss_before && report.phases[0].rss_before > Some(0));
    assert!(table(&report).contains("CreateVolume") && plot(&report).contains("CreateVolume"));
    assert_eq!(fake.folder.path().join("bench").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn failures_are_counted_with_their_message_and_leave_nothing() {
    let fake = Fake::serve(Protocol { fails: Some("NodePublishVolume"), ..Protocol::default() });
    let report = measure(&options(&fake, Mode::Lives)).await;
    assert_eq!(report.phases[0].done, 0);
    assert_eq!(report.failures(), 40);
    assert_eq!(report.phases[0].messages, ["NodePublishVolume answered INTERNAL: as the test wants it"]);
    assert_eq!(fake.volumes(), 0);
}

#[tokio::test]
async fn kept_volumes_are_deleted_also_those_whose_create_was_not_answered() {
    let fake = Fake::serve(Protocol { loses_first_answer: true, ..Protocol::default() });
    let report = measure(&options(&fake, Mode::Creates)).await;
    let phases: Vec<_> = report.phases.iter().map(|phase| (phase.what.as_str(), phase.done)).collect();
    assert_eq!(phases, [("creates", 19), ("deletes", 20), ("creates", 20), ("deletes", 20)]);
    assert_eq!(fake.volumes(), 0);
}

#[tokio::test]
async fn lists_are_walked_to_the_last_page() {
    let fake = Fake::serve(Protocol::default());
    let report = measure(&Options { fill: 7, lives: 2, workers: vec![1], ..options(&fake, Mode::Lists) }).await;
    let lists = report.phases.iter().find(|phase| phase.what == "lists").unwrap();
    let pages = lists.calls.iter().find(|call| call.call == "ListVolumes").unwrap();
    assert_eq!((lists.done, pages.count), (2, 6));
    assert_eq!(fake.volumes(), 0);
}

#[tokio::test]
async fn two_plugins_do_the_same_work_and_are_compared() {
    let (fake, other) = (Fake::serve(Protocol::default()), Fake::serve(Protocol::default()));
    let against = Some(other.endpoint.clone());
    let report = measure(&Options { against, workers: vec![2], ..options(&fake, Mode::Lives) }).await;
    assert_eq!(report.phases.iter().map(|phase| (phase.side, phase.done)).collect::<Vec<_>>(), [(0, 20), (1, 20)]);
    assert_eq!(report.ratios.len(), 1);
    assert!(report.ratios[0].rate > 0.0);
    assert_eq!((fake.volumes(), other.volumes()), (0, 0));
}

#[tokio::test]
async fn an_interrupt_ends_the_work_and_what_was_made_is_deleted() {
    let fake = Fake::serve(Protocol::default());
    let (raise, interrupt) = Interrupt::by_hand();
    let options = Options { fill: 5, lives: usize::MAX / 8, ..options(&fake, Mode::Lives) };
    let report = run(&options, &interrupt, |_| {
        if fake.volumes() == 5 {
            raise.send_replace(true);
        }
    });
    let report = report.await.unwrap();
    assert!(report.interrupted);
    assert_eq!(fake.volumes(), 0);
}

//! A file system whose server is dead, behind one backend.

use dunnage_testkit::{FuseStore, needs_root};

use super::*;

fn statfs(path: &std::path::Path) -> impl FnOnce() -> Result<(), Error> + Send + 'static {
    let path = path.to_owned();
    move || rustix::fs::statfs(&path).map(drop).map_err(|error| Error::io("statfs", error))
}

#[tokio::test]
async fn a_dead_file_system_starves_neither_other_backends_nor_other_volumes_of_its_own() {
    if !needs_root("a_dead_file_system_starves_neither_other_backends_nor_other_volumes_of_its_own") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dead = FuseStore::mount(folder.path()).unwrap();
    dead.fall_silent();
    let (sick, well) = (workers(4, 10, SOON), workers(4, 10, NEVER));
    let hanging: Vec<_> =
        (0..6).map(|number| spawn(&sick, volume(&format!("dead-{number}")), statfs(folder.path()))).collect();
    until(|| sick.count().stuck == 6).await;
    dead.wait_for_statfs(6);

    for number in 0..20 {
        well.run(volume(&format!("v{number}")), statfs("/".as_ref())).await.unwrap();
        sick.run(volume(&format!("live-{number}")), statfs("/".as_ref())).await.unwrap();
    }
    let again = sick.run(volume("dead-0"), statfs(folder.path())).await;
    assert!(matches!(again, Err(Failure::Refused(Refused::Lane { .. }))), "{again:?}");
    assert_eq!((well.count().stuck, sick.count().stuck), (0, 6));

    dead.release().unwrap();
    for call in hanging {
        let answer = call.await.unwrap();
        assert!(matches!(answer, Err(Failure::Failed(_))), "{answer:?}");
    }
    assert_eq!(sick.count().stuck, 0);
    sick.run(volume("dead-0"), statfs("/".as_ref())).await.unwrap();
}

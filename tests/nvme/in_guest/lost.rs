//! What comes back.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, mount};

use super::{Rig, can, wait_until_written};

#[test]
fn exports_come_back_with_the_storage_node_and_its_users_go_on() -> Result<()> {
    if !can("exports_come_back_with_the_storage_node_and_its_users_go_on")? {
        return Ok(());
    }
    let mut rig = Rig::thin()?;
    let volumes = [rig.create("a", 32 * MIB, mount())?, rig.create("b", 32 * MIB, mount())?];
    for volume in &volumes {
        rig.bring(volume, &rig.one)?;
        fs::write(volume.target.join("data"), "before")?;
    }
    rig.storage.kill()?;
    rig.target.cut_power(&rig.instance)?;
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = volumes
            .iter()
            .map(|volume| scope.spawn(|| wait_until_written(&volume.target.join("meanwhile"), "words")))
            .collect();
        // They wait for the store.
        std::thread::sleep(Duration::from_secs(2));
        ensure!(writers.iter().all(|writer| !writer.is_finished()), "a write has ended without its store");
        rig.restart_storage()?;
        writers.into_iter().try_for_each(|writer| writer.join().expect("it does not panic"))
    });
    written?;
    for volume in &volumes {
        assert_eq!(fs::read(volume.target.join("data"))?, b"before");
        rig.take(volume, &rig.one)?;
        rig.controller.delete_volume(volume.delete())?;
        rig.is_left_with_nothing(volume)?;
    }
    Ok(())
}

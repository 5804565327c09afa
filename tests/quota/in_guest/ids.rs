//! Project ids: each belongs to one volume, and to none once that has gone.

use std::collections::BTreeSet;
use std::fs::{self, File};

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, expand, run, wait_until};
use tonic::Code;

use super::{LIMIT, Rig, each};

/// CreateVolume is refused since all ids are in use.
fn is_out_of_ids(rig: &Rig, name: &str) -> Result<()> {
    let status = rig.create(name, MIB).expect_err("a project id was used twice");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    ensure!(status.message().contains("no project id from"), "{status}");
    Ok(())
}

#[test]
fn each_volume_has_an_id_of_its_own_from_the_range_also_after_a_restart() -> Result<()> {
    each("each_volume_has_an_id_of_its_own_from_the_range_also_after_a_restart", 1000, 1003, |rig| {
        for (number, name) in ["a", "b", "c", "d"].iter().enumerate() {
            rig.create(name, MIB)?;
            if number == 1 {
                rig.restart()?;
            }
        }
        let ids: BTreeSet<_> = ["a", "b", "c", "d"].iter().map(|name| rig.project(name)).collect::<Result<_>>()?;
        assert_eq!(ids, BTreeSet::from([1000, 1001, 1002, 1003]));
        is_out_of_ids(rig, "e")?;
        ensure!(!rig.data("e").exists(), "a create that was refused has left a folder");
        Ok(())
    })
}

#[test]
fn volumes_made_at_once_have_different_ids() -> Result<()> {
    each("volumes_made_at_once_have_different_ids", 1000, 1015, |rig| {
        let names: Vec<_> = (0..16).map(|number| format!("v{number}")).collect();
        let rig = &*rig;
        std::thread::scope(|scope| {
            let calls: Vec<_> = names.iter().map(|name| scope.spawn(move || rig.create(name, MIB))).collect();
            calls.into_iter().try_for_each(|call| call.join().expect("a call panicked").map(drop))
        })?;
        let ids: BTreeSet<_> = names.iter().map(|name| rig.project(name)).collect::<Result<_>>()?;
        assert_eq!(ids.len(), 16);
        Ok(())
    })
}

#[test]
fn an_id_is_free_once_the_files_of_its_volume_are_gone() -> Result<()> {
    each("an_id_is_free_once_the_files_of_its_volume_are_gone", 1000, 1000, |rig| {
        for turn in 0..3 {
            let mut volume = None;
            // The files go after the answer to DeleteVolume.
            wait_until("the id to be free", LIMIT, || {
                volume = rig.create(&format!("v{turn}"), MIB).ok();
                Ok(volume.is_some())
            })?;
            let volume = volume.expect("it is there");
            fs::write(rig.data(&format!("v{turn}")).join("data"), "words")?;
            rig.delete(&volume)?;
        }
        // Nothing is kept, so that the file system's list of projects does not grow.
        rig.wait_for_projects(&[])
    })
}

#[test]
fn an_id_is_in_use_while_anything_of_its_volume_is_there() -> Result<()> {
    each("an_id_is_in_use_while_anything_of_its_volume_is_there", 1000, 1000, |rig| {
        let volume = rig.create("a", MIB)?;
        let stuck = rig.data("a").join("stuck");
        fs::write(&stuck, "words")?;
        let open = File::open(&stuck)?;
        // It cannot be removed from the trash.
        run("chattr", &["+i", &stuck.display().to_string()])?;
        rig.delete(&volume)?;
        is_out_of_ids(rig, "b")?;
        rig.restart()?;
        is_out_of_ids(rig, "b")?;
        let trash = rig.host.setup().root("files").join(".dunnage/trash");
        for entry in fs::read_dir(&trash)? {
            run("chattr", &["-R", "-i", &entry?.path().display().to_string()])?;
        }
        rig.restart()?;
        wait_until("the trash to be empty", LIMIT, || Ok(fs::read_dir(&trash)?.next().is_none()))?;
        // Removed, and still there for whoever has it open.
        is_out_of_ids(rig, "b")?;
        drop(open);
        wait_until("the id to be free", LIMIT, || Ok(rig.create("b", MIB).is_ok()))?;
        assert_eq!(rig.project("b")?, 1000);
        Ok(())
    })
}

#[test]
fn a_volume_that_has_lost_its_files_cannot_grow_another_that_has_its_id() -> Result<()> {
    each("a_volume_that_has_lost_its_files_cannot_grow_another_that_has_its_id", 1000, 1000, |rig| {
        let lost = rig.create("lost", MIB)?;
        // As by a delete that was cut off.
        fs::remove_dir(rig.data("lost"))?;
        let mut made = false;
        wait_until("the id to be free", LIMIT, || {
            made = rig.create("b", 2 * MIB).is_ok();
            Ok(made)
        })?;
        assert_eq!(rig.project("b")?, 1000);
        let status = rig.client.controller_expand_volume(expand(&lost.id(), 16 * MIB)).expect_err("it has no files");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        rig.delete(&lost)?;
        let size = rustix::fs::statvfs(rig.data("b"))?;
        assert_eq!(size.f_blocks * size.f_frsize, 2 * MIB as u64, "the size of another volume has changed");
        Ok(())
    })
}

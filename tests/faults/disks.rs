//! Disks that are full, and files that were cut.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Fault, MIB, create, mount, wait_until};
use rustix::mount::MountFlags;
use tonic::Code;

use crate::{DUNNAGE, FAULTY, files, needs_root, setup};

#[test]
fn a_disk_that_fills_in_mid_create_leaves_nothing_and_takes_volumes_again_when_it_is_freed() -> Result<()> {
    if !needs_root("a_disk_that_fills_in_mid_create_leaves_nothing_and_takes_volumes_again_when_it_is_freed")? {
        return Ok(());
    }
    for (driver, rest) in [("dir", "quota: none"), ("image", "")] {
        let mut host = setup(driver, rest)?.prepare(DUNNAGE)?;
        let root = host.setup().root("faulty");
        rustix::mount::mount("disk", &root, "tmpfs", MountFlags::empty(), c"size=64m,nr_inodes=64")?;
        host.init()?;
        host.restart()?;
        let client = host.client(FAULTY)?;
        let kept = client.create_volume(create("kept", 16 * MIB, mount()))?;
        // There is room, but files cannot be made: after n steps of a create the disk is full.
        let full = root.join("full");
        fs::create_dir(&full)?;
        let mut fillers = 0;
        while fs::write(full.join(fillers.to_string()), "").is_ok() {
            fillers += 1;
        }
        for steps in 0..3 {
            for _ in 0..steps {
                fillers -= 1;
                fs::remove_file(full.join(fillers.to_string()))?;
            }
            let before = files(&root)?;
            match client.under(driver, Fault::DiskFull).create_volume(create("a", 16 * MIB, mount())) {
                Err(status) => {
                    ensure!(status.code() == Code::ResourceExhausted, "{driver} {steps}: {status:?}");
                    ensure!(status.message().contains("No space left"), "{status:?}");
                    assert_eq!(files(&root)?, before, "{driver}: something is left");
                }
                Ok(made) => {
                    ensure!(steps > 0, "{driver}: nothing was full: the test does not test");
                    let volume_id = made.volume.unwrap().volume_id;
                    client.delete_volume(csi::DeleteVolumeRequest { volume_id, ..Default::default() })?;
                    wait_until("the trash to be empty", std::time::Duration::from_secs(60), || {
                        Ok(files(&root)? == before)
                    })?;
                }
            }
        }
        fs::remove_dir_all(&full)?;
        client.create_volume(create("a", 16 * MIB, mount()))?;
        assert_eq!(client.create_volume(create("kept", 16 * MIB, mount()))?, kept);
    }
    Ok(())
}

#[test]
fn a_preallocated_image_that_does_not_fit_leaves_nothing() -> Result<()> {
    if !needs_root("a_preallocated_image_that_does_not_fit_leaves_nothing")? {
        return Ok(());
    }
    let mut host = setup("image", "allocation: preallocated")?.prepare(DUNNAGE)?;
    let root = host.setup().root("faulty");
    rustix::mount::mount("disk", &root, "tmpfs", MountFlags::empty(), c"size=64m")?;
    host.init()?;
    host.restart()?;
    let client = host.client(FAULTY)?;
    client.create_volume(create("a", 32 * MIB, mount()))?;
    // What is measured is good for a while: somebody fills the disk in that time.
    fs::write(root.join("filler"), vec![0; 28 << 20])?;
    let before = files(&root)?;
    let full = client.under("image", Fault::DiskFull);
    let status = full.create_volume(create("b", 16 * MIB, mount())).expect_err("it does not fit");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(files(&root)?, before, "something is left");
    let id = client.list_volumes(Default::default())?.entries[0].volume.clone().unwrap().volume_id;
    let status = full.controller_expand_volume(dunnage_test_common::expand(&id, 48 * MIB)).expect_err("it fits");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    fs::remove_file(root.join("filler"))?;
    client.create_volume(create("b", 16 * MIB, mount()))?;
    Ok(())
}

#[test]
fn a_record_that_was_cut_is_named_and_hides_no_other_volume() -> Result<()> {
    if !needs_root("a_record_that_was_cut_is_named_and_hides_no_other_volume")? {
        return Ok(());
    }
    for (driver, rest) in [("dir", "quota: none"), ("image", "")] {
        let mut host = setup(driver, rest)?.start(DUNNAGE)?;
        let client = host.client(FAULTY)?;
        let broken = client.create_volume(create("broken", 16 * MIB, mount()))?.volume.unwrap();
        client.create_volume(create("sound", 16 * MIB, mount()))?;
        let record = host.setup().root("faulty").join(".dunnage/volumes/broken");
        let text = fs::read(&record)?;
        for cut in [&text[..text.len() / 2], b"", b"\0\0\0\0"] {
            fs::write(&record, cut)?;
            host.restart()?;
            let client = host.client(FAULTY)?.under(driver, Fault::DamagedRecord);
            let get = csi::ControllerGetVolumeRequest { volume_id: broken.volume_id.clone() };
            let delete = csi::DeleteVolumeRequest { volume_id: broken.volume_id.clone(), ..Default::default() };
            for (call, answer) in [
                ("create", client.create_volume(create("broken", 16 * MIB, mount())).map(drop)),
                ("get", client.controller_get_volume(get).map(drop)),
                ("delete", client.delete_volume(delete).map(drop)),
            ] {
                let status = answer.expect_err("nothing is known of it");
                assert_eq!(status.code(), Code::Internal, "{call}: {status:?}");
                ensure!(status.message().contains(record.to_str().unwrap()), "{call}: {status:?}");
            }
            assert_eq!(client.list_volumes(Default::default())?.entries.len(), 1);
            assert_eq!(fs::read(&record)?, cut, "{driver}: the record was changed");
        }
        fs::write(&record, &text)?;
        let made = host.client(FAULTY)?.create_volume(create("broken", 16 * MIB, mount()))?;
        assert_eq!(made.volume.unwrap(), broken);
    }
    Ok(())
}

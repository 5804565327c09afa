//! The host of the storage node is killed in the middle.

use std::time::Duration;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{MIB, mount, wait_until};

use crate::in_guest::{LIMIT, Rig, attach_request, can};

#[test]
fn an_attach_or_detach_that_was_cut_off_is_gone_on_with() -> Result<()> {
    if !can("an_attach_or_detach_that_was_cut_off_is_gone_on_with")? {
        return Ok(());
    }
    let mut rig = Rig::image()?;
    let volume = rig.create("a", 16 * MIB, mount())?;
    for pause in [0, 3, 10, 30, 60, 120, 250] {
        for attaches in [true, false] {
            let (controller, request) = (rig.controller.clone(), attach_request(&volume, &rig.one));
            let cut = std::thread::spawn(move || {
                if attaches {
                    drop(controller.controller_publish_volume(request));
                } else {
                    let request = csi::ControllerUnpublishVolumeRequest {
                        volume_id: request.volume_id,
                        node_id: request.node_id,
                        ..Default::default()
                    };
                    drop(controller.controller_unpublish_volume(request));
                }
            });
            std::thread::sleep(Duration::from_millis(pause));
            rig.storage.kill()?;
            cut.join().expect("it does not panic");
            rig.restart_storage()?;
            if attaches {
                rig.attach(&volume, &rig.one)?;
                ensure!(rig.target.exports(&volume.id())?.len() == 1, "it is not exported once");
            } else {
                rig.detach(&volume, &rig.one)?;
                rig.is_left_with_nothing(&volume)?;
            }
        }
    }
    rig.bring(&volume, &rig.one)?;
    rig.take(&volume, &rig.one)?;
    wait_until("the image to be let go", LIMIT, || Ok(rig.controller.delete_volume(volume.delete()).is_ok()))?;
    rig.is_left_with_nothing(&volume)
}

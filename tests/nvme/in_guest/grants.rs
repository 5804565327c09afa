//! Who gets in, and to what.

use std::fs;

use anyhow::{Result, ensure};
use dunnage_test_common::{MIB, block};
use tonic::Code;

use super::{Rig, can, device_of, is};

#[test]
fn only_the_node_that_was_granted_gets_in_and_only_as_long() -> Result<()> {
    if !can("only_the_node_that_was_granted_gets_in_and_only_as_long")? {
        return Ok(());
    }
    let rig = Rig::image()?;
    let volume = rig.create("a", 16 * MIB, block())?;
    let context = rig.attach(&volume, &rig.one)?;
    // A node that knows all that the other one was told.
    is(rig.two.stage(&volume, &context), Code::FailedPrecondition, "does not let this node in")?;
    is(rig.one.stage(&volume, &Default::default()), Code::FailedPrecondition, "is not attached to this node")?;
    rig.one.stage(&volume, &context)?;
    rig.one.publish(&volume, &context)?;
    // It is taken away while it is in use: what comes late reaches nothing, then or after another attachment.
    let device = device_of(&volume)?;
    rig.detach(&volume, &rig.one)?;
    let write = || {
        fs::OpenOptions::new().write(true).open(&device).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &[7; 4096])?;
            file.sync_all()
        })
    };
    let mut elsewhere = volume.clone();
    elsewhere.target = volume.target.with_file_name("elsewhere");
    elsewhere.staging = Some(volume.target.with_file_name("staging-elsewhere"));
    let late = std::thread::scope(|scope| -> Result<bool> {
        let late = scope.spawn(write);
        rig.bring(&elsewhere, &rig.two)?;
        rig.take(&elsewhere, &rig.two)?;
        let again = rig.attach(&volume, &rig.one)?;
        ensure!(again != context, "it is the same attachment");
        rig.one.take(&volume)?;
        // Its old connection is gone, and with it what it held.
        let late = late.join().expect("it does not panic").is_ok();
        rig.one.stage(&volume, &again)?;
        rig.one.publish(&volume, &again)?;
        Ok(late)
    })?;
    ensure!(!late, "a write has come through after its attachment was ended");
    let found = fs::read(&volume.target)?;
    ensure!(found.iter().all(|byte| *byte == 0), "what was written late is there");
    rig.take(&volume, &rig.one)?;
    rig.controller.delete_volume(volume.delete())?;
    rig.is_left_with_nothing(&volume)
}

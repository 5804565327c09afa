//! Volumes that are attached: by what right their device is here, and whether it may be written to.

use std::fs;
use std::sync::atomic::Ordering;

use dunnage_driver_api::{AccessMode, Attachment, ErrorKind, Reach, Result, VolumeCapability};

use super::rig::{MIB, Rig, assert_refused, is_root, raw, run, writer};

fn attached(word: &'static str) -> Rig {
    let mut rig = Rig::image(64 * MIB);
    (rig.node.reach, rig.node.attachment) = (Reach::Everywhere, Some(word));
    rig
}

fn stage_read_only(rig: &Rig, capability: VolumeCapability) -> Result<()> {
    let mut request = rig.stage_request(capability);
    request.publish_context.insert(Attachment::READONLY.to_owned(), "true".to_owned());
    rig.stage_as(&rig.cx(), &request)
}

#[test]
fn what_was_staged_by_an_attachment_that_ended_is_never_taken_for_the_volume() {
    if !is_root() {
        return;
    }
    let mut rig = attached("one");
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    rig.restart();
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    // Another node has had it in between.
    rig.node.attachment = Some("another");
    for refused in [rig.stage(writer()), rig.publish("a", writer(), false), rig.publish("b", writer(), false)] {
        assert_refused(refused, ErrorKind::FailedPrecondition, "unstage it first");
    }
    assert_eq!((rig.mounts("staged").len(), rig.mounts("a").len(), rig.mounts("b").len()), (1, 1, 0));
    rig.unpublish("a").unwrap();
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "unstage it first");
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), 0);
    rig.stage(writer()).unwrap();
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), 1, "the device is the one of before");
    rig.publish("a", writer(), false).unwrap();
    assert_eq!((rig.mounts("staged").len(), rig.mounts("a").len()), (1, 1));
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
}

#[test]
fn nothing_is_written_by_an_attachment_that_is_read_only() {
    if !is_root() {
        return;
    }
    let rig = attached("one");
    assert_refused(stage_read_only(&rig, writer()), ErrorKind::FailedPrecondition, "attached read-only");
    assert!(rig.read_image(0, 1 << 20).iter().all(|byte| *byte == 0), "it was formatted");
    assert_eq!((rig.node.attached(), rig.path("staged").exists()), (None, false));
    rig.stage(writer()).unwrap();
    fs::write(rig.path("staged/data"), "kept").unwrap();
    rig.unstage().unwrap();
    stage_read_only(&rig, writer()).unwrap();
    assert_eq!(fs::read_to_string(rig.path("staged/data")).unwrap(), "kept");
    assert!(rig.mounts("staged")[0].contains(" ro,"), "{:?}", rig.mounts("staged"));
    rig.unstage().unwrap();
}

#[test]
fn a_device_is_not_read_only_because_another_one_was() {
    if !is_root() {
        return;
    }
    let block = || raw(AccessMode::SingleNodeWriter);
    let rig = attached("one");
    // A number that nobody else is given: the kernel gives the lowest that is free.
    run("losetup", &["/dev/loop1731", rig.node.image.to_str().unwrap()]);
    stage_read_only(&rig, block()).unwrap();
    run("losetup", &["-d", "/dev/loop1731"]);
    rig.stage(block()).unwrap();
    assert_ne!(rig.node.attached().unwrap().to_str(), Some("/dev/loop1731"));
    rig.publish("a", block(), false).unwrap();
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
}

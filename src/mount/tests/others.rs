//! What has become somebody else's: a device number, a mounted path, the bytes of a workload.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dunnage_driver_api::{AccessMode, CapacityRange, ErrorKind, FsType, VolumeCapability};

use super::rig::{Killed, MIB, Rig, assert_refused, is_root, mount, raw, run, writer};

fn xfs() -> VolumeCapability {
    mount(AccessMode::SingleNodeWriter, Some(FsType::Xfs), &[])
}

fn block() -> VolumeCapability {
    raw(AccessMode::SingleNodeWriter)
}

/// A staged volume on a device whose number nobody else is given: the kernel gives the lowest that is free.
fn staged_far_up() -> Rig {
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let rig = Rig::image(64 * MIB);
    run("losetup", &[&format!("/dev/loop{number}"), rig.node.image.to_str().unwrap()]);
    rig.stage(block()).unwrap();
    rig.publish("a", block(), true).unwrap();
    rig
}

/// A device of the test's own, which goes with the test, also where that fails.
struct OtherDevice(String);

impl Drop for OtherDevice {
    fn drop(&mut self) {
        // Where a failed test left it mounted the kernel detaches it with its last user.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// The number that the volume's device had is given to another image.
fn give_number_away(rig: &Rig, other: &Path) -> OtherDevice {
    let device = rig.node.attached().unwrap().to_str().unwrap().to_owned();
    run("losetup", &["-d", &device]);
    File::create(other).unwrap().set_len(64 * MIB).unwrap();
    run("losetup", &[&device, other.to_str().unwrap()]);
    let device = OtherDevice(device);
    // The flag of the read-only publish belongs to the number.
    run("blockdev", &["--setrw", &device.0]);
    device
}

#[test]
fn bytes_of_a_workload_are_not_formatted_on_the_word_of_an_older_formatting() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let cx = dunnage_driver_api::Context::new(
        std::time::Duration::from_secs(30),
        Arc::new(Killed { image: rig.node.image.clone(), leaves: &[] }),
    );
    rig.stage_as(&cx, &rig.stage_request(writer())).unwrap_err();
    rig.stage(block()).unwrap();
    rig.publish("a", block(), false).unwrap();
    OpenOptions::new().write(true).open(rig.path("a")).unwrap().write_all_at(b"of the workload", 40_000).unwrap();
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
    assert_refused(rig.stage(writer()), ErrorKind::FailedPrecondition, "no known form");
    assert_eq!(rig.read_image(40_000, 15), b"of the workload");
}

#[test]
fn a_file_system_that_was_mounted_over_the_stage_does_not_grow() {
    if !is_root() {
        return;
    }
    let (rig, foreign) = (Rig::image(320 * MIB), Rig::image(512 * MIB));
    rig.stage(xfs()).unwrap();
    rig.publish("a", xfs(), false).unwrap();
    rig.unmount("staged");
    foreign.stage(xfs()).unwrap();
    let small = fs::File::options().write(true).open(&foreign.node.image).unwrap();
    small.set_len(640 * MIB).unwrap();
    run("losetup", &["-c", foreign.node.attached().unwrap().to_str().unwrap()]);
    run("mount", &["--bind", foreign.path("staged").to_str().unwrap(), rig.path("staged").to_str().unwrap()]);
    let before = run("stat", &["-f", "-c", "%b", foreign.path("staged").to_str().unwrap()]);

    File::options().write(true).open(&rig.node.image).unwrap().set_len(640 * MIB).unwrap();
    let range = CapacityRange::new(640 * MIB as i64, 0).unwrap();
    let grown = rig.engine.expand(&rig.cx(), &rig.node, &rig.volume, &rig.path("a"), range);
    assert_refused(grown, ErrorKind::FailedPrecondition, "stage it again");
    assert_eq!(run("stat", &["-f", "-c", "%b", foreign.path("staged").to_str().unwrap()]), before);
    rig.unmount("staged");
}

#[test]
fn a_device_number_that_another_device_got_is_not_the_volumes_device() {
    if !is_root() {
        return;
    }
    let rig = staged_far_up();
    let device = give_number_away(&rig, &rig.path("other.img"));

    let findings = rig.engine.volume_health(&rig.volume).unwrap();
    assert!(
        findings
            .iter()
            .any(|one| one.reason == "DeviceGone" && one.status == dunnage_driver_api::HealthStatus::Inaccessible),
        "{findings:?}"
    );
    // Staged anew, it is on another device, and its old target shows the other volume's no more.
    rig.stage(block()).unwrap();
    assert!(rig.mounts("a").is_empty());
    assert_ne!(rig.node.attached().unwrap().to_str(), Some(device.0.as_str()));
    rig.publish("a", block(), false).unwrap();
    File::options().write(true).open(rig.path("a")).unwrap().write_all_at(b"own", 0).unwrap();
    assert_eq!(fs::read(rig.path("other.img")).unwrap()[..3], [0; 3]);
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
}

#[test]
fn a_volume_whose_number_is_in_use_by_another_can_be_unstaged_and_that_one_keeps_its_device() {
    if !is_root() {
        return;
    }
    let rig = staged_far_up();
    let device = give_number_away(&rig, &rig.path("other.img"));
    run("mkfs.ext4", &["-q", &device.0]);
    fs::create_dir(rig.path("elsewhere")).unwrap();
    run("mount", &[&device.0, rig.path("elsewhere").to_str().unwrap()]);
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
    fs::write(rig.path("elsewhere/data"), "still written").unwrap();
    rig.unmount("elsewhere");
}

#[test]
fn a_device_is_given_back_writable() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(block()).unwrap();
    rig.publish("a", block(), true).unwrap();
    rig.unmount("a");
    let device = rig.node.attached().unwrap();
    rig.unstage().unwrap();
    let read_only = format!("/sys/block/{}/ro", device.file_name().unwrap().to_str().unwrap());
    assert_eq!(fs::read_to_string(read_only).unwrap().trim(), "0");
}

#[test]
fn a_stage_that_was_read_only_is_mended_read_only() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.unstage().unwrap();
    let read_only = mount(AccessMode::SingleNodeWriter, None, &["ro"]);
    rig.stage(read_only.clone()).unwrap();
    rig.unmount("staged");
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "read-only");
    assert!(rig.mounts("staged").iter().all(|line| line.contains(" ro,")), "{:?}", rig.mounts("staged"));
    rig.publish("a", read_only, false).unwrap();
}

#[test]
fn what_shows_another_volume_needs_not_be_taken_away() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    rig.publish("a", writer(), false).unwrap();
    let own = rig.volume.clone();
    rig.volume.generation = dunnage_driver_api::Generation::random().unwrap();
    rig.unpublish("a").unwrap();
    rig.unstage().unwrap();
    rig.volume = own;
    assert_eq!((rig.mounts("a").len(), rig.mounts("staged").len()), (1, 1));
}

//! Formatting that outlives its host, and devices that need no look.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunnage_driver_api::{AccessMode, Context, ErrorKind, Reach, System};

use super::rig::{Killed, MIB, Rig, assert_refused, is_root, raw, run, writer};

/// A formatting that was cut off, and the lock of the program that goes on with it.
fn running(rig: &Rig) -> File {
    let killed = Killed { image: rig.node.image.clone(), leaves: b"half of it" };
    rig.stage_as(&Context::new(Duration::from_secs(30), Arc::new(killed)), &rig.stage_request(writer())).unwrap_err();
    let held = File::open(intent(rig)).unwrap();
    held.lock().unwrap();
    held
}

fn intent(rig: &Rig) -> std::path::PathBuf {
    rig.path("state/node").join(format!("{}.formatting", rig.volume))
}

fn soon() -> Context {
    Context::new(Duration::ZERO, Arc::new(System))
}

#[test]
fn a_device_that_a_program_still_formats_is_left_alone_until_that_ends() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    let program = running(&rig);
    rig.restart();
    let (sources, releases) = (rig.node.sources.load(Ordering::Relaxed), rig.node.releases.load(Ordering::Relaxed));
    for capability in [writer(), raw(AccessMode::SingleNodeWriter)] {
        let staged = rig.stage_as(&soon(), &rig.stage_request(capability));
        assert_refused(staged, ErrorKind::FailedPrecondition, "still being formatted");
    }
    assert_refused(rig.engine.forget(&soon(), &rig.volume), ErrorKind::FailedPrecondition, "still being formatted");
    assert!(!rig.path("staged").exists() && intent(&rig).exists());
    assert_eq!(rig.node.sources.load(Ordering::Relaxed), sources);
    assert_eq!(rig.node.releases.load(Ordering::Relaxed), releases);

    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.stage(writer()));
        drop(program);
        waiting.join().unwrap()
    });
    waiting.unwrap();
    assert!(!intent(&rig).exists());
    rig.unstage().unwrap();
}

#[test]
fn a_device_that_a_program_still_formats_is_not_given_back() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    rig.stage(raw(AccessMode::SingleNodeWriter)).unwrap();
    fs::write(intent(&rig), "").unwrap();
    let program = File::open(intent(&rig)).unwrap();
    program.lock().unwrap();
    let release = |_: &Context, record: &_| rig.node.release(record);
    let unstaged = rig.engine.unstage(&soon(), &release, &rig.volume, &rig.staging("staged"));
    assert_refused(unstaged, ErrorKind::FailedPrecondition, "still being formatted");
    let unstaged = rig.engine.unstage_all(&soon(), &release, &rig.volume);
    assert_refused(unstaged, ErrorKind::FailedPrecondition, "still being formatted");
    assert!(rig.node.attached().is_some() && rig.node.releases.load(Ordering::Relaxed) == 0);
    drop(program);
    rig.unstage().unwrap();
    assert_eq!(rig.node.attached(), None);
}

#[test]
fn a_device_that_its_driver_proves_blank_is_formatted_without_being_read() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    // A driver that lies: nothing else shows that nobody looked.
    rig.write_image(8192, b"never seen");
    assert_refused(rig.stage(writer()), ErrorKind::FailedPrecondition, "no known form");
    rig.node.blank = true;
    rig.stage(writer()).unwrap();
    assert!(rig.mounts("staged")[0].contains("ext4"));
}

#[test]
fn a_blank_device_in_the_place_of_a_staged_one_is_not_formatted() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    rig.stage(writer()).unwrap();
    fs::write(rig.path("staged/data"), "kept").unwrap();
    rig.unmount("staged");
    rig.node.blank = true;
    assert_refused(rig.publish("a", writer(), false), ErrorKind::FailedPrecondition, "its data is lost");
    rig.node.blank = false;
    rig.publish("a", writer(), false).unwrap();
    assert_eq!(fs::read(rig.path("a/data")).unwrap(), b"kept");
}

#[test]
fn a_record_goes_with_all_that_it_was_written_in() {
    if !is_root() {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let files = || -> Vec<_> {
        let boot = fs::read_dir(rig.path("state/node")).unwrap().next().unwrap().unwrap().path();
        fs::read_dir(boot).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    rig.stage(writer()).unwrap();
    for target in ["a", "b"] {
        rig.publish(target, writer(), false).unwrap();
        assert!(files().contains(&format!("{}.json", rig.volume).into()));
        rig.unpublish(target).unwrap();
    }
    rig.unstage().unwrap();
    assert!(files().is_empty());
}

#[test]
fn a_formatting_that_was_cut_off_is_done_again_only_while_no_other_node_can_have_had_the_device() {
    if !is_root() {
        return;
    }
    for (before, after, again) in [
        (Some("one"), Some("one"), true),
        (Some("one"), Some("another"), false),
        (Some("one"), None, false),
        (None, None, false),
        (None, Some("one"), false),
    ] {
        let mut rig = Rig::image(64 * MIB);
        (rig.node.reach, rig.node.attachment) = (Reach::Everywhere, before);
        drop(running(&rig));
        rig.restart();
        rig.node.attachment = after;
        let staged = rig.stage(writer());
        if again {
            staged.unwrap();
        } else {
            assert_refused(staged, ErrorKind::FailedPrecondition, "wipe the device with blkdiscard -z");
            assert_eq!(rig.read_image(8192, 10), b"half of it");
            // What the remedy leaves is formatted.
            rig.write_image(8192, &[0; 10]);
            rig.stage(writer()).unwrap();
        }
        assert!(!intent(&rig).exists());
        rig.unstage().unwrap();
    }
}

#[test]
fn what_another_node_has_finished_is_used_and_what_is_damaged_there_is_not_made_anew() {
    if !is_root() {
        return;
    }
    let mut rig = Rig::image(64 * MIB);
    (rig.node.reach, rig.node.attachment) = (Reach::Everywhere, Some("one"));
    drop(running(&rig));
    rig.restart();
    rig.node.attachment = Some("another");
    run("mkfs.ext4", &["-q", "-F", rig.node.image.to_str().unwrap()]);
    // Without its lost+found.
    run("debugfs", &["-w", "-R", "clri <11>", rig.node.image.to_str().unwrap()]);
    assert_refused(rig.stage(writer()), ErrorKind::FailedPrecondition, "not whole");
    run("mkfs.ext4", &["-q", "-F", rig.node.image.to_str().unwrap()]);
    rig.stage(writer()).unwrap();
    assert!(!intent(&rig).exists());
}

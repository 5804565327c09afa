//! Devices with read errors, by the kernel's device mapper.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunnage_driver_api::{
    Context, DeviceSource, ErrorKind, Identity, Node, Reach, ReleaseRecord, Result, Source, SourceRequest,
};
use dunnage_test_common::{Need, can_run};

use super::rig::{MIB, Rig, assert_refused, run, writer};
use crate::mount::NodeHalf;

const SECTOR: u64 = 512;

/// A device whose sectors are those of an image, but for some that cannot be read or written.
struct Faulty {
    name: String,
    below: String,
    sectors: u64,
    releases: AtomicUsize,
}

fn dmsetup(arguments: &[&str]) {
    // There is no udev in a guest: dmsetup makes the names of devices itself.
    run("env", &[&["DM_DISABLE_UDEV=1", "dmsetup"], arguments].concat());
}

impl Faulty {
    /// The image of `rig`, whole.
    fn new(rig: &Rig) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dunnage-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let below = run("losetup", &["-f", "--show", rig.node.image.to_str().unwrap()]);
        let sectors = fs::metadata(&rig.node.image).unwrap().len() / SECTOR;
        let faulty = Self { name, below, sectors, releases: AtomicUsize::new(0) };
        dmsetup(&["create", "--concise", &format!("{},,,rw,{}", faulty.name, faulty.linear(0, sectors))]);
        faulty
    }

    fn linear(&self, first: u64, end: u64) -> String {
        format!("{first} {} linear {} {first}", end - first, self.below)
    }

    /// Breaks `length` bytes from `offset`.
    fn break_at(&self, offset: u64, length: u64) {
        let (first, end) = (offset / SECTOR, (offset + length).div_ceil(SECTOR));
        let mut table = Vec::new();
        if first > 0 {
            table.push(self.linear(0, first));
        }
        table.push(format!("{first} {} error", end - first));
        if end < self.sectors {
            table.push(self.linear(end, self.sectors));
        }
        self.load(&table.join("\n"));
    }

    fn mend(&self) {
        self.load(&self.linear(0, self.sectors));
    }

    /// What was read before must not answer for the device.
    fn load(&self, table: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, table).unwrap();
        dmsetup(&["load", &self.name, file.path().to_str().unwrap()]);
        dmsetup(&["suspend", &self.name]);
        dmsetup(&["resume", &self.name]);
        run("blockdev", &["--flushbufs", self.path().to_str().unwrap()]);
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/mapper").join(&self.name)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let remove = ["remove", "--force", "--retry", &self.name];
        let _ = Command::new("dmsetup").env("DM_DISABLE_UDEV", "1").args(remove).status();
        let _ = Command::new("losetup").args(["-d", &self.below]).status();
    }
}

impl Node for Faulty {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let release = ReleaseRecord::new(&self.name)?;
        (request.keep)(&release)?;
        let (device, identity) = (File::open(self.path()).unwrap(), Identity(self.name.clone()));
        Ok(Source::Device(DeviceSource::new(device, self.path(), identity, release)))
    }
}

impl Faulty {
    fn release(&self) -> Result<()> {
        self.releases.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn stage(rig: &Rig, faulty: &Faulty) -> Result<()> {
    rig.engine.stage(
        &rig.cx(),
        NodeHalf { node: faulty, reach: Reach::Node },
        &|_, _| faulty.release(),
        &rig.stage_request(writer()),
    )
}

fn unstage(rig: &Rig, faulty: &Faulty) {
    rig.engine.unstage(&rig.cx(), &|_, _| faulty.release(), &rig.volume, &rig.staging("staged")).unwrap();
}

/// Refused with these words, with nothing written, mounted or kept.
fn is_refused(rig: &Rig, faulty: &Faulty, kind: ErrorKind, words: &str) {
    let before = fs::read(&rig.node.image).unwrap();
    faulty.releases.store(0, Ordering::Relaxed);
    assert_refused(stage(rig, faulty), kind, words);
    assert!(fs::read(&rig.node.image).unwrap() == before, "the device was written to");
    assert_eq!(faulty.releases.load(Ordering::Relaxed), 1);
    assert!(!rig.path("staged").exists());
    assert_eq!(rig.all_uses().unwrap(), []);
}

fn needed(test: &str) -> bool {
    can_run(test, &[Need::Root, Need::Guest, Need::Program("dmsetup")]).unwrap()
}

#[test]
fn an_empty_device_with_a_read_error_where_marks_live_is_never_formatted() {
    if !needed("an_empty_device_with_a_read_error_where_marks_live_is_never_formatted") {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let faulty = Faulty::new(&rig);
    for offset in [0, 1024, 64 << 10, MIB, 64 * MIB - (64 << 10), 64 * MIB - 512] {
        faulty.break_at(offset, SECTOR);
        is_refused(&rig, &faulty, ErrorKind::Internal, &format!("cannot read {} at", faulty.path().display()));
    }
    faulty.mend();
    stage(&rig, &faulty).unwrap();
    unstage(&rig, &faulty);
}

#[test]
fn a_file_system_whose_superblock_cannot_be_read_is_kept_until_it_can() {
    if !needed("a_file_system_whose_superblock_cannot_be_read_is_kept_until_it_can") {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let faulty = Faulty::new(&rig);
    stage(&rig, &faulty).unwrap();
    fs::write(rig.path("staged/data"), "kept").unwrap();
    unstage(&rig, &faulty);
    faulty.break_at(1024, 1024);
    is_refused(&rig, &faulty, ErrorKind::Internal, "neither mounted nor formatted: check the device");
    faulty.mend();
    stage(&rig, &faulty).unwrap();
    assert_eq!(fs::read_to_string(rig.path("staged/data")).unwrap(), "kept");
    unstage(&rig, &faulty);
}

#[test]
fn a_file_system_that_cannot_be_read_beyond_its_superblock_is_kept_and_the_failing_step_is_named() {
    if !needed("a_file_system_that_cannot_be_read_beyond_its_superblock_is_kept_and_the_failing_step_is_named") {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let faulty = Faulty::new(&rig);
    stage(&rig, &faulty).unwrap();
    fs::write(rig.path("staged/data"), "kept").unwrap();
    unstage(&rig, &faulty);
    // All that no probe looks at: journal and inodes among it.
    faulty.break_at(2 * MIB, 60 * MIB);
    let words = format!("cannot mount the ext4 file system on {}: check the device", faulty.path().display());
    is_refused(&rig, &faulty, ErrorKind::FailedPrecondition, &words);
    faulty.mend();
    stage(&rig, &faulty).unwrap();
    assert_eq!(fs::read_to_string(rig.path("staged/data")).unwrap(), "kept");
    unstage(&rig, &faulty);
}

#[test]
fn a_device_that_cannot_be_formatted_for_an_error_in_its_middle_is_formatted_once_it_is_sound() {
    if !needed("a_device_that_cannot_be_formatted_for_an_error_in_its_middle_is_formatted_once_it_is_sound") {
        return;
    }
    let rig = Rig::image(64 * MIB);
    let faulty = Faulty::new(&rig);
    faulty.break_at(2 * MIB, 60 * MIB);
    assert_refused(stage(&rig, &faulty), ErrorKind::Internal, "mkfs.ext4");
    assert!(!rig.path("staged").exists());
    faulty.mend();
    stage(&rig, &faulty).unwrap();
    unstage(&rig, &faulty);
}

//! Trees that are deep.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dunnage_driver_api::root::Folder;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use crate::support::{Place, inode};

fn open(path: &Path) -> OwnedFd {
    Folder::at(path).unwrap().as_fd().try_clone_to_owned().unwrap()
}

fn below(folder: &OwnedFd, name: &str) -> OwnedFd {
    rustix::fs::openat(folder, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A folder in a folder, so many times, each with a file before and one after the next; by descriptors, since no path may
/// be as long.
fn dig(top: &Path, depth: i64) {
    let mut folder = open(top);
    let mut way = Vec::new();
    for level in 0..depth {
        rustix::fs::mkdirat(&folder, "d", Mode::from_raw_mode(0o750)).unwrap();
        for name in ["a", "z"] {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR).unwrap();
            rustix::io::write(&file, level.to_string().as_bytes()).unwrap();
        }
        let next = below(&folder, "d");
        way.push(std::mem::replace(&mut folder, next));
        if way.len() > 1 {
            // Its time, when all in it is made.
            set_time(&way.remove(0), level - 1);
        }
    }
    way.iter().for_each(|last| set_time(last, depth - 1));
}

fn set_time(folder: &OwnedFd, level: i64) {
    let time = Timespec { tv_sec: 1_000_000 + level, tv_nsec: 5 };
    rustix::fs::futimens(folder, &Timestamps { last_access: time, last_modification: time }).unwrap();
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_tree_deeper_than_any_path_may_be_is_copied_with_few_files_open() {
    const DEPTH: i64 = 3000;
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    dig(&place.source, DEPTH);
    let (before, mut most) = (open_files(), 0);
    let mut steps = 0;
    let copied = place.copy_telling(&mut |_| {
        steps += 1;
        if steps % 100 == 0 {
            most = most.max(open_files());
        }
        Ok(())
    });
    assert_eq!(copied.unwrap().files, 2 * DEPTH as u64);
    // Other tests of this process open files too.
    assert!(most < before + 400, "{most} files were open, {before} before");
    let mut folder = open(&place.target);
    for level in 0..DEPTH {
        let stat = rustix::fs::fstat(&folder).unwrap();
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (1_000_000 + level, 5), "level {level}");
        for name in ["a", "z"] {
            let mut text = [0; 10];
            let file = rustix::fs::openat(&folder, name, OFlags::RDONLY, Mode::empty()).unwrap();
            let length = rustix::io::read(&file, &mut text).unwrap();
            assert_eq!(&text[..length], level.to_string().as_bytes());
        }
        folder = below(&folder, "d");
    }
    assert_eq!(rustix::fs::statat(&folder, "d", AtFlags::empty()).unwrap_err(), rustix::io::Errno::NOENT);
}

/// Deeper than the folders that are kept open.
const FAR: usize = 60;

/// A tree of which the way down is known, with files at each level that come after the way in any order.
fn far(place: &Place) {
    let mut path = place.source.clone();
    for level in 0..FAR {
        path.push(format!("d{level}"));
        fs::create_dir(&path).unwrap();
        for number in 0..20 {
            fs::write(path.join(format!("file{number}")), format!("{level}")).unwrap();
        }
    }
    fs::write(path.join("bottom"), "").unwrap();
}

fn level(top: &Path, levels: std::ops::Range<usize>) -> std::path::PathBuf {
    levels.fold(top.to_owned(), |path, level| path.join(format!("d{level}")))
}

/// Copies, and once when the bottom is being copied does this.
fn copy_and_at_the_bottom(place: &Place, act: impl Fn()) {
    let mut done = false;
    let bottom = level(&place.target, 0..FAR).join("bottom");
    let copied = place.copy_telling(&mut |_| {
        if !done && bottom.exists() {
            done = true;
            act();
        }
        Ok(())
    });
    copied.unwrap();
    assert!(done);
}

#[test]
fn a_folder_that_is_moved_while_its_depths_are_copied_hides_nothing_that_stays() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    far(&place);
    let outside = temp.path().join("outside/d9");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    copy_and_at_the_bottom(&place, || {
        fs::rename(level(&place.source, 0..11), outside.join("d10")).unwrap();
    });
    for depth in 1..=10 {
        let copy = level(&place.target, 0..depth);
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 21, "level {depth} is whole");
        assert!(!copy.join("secret").exists(), "nothing of elsewhere is in it");
    }
    assert_eq!(
        fs::metadata(level(&place.target, 0..11)).unwrap().permissions(),
        fs::metadata(&outside).unwrap().permissions()
    );
}

#[test]
fn a_folder_that_is_replaced_while_its_depths_are_copied_is_not_taken_for_what_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    far(&place);
    let before = inode(&level(&place.source, 0..11));
    copy_and_at_the_bottom(&place, || {
        let place = level(&place.source, 0..11);
        fs::rename(&place, temp.path().join("away")).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("other"), "").unwrap();
    });
    assert_ne!(inode(&level(&place.source, 0..11)), before);
    assert!(!level(&place.target, 0..11).join("other").exists());
    assert_eq!(fs::read_dir(level(&place.target, 0..10)).unwrap().count(), 21);
}

#[test]
fn what_is_removed_while_it_is_copied_is_no_error() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    far(&place);
    copy_and_at_the_bottom(&place, || fs::remove_dir_all(level(&place.source, 0..3)).unwrap());
    assert_eq!(fs::read_dir(level(&place.target, 0..2)).unwrap().count(), 21);
    assert_eq!(place.target.read_dir().unwrap().next().unwrap().unwrap().file_name(), OsStr::new("d0"));
}

//! Trees that change while they are copied.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use dunnage_driver_api::Error;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Place, all_paths};

/// Copies, and does `act` before the step of this number.
fn copy_and_at(place: &Place, step: usize, act: impl Fn()) {
    let mut steps = 0;
    let copied = place.copy_telling(&mut |_| {
        steps += 1;
        if steps == step {
            act();
        }
        Ok(())
    });
    copied.unwrap();
    assert!(steps >= step, "there were {steps} steps");
}

#[test]
fn a_file_that_grows_or_is_cut_is_copied_as_it_was_or_is() {
    let temp = tempfile::tempdir().unwrap();
    // Long enough that it is copied in several steps.
    for (length, expected) in [(80 << 20, 40 << 20), (20 << 20, 20 << 20), (1 << 20, 16 << 20), (0, 16 << 20)] {
        let folder = temp.path().join(length.to_string());
        fs::create_dir(&folder).unwrap();
        let place = Place::at(&folder);
        let file = File::create(place.source.join("file")).unwrap();
        file.write_all_at(&vec![1; 40 << 20], 0).unwrap();
        copy_and_at(&place, 3, || file.set_len(length).unwrap());
        let copied = fs::metadata(place.target.join("file")).unwrap().len();
        assert!(copied <= 40 << 20 && copied <= expected.max(length), "{copied} of {length}");
    }
}

#[test]
fn what_is_no_folder_any_more_is_copied_as_what_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    fs::create_dir_all(place.source.join("a")).unwrap();
    fs::write(place.source.join("a/file"), "").unwrap();
    fs::create_dir(temp.path().join("outside")).unwrap();
    fs::write(temp.path().join("outside/secret"), "").unwrap();
    place.copy().unwrap();
    fs::remove_dir_all(place.source.join("a")).unwrap();
    symlink(temp.path().join("outside"), place.source.join("a")).unwrap();
    place.copy().unwrap();
    assert_eq!(fs::read_link(place.target.join("a")).unwrap(), temp.path().join("outside"));
    fs::remove_file(place.source.join("a")).unwrap();
    fs::create_dir(place.source.join("a")).unwrap();
    fs::write(place.source.join("a/other"), "").unwrap();
    place.copy().unwrap();
    assert_eq!(all_paths(&place.target).len(), 2);
    assert!(place.target.join("a/other").exists());
}

/// Swaps folders, files and symlinks for each other all the time.
fn disturb(source: &Path, outside: &Path, stop: &AtomicBool) {
    let swap = |one: &str, other: &str| {
        let (one, other) = (source.join(one), source.join(other));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    };
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        swap("swapped", "link");
        swap("folder", "file");
        let new = source.join(format!("new{}", round % 7));
        fs::write(&new, vec![0; (round % 50_000) as usize]).unwrap();
        swap("swapped", "link");
        swap("folder", "file");
        let _ = fs::remove_file(source.join(format!("new{}", (round + 3) % 7)));
        let _ = fs::rename(source.join("moving"), source.join("swapped/moving"));
        let _ = fs::rename(source.join("swapped/moving"), source.join("moving"));
        let _ = fs::remove_dir_all(source.join("tree"));
        let _ = fs::create_dir_all(source.join("tree/a/b/c/d"));
        let _ = fs::write(source.join("tree/a/b/file"), "x");
        let _ = fs::hard_link(source.join("stays/0"), source.join("tree/a/linked"));
        assert!(outside.exists());
    }
}

#[test]
fn a_writer_makes_no_copy_fail_or_leave_the_tree_or_miss_what_stays() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    let outside = temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    for folder in ["stays", "swapped", "folder", "moving"] {
        fs::create_dir(place.source.join(folder)).unwrap();
        for number in 0..30 {
            fs::write(place.source.join(folder).join(number.to_string()), format!("{folder} {number}")).unwrap();
        }
    }
    fs::write(place.source.join("file"), "file").unwrap();
    symlink(&outside, place.source.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let disturbed = std::thread::scope(|scope| {
        let writer = scope.spawn(|| disturb(&place.source, &outside, &stop));
        // Whatever is asserted in between, the writer is to end.
        let copies = std::panic::catch_unwind(|| {
            for _ in 0..60 {
                place.copy().map_err(|error: Error| error.report()).unwrap();
                for number in 0..30 {
                    let copy = fs::read_to_string(place.target.join("stays").join(number.to_string()));
                    assert_eq!(copy.unwrap(), format!("stays {number}"));
                }
                for path in all_paths(&place.target) {
                    assert_ne!(path.file_name().unwrap(), "secret", "{}", path.display());
                }
                place.clear();
            }
        });
        stop.store(true, Ordering::Relaxed);
        copies.and(writer.join())
    });
    if let Err(panic) = disturbed {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// Holds a lease of a file until somebody wants it, and some moments more.
#[allow(unsafe_code)]
fn lease(file: File, leased: &Barrier) {
    let call = |command, argument: libc::c_int| {
        // SAFETY: the descriptor is open, and the calls take no pointer.
        unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }
    };
    // SAFETY: to ignore a signal runs no code. It would end the process when somebody wants the file.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    assert_eq!(call(libc::F_SETLEASE, libc::F_WRLCK), 0, "{}", std::io::Error::last_os_error());
    leased.wait();
    while call(libc::F_GETLEASE, 0) == libc::F_WRLCK {
        std::thread::yield_now();
    }
    file.write_all_at(b"last words", 0).unwrap();
    call(libc::F_SETLEASE, libc::F_UNLCK);
}

#[test]
fn a_file_that_is_leased_is_copied_when_its_holder_has_let_it_go() {
    let temp = tempfile::tempdir().unwrap();
    let place = Place::at(temp.path());
    let path = place.source.join("file");
    fs::write(&path, "words").unwrap();
    let leased = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| lease(File::options().write(true).open(&path).unwrap(), &leased));
        leased.wait();
        place.copy().unwrap();
    });
    assert_eq!(fs::read_to_string(place.target.join("file")).unwrap(), "last words");
}

//! Sizes, and what room there is.

use std::fs;
use std::io::{ErrorKind as Io, Write};

use dunnage_driver_api::ErrorKind;
use dunnage_testkit::needs_root;

use crate::support::{MIB, Root, btrfs, fill, parameters, request, run, until};

const KINDS: [&str; 2] = [r#""quota": "simple""#, r#""quota": "full""#];

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), Io::QuotaExceeded | Io::StorageFull)
}

#[test]
fn a_volume_takes_its_size_and_no_more_and_more_once_it_has_grown() {
    if !needs_root("a_volume_takes_its_size_and_no_more_and_more_once_it_has_grown") {
        return;
    }
    for keys in KINDS {
        let mut root = Root::new(keys);
        let volume = root.create("a", 16 * MIB).unwrap();
        let file = root.data("a").join("file");
        assert!(is_full(&fill(&file, 20 * MIB).unwrap_err()));
        root.sync();
        let usage = root.usage(&volume).unwrap();
        assert_eq!(usage.total, volume.capacity);
        assert!(usage.used <= usage.total && usage.used.get() > 14 * MIB, "{usage:?}");
        assert_eq!(root.expand(&volume, 32 * MIB).unwrap(), 32 * MIB);
        fill(&file, 20 * MIB).unwrap();
        root.restart();
        assert_eq!(root.find("a").unwrap().capacity.get(), 32 * MIB);
        assert_eq!(root.expand(&volume, 16 * MIB).unwrap(), 32 * MIB, "what is large enough stays as it is");
        // A full volume can be emptied.
        assert!(is_full(&fill(&root.data("a").join("more"), 40 * MIB).unwrap_err()));
        fs::remove_file(&file).unwrap();
        fs::remove_file(root.data("a").join("more")).unwrap();
        root.sync();
        until("the space is free", || (root.usage(&volume).unwrap().used.get() < MIB).then_some(()));
    }
}

#[test]
fn a_volume_never_shrinks() {
    if !needs_root("a_volume_never_shrinks") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    let range = dunnage_driver_api::CapacityRange::new(0, 8 * MIB as i64).unwrap();
    let error = root.0.expand.as_ref().unwrap().expand(&crate::support::cx(), &volume, range).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
}

#[test]
fn a_limit_that_was_lost_is_set_again_when_the_volume_is_used() {
    if !needs_root("a_limit_that_was_lost_is_set_again_when_the_volume_is_used") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    run("btrfs", &["qgroup", "limit", "none", root.data("a").to_str().unwrap()]);
    root.source(&volume).unwrap();
    assert!(is_full(&fill(&root.data("a").join("file"), 20 * MIB).unwrap_err()));
}

#[test]
fn what_is_promised_is_not_promised_again() {
    if !needs_root("what_is_promised_is_not_promised_again") {
        return;
    }
    for keys in KINDS {
        let root = Root::new(keys);
        let before = root.available();
        let volume = root.create("a", 256 * MIB).unwrap();
        root.sync();
        let promised = before - root.available();
        assert!(promised.abs_diff(256 * MIB) < 8 * MIB, "{promised}");
        // What it writes of its size is promised to nobody else, and not counted twice.
        fill(&root.data("a").join("file"), 128 * MIB).unwrap();
        root.sync();
        let promised = before - root.available();
        assert!(promised.abs_diff(256 * MIB) < 16 * MIB, "{promised}");
        // What a snapshot keeps is not free either: by simple quotas it is the volume's, by full ones it is nobody's.
        root.snapshot("s", &volume).unwrap();
        fill(&root.data("a").join("file"), 64 * MIB).unwrap();
        root.sync();
        let (promised, kept) = (before - root.available(), if keys == KINDS[0] { 0 } else { 128 * MIB });
        assert!(promised.abs_diff(256 * MIB + kept) < 16 * MIB, "{promised}");
        let error = root.create("b", before - 128 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        assert_eq!(root.create("c", 2 << 30).unwrap_err().kind(), ErrorKind::OutOfRange);
        let error = root.expand(&volume, before).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    }
}

#[test]
fn concurrent_creates_together_promise_no_more_than_one_alone_may() {
    if !needs_root("concurrent_creates_together_promise_no_more_than_one_alone_may") {
        return;
    }
    let root = Root::new("");
    let size = root.available() / 4 / MIB * MIB - 4 * MIB;
    let made = std::thread::scope(|scope| {
        let create = |number: u32| {
            let root = &root;
            scope.spawn(move || root.create(&format!("v{number}"), size).is_ok())
        };
        let creates: Vec<_> = (0..8).map(create).collect();
        creates.into_iter().map(|create| create.join().unwrap()).filter(|made| *made).count()
    });
    assert_eq!(made, 4);
}

#[test]
fn what_is_deleted_is_free_when_the_kernel_has_freed_it() {
    if !needs_root("what_is_deleted_is_free_when_the_kernel_has_freed_it") {
        return;
    }
    for keys in KINDS {
        let root = Root::new(keys);
        let before = root.available();
        let volume = root.create("a", 256 * MIB).unwrap();
        fill(&root.data("a").join("file"), 200 * MIB).unwrap();
        let snapshot = root.snapshot("s", &volume).unwrap();
        root.delete(&volume).unwrap();
        root.sync();
        // The snapshot keeps what was written; what was not written is nobody's any more.
        let taken = before - root.available();
        assert!(taken.abs_diff(200 * MIB) < 16 * MIB, "{taken}");
        root.delete_snapshot(&snapshot).unwrap();
        until("the kernel has freed it", || {
            root.sync();
            (before - root.available() < 16 * MIB).then_some(())
        });
    }
}

/// The groups of subvolumes, but for that of the top.
fn groups(root: &Root) -> usize {
    let shown = btrfs(&["qgroup", "show", "--raw"], root.path());
    shown.lines().filter(|line| line.starts_with("0/") && !line.starts_with("0/5 ")).count()
}

#[test]
fn no_group_is_left_of_volumes_that_are_gone() {
    if !needs_root("no_group_is_left_of_volumes_that_are_gone") {
        return;
    }
    for keys in KINDS {
        let mut root = Root::new(keys);
        for name in ["a", "b"] {
            let volume = root.create(name, 16 * MIB).unwrap();
            fill(&root.data(name).join("file"), MIB).unwrap();
            let snapshot = root.snapshot("s", &volume).unwrap();
            root.delete(&volume).unwrap();
            root.sync();
            root.delete_snapshot(&snapshot).unwrap();
        }
        until("the kernel has cleaned up and the next start has swept", || {
            root.sync();
            root.restart();
            (groups(&root) == 0).then_some(())
        });
    }
}

#[test]
fn without_quotas_a_size_is_what_was_asked_for() {
    if !needs_root("without_quotas_a_size_is_what_was_asked_for") {
        return;
    }
    let root = Root::new(r#""quota": "none""#);
    let volume = root.create("a", 16 * MIB).unwrap();
    fill(&root.data("a").join("file"), 20 * MIB).unwrap();
    assert!(root.usage(&volume).is_none());
    assert_eq!(root.expand(&volume, 32 * MIB).unwrap(), 32 * MIB);
    root.delete(&volume).unwrap();
}

#[test]
fn a_full_volume_is_copied_and_removed_like_any_other() {
    if !needs_root("a_full_volume_is_copied_and_removed_like_any_other") {
        return;
    }
    for keys in KINDS {
        let root = Root::new(keys);
        let volume = root.create("a", 16 * MIB).unwrap();
        while fill(&root.data("a").join("large"), 16 * MIB).is_ok() {}
        // To the last block.
        let mut file = fs::File::options().append(true).open(root.data("a").join("large")).unwrap();
        while file.write_all(&[7; 4096]).and_then(|()| file.sync_all()).is_ok() {}
        let snapshot = root.snapshot("s", &volume).unwrap();
        let mut request = request("r", 16 * MIB);
        request.parameters = parameters(&[("compression", "zstd")]);
        let restored = root.restore_as(request, &snapshot).unwrap();
        let cloned = root.clone_of("c", &volume, 32 * MIB).unwrap();
        fill(&root.data("c").join("more"), 8 * MIB).unwrap();
        root.delete_snapshot(&snapshot).unwrap();
        for volume in [volume, restored, cloned] {
            root.delete(&volume).unwrap();
        }
    }
}

//! What is promised, and a disk that is full.

use dunnage_driver_api::ErrorKind;

use crate::support::{MIB, Root, is_root, until};

#[test]
fn promises_never_exceed_the_disk() {
    if !is_root() {
        return;
    }
    let root = Root::on_tmpfs("", 64 * MIB);
    let volume = root.create("a", 40 * MIB).unwrap();
    assert!(root.available() < 24 * MIB + 1);
    assert_eq!(root.create("b", 40 * MIB).unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(root.create("b", 65 * MIB).unwrap_err().kind(), ErrorKind::OutOfRange);
    let error = root.expand(&volume, 80 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    let error = root.expand(&volume, 64 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert_eq!(root.find("a").unwrap().capacity, volume.capacity);
    assert_eq!(root.image("a").metadata().unwrap().len(), 40 * MIB);
    assert!(!root.image("b").exists());
    root.delete(&volume).unwrap();
    root.create("b", 40 * MIB).unwrap();
}

#[test]
fn overcommit_allows_as_many_promises_as_it_says() {
    if !is_root() {
        return;
    }
    let root = Root::on_tmpfs(r#""overcommit": 2"#, 64 * MIB);
    root.create("a", 60 * MIB).unwrap();
    root.create("b", 60 * MIB).unwrap();
    let error = root.create("c", 60 * MIB).unwrap_err();
    assert!(error.kind() == ErrorKind::ResourceExhausted && error.report().contains("raise overcommit"), "{error}");
}

#[test]
fn concurrent_creates_together_promise_no_more_than_one_alone_may() {
    if !is_root() {
        return;
    }
    let root = Root::on_tmpfs("", 64 * MIB);
    let made = std::thread::scope(|scope| {
        let creates: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn({
                    let root = &root;
                    move || root.create(&format!("v{number}"), 15 * MIB).is_ok()
                })
            })
            .collect();
        creates.into_iter().map(|create| create.join().unwrap()).filter(|made| *made).count()
    });
    assert_eq!(made, 4);
}

#[test]
fn what_others_keep_on_the_disk_is_not_promised() {
    if !is_root() {
        return;
    }
    let mut root = Root::on_tmpfs("", 64 * MIB);
    let before = root.available();
    std::fs::write(root.path().join("foreign"), vec![1; 20 << 20]).unwrap();
    root.restart();
    assert!(root.available() <= before - 20 * MIB);
    let error = root.create("a", 50 * MIB).unwrap_err();
    assert!(error.report().contains("20.0 MiB of the disk are held by what is no volume's"), "{}", error.report());
    // What a volume has written is its own, not another's.
    root.create("a", 30 * MIB).unwrap();
    let left = root.available();
    std::fs::write(root.image("a"), vec![1; 30 << 20]).unwrap();
    root.restart();
    assert!(root.available().abs_diff(left) < MIB);
    // A refusal rests on no old look.
    std::fs::remove_file(root.path().join("foreign")).unwrap();
    until("what was freed is seen", || root.create("b", 30 * MIB).ok());
}

#[test]
fn a_create_that_fills_the_disk_leaves_nothing() {
    if !is_root() {
        return;
    }
    let root = Root::on_tmpfs(r#""allocation": "preallocated""#, 64 * MIB);
    let first = root.create("first", 16 * MIB).unwrap();
    assert_eq!(blocks(&root, "first"), 16 * MIB);
    // After the driver has looked: it finds out by ENOSPC.
    std::fs::write(root.path().join("foreign"), vec![1; 32 << 20]).unwrap();
    let error = root.create("a", 30 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(!root.image("a").exists() && root.find("a").is_none());

    let error = root.expand(&first, 40 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert_eq!((blocks(&root, "first"), root.image("first").metadata().unwrap().len()), (16 * MIB, 16 * MIB));

    std::fs::remove_file(root.path().join("foreign")).unwrap();
    root.create("a", 30 * MIB).unwrap();
    assert_eq!(blocks(&root, "a"), 30 * MIB);
}

#[test]
fn an_expansion_that_fills_the_disk_gives_back_what_it_took() {
    if !is_root() {
        return;
    }
    let root = Root::on_ext4(r#""allocation": "preallocated""#, 128 * MIB);
    let volume = root.create("a", 16 * MIB).unwrap();
    let held = blocks(&root, "a");
    // After the driver has looked: it finds out by ENOSPC.
    std::fs::write(root.path().join("foreign"), vec![1; 64 << 20]).unwrap();
    let error = root.expand(&volume, 80 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(blocks(&root, "a") <= held + MIB, "{} of {held}", blocks(&root, "a"));
    assert_eq!(root.image("a").metadata().unwrap().len(), 16 * MIB);
}

fn blocks(root: &Root, name: &str) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&root.image(name).metadata().unwrap()) * 512
}

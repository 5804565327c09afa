//! Which images are proven to be blank, on every file system that is asked for it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use dunnage_driver_api::FsType;

use crate::support::{MIB, Root, is_root, run, write};

const SIZE: u64 = 64 * MIB;

/// Roots on each file system whose word is taken, with images that are sparse or preallocated.
fn roots() -> Vec<(String, Root)> {
    let mut roots = Vec::new();
    for keys in ["", "\"allocation\": \"preallocated\""] {
        for fs_type in FsType::ALL {
            roots.push((format!("{fs_type} {keys}"), Root::on_new(fs_type, keys, 512 * MIB)));
        }
        roots.push((format!("tmpfs {keys}"), Root::on_tmpfs(keys, 512 * MIB)));
    }
    roots
}

#[test]
fn a_new_image_is_proven_blank_and_only_where_its_device_is_new() {
    if !is_root() {
        return;
    }
    for (name, root) in roots() {
        let volume = root.create("a", SIZE).unwrap();
        let source = root.source(&volume).unwrap();
        assert!(source.blank && source.reads_zero, "{name}");
        // What is written to the device may be in its cache alone.
        assert!(!root.source(&volume).unwrap().blank, "{name}");
        root.let_go(source).unwrap();
        assert!(root.source(&volume).unwrap().blank, "{name}");
    }
}

#[test]
fn an_image_with_a_byte_anywhere_is_not_proven_blank_written_out_or_not() {
    if !is_root() {
        return;
    }
    for (name, root) in roots() {
        for (key, offset) in [("start", 0), ("middle", SIZE / 2 + 777), ("end", SIZE - 1)] {
            for written_out in [false, true] {
                let key = format!("{key}-{written_out}");
                let volume = root.create(&key, SIZE).unwrap();
                let image = File::options().write(true).open(root.image(&key)).unwrap();
                image.write_all_at(b"x", offset).unwrap();
                if written_out {
                    image.sync_all().unwrap();
                }
                drop(image);
                let source = root.source(&volume).unwrap();
                assert!(!source.blank, "{name} {key}");
                root.let_go(source).unwrap();
                root.delete(&volume).unwrap();
                root.wait_for_the_trash();
            }
        }
    }
}

#[test]
fn an_image_that_was_formatted_through_its_device_is_not_proven_blank() {
    if !is_root() {
        return;
    }
    for (name, root) in roots() {
        let volume = root.create("a", SIZE).unwrap();
        let source = root.source(&volume).unwrap();
        run("mkfs.ext4", &["-q", "-E", "nodiscard", source.path.to_str().unwrap()]);
        root.let_go(source).unwrap();
        assert!(!root.source(&volume).unwrap().blank, "{name}");

        let volume = root.create("b", SIZE).unwrap();
        let source = root.source(&volume).unwrap();
        write(&source.path, b"raw", 40 * MIB);
        root.let_go(source).unwrap();
        assert!(!root.source(&volume).unwrap().blank, "{name}");
    }
}

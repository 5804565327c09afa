//! Compression and copy-on-write.

use std::fs;
use std::path::Path;

use dunnage_driver_api::{ErrorKind, Parameters};
use dunnage_testkit::needs_root;

use crate::support::{MIB, Root, parameters, request, run};

/// The compression and the flag that a new file in this folder has.
fn of_new_file(folder: &Path) -> (String, bool) {
    let file = folder.join("new");
    fs::write(&file, "").unwrap();
    let shown = run("btrfs", &["property", "get", file.to_str().unwrap(), "compression"]);
    let flags = rustix::fs::ioctl_getflags(fs::File::open(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    (shown.trim().trim_start_matches("compression=").into(), flags.contains(rustix::fs::IFlags::NOCOW))
}

fn create(root: &Root, name: &str, class: Parameters, mutable: Parameters) -> dunnage_driver_api::Result<()> {
    let mut request = request(name, 16 * MIB);
    (request.parameters, request.mutable_parameters) = (class, mutable);
    root.create_as(request).map(drop)
}

#[test]
fn a_volume_has_what_its_class_says_and_what_can_be_changed_goes_before() {
    if !needs_root("a_volume_has_what_its_class_says_and_what_can_be_changed_goes_before") {
        return;
    }
    let root = Root::new("");
    create(&root, "plain", parameters(&[]), parameters(&[])).unwrap();
    create(&root, "zstd", parameters(&[("compression", "zstd")]), parameters(&[])).unwrap();
    create(&root, "lzo", parameters(&[("compression", "zstd")]), parameters(&[("compression", "lzo")])).unwrap();
    create(&root, "in-place", parameters(&[]), parameters(&[("nodatacow", "true")])).unwrap();
    assert_eq!(of_new_file(&root.data("plain")), (String::new(), false));
    assert_eq!(of_new_file(&root.data("zstd")), ("zstd".into(), false));
    assert_eq!(of_new_file(&root.data("lzo")), ("lzo".into(), false));
    assert_eq!(of_new_file(&root.data("in-place")), (String::new(), true));
}

#[test]
fn a_volume_changes_as_it_is_asked_to_and_in_nothing_else() {
    if !needs_root("a_volume_changes_as_it_is_asked_to_and_in_nothing_else") {
        return;
    }
    let mut root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    let top = root.data("a");
    root.modify(&volume, &[("compression", "zlib")]).unwrap();
    assert_eq!(of_new_file(&top), ("zlib".into(), false));
    root.modify(&volume, &[("nodatacow", "false")]).unwrap();
    root.modify(&volume, &[]).unwrap();
    assert_eq!(of_new_file(&top), ("zlib".into(), false));
    root.modify(&volume, &[("compression", "none"), ("nodatacow", "true")]).unwrap();
    root.modify(&volume, &[("compression", "none")]).unwrap();
    assert!(of_new_file(&top).1);
    root.restart();
    root.modify(&volume, &[("compression", "zstd"), ("nodatacow", "false")]).unwrap();
    assert_eq!(of_new_file(&top), ("zstd".into(), false));
    root.modify(&volume, &[("compression", "none")]).unwrap();
    let (compression, nodatacow) = of_new_file(&top);
    assert!(matches!(compression.as_str(), "" | "none") && !nodatacow, "{compression}");
}

#[test]
fn compression_in_place_is_refused_and_changes_nothing() {
    if !needs_root("compression_in_place_is_refused_and_changes_nothing") {
        return;
    }
    let root = Root::new("");
    let both = [("compression", "zstd"), ("nodatacow", "true")];
    let error = create(&root, "a", parameters(&both), parameters(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(root.find("a").is_none() && !root.data("a").exists());
    let volume = root.create("a", 16 * MIB).unwrap();
    root.modify(&volume, &[("nodatacow", "true")]).unwrap();
    for wrong in [&both[..], &both[..1]] {
        let error = root.modify(&volume, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("set `compression` to none"), "{error}");
        assert_eq!(of_new_file(&root.data("a")), (String::new(), true));
    }
}

#[test]
fn a_copy_has_what_its_source_has_but_for_what_its_class_says() {
    if !needs_root("a_copy_has_what_its_source_has_but_for_what_its_class_says") {
        return;
    }
    let root = Root::new("");
    let volume = root.create("a", 16 * MIB).unwrap();
    root.modify(&volume, &[("compression", "zstd")]).unwrap();
    let snapshot = root.snapshot("s", &volume).unwrap();
    root.restore("r", &snapshot, 16 * MIB).unwrap();
    assert_eq!(of_new_file(&root.data("r")), ("zstd".into(), false));
    root.modify(&root.find("r").unwrap(), &[("compression", "lzo")]).unwrap();
    assert_eq!(of_new_file(&root.data("a")), ("zstd".into(), false));
}

//! Data that the disk does not take.

use std::fs::{self, File};
use std::io::Write;

use dunnage_testkit::needs_root;

use crate::support::{Disk, Place, assert_same, picture, run};

/// A disk whose blocks get room only when they are written to, beneath a file system that has no more of it.
struct Thin {
    // The one in it goes first.
    disk: Option<Disk>,
    below: Disk,
}

impl Thin {
    fn new() -> Self {
        let below = Disk::new("tmpfs", 32 << 20);
        let (image, mounted) = (below.path().join("image"), below.path().join("mounted"));
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir(&mounted).unwrap();
        // Without a journal, which would keep everything from being written once it has failed itself.
        let image = image.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-b", "4096", "-I", "128", "-O", "^has_journal", image]);
        let mut thin = Self { disk: None, below };
        thin.mount();
        thin
    }

    fn mount(&mut self) {
        self.disk = None;
        self.disk = Some(Disk::of_image(&self.below.path().join("image"), &self.below.path().join("mounted")));
    }

    fn filler(&self) -> std::path::PathBuf {
        self.below.path().join("filler")
    }

    /// Takes all room there is below.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }
}

#[test]
fn a_file_whose_data_was_lost_is_never_taken_for_whole() {
    if !needs_root("a_file_whose_data_was_lost_is_never_taken_for_whole") {
        return;
    }
    let mut thin = Thin::new();
    let place = Place::at(&thin.below.path().join("mounted"));
    fs::write(place.source.join("a"), vec![7; 1 << 20]).unwrap();
    fs::write(place.source.join("b"), vec![8; 1 << 20]).unwrap();
    fs::hard_link(place.source.join("b"), place.source.join("c")).unwrap();
    let original = picture(&place.source);
    rustix::fs::sync();
    thin.fill();
    // The error is told once: what is asked later knows of none.
    for attempt in 0..3 {
        let error = place.copy().expect_err("it says that a copy without its data is durable");
        assert!(error.report().contains("cannot sync"), "{attempt}: {}", error.report());
    }
    fs::remove_file(thin.filler()).unwrap();
    place.copy().unwrap();
    // What is read now is what the disk has.
    thin.mount();
    assert_same(&picture(&place.target), &original, "the copy");
}

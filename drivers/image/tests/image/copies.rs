//! Snapshots, restores and clones on file systems that share blocks.

use dunnage_driver_api::{
    CapacityRange, ContentSource, CreateSnapshot, CreateVolume, ErrorKind, Fingerprint, FsType, Parameters, Result,
    Snapshot, SnapshotId, SnapshotKey, Snapshots, SourceId, Volume, VolumeCapability,
};

use crate::support::{Calls, MIB, Root, block, cx, is_root, mount, read, size_of, write};

/// Both file systems, each with room for a few small images.
pub(crate) fn roots() -> Vec<Root> {
    if is_root() {
        [FsType::Xfs, FsType::Btrfs].map(|fs_type| Root::on_new(fs_type, "", 512 * MIB)).into()
    } else {
        Vec::new()
    }
}

/// The same, and one whose files share no blocks.
fn all_roots() -> Vec<Root> {
    let mut roots = roots();
    if is_root() {
        roots.push(Root::on_ext4("", 512 * MIB));
    }
    roots
}

pub(crate) trait Copying {
    fn snapshots(&self) -> &dyn Snapshots;
    fn cut(&self, name: &str, volume: &Volume) -> Result<Snapshot>;
    fn fill(&self, name: &str, bytes: u64, content: ContentSource, capability: VolumeCapability) -> Result<Volume>;
    fn holds(&self, volume: &Volume, bytes: &[u8], offset: u64);
    fn put(&self, volume: &Volume, bytes: &[u8], offset: u64);
}

impl Copying for Calls {
    fn snapshots(&self) -> &dyn Snapshots {
        self.0.snapshots.as_ref().unwrap().0.as_ref()
    }

    fn cut(&self, name: &str, volume: &Volume) -> Result<Snapshot> {
        let fingerprint = Fingerprint::of(&Default::default());
        let request = CreateSnapshot::new(name, self.id(volume), volume.clone(), Parameters::default(), fingerprint);
        self.snapshots().create(&cx(), &request)
    }

    fn fill(&self, name: &str, bytes: u64, content: ContentSource, capability: VolumeCapability) -> Result<Volume> {
        let source = match &content {
            ContentSource::Volume(volume) => SourceId::Volume(self.id(volume)),
            ContentSource::Snapshot(snapshot) => SourceId::Snapshot(SnapshotId {
                instance: self.0.instance.clone(),
                key: snapshot.key.clone(),
                generation: snapshot.generation.clone(),
            }),
        };
        let request = CreateVolume::new(
            name,
            CapacityRange::new(bytes as i64, 0).unwrap(),
            vec![capability],
            Parameters::default(),
            Fingerprint::of(&Default::default()),
        );
        self.0.create.as_ref().unwrap().create(&cx(), &request.holding(source, content)?)
    }

    #[track_caller]
    fn holds(&self, volume: &Volume, bytes: &[u8], offset: u64) {
        let source = self.source(volume).unwrap();
        let found = read(&source.path, bytes.len(), offset);
        self.let_go(source).unwrap();
        assert_eq!(found, bytes);
    }

    fn put(&self, volume: &Volume, bytes: &[u8], offset: u64) {
        let source = self.source(volume).unwrap();
        write(&source.path, bytes, offset);
        self.let_go(source).unwrap();
    }
}

#[test]
fn a_copy_holds_what_its_source_held_and_neither_shows_in_the_other() {
    for root in all_roots() {
        let volume = root.create("v", 8 * MIB).unwrap();
        root.put(&volume, b"before", 3 * MIB);
        let snapshot = root.cut("s", &volume).unwrap();
        assert_eq!((snapshot.size, snapshot.ready, &snapshot.source), (volume.capacity, true, &root.id(&volume)));
        root.put(&volume, b"after!", 3 * MIB);
        let clone = root.fill("c", 0, ContentSource::Volume(volume.clone()), block()).unwrap();
        let restored = root.fill("r", 16 * MIB, ContentSource::Snapshot(snapshot.clone()), block()).unwrap();
        assert_eq!(restored.capacity.get(), 16 * MIB);
        root.put(&restored, b"mine", 3 * MIB);
        root.put(&clone, b"own", MIB);
        for (volume, bytes, offset) in [
            (&volume, &b"after!"[..], 3 * MIB),
            (&volume, &[0; 3], MIB),
            (&clone, b"after!", 3 * MIB),
            (&restored, b"minere", 3 * MIB),
            (&restored, &[0; 9], 12 * MIB),
        ] {
            root.holds(volume, bytes, offset);
        }
        // In any order, and nothing is left.
        root.delete(&volume).unwrap();
        let again = root.fill("again", 0, ContentSource::Snapshot(snapshot.clone()), block()).unwrap();
        root.holds(&again, b"before", 3 * MIB);
        root.snapshots().delete(&cx(), &snapshot).unwrap();
        root.snapshots().delete(&cx(), &snapshot).unwrap();
        assert_eq!(root.snapshots().find(&cx(), &snapshot.key).unwrap(), None);
        for volume in [&restored, &clone, &again] {
            root.delete(volume).unwrap();
        }
        root.wait_for_the_trash();
        for folder in ["images", "snapshots", "unfinished"] {
            assert_eq!(std::fs::read_dir(root.path().join(folder)).unwrap().count(), 0, "{folder}");
        }
    }
}

#[test]
fn what_a_device_that_is_in_use_was_given_before_the_call_is_in_its_copy() {
    for root in roots() {
        let volume = root.create("v", 8 * MIB).unwrap();
        let source = root.source(&volume).unwrap();
        write(&source.path, b"flushed", MIB);
        let snapshot = root.cut("s", &volume).unwrap();
        write(&source.path, b"later!!", MIB);
        let restored = root.fill("r", 0, ContentSource::Snapshot(snapshot), block()).unwrap();
        root.holds(&restored, b"flushed", MIB);
        root.let_go(source).unwrap();
        root.holds(&volume, b"later!!", MIB);
    }
}

#[test]
fn a_copy_killed_before_its_record_is_nobodys_and_one_killed_after_it_is_there_at_the_next_start() {
    for mut root in all_roots() {
        let volume = root.create("v", 8 * MIB).unwrap();
        root.put(&volume, b"data", 0);
        let snapshot = root.cut("s", &volume).unwrap();
        let clone = root.fill("c", 0, ContentSource::Volume(volume.clone()), block()).unwrap();
        root.close();
        let path = |name: &str| root.path().join(name);
        // Killed between the record and the move; and before the record.
        std::fs::rename(path("snapshots/s"), path("unfinished/snapshots.s")).unwrap();
        std::fs::rename(path("images/c"), path("unfinished/images.c")).unwrap();
        for remains in ["unfinished/snapshots.t", "unfinished/images.d", "unfinished/what is this"] {
            std::fs::write(path(remains), "half a copy").unwrap();
        }
        // Of one that has its bytes already, such a file is what an attempt before left.
        std::fs::write(path("unfinished/images.v"), "half a copy").unwrap();
        root.restart();
        assert_eq!(root.snapshots().find(&cx(), &snapshot.key).unwrap(), Some(snapshot.clone()));
        assert_eq!(root.snapshots().list(&cx(), None, 9).unwrap(), std::slice::from_ref(&snapshot));
        assert!(!root.snapshots().is_half_deleted(&cx(), &snapshot).unwrap());
        root.holds(&clone, b"data", 0);
        root.holds(&volume, b"data", 0);
        assert_eq!(std::fs::read_dir(root.path().join("unfinished")).unwrap().count(), 0);
        assert!(root.find("d").is_none());
    }
}

#[test]
fn a_name_that_has_somebodys_data_is_never_overwritten_by_a_copy() {
    for root in all_roots() {
        let volume = root.create("v", 8 * MIB).unwrap();
        for folder in ["images", "snapshots"] {
            std::fs::write(root.path().join(folder).join("x"), "somebody lost the record of this").unwrap();
        }
        let content = ContentSource::Volume(volume.clone());
        for refused in [root.fill("x", 0, content, block()).map(drop), root.cut("x", &volume).map(drop)] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
            assert!(error.report().contains("/x holds data"), "{}", error.report());
        }
    }
}

#[test]
fn a_copy_is_of_the_file_system_and_the_blocks_of_its_source() {
    for root in all_roots() {
        let volume = root.create_as("v", 16 * MIB, mount(FsType::Ext4)).unwrap();
        let root = root.configured(r#""fs_type": "xfs", "block_size": 512"#);
        let content = || ContentSource::Volume(volume.clone());
        let error = root.fill("c", 0, content(), mount(FsType::Xfs)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.report().contains("ext4"), "{}", error.report());
        let clone = root.fill("c", 0, content(), mount(FsType::Ext4)).unwrap();
        let source = root.source(&clone).unwrap();
        assert_eq!(source.default_fs_type, FsType::Ext4);
        let device = source.path.file_name().unwrap().to_str().unwrap();
        let blocks = format!("/sys/block/{device}/queue/logical_block_size");
        assert_eq!(std::fs::read_to_string(blocks).unwrap().trim(), "4096");
        assert_eq!(size_of(&source.path), volume.capacity.get());
        root.let_go(source).unwrap();
    }
}

#[test]
fn snapshots_are_promised_their_room_as_volumes_are() {
    for root in all_roots() {
        let before = root.available();
        let volume = root.create("v", 64 * MIB).unwrap();
        root.cut("s", &volume).unwrap();
        // What the file system itself takes meanwhile is little.
        let promised = before - root.available();
        assert!((128 * MIB..140 * MIB).contains(&promised), "{promised}");
        let mut taken = 0;
        let full = loop {
            match root.cut(&format!("s{taken}"), &volume) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::ResourceExhausted, "{}", full.report());
        assert!(taken < 8);
        let key = SnapshotKey::of_name(&format!("s{taken}"));
        assert_eq!(root.snapshots().find(&cx(), &key).unwrap(), None);
    }
}

#[test]
fn snapshots_without_the_folder_of_their_data_are_missed() {
    use dunnage_driver_api::Driver;
    for mut root in all_roots() {
        let volume = root.create("v", MIB).unwrap();
        root.cut("s", &volume).unwrap();
        root.close();
        std::fs::remove_dir_all(root.path().join("snapshots")).unwrap();
        let error =
            crate::support::until("its lock is free", || match root.driver().open(&crate::support::opening()) {
                Err(error) if error.report().contains("served already") => None,
                opened => Some(opened.err().unwrap()),
            });
        assert!(error.report().contains("snapshots is missing"), "{}", error.report());
    }
}

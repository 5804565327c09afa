//! Snapshots, restores and clones: projects of their own, held by their own limits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{MIB, Volume, create, mount, run};
use tonic::{Code, Status};

use super::{Rig, each, project_of};

impl Rig {
    fn snapshot(&self, name: &str, of: &Volume) -> Result<csi::Snapshot, Status> {
        let request = csi::CreateSnapshotRequest { source_volume_id: of.id(), name: name.into(), ..Default::default() };
        Ok(self.client.create_snapshot(request)?.snapshot.expect("no snapshot"))
    }

    fn copy(&self, name: &str, bytes: i64, source: Type) -> Result<Volume> {
        let mut request = create(name, bytes, mount());
        request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
        let made = self.client.create_volume(request)?.volume.context("no volume")?;
        Ok(Volume::new(made, mount(), &self.host.setup().scratch().path().join("pods").join(name), false))
    }

    fn capacity(&self) -> Result<i64> {
        Ok(self.client.get_capacity(Default::default())?.available_capacity)
    }

    fn root(&self) -> PathBuf {
        self.host.setup().root("files")
    }
}

/// The size that a folder seems to have.
fn size(path: &Path) -> Result<u64> {
    let seen = rustix::fs::statvfs(path)?;
    Ok(seen.f_blocks * seen.f_frsize)
}

#[test]
fn each_copy_is_a_project_of_its_own_with_a_size_of_its_own() -> Result<()> {
    each("each_copy_is_a_project_of_its_own_with_a_size_of_its_own", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        fs::create_dir_all(volume.target.join("folder/below"))?;
        fs::write(volume.target.join("folder/below/data"), vec![1; 4 << 20])?;
        fs::hard_link(volume.target.join("folder/below/data"), volume.target.join("linked"))?;
        let snapshot = rig.snapshot("s", &volume)?;
        let of = SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() };
        let restored = rig.copy("r", 16 * MIB, Type::Snapshot(of))?;
        let cloned = rig.copy("c", 8 * MIB, Type::Volume(VolumeSource { volume_id: volume.id() }))?;
        let mut projects = BTreeSet::new();
        for (path, bytes) in
            [("volumes/a", 8 << 20), ("snapshots/s", 8 << 20), ("volumes/r", 16 << 20), ("volumes/c", 8 << 20)]
        {
            let path = rig.root().join(path);
            let project = project_of(&path)?;
            for below in ["folder", "folder/below"] {
                assert_eq!(project_of(&path.join(below))?, project, "{}", path.display());
            }
            assert_eq!(fs::read(path.join("linked"))?, vec![1; 4 << 20]);
            assert_eq!(size(&path)?, bytes, "{}", path.display());
            projects.insert(project);
        }
        assert_eq!(projects.len(), 4, "{projects:?}");
        rig.client.node_publish_volume(restored.publish())?;
        rig.client.node_unpublish_volume(restored.unpublish())?;
        rig.client.node_unpublish_volume(volume.unpublish())?;
        let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
        rig.client.delete_snapshot(request)?;
        for volume in [&volume, &restored, &cloned] {
            rig.delete(volume)?;
        }
        rig.wait_for_projects(&[])
    })
}

#[test]
fn a_copy_that_is_larger_than_its_quota_fails_with_the_path_and_leaves_nothing() -> Result<()> {
    let test = "a_copy_that_is_larger_than_its_quota_fails_with_the_path_and_leaves_nothing";
    each(test, 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        // Its owner takes one file out of the project, which then has room for another.
        for name in ["one", "two"] {
            let path = volume.target.join(name);
            fs::write(&path, vec![2; 7 << 20])?;
            run("chattr", &["-p", "0", &path.display().to_string()])?;
        }
        let project = rig.project("a")?;
        let status = rig.snapshot("s", &volume).expect_err("it is larger than the volume");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        ensure!(status.message().contains("volumes/a/"), "{status}");
        ensure!(status.message().contains("quota of the copy"), "{status}");
        for folder in ["snapshots", "unfinished", ".dunnage/jobs", ".dunnage/snapshots"] {
            ensure!(fs::read_dir(rig.root().join(folder))?.next().is_none(), "something is left in {folder}");
        }
        rig.wait_for_projects(&[project])?;
        fs::remove_file(volume.target.join("one"))?;
        rig.snapshot("s", &volume)?;
        Ok(())
    })
}

#[test]
fn the_room_of_snapshots_is_promised() -> Result<()> {
    each("the_room_of_snapshots_is_promised", 1000, 1999, |rig| {
        let volume = rig.create("a", 64 * MIB)?;
        let before = rig.capacity()?;
        let snapshot = rig.snapshot("s", &volume)?;
        assert_eq!(before - rig.capacity()?, 64 * MIB);
        let rest = rig.create("b", rig.capacity()? - MIB)?;
        assert_eq!(rig.snapshot("t", &volume).expect_err("there is no room").code(), Code::ResourceExhausted);
        rig.delete(&rest)?;
        let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id, ..Default::default() };
        rig.client.delete_snapshot(request)?;
        assert_eq!(rig.capacity()?, before);
        Ok(())
    })
}

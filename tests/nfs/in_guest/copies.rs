//! Snapshots, restores and clones.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use dunnage_test_common::MIB;
use rustix::fs::XattrFlags;
use tonic::Code;

use super::{Rig, can_serve, entries, of_snapshot, of_volume, refused, snapshot};

/// Read and write for the owner, read for user 77, nothing for others, as ext4 keeps it.
const ACL: [u8; 44] = {
    const NOBODY: [u8; 4] = [0xff; 4];
    let entries: [(u8, u8, [u8; 4]); 5] =
        [(1, 6, NOBODY), (2, 4, [77, 0, 0, 0]), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)];
    let mut bytes = [0; 44];
    bytes[0] = 2;
    let mut index = 0;
    while index < 5 {
        let (tag, rights, id) = entries[index];
        let at = 4 + index * 8;
        (bytes[at], bytes[at + 2]) = (tag, rights);
        let mut byte = 0;
        while byte < 4 {
            bytes[at + 4 + byte] = id[byte];
            byte += 1;
        }
        index += 1;
    }
    bytes
};

fn attribute(path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// What a file of an export can have.
fn fill(folder: &Path) -> Result<()> {
    let sparse = File::create(folder.join("sparse"))?;
    sparse.write_all_at(&[7; MIB as usize], 8 * MIB as u64)?;
    sparse.set_len(64 * MIB as u64)?;
    fs::write(folder.join("large"), vec![3; 5 * MIB as usize + 17])?;
    fs::write(folder.join("owned"), "words")?;
    chown(folder.join("owned"), Some(1234), Some(5678))?;
    fs::set_permissions(folder.join("owned"), fs::Permissions::from_mode(0o2640))?;
    rustix::fs::setxattr(folder.join("owned"), "user.colour", b"red", XattrFlags::empty())?;
    fs::create_dir(folder.join("below"))?;
    fs::hard_link(folder.join("owned"), folder.join("below/linked"))?;
    symlink("../owned", folder.join("below/link"))?;
    fs::write(folder.join("listed"), "words")?;
    rustix::fs::setxattr(folder.join("listed"), "system.posix_acl_access", &ACL, XattrFlags::empty())?;
    Ok(())
}

fn has_all(folder: &Path, original: &Path) -> Result<()> {
    let sparse = fs::metadata(folder.join("sparse"))?;
    ensure!(sparse.len() == 64 * MIB as u64 && sparse.blocks() * 512 < 3 * MIB as u64, "{} blocks", sparse.blocks());
    for file in ["sparse", "large", "listed"] {
        ensure!(fs::read(folder.join(file))? == fs::read(original.join(file))?, "{file} has other bytes");
    }
    let owned = fs::metadata(folder.join("owned"))?;
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777, owned.nlink()), (1234, 5678, 0o2640, 2));
    assert_eq!(owned.mtime_nsec(), fs::metadata(original.join("owned"))?.mtime_nsec());
    assert_eq!(fs::metadata(folder.join("below/linked"))?.ino(), owned.ino());
    assert_eq!(fs::read_link(folder.join("below/link"))?, Path::new("../owned"));
    assert_eq!(attribute(&folder.join("owned"), "user.colour")?, b"red");
    assert_eq!(attribute(&folder.join("listed"), "system.posix_acl_access")?, ACL);
    Ok(())
}

#[test]
fn copies_have_all_that_a_server_keeps_of_files() -> Result<()> {
    if !can_serve("copies_have_all_that_a_server_keeps_of_files")? {
        return Ok(());
    }
    let rig = Rig::new("on_delete: archive")?;
    let volume = rig.published("a")?;
    let here = rig.on_server("volumes/a");
    fill(&here)?;
    let taken = snapshot(&rig.shares, "s", &volume)?;
    ensure!(taken.ready_to_use && taken.size_bytes == MIB, "{taken:?}");
    has_all(&rig.on_server("snapshots/s"), &here)?;
    fs::write(volume.target.join("owned"), "other")?;
    let clone = rig.copy("clone", of_volume(&volume))?;
    let restored = rig.copy("restored", of_snapshot(&taken))?;
    has_all(&rig.on_server("volumes/restored"), &rig.on_server("snapshots/s"))?;
    rig.shares.node_publish_volume(restored.publish())?;
    assert_eq!(fs::read_to_string(restored.target.join("owned"))?, "words");
    assert_eq!(fs::read_to_string(rig.on_server("volumes/clone/owned"))?, "other");
    rig.shares.node_unpublish_volume(restored.unpublish())?;
    rig.shares.node_unpublish_volume(volume.unpublish())?;
    for volume in [&volume, &clone, &restored] {
        rig.shares.delete_volume(volume.delete())?;
    }
    rig.delete_snapshot(&taken)?;
    assert_eq!(entries(&rig.on_server("snapshots"))?, [""; 0]);
    assert_eq!(entries(&rig.on_server("unfinished"))?, [""; 0]);
    assert_eq!(entries(&rig.on_server("archive"))?.len(), 3);
    rig.wait_for_trash()
}

#[test]
fn no_copy_is_made_where_the_server_squashes_root() -> Result<()> {
    if !can_serve("no_copy_is_made_where_the_server_squashes_root")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let volume = rig.create("a")?;
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(rig.server.export()).status()?;
    ensure!(status.success(), "chown: {status}");
    rig.server.export_with("*", "root_squash")?;
    rig.restart()?;
    let request = super::snapshot_request("s", &volume);
    refused(rig.shares.create_snapshot(request), Code::FailedPrecondition, "squashes root")?;
    Ok(())
}

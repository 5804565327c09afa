//! What a volume holds, and what it says it holds.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1::volume_usage::Unit;
use dunnage_test_common::{MIB, Quotas, Volume, expand, run};
use tonic::Code;

use super::{Rig, each};

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// An ordinary user.
    User,
    /// The root of a container, which has not every capability.
    RootOfContainer,
    /// Root with CAP_SYS_RESOURCE.
    Root,
}

/// Lets `who` write `mebibytes` into a file that this process opens, since the folders above are not for everybody.
/// Answers how many bytes it has then, and what dd(1) complained of.
fn write(path: &Path, who: Writer, mebibytes: i64) -> Result<(i64, String)> {
    let file = File::create(path)?;
    let mut command = Command::new("setpriv");
    command.args(match who {
        Writer::User => &["--reuid=65534", "--regid=65534", "--clear-groups"][..],
        Writer::RootOfContainer => &["--bounding-set=-sys_resource"][..],
        Writer::Root => &["--no-new-privs"][..],
    });
    let dd = command.args(["dd", "if=/dev/zero", "bs=64k", &format!("count={}", mebibytes * 16), "conv=fsync"]);
    let output = dd.env("LC_ALL", "C").stdout(file).output().context("cannot start setpriv")?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let length = path.metadata()?.len().try_into()?;
    ensure!(output.status.success() == (length == mebibytes * MIB), "{length} bytes were written: {complaint}");
    Ok((length, complaint))
}

/// Bytes in all and bytes used: what the plugin says, and what a workload sees.
fn sizes(rig: &Rig, volume: &Volume) -> Result<(i64, i64)> {
    let usage = rig.client.node_get_volume_stats(volume.stats())?.usage;
    let bytes = usage.iter().find(|one| one.unit == i32::from(Unit::Bytes)).context("no usage in bytes")?;
    let seen = rustix::fs::statvfs(&volume.target)?;
    let scale = |blocks: u64| (blocks * seen.f_frsize) as i64;
    let (total, used) = (scale(seen.f_blocks), scale(seen.f_blocks - seen.f_bfree));
    assert_eq!((bytes.total, bytes.used), (total, used), "the plugin says otherwise than statfs");
    Ok((total, used))
}

#[test]
fn nobody_writes_past_the_size_of_a_volume() -> Result<()> {
    each("nobody_writes_past_the_size_of_a_volume", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        let other = rig.published("b", 8 * MIB)?;
        let mut writers = vec![Writer::User, Writer::RootOfContainer];
        if rig.quotas == Quotas::Xfs {
            // ext4 lets CAP_SYS_RESOURCE pass.
            writers.push(Writer::Root);
        }
        for writer in writers {
            let path = volume.target.join("data");
            let (length, complaint) = write(&path, writer, 16)?;
            ensure!((7 * MIB..=8 * MIB).contains(&length), "{writer:?} wrote {length} bytes");
            let refused = ["Disk quota exceeded", "No space left on device"].iter().any(|why| complaint.contains(why));
            ensure!(refused, "{complaint}");
            // A full volume is nobody else's trouble.
            assert_eq!(write(&other.target.join("data"), writer, 7)?.0, 7 * MIB);
            std::fs::remove_file(path)?;
        }
        Ok(())
    })
}

#[test]
fn a_volume_shows_its_own_size_and_use() -> Result<()> {
    each("a_volume_shows_its_own_size_and_use", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        let (total, used) = sizes(rig, &volume)?;
        assert_eq!(total, 8 * MIB);
        ensure!(used <= 64 << 10, "an empty volume has {used} bytes in use");
        write(&volume.target.join("data"), Writer::User, 4)?;
        let (total, used) = sizes(rig, &volume)?;
        assert_eq!(total, 8 * MIB);
        ensure!((4 * MIB..5 * MIB).contains(&used), "4 MiB were written, and {used} bytes are in use");
        Ok(())
    })
}

#[test]
fn a_volume_grows_while_it_is_used_and_after_a_restart() -> Result<()> {
    each("a_volume_grows_while_it_is_used_and_after_a_restart", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        for (bytes, restart) in [(16 * MIB, false), (24 * MIB, true)] {
            if restart {
                rig.restart()?;
            }
            let grown = rig.client.controller_expand_volume(expand(&volume.id(), bytes))?;
            ensure!(grown.capacity_bytes == bytes && !grown.node_expansion_required, "{grown:?}");
            assert_eq!(sizes(rig, &volume)?.0, bytes);
            let (length, _) = write(&volume.target.join("data"), Writer::User, 40)?;
            ensure!((bytes - MIB..=bytes).contains(&length), "{length} bytes fit into {bytes}");
        }
        Ok(())
    })
}

#[test]
fn a_size_is_whole_blocks() -> Result<()> {
    each("a_size_is_whole_blocks", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB + 1)?;
        assert_eq!(volume.made.capacity_bytes, 8 * MIB + 4096);
        assert_eq!(sizes(rig, &volume)?.0, 8 * MIB + 4096);
        Ok(())
    })
}

#[test]
fn a_limit_that_was_lost_is_set_again_when_the_volume_is_published() -> Result<()> {
    each("a_limit_that_was_lost_is_set_again_when_the_volume_is_published", 1000, 1999, |rig| {
        let volume = rig.create("a", 8 * MIB)?;
        let limit = format!("limit -p bhard=0 {}", rig.project("a")?);
        let root = rig.host.setup().root("files").display().to_string();
        run("xfs_quota", &["-f", "-x", "-c", &limit, &root])?;
        let before = rustix::fs::statvfs(rig.data("a"))?;
        ensure!(before.f_blocks * before.f_frsize > 100 * MIB as u64, "the limit was not lost");
        rig.client.node_publish_volume(volume.publish())?;
        assert_eq!(sizes(rig, &volume)?.0, 8 * MIB);
        Ok(())
    })
}

#[test]
fn a_volume_that_took_the_project_of_another_takes_no_limit_with_it() -> Result<()> {
    each("a_volume_that_took_the_project_of_another_takes_no_limit_with_it", 1000, 1999, |rig| {
        let volume = rig.published("a", 8 * MIB)?;
        let other = rig.published("b", 8 * MIB)?;
        // What the root of a pod can do in its volume.
        run("chattr", &["-p", &rig.project("b")?.to_string(), &volume.target.display().to_string()])?;
        rig.client.node_unpublish_volume(volume.unpublish())?;
        rig.delete(&volume)?;
        assert_eq!(sizes(rig, &other)?.0, 8 * MIB);
        Ok(())
    })
}

#[test]
fn a_volume_that_has_lost_its_project_is_not_published() -> Result<()> {
    each("a_volume_that_has_lost_its_project_is_not_published", 1000, 1999, |rig| {
        let volume = rig.create("a", 8 * MIB)?;
        let id = rig.project("a")?;
        let data = rig.data("a").display().to_string();
        // As after its files came back from a backup.
        run("chattr", &["-p", "0", "-P", &data])?;
        let status = rig.client.node_publish_volume(volume.publish()).expect_err("it has no limit");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        ensure!(status.message().contains(&format!("chattr -R -p {id} +P")), "{status}");
        run("chattr", &["-R", "-p", &id.to_string(), "+P", &data])?;
        rig.client.node_publish_volume(volume.publish())?;
        assert_eq!(sizes(rig, &volume)?.0, 8 * MIB);
        Ok(())
    })
}

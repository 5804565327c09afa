//! Copies that are cut off: by the end of the host, by a server that is away, by another machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{Volume, wait_until};
use tonic::{Code, Status};

use super::{LIMIT, Rig, can_serve, entries, of_volume, snapshot, snapshot_request, told};

/// So many that a copy is cut off long before its end: a guest copies about ten in a second.
const FILES: usize = 200;

impl Rig {
    /// A volume that takes long to copy, filled behind the back of this machine.
    fn full(&self, name: &str) -> Result<Volume> {
        let volume = self.create(name)?;
        for file in 0..FILES {
            fs::write(self.on_server(&format!("volumes/{name}/{file}")), vec![file as u8; file * 50])?;
        }
        Ok(volume)
    }

    /// The whole files of a copy, and which files they are.
    fn whole(&self, folder: &str) -> Result<BTreeMap<String, u64>> {
        let folder = self.on_server(folder);
        let mut whole = BTreeMap::new();
        for name in entries(&folder).unwrap_or_default() {
            if let Ok(metadata) = fs::metadata(folder.join(&name))
                && metadata.mode() & 0o7777 == 0o644
            {
                whole.insert(name, metadata.ino());
            }
        }
        Ok(whole)
    }

    /// Begins a snapshot, which goes on after its call; answers what is whole when some is.
    fn begun(&self, volume: &Volume) -> Result<BTreeMap<String, u64>> {
        let (shares, request) = (self.shares.clone(), snapshot_request("s", volume));
        thread::spawn(move || shares.create_snapshot(request));
        let some = || Ok(self.whole("unfinished/snapshot.s/tree")?.len() > 10);
        wait_until("some files are copied", LIMIT, some)?;
        self.whole("unfinished/snapshot.s/tree")
    }

    fn is_ready(&self) -> Result<bool> {
        Ok(self.shares.list_snapshots(Default::default()).is_ok_and(|list| list.entries.len() == 1))
    }

    fn has_copied_nothing_twice(&self, before: &BTreeMap<String, u64>) -> Result<()> {
        let after = self.whole("snapshots/s")?;
        ensure!(after.len() == FILES, "{} files", after.len());
        let again = before.iter().filter(|(name, inode)| after.get(*name) != Some(*inode)).count();
        ensure!(again == 0, "{again} of {} files were copied again", before.len());
        for file in [0, 1, FILES / 2, FILES - 1] {
            let bytes = fs::read(self.on_server(&format!("snapshots/s/{file}")))?;
            ensure!(bytes == vec![file as u8; file * 50], "{file} has other bytes");
        }
        Ok(())
    }
}

#[test]
fn a_copy_goes_on_after_a_kill_without_being_asked_for() -> Result<()> {
    if !can_serve("a_copy_goes_on_after_a_kill_without_being_asked_for")? {
        return Ok(());
    }
    let mut rig = Rig::new("")?;
    let volume = rig.full("a")?;
    let before = rig.begun(&volume)?;
    rig.restart()?;
    ensure!(before.len() < FILES, "it was whole before");
    wait_until("the snapshot to be whole", LIMIT, || rig.is_ready())?;
    rig.has_copied_nothing_twice(&before)?;
    rig.shares.delete_volume(volume.delete())?;
    Ok(())
}

#[test]
fn a_copy_whose_server_is_away_goes_on_when_it_is_back() -> Result<()> {
    if !can_serve("a_copy_whose_server_is_away_goes_on_when_it_is_back")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volume = rig.full("a")?;
    let before = rig.begun(&volume)?;
    let job = fs::read(rig.on_server(".dunnage/jobs/snapshot.s"))?;
    rig.machine.cut()?;
    // The calls of the copy fail after 15 seconds; who asks meanwhile is not told that it is given up.
    for _ in 0..3 {
        let answer: Result<_, Status> = rig.shares.create_snapshot(snapshot_request("s", &volume));
        let status = answer.err().context("it is ready")?;
        told(&format!("the server is away: {status}"));
        ensure!(matches!(status.code(), Code::Aborted | Code::Internal | Code::DeadlineExceeded), "{status}");
        thread::sleep(Duration::from_secs(5));
    }
    assert_eq!(fs::read(rig.on_server(".dunnage/jobs/snapshot.s"))?, job, "it is another copy");
    rig.machine.mend()?;
    let taken = snapshot(&rig.shares, "s", &volume)?;
    ensure!(
        String::from_utf8_lossy(&job).contains(taken.snapshot_id.rsplit('.').next().context("an id")?),
        "{taken:?}"
    );
    rig.has_copied_nothing_twice(&before)
}

#[test]
fn two_volumes_of_one_export_are_copied_at_once_and_each_is_whole() -> Result<()> {
    if !can_serve("two_volumes_of_one_export_are_copied_at_once_and_each_is_whole")? {
        return Ok(());
    }
    let rig = Rig::new("")?;
    let volumes = [rig.full("a")?, rig.full("b")?];
    thread::scope(|scope| -> Result<()> {
        let copies = ["one", "two"].map(|name| {
            let (rig, source) = (&rig, if name == "one" { &volumes[0] } else { &volumes[1] });
            scope.spawn(move || rig.copy(name, of_volume(source)))
        });
        for copy in copies {
            copy.join().expect("it does not panic")?;
        }
        Ok(())
    })?;
    for (copy, source) in [("one", "a"), ("two", "b")] {
        let (copy, source) = (rig.on_server(&format!("volumes/{copy}")), rig.on_server(&format!("volumes/{source}")));
        let names = entries(&source)?;
        ensure!(entries(&copy)? == names, "it has other files");
        for name in names {
            ensure!(fs::read(copy.join(&name))? == fs::read(source.join(&name))?, "{name} has other bytes");
        }
    }
    assert_eq!(entries(&rig.on_server(".dunnage/jobs"))?, [""; 0]);
    Ok(())
}

//! Copies in the background, as an orchestrator and an admin see them: on a disk that shares no blocks.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, Setup, Volume, block, can_run, create, get, mount, mount_new, wait_until,
};
use serde_json::Value;
use std::net::SocketAddr;
use tonic::Code;

use crate::{DIR, DUNNAGE, IMAGE, bring, is, take};

const LIMIT: Duration = Duration::from_secs(60);
/// The size of the source, of which a copy takes more room than there is.
const SIZE: i64 = 128 * MIB;

/// A host whose disk is so full that a copy of its one volume stops on the way, until [`make_room`](Self::make_room).
struct Narrow {
    host: Host,
    disks: Client,
    volume: Volume,
    port: SocketAddr,
}

impl Narrow {
    fn new() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let setup = Setup::new()?.backend("disks", "image", "overcommit: 9")?;
        let setup = setup.set("telemetry", &format!("{{listen: '{port}'}}"));
        mount_new(&setup.scratch().path().join("disk"), 640, &setup.root("disks"), &["mkfs.ext4", "-q"], "loop")?;
        let host = setup.start(DUNNAGE)?;
        let disks = host.client(IMAGE)?;
        let made = disks.create_volume(create("source", SIZE, block()))?.volume.context("no volume")?;
        let volume = Volume::new(made, block(), &host.setup().scratch().path().join("pods/source"), true);
        let narrow = Self { host, disks, volume, port };
        bring(&narrow.disks, &narrow.volume)?;
        fs::write(&narrow.volume.target, vec![7; usize::try_from(SIZE)?])?;
        take(&narrow.disks, &narrow.volume)?;
        let stat = rustix::fs::statvfs(narrow.host.setup().root("disks"))?;
        let filler = File::create(narrow.filler())?;
        let taken = stat.f_bavail * stat.f_frsize - 90 * MIB.cast_unsigned();
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, taken)?;
        Ok(narrow)
    }

    fn filler(&self) -> PathBuf {
        self.host.setup().root("disks").join("filler")
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn request(&self) -> csi::CreateSnapshotRequest {
        csi::CreateSnapshotRequest { source_volume_id: self.volume.id(), name: "nightly".into(), ..Default::default() }
    }

    fn metric(&self, sample: &str) -> Result<u64> {
        let metrics = get(self.port, "/metrics")?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(sample)).context("no such sample")?;
        Ok(value.trim().parse::<f64>()? as u64)
    }

    fn rows(&self) -> Result<Vec<Value>> {
        let output = self.host.run(&["volumes", "--json"])?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

fn narrow(test: &str) -> Result<Option<Narrow>> {
    if can_run(test, &[Need::Root, Need::Program("mkfs.ext4")])? { Narrow::new().map(Some) } else { Ok(None) }
}

#[test]
fn a_snapshot_that_is_copied_is_told_of_everywhere_survives_a_kill_and_is_ready_in_the_end() -> Result<()> {
    let test = "a_snapshot_that_is_copied_is_told_of_everywhere_survives_a_kill_and_is_ready_in_the_end";
    let Some(mut rig) = narrow(test)? else { return Ok(()) };
    let cut = rig.disks.create_snapshot(rig.request())?.snapshot.context("no snapshot")?;
    ensure!(!cut.ready_to_use && cut.size_bytes == SIZE, "{cut:?}");
    wait_until("the copy to fail", LIMIT, || Ok(rig.metric("dunnage_copies_failed_total{backend=\"disks\"}")? > 0))?;
    let labels = "{backend=\"disks\",kind=\"snapshot\"}";
    assert_eq!(rig.metric(&format!("dunnage_copies{labels}"))?, 1);
    assert_eq!(rig.metric(&format!("dunnage_copies_bytes{labels}"))?, SIZE.cast_unsigned());
    let full = rig.disks.under("image", Fault::DiskFull);
    let message = is("create-snapshot", full.create_snapshot(rig.request()), Code::ResourceExhausted)?;
    ensure!(message.contains("tried again") && message.contains("leaves the last"), "{message}");
    let rows = rig.rows()?;
    let snapshot = rows.iter().find(|row| row["kind"] == "snapshot").context("no snapshot")?;
    assert_eq!((&snapshot["snapshot_id"], &snapshot["ready_to_use"]), (&cut.snapshot_id.clone().into(), &false.into()));
    assert_eq!(snapshot["copying"]["total"], SIZE);
    let table = String::from_utf8(rig.host.run(&["volumes"])?.stdout)?;
    ensure!(
        table.contains("nightly") && table.contains("copying ") && table.contains(" %, failing: the disk"),
        "{table}"
    );

    let message = is("stage", rig.disks.node_stage_volume(rig.volume.stage()), Code::FailedPrecondition)?;
    ensure!(message.contains("snapshot \"nightly\"") && message.contains(" % of 128 MiB"), "{message}");
    is("delete", rig.disks.delete_volume(rig.volume.delete()), Code::FailedPrecondition)?;
    let source = Type::Snapshot(SnapshotSource { snapshot_id: cut.snapshot_id.clone() });
    is("restore", rig.disks.create_volume(from(source)), Code::FailedPrecondition)?;

    rig.host.kill()?;
    // Not copied again: a mark in what is durable stays.
    let unfinished = rig.host.setup().root("disks").join("unfinished/snapshots.nightly");
    File::options().write(true).open(&unfinished)?.write_all_at(b"a mark", 5)?;
    rig.make_room()?;
    rig.host.restart()?;
    rig.disks = rig.host.client(IMAGE)?;
    let snapshot = || rig.disks.create_snapshot(rig.request()).map(|answer| answer.snapshot.unwrap_or_default());
    wait_until("the snapshot to be ready", LIMIT, || Ok(snapshot()?.ready_to_use))?;
    assert_eq!(snapshot()?, csi::Snapshot { ready_to_use: true, ..cut.clone() });
    let bytes = fs::read(rig.host.setup().root("disks").join("snapshots/nightly"))?;
    ensure!(bytes[..5] == [7; 5] && bytes[5..11] == *b"a mark" && bytes[11..].iter().all(|byte| *byte == 7));
    wait_until("the job to end", LIMIT, || Ok(rig.metric(&format!("dunnage_copies{labels}"))? == 0))?;
    let table = String::from_utf8(rig.host.run(&["volumes"])?.stdout)?;
    ensure!(table.lines().any(|line| line.contains("nightly") && line.contains("ready")), "{table}");
    let log = rig.host.log();
    ensure!(log.contains("begins to copy") && log.contains(" copied "), "{log}");
    bring(&rig.disks, &rig.volume)?;
    take(&rig.disks, &rig.volume)
}

fn from(source: Type) -> csi::CreateVolumeRequest {
    let mut request = create("copy", SIZE, block());
    request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
    request
}

#[test]
fn a_volume_in_use_is_not_copied_and_a_clone_that_fails_leaves_its_name_free() -> Result<()> {
    let test = "a_volume_in_use_is_not_copied_and_a_clone_that_fails_leaves_its_name_free";
    let Some(rig) = narrow(test)? else { return Ok(()) };
    let clone = || from(Type::Volume(VolumeSource { volume_id: rig.volume.id() }));
    bring(&rig.disks, &rig.volume)?;
    let messages = [
        is("snapshot", rig.disks.create_snapshot(rig.request()), Code::FailedPrecondition)?,
        is("clone", rig.disks.create_volume(clone()), Code::FailedPrecondition)?,
    ];
    for message in messages {
        ensure!(message.contains("in use on this node") && message.contains("unstage it first"), "{message}");
    }
    take(&rig.disks, &rig.volume)?;
    let full = rig.disks.under("image", Fault::DiskFull);
    let message = is("clone", full.create_volume(clone()), Code::ResourceExhausted)?;
    ensure!(message.contains("leaves the last"), "{message}");
    ensure!(rig.rows()?.len() == 1, "{:?}", rig.rows()?);
    let empty = create("copy", MIB, block());
    let made = rig.disks.create_volume(empty)?.volume.context("no volume")?;
    rig.disks.delete_volume(csi::DeleteVolumeRequest { volume_id: made.volume_id, ..Default::default() })?;
    rig.make_room()?;
    let made = rig.disks.create_volume(clone())?.volume.context("no volume")?;
    ensure!(made.capacity_bytes == SIZE && made.content_source == clone().volume_content_source, "{made:?}");
    assert_eq!(rig.disks.create_volume(clone())?.volume, Some(made));
    Ok(())
}

#[test]
fn a_clone_that_nobody_asks_for_again_is_ended_by_the_deletion_of_its_id() -> Result<()> {
    let test = "a_clone_that_nobody_asks_for_again_is_ended_by_the_deletion_of_its_id";
    let Some(mut rig) = narrow(test)? else { return Ok(()) };
    let clone = from(Type::Volume(VolumeSource { volume_id: rig.volume.id() }));
    let job = rig.host.setup().root("disks").join(".dunnage/jobs/volume.copy");
    let client = rig.disks.clone();
    let asked = std::thread::spawn(move || client.create_volume(clone));
    wait_until("the copy to begin", LIMIT, || Ok(job.exists()))?;
    rig.host.kill()?;
    let answered = asked.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?;
    ensure!(answered.is_err(), "{answered:?}");
    rig.host.restart()?;
    rig.disks = rig.host.client(IMAGE)?;
    wait_until("the copy to fail", LIMIT, || Ok(rig.metric("dunnage_copies_failed_total{backend=\"disks\"}")? > 0))?;
    is("a stage of its source", rig.disks.node_stage_volume(rig.volume.stage()), Code::FailedPrecondition)?;
    let rows = rig.rows()?;
    let copy = rows.iter().find(|row| !row["copying"].is_null()).context("no copy is shown")?;
    let volume_id = copy["volume_id"].as_str().context("a copy without an id")?.to_owned();
    // Another generation of its name is nobody's.
    let other = format!("{}.{}", volume_id.rsplit_once('.').context("no generation")?.0, "a".repeat(13));
    rig.disks.delete_volume(csi::DeleteVolumeRequest { volume_id: other, ..Default::default() })?;
    ensure!(job.exists(), "a copy was ended by the id of another");
    rig.disks.delete_volume(csi::DeleteVolumeRequest { volume_id, ..Default::default() })?;
    ensure!(!job.exists(), "the copy goes on");
    bring(&rig.disks, &rig.volume)?;
    take(&rig.disks, &rig.volume)?;
    rig.disks.create_volume(create("copy", MIB, block()))?;
    Ok(())
}

/// A file that nobody can open before this is dropped, or for 45 seconds.
struct Leased {
    _file: File,
}

#[allow(unsafe_code)]
impl Leased {
    fn new(path: &Path) -> Result<Self> {
        // SAFETY: to ignore a signal runs no code. It would end the process when somebody wants the file.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        let file = File::options().write(true).open(path)?;
        // SAFETY: the descriptor is open, and the call takes no pointer.
        let leased = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        ensure!(leased == 0, "{}", std::io::Error::last_os_error());
        Ok(Self { _file: file })
    }
}

#[test]
fn a_folder_comes_and_goes_while_it_is_copied_and_the_copy_is_listed_and_ended_by_its_id() -> Result<()> {
    let test = "a_folder_comes_and_goes_while_it_is_copied_and_the_copy_is_listed_and_ended_by_its_id";
    if !can_run(test, &[Need::Root])? {
        return Ok(());
    }
    let mut host = Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)?;
    let mut files = host.client(DIR)?;
    let made = files.create_volume(create("source", MIB, mount()))?.volume.context("no volume")?;
    let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pods/source"), false);
    let root = host.setup().root("files");
    let path = root.join("volumes/source/file");
    fs::write(&path, "words")?;
    let leased = Leased::new(&path)?;
    let request =
        csi::CreateSnapshotRequest { source_volume_id: volume.id(), name: "nightly".into(), ..Default::default() };
    let clone = |of: &str| csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource {
            r#type: Some(Type::Volume(VolumeSource { volume_id: of.into() })),
        }),
        ..create("copy", MIB, mount())
    };
    let asked = [
        std::thread::spawn({
            let (client, request) = (files.clone(), request.clone());
            move || client.create_snapshot(request).map(drop)
        }),
        std::thread::spawn({
            let (client, request) = (files.clone(), clone(&volume.id()));
            move || client.create_volume(request).map(drop)
        }),
    ];
    for job in ["snapshot.nightly", "volume.copy"] {
        wait_until("the copy to begin", LIMIT, || Ok(root.join(".dunnage/jobs").join(job).exists()))?;
    }
    bring(&files, &volume)?;
    ensure!(fs::read_dir(&volume.target)?.count() == 1);
    take(&files, &volume)?;
    ensure!(asked.iter().all(|call| !call.is_finished()), "nobody waited for the copies: the test does not test");
    is("delete", files.delete_volume(volume.delete()), Code::Aborted)?;

    host.kill()?;
    for call in asked {
        let answered = call.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?;
        ensure!(answered.is_err(), "{answered:?}");
    }
    // The kernel takes a lease away after a while.
    drop(leased);
    let leased = Leased::new(&path)?;
    host.restart()?;
    files = host.client(DIR)?;
    let output = host.run(&["volumes", "--json"])?;
    let rows: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let row = rows.iter().find(|row| row["kind"] == "snapshot").with_context(|| format!("no snapshot: {rows:?}"))?;
    assert_eq!((&row["name"], &row["ready_to_use"]), (&"nightly".into(), &false.into()));
    assert_eq!(row["source_volume_id"], volume.id());
    ensure!(!row["copying"].is_null(), "{row}");
    ensure!(rows.iter().any(|row| row["kind"] == "volume" && row["name"] == "copy"), "{rows:?}");
    let table = String::from_utf8(host.run(&["volumes"])?.stdout)?;
    ensure!(table.lines().any(|line| line.contains("nightly") && line.contains("copying")), "{table}");

    let snapshot_id = row["snapshot_id"].as_str().context("a snapshot without an id")?.to_owned();
    files.delete_snapshot(csi::DeleteSnapshotRequest { snapshot_id, ..Default::default() })?;
    ensure!(!root.join(".dunnage/jobs/snapshot.nightly").exists(), "the copy goes on");
    drop(leased);
    wait_until("the clone to be whole", LIMIT, || Ok(files.create_volume(clone(&volume.id())).is_ok()))?;
    ensure!(files.list_snapshots(Default::default())?.entries.is_empty(), "a snapshot that was deleted has come");
    files.delete_volume(volume.delete())?;
    Ok(())
}

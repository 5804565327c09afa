//! All of it needs a kernel with NFS.

mod at_length;
mod copies;
mod folders;
mod lives;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use dunnage_test_common::{
    Client, Fault, Host, MIB, Need, NfsClient, NfsServer, Scratch, Setup, Volume, can_run, create, mount, wait_until,
};
use tonic::Status;

const DUNNAGE: &str = env!("CARGO_BIN_EXE_dunnage");
const SHARES: &str = "shares.csi.dunnage.dev";
const FILES: &str = "files.csi.dunnage.dev";
/// Far above what anything takes that does not hang; a guest is slow.
const LIMIT: Duration = Duration::from_secs(120);

fn can_serve(test: &str) -> Result<bool> {
    let programs = ["rpc.nfsd", "rpc.mountd", "nfsdcld", "exportfs", "ip", "tc", "nsenter"].map(Need::Program);
    can_run(test, &[&[Need::Root, Need::Guest][..], &programs].concat())
}

/// A server and one machine with a host, which has a backend on the server and one on its own disk.
struct Rig {
    shares: Client,
    files: Client,
    // Dropped first, and its cable mended: what is unmounted then would wait for ever.
    machine: NfsClient,
    host: Host,
    server: NfsServer,
    _scratch: Scratch,
}

impl Rig {
    fn new(rest: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut server = NfsServer::new(scratch.path())?;
        let machine = server.client(scratch.path())?;
        let host = setup(&machine, rest)?.start(program(&machine)?.to_str().context("a path")?)?;
        let (shares, files) = (host.client(SHARES)?, host.client(FILES)?);
        Ok(Self { shares, files, host, machine, server, _scratch: scratch })
    }

    fn restart(&mut self) -> Result<()> {
        self.host.restart()?;
        (self.shares, self.files) = (self.host.client(SHARES)?, self.host.client(FILES)?);
        Ok(())
    }

    /// The client of the backend on the server, for calls that are made while something is wrong.
    fn under(&self, fault: Fault) -> Client {
        self.shares.under("nfs", fault)
    }

    fn create(&self, name: &str) -> Result<Volume, Status> {
        made(&self.host, &self.shares, create(name, MIB, mount()))
    }

    fn published(&self, name: &str) -> Result<Volume> {
        let volume = self.create(name)?;
        self.shares.node_publish_volume(volume.publish())?;
        Ok(volume)
    }

    /// A volume that holds what something else holds. What takes longer than a call may is asked for again.
    fn copy(&self, name: &str, source: Type) -> Result<Volume> {
        let mut request = create(name, MIB, mount());
        request.volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
        Ok(until_whole(|| made(&self.host, &self.shares, request.clone()))?)
    }

    fn delete_snapshot(&self, snapshot: &csi::Snapshot) -> Result<()> {
        let snapshot_id = snapshot.snapshot_id.clone();
        let request = csi::DeleteSnapshotRequest { snapshot_id, ..Default::default() };
        for _ in 0..2 {
            self.shares.delete_snapshot(request.clone())?;
        }
        Ok(())
    }

    /// What the server has at a path below the export.
    fn on_server(&self, path: &str) -> PathBuf {
        self.server.export().join(path)
    }

    fn wait_for_trash(&self) -> Result<()> {
        wait_until("the trash to be emptied", LIMIT, || Ok(entries(&self.on_server(".dunnage/trash"))?.is_empty()))
    }
}

fn setup(machine: &NfsClient, rest: &str) -> Result<Setup> {
    let keys = format!("server: {}\nexport: {}\nquota: none\n{rest}", machine.server(), NfsServer::EXPORT);
    Setup::new()?.rootless("shares", "nfs", &keys).backend("files", "dir", "quota: none")
}

fn program(machine: &NfsClient) -> Result<PathBuf> {
    machine.running(DUNNAGE)
}

fn made(host: &Host, client: &Client, request: csi::CreateVolumeRequest) -> Result<Volume, Status> {
    let folder = host.setup().scratch().path().join("pods").join(&request.name);
    let made = client.create_volume(request)?.volume.expect("no volume");
    Ok(Volume::new(made, mount(), &folder, false))
}

fn snapshot_request(name: &str, of: &Volume) -> csi::CreateSnapshotRequest {
    csi::CreateSnapshotRequest { name: name.into(), source_volume_id: of.id(), ..Default::default() }
}

fn snapshot(client: &Client, name: &str, of: &Volume) -> Result<csi::Snapshot> {
    let made = until_whole(|| client.create_snapshot(snapshot_request(name, of)))?;
    made.snapshot.context("no snapshot")
}

/// Asks again while a copy goes on, and while the server owes an answer from before.
fn until_whole<T>(mut call: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
    let late = Instant::now() + 3 * LIMIT;
    let goes_on =
        |status: &Status| status.code() == tonic::Code::Aborted || status.message().contains("does not answer");
    loop {
        match call() {
            Err(status) if goes_on(&status) && Instant::now() < late => {}
            answer => return answer,
        }
    }
}

fn of_snapshot(snapshot: &csi::Snapshot) -> Type {
    Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() })
}

fn of_volume(volume: &Volume) -> Type {
    Type::Volume(VolumeSource { volume_id: volume.id() })
}

/// A program that writes into a volume. Not this one: with a file open that cannot be written, it could start no other.
struct Writer(Child);

impl Writer {
    fn new(volume: &Volume) -> Result<Self> {
        let script = format!("exec cat >'{}'", volume.target.join("data").display());
        let child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn()?;
        wait_until("the writer to open its file", LIMIT, || Ok(volume.target.join("data").exists()))?;
        Ok(Self(child))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.stdin.as_mut().context("it has ended")?.write_all(bytes)?)
    }

    /// Has it close its file, for which all is to be on the server.
    fn end(&mut self) -> Result<()> {
        self.0.stdin.take().map(drop).context("it has ended")
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that waits for its server ends when that is back, or gone for good.
        let _ = self.0.kill();
    }
}

/// The same volume as another node knows it.
fn on(host: &Host, volume: &Volume) -> Volume {
    let folder = host.setup().scratch().path().join("pods/again");
    Volume::new(volume.made.clone(), volume.capability.clone(), &folder, false)
}

fn with_mode(mode: csi::volume_capability::access_mode::Mode) -> csi::VolumeCapability {
    let access_mode = Some(csi::volume_capability::AccessMode { mode: mode.into() });
    csi::VolumeCapability { access_mode, ..mount() }
}

fn with_flags(flags: &[&str]) -> csi::VolumeCapability {
    let mut capability = mount();
    if let Some(csi::volume_capability::AccessType::Mount(mount)) = &mut capability.access_type {
        mount.mount_flags = flags.iter().map(ToString::to_string).collect();
    }
    capability
}

/// The line of the table of mounts for a path, the topmost.
fn line(path: &Path) -> Result<String> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let line = table.lines().rfind(|line| line.split(' ').nth(4).map(Path::new) == Some(path));
    line.map(str::to_owned).with_context(|| format!("nothing is mounted at {}", path.display()))
}

fn is_mounted(path: &Path) -> bool {
    line(path).is_ok()
}

fn entries(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A figure that is judged by people.
#[allow(clippy::print_stdout, reason = "the harness shows it where it is asked to")]
fn told(text: &str) {
    println!("{text}");
}

/// The answer of a call, which must come within a bound.
fn within<T: std::fmt::Debug>(
    limit: Duration,
    what: &str,
    call: impl FnOnce() -> Result<T, Status>,
) -> Result<T, Status> {
    let began = Instant::now();
    let answer = call();
    let took = began.elapsed();
    let refusal = answer.as_ref().err().map(|status| format!(" ({status})")).unwrap_or_default();
    told(&format!("{what}: {:.2} s{refusal}", took.as_secs_f64()));
    assert!(took < limit, "{what} was answered after {took:?}: {answer:?}");
    answer
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: tonic::Code, words: &str) -> Result<()> {
    let status = answer.expect_err("it is refused");
    ensure!(status.code() == code && status.message().contains(words), "{status}");
    Ok(())
}

const WRITERS: csi::volume_capability::access_mode::Mode =
    csi::volume_capability::access_mode::Mode::MultiNodeMultiWriter;

//! An NFS server and its clients, each in a network of its own, which a test can cut.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{mount_disk, wait_until};

/// Far above what the server's programs take.
const LIMIT: Duration = Duration::from_secs(60);
const DISK_MEBIBYTES: u64 = 2048;

/// A network namespace, and for the server a mount namespace, that last as long as this.
#[derive(Debug)]
struct Space {
    holder: Child,
    mounts: bool,
}

impl Space {
    fn new(mounts: bool) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--uts"]);
        if mounts {
            command.args(["--mount", "--propagation", "private"]);
        }
        let holder = command.args(["sleep", "infinity"]).spawn().context("cannot start unshare")?;
        let space = Self { holder, mounts };
        let own = fs::read_link("/proc/self/ns/net")?;
        let entered = || Ok(fs::read_link(format!("/proc/{}/ns/net", space.holder.id())).is_ok_and(|net| net != own));
        wait_until("a network namespace", LIMIT, entered)?;
        // The namespaces are there before the program that holds them is.
        let named = || Ok(fs::read_to_string(format!("/proc/{}/comm", space.holder.id()))?.trim() == "sleep");
        wait_until("the holder of a network namespace", LIMIT, named)?;
        space.run("ip link set lo up")?;
        Ok(space)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--uts"]);
        if self.mounts {
            command.arg("--mount");
        }
        command.args(["sh", "-ec", script]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str) -> Result<()> {
        let output = self.command(script).output().context("cannot start nsenter")?;
        ensure!(output.status.success(), "{script}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// An NFS server of versions 4.1 and 4.2 with one export, which is a disk of its own.
#[derive(Debug)]
pub struct NfsServer {
    space: Space,
    programs: Vec<Child>,
    export: PathBuf,
    clients: u8,
}

impl NfsServer {
    /// Starts it with its files below `folder`, which must be a scratch folder's.
    ///
    /// # Errors
    /// Without root, or the kernel's server.
    pub fn new(folder: &Path) -> Result<Self> {
        let (export, state) = (folder.join("export"), folder.join("nfs-state"));
        for folder in [&export, &state] {
            fs::create_dir_all(folder)?;
        }
        mount_disk(&folder.join("export.disk"), DISK_MEBIBYTES, &export)?;
        fs::create_dir(export.join("dunnage"))?;
        let space = Space::new(true)?;
        let state = state.display();
        space.run(&format!(
            "mkdir -p /var/lib/nfs /run/rpc_pipefs {state}/v4recovery {state}/nfsdcld
             touch {state}/etab {state}/rmtab
             mount --bind {state} /var/lib/nfs
             mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
             mount -t nfsd nfsd /proc/fs/nfsd"
        ))?;
        let mut server = Self { space, programs: Vec::new(), export, clients: 0 };
        server.export_to("*")?;
        // It remembers the clients: without it each start has a grace in which nobody may open a file.
        server.start_program("exec nfsdcld -F -s /var/lib/nfs/nfsdcld")?;
        let remembers = || Ok(folder.join("nfs-state/nfsdcld/main.sqlite").exists());
        wait_until("nfsdcld", LIMIT, remembers)?;
        server.start_program("exec rpc.mountd -F -N 3 --no-udp")?;
        server.start()?;
        Ok(server)
    }

    fn start_program(&mut self, script: &str) -> Result<()> {
        let mut command = self.space.command(&format!("exec setpriv --pdeathsig KILL sh -c '{script}'"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.programs.push(child.with_context(|| format!("cannot start {script}"))?);
        Ok(())
    }

    /// Starts the server: nothing is lost of what was there before.
    ///
    /// # Errors
    /// The server's.
    pub fn start(&self) -> Result<()> {
        self.space.run("rpc.nfsd -N 3 --no-udp -G 10 -L 10 8")
    }

    /// Stops the server: connections are refused.
    ///
    /// # Errors
    /// The server's.
    pub fn stop(&self) -> Result<()> {
        self.space.run("rpc.nfsd 0")
    }

    /// Exports the disk.
    ///
    /// # Errors
    /// The server's.
    pub fn export_to(&self, whom: &str) -> Result<()> {
        self.export_with(whom, "no_root_squash")
    }

    /// The same with this as the word on root.
    ///
    /// # Errors
    /// The server's.
    pub fn export_with(&self, whom: &str, root: &str) -> Result<()> {
        let options = format!("rw,{root},insecure,no_subtree_check,sync,fsid=0");
        self.space.run(&format!("exportfs -o {options} '{whom}:{}'", self.export.display()))
    }

    /// Takes the export away, also from who has it mounted.
    ///
    /// # Errors
    /// The server's.
    pub fn withdraw(&self) -> Result<()> {
        self.space.run(&format!("exportfs -u '*:{}' && exportfs -f", self.export.display()))
    }

    /// What clients mount: an empty folder.
    pub const EXPORT: &str = "/dunnage";

    /// The same folder on the server.
    pub fn export(&self) -> PathBuf {
        self.export.join("dunnage")
    }

    /// A machine that reaches the server over a cable of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn client(&mut self, folder: &Path) -> Result<NfsClient> {
        self.clients += 1;
        let number = self.clients;
        let space = Space::new(false)?;
        let (id, address) = (space.holder.id(), format!("10.9.{number}.1"));
        self.space.run(&format!(
            "ip link add c{number} type veth peer name s{number}
             ip link set c{number} netns {id}
             ip addr add {address}/24 dev s{number}
             ip link set s{number} up"
        ))?;
        // A server tells the machines by their names: two of one name would take each other's locks.
        space.run(&format!(
            "ip addr add 10.9.{number}.2/24 dev c{number} && ip link set c{number} up && hostname client-{number}"
        ))?;
        Ok(NfsClient { space, number, address, folder: folder.into() })
    }
}

impl Drop for NfsServer {
    fn drop(&mut self) {
        // Its threads are the kernel's, and would hold the disk.
        let _ = self.stop();
        let _ = self.space.run("exportfs -ua && exportfs -f");
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// A machine that uses the server. What runs on it sees the files of the test.
#[derive(Debug)]
pub struct NfsClient {
    space: Space,
    number: u8,
    address: String,
    folder: PathBuf,
}

impl NfsClient {
    /// The address of the server.
    pub fn server(&self) -> &str {
        &self.address
    }

    /// A program that is `binary`, run on this machine.
    ///
    /// # Errors
    /// The file system's.
    pub fn running(&self, binary: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("on-client-{}", self.number));
        let text =
            format!("#!/bin/sh\nexec nsenter --target {} --net --uts -- {binary} \"$@\"\n", self.space.holder.id());
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Cuts the cable: what is sent is lost, and nobody is told.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cut(&self) -> Result<()> {
        self.space.run(&format!("tc qdisc add dev c{} root netem loss 100%", self.number))
    }

    /// Mends the cable; succeeds where it is whole.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mend(&self) -> Result<()> {
        self.space.run(&format!("tc qdisc del dev c{} root 2>/dev/null || true", self.number))
    }
}

/// What is mounted would wait for ever for a server that cannot be reached.
impl Drop for NfsClient {
    fn drop(&mut self) {
        let _ = self.mend();
    }
}

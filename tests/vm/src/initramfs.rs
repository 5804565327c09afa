//! What the kernel starts from: a shell, the modules that reach the machine's files, and two scripts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::kernel::Kernel;
use crate::program::{BUSYBOX, CPIO, MODPROBE};

/// All others are loaded by the kernel itself when it needs them, from the machine's files.
const MODULES: [&str; 7] =
    ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_blk", "virtio_net"];
const INIT: &str = include_str!("guest/init.sh");
const AGENT: &str = include_str!("guest/agent.sh");
const FOLDERS: [&str; 8] = ["bin", "dev", "machine", "memory", "modules", "proc", "root", "sys"];

/// Writes the archive.
pub(crate) fn write(kernel: &Kernel, archive: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder for the initramfs")?;
    let folder = folder.path();
    for name in FOLDERS {
        fs::create_dir(folder.join(name))?;
    }
    fs::copy(BUSYBOX.find()?, folder.join("bin/busybox"))?;
    let mut names: Vec<String> = FOLDERS.map(str::to_owned).into();
    names.push("bin/busybox".into());
    for (name, text) in [("init", INIT), ("agent", AGENT)] {
        fs::write(folder.join(name), text)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        names.push(name.into());
    }
    let mut order = String::new();
    for module in modules(kernel)? {
        let name = Path::new(&module).file_name().context("a module has no name")?.to_string_lossy().into_owned();
        fs::copy(&module, folder.join("modules").join(&name))?;
        order.push_str(&format!("{name}\n"));
        names.push(format!("modules/{name}"));
    }
    let place = format!("{}\n", kernel.modules().display());
    for (name, text) in [("modules/order", order), ("modules/folder", place)] {
        fs::write(folder.join(name), text)?;
        names.push(name.into());
    }
    pack(folder, &names, archive)
}

/// The files of the modules, each after those it needs.
fn modules(kernel: &Kernel) -> Result<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for module in MODULES {
        let options = ["-S", &kernel.release, "--show-depends", module];
        let arguments = ["-d".as_ref(), kernel.root.as_os_str()].into_iter().chain(options.map(str::as_ref));
        // Lines are `insmod FILE`, with what is part of the kernel as `builtin NAME`.
        for line in MODPROBE.run(&kernel.root, arguments)?.lines() {
            let Some(file) = line.strip_prefix("insmod ") else { continue };
            let file = file.trim_end().to_owned();
            if seen.insert(file.clone()) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn pack(folder: &Path, names: &[String], archive: &Path) -> Result<()> {
    let output = File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut cpio = CPIO.command()?;
    cpio.current_dir(folder).args(["--create", "--format=newc", "--quiet", "--null", "--owner=0:0"]);
    let mut cpio = cpio.stdin(Stdio::piped()).stdout(output).spawn().context("cannot start cpio")?;
    let list: Vec<u8> =
        names.iter().flat_map(|name| [Path::new(name).as_os_str().as_bytes(), b"\0"].concat()).collect();
    cpio.stdin.take().context("cpio has no input")?.write_all(&list).context("cannot write to cpio")?;
    let status = cpio.wait()?;
    ensure!(status.success(), "cpio failed ({status})");
    Ok(())
}

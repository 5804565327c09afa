//! Debian's kernel, fetched and unpacked, but not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::program::{APT_CACHE, APT_GET, DEPMOD, DPKG_DEB};

/// The package that depends on the newest kernel of the machine's release.
const NEWEST: &str = "linux-image-amd64";
/// What the packages and their folders begin with.
const PREFIX: &str = "linux-image-";

/// A kernel with its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The image that QEMU loads.
    pub(crate) image: PathBuf,
    /// The folder above `lib/modules`.
    pub(crate) root: PathBuf,
    /// As `uname -r` says it.
    pub(crate) release: String,
}

impl Kernel {
    /// The kernel that apt would install now. It is downloaded once and kept below `cache`, in a folder named by package
    /// and version; kernels of other versions are removed from there.
    ///
    /// # Errors
    /// A program is missing, or apt does not know the kernel or cannot download it; fresh package lists may help then.
    pub fn fetch(cache: &Path) -> Result<Self> {
        ensure!(std::env::consts::ARCH == "x86_64", "guests are for x86_64, and this is {}", std::env::consts::ARCH);
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let cache = cache.canonicalize()?;
        let (package, version) = newest(&cache)?;
        let root = cache.join(format!("{package}_{version}"));
        if !root.exists() {
            remove_others(&cache)?;
            unpack(&cache, &format!("{package}={version}"), &root)
                .with_context(|| format!("cannot fetch the kernel {package} {version}"))?;
        }
        let release = release(&root)?;
        Ok(Self { image: root.join(format!("boot/vmlinuz-{release}")), root, release })
    }

    /// The folder of its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// The newest kernel's package and version.
fn newest(folder: &Path) -> Result<(String, String)> {
    let text = APT_CACHE.run(folder, ["show", "--no-all-versions", NEWEST])?;
    parse(&text).with_context(|| format!("apt-cache show {NEWEST} names no kernel: {text}"))
}

/// The control file has `Depends: linux-image-RELEASE (= VERSION)`.
fn parse(control: &str) -> Option<(String, String)> {
    let depends = control.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let kernel = depends.split(", ").find(|one| one.starts_with(PREFIX))?;
    let (package, version) = kernel.split_once(" (= ")?;
    Some((package.to_owned(), version.strip_suffix(')')?.to_owned()))
}

/// Into its place in one step, so that what is there is whole.
fn unpack(cache: &Path, package: &str, root: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix(PREFIX).tempdir_in(cache).context("cannot make a folder")?;
    APT_GET.run(work.path(), ["download", "-q", package])?;
    let mut files = fs::read_dir(work.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let archive = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.context("apt-get download has left no package")?;
    let parts = work.path().join("parts");
    DPKG_DEB.run(work.path(), ["-x".as_ref(), archive.as_os_str(), parts.as_os_str()])?;
    DEPMOD.run(work.path(), ["-b".as_ref(), parts.as_os_str(), release(&parts)?.as_ref()])?;
    fs::rename(&parts, root).with_context(|| format!("cannot make {}", root.display()))
}

fn release(root: &Path) -> Result<String> {
    let modules = root.join("lib/modules");
    let mut found = fs::read_dir(&modules).with_context(|| format!("cannot list {}", modules.display()))?;
    match (found.next().transpose()?, found.next()) {
        (Some(only), None) => only.file_name().into_string().ok().context("the kernel's release is no text"),
        _ => bail!("{} has not the modules of one kernel", modules.display()),
    }
}

/// What a cut-off download has left goes too.
fn remove_others(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_read_from_what_the_package_depends_on() {
        let control = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(parse(control), Some(("linux-image-6.1.0-56-amd64".into(), "6.1.192-2".into())));
        assert_eq!(parse("Package: linux-image-amd64\n"), None);
    }

    #[test]
    fn a_kernel_of_another_version_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join("linux-image-6.1.0-1-amd64_6.1.1-1/boot")).unwrap();
        fs::create_dir(cache.path().join("guest")).unwrap();
        remove_others(cache.path()).unwrap();
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["guest"]);
    }
}

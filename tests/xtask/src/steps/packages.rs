//! Programs of the system that the tests start.

use anyhow::{Result, bail};

use crate::privilege;
use crate::session::Session;
use crate::summary::Outcome;

/// Debian's package, and the programs that must be there of it: the one list of what the tests need installed.
const PACKAGES: &[(&str, &[&str])] = &[
    ("e2fsprogs", &["mkfs.ext4", "e2fsck", "resize2fs"]),
    ("xfsprogs", &["mkfs.xfs", "xfs_repair", "xfs_growfs", "xfs_io"]),
    ("btrfs-progs", &["mkfs.btrfs", "btrfs"]),
    ("fdisk", &["sfdisk"]),
    ("mount", &["mount", "umount", "losetup"]),
    ("util-linux", &["unshare", "nsenter", "fsfreeze", "blockdev", "partx", "setpriv"]),
    ("strace", &["strace"]),
    ("systemd", &["systemd-analyze"]),
    ("dmsetup", &["dmsetup"]),
    ("lvm2", &["lvm"]),
    ("thin-provisioning-tools", &["thin_check"]),
    ("iproute2", &["ip", "tc"]),
    ("nfs-kernel-server", &["exportfs", "nfsdcld", "rpc.mountd", "rpc.nfsd"]),
    ("open-iscsi", &["iscsiadm", "iscsid"]),
    ("secilc", &["secilc"]),
    ("qemu-system-x86", &["qemu-system-x86_64"]),
    ("busybox-static", &["busybox"]),
    ("cpio", &["cpio"]),
    ("kmod", &["modprobe", "depmod"]),
];

/// Installs what is missing.
pub(crate) fn install(session: &mut Session) -> Result<Outcome> {
    let missing = missing(session);
    if missing.is_empty() {
        let names: Vec<_> = PACKAGES.iter().map(|(package, _)| *package).collect();
        println!("all there: {}", names.join(" "));
        return Ok(Outcome::passed());
    }
    apt_install(session, &missing, "packages")?;
    let missing = self::missing(session);
    if !missing.is_empty() {
        bail!("installed, and still without a program of: {}", missing.join(" "));
    }
    Ok(Outcome::passed())
}

/// Installs packages with apt-get; where there is none, an error that names them.
pub(crate) fn apt_install(session: &Session, packages: &[&str], step: &str) -> Result<()> {
    let names = packages.join(" ");
    if session.find("apt-get").is_none() {
        bail!("there is no apt-get here; install what corresponds to Debian's packages {names}");
    }
    let log = session.log(step);
    privilege::as_root(session, "apt-get", &["update", "-q"])?.run(&log)?;
    let install = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends"];
    privilege::as_root(session, "env", &[&install, packages].concat())?.run(&log)
}

fn missing(session: &Session) -> Vec<&'static str> {
    let lacks = |programs: &[&str]| programs.iter().any(|program| session.find(program).is_none());
    PACKAGES.iter().filter(|(_, programs)| lacks(programs)).map(|(package, _)| *package).collect()
}

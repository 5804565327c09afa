//! On logical volumes, on disks and on exports, which need a kernel with a device mapper, disks in memory and an NFS server.

use super::{Case, DUNNAGE, ONLY, run};
use anyhow::{Context, Result};
use dunnage_test_common::{Need, NfsServer, NvmeTarget, Scratch, ScsiDisk, Setup, VolumeGroup, can_run};

fn lvm(test: &str, keys: &str, access: &str, list: &str) -> Result<()> {
    let needs = [super::needs().as_slice(), &[Need::Guest, Need::Program("lvm")]].concat();
    if !can_run(test, &needs)? {
        return Ok(());
    }
    let setup = Setup::new()?;
    let group = VolumeGroup::new(setup.scratch(), &[3072])?;
    if keys.contains("pool") {
        group.make_pool("pool", 2560)?;
    }
    // Dropped before the group is.
    let host = setup.rootless("only", "lvm", &format!("{}{keys}", group.keys())).start(DUNNAGE)?;
    let finished = run(&host, Case { csi_name: ONLY, access, ..Case::default() });
    finished?.judge(list)
}

#[test]
fn nfs_passes_with_mounts() -> Result<()> {
    let needs = [super::needs().as_slice(), &[Need::Guest, Need::Program("rpc.nfsd")]].concat();
    if !can_run("csi-sanity on nfs", &needs)? {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let mut server = NfsServer::new(scratch.path())?;
    let machine = server.client(scratch.path())?;
    let keys = format!("server: {}\nexport: {}\nquota: none", machine.server(), NfsServer::EXPORT);
    let program = machine.running(DUNNAGE)?;
    let setup = Setup::new()?.rootless("only", "nfs", &keys);
    let host = setup.start(program.to_str().context("a path that is no text")?)?;
    run(&host, Case { csi_name: ONLY, access: "mount", ..Case::default() })?.judge("nfs")
}

#[test]
fn disks_pass_with_mounts() -> Result<()> {
    disks("disks_pass_with_mounts", "mount")
}

fn disks(test: &str, access: &str) -> Result<()> {
    let needs = [super::needs().as_slice(), &[Need::Guest]].concat();
    if !can_run(test, &needs)? {
        return Ok(());
    }
    let disks = ScsiDisk::lend(8)?;
    let devices: Vec<_> = disks.iter().map(|disk| disk.link().display().to_string()).collect();
    let host = Setup::new()?.backend("only", "disk", &format!("devices: {devices:?}"))?.start(DUNNAGE)?;
    // A volume is as large as its disk.
    let sizes = Some((ScsiDisk::SIZE, ScsiDisk::SIZE));
    run(&host, Case { csi_name: ONLY, access, sizes, ..Case::default() })?.judge("disk")
}

mod at_length {
    use super::*;

    #[test]
    fn disks_pass_with_raw_block() -> Result<()> {
        disks("disks_pass_with_raw_block", "block")
    }

    #[test]
    fn thick_volumes_pass_with_raw_block() -> Result<()> {
        lvm("thick_volumes_pass_with_raw_block", "type: thick", "block", "lvm-thick")
    }

    fn nvme(test: &str, access: &str) -> Result<()> {
        if !can_run(test, &[super::super::needs().as_slice(), &[Need::Guest]].concat())? {
            return Ok(());
        }
        let (setup, target) = (Setup::new()?, NvmeTarget::new()?);
        let root = setup.scratch().folder("images")?;
        let keys = target.keys(&setup, &format!("driver: image\nroot: {}", root.display()))?;
        let host = setup.rootless("only", "nvme-tcp", &keys).start(DUNNAGE)?;
        run(&host, Case { csi_name: ONLY, access, ..Case::default() })?.judge("nvme-tcp")
    }

    #[test]
    fn images_carried_by_nvme_pass_with_mounts() -> Result<()> {
        nvme("images_carried_by_nvme_pass_with_mounts", "mount")
    }

    #[test]
    fn images_carried_by_nvme_pass_with_raw_block() -> Result<()> {
        nvme("images_carried_by_nvme_pass_with_raw_block", "block")
    }

    #[test]
    fn thin_volumes_pass_with_mounts() -> Result<()> {
        lvm("thin_volumes_pass_with_mounts", "type: thin\npool: pool\novercommit: 8", "mount", "lvm-thin")
    }
}

//! Drivers that need a kernel with a device mapper, with disks in memory, or with an NFS server, behind our own host. All
//! of it takes long.

mod at_length {
    use anyhow::{Context, Result};
    use dunnage_test_common::{Need, NfsServer, NvmeTarget, Scratch, ScsiDisk, Setup, VolumeGroup, can_run};

    use crate::ours::{DUNNAGE, passes, test_program};

    fn can(test: &str) -> Result<bool> {
        can_run(test, &[Need::Root, Need::Guest, Need::Program("lvm"), Need::Program("thin_check")])
    }

    #[test]
    fn thick_logical_volumes_are_conformant() -> Result<()> {
        if !can("thick_logical_volumes_are_conformant")? {
            return Ok(());
        }
        let setup = Setup::new()?;
        let group = VolumeGroup::new(setup.scratch(), &[2048])?;
        let setup = setup.rootless("tested", "lvm", &format!("{}type: thick", group.keys()));
        let params = "{size: 16MiB, many: 3, kills: 3, other_parameters: {type: raid1}}";
        passes("lvm", &test_program(&[], DUNNAGE, setup, params)?, 70)
    }

    #[test]
    fn thin_logical_volumes_are_conformant_with_their_snapshots_and_clones() -> Result<()> {
        if !can("thin_logical_volumes_are_conformant_with_their_snapshots_and_clones")? {
            return Ok(());
        }
        let setup = Setup::new()?;
        let group = VolumeGroup::new(setup.scratch(), &[2048])?;
        group.make_pool("pool", 1536)?;
        let setup = setup.rootless("tested", "lvm", &format!("{}type: thin\npool: pool", group.keys()));
        passes("lvm", &test_program(&[], DUNNAGE, setup, "{size: 16MiB, many: 3, kills: 3}")?, 90)
    }

    #[test]
    fn images_carried_by_nvme_are_conformant_with_file_systems_and_raw_block() -> Result<()> {
        let test = "images_carried_by_nvme_are_conformant_with_file_systems_and_raw_block";
        if !can_run(test, &[Need::Root, Need::Guest, Need::Program("mkfs.ext4")])? {
            return Ok(());
        }
        let (setup, target) = (Setup::new()?, NvmeTarget::new()?);
        let root = setup.scratch().folder("images")?;
        let keys = target.keys(&setup, &format!("driver: image\nroot: {}", root.display()))?;
        let setup = setup.rootless("tested", "nvme-tcp", &keys);
        passes("nvme-tcp", &test_program(&[], DUNNAGE, setup, "{size: 16MiB, many: 3, kills: 3}")?, 100)
    }

    #[test]
    fn thin_volumes_carried_by_nvme_are_conformant_with_their_snapshots_and_clones() -> Result<()> {
        if !can("thin_volumes_carried_by_nvme_are_conformant_with_their_snapshots_and_clones")? {
            return Ok(());
        }
        let (setup, target) = (Setup::new()?, NvmeTarget::new()?);
        let group = VolumeGroup::new(setup.scratch(), &[2048])?;
        group.make_pool("pool", 1536)?;
        let store = format!("driver: lvm\n{}type: thin\npool: pool", group.keys());
        let keys = target.keys(&setup, &store)?;
        let setup = setup.rootless("tested", "nvme-tcp", &keys);
        passes("nvme-tcp", &test_program(&[], DUNNAGE, setup, "{size: 16MiB, many: 3, kills: 2}")?, 100)
    }

    #[test]
    fn disks_are_conformant() -> Result<()> {
        if !can_run("disks_are_conformant", &[Need::Root, Need::Guest])? {
            return Ok(());
        }
        let disks = ScsiDisk::lend(10)?;
        let devices: Vec<_> = disks.iter().map(|disk| disk.link().display().to_string()).collect();
        let setup = Setup::new()?.backend("tested", "disk", &format!("devices: {devices:?}"))?;
        passes("disk", &test_program(&[], DUNNAGE, setup, "{size: 64MiB, larger_size: 96MiB, many: 3, kills: 3}")?, 60)
    }

    #[test]
    fn nfs_is_conformant() -> Result<()> {
        if !can_run("nfs_is_conformant", &[Need::Root, Need::Guest, Need::Program("rpc.nfsd")])? {
            return Ok(());
        }
        let scratch = Scratch::new()?;
        let mut server = NfsServer::new(scratch.path())?;
        let machine = server.client(scratch.path())?;
        let keys = format!("server: {}\nexport: {}\nquota: none", machine.server(), NfsServer::EXPORT);
        let program = machine.running(DUNNAGE)?;
        let params = "
size: 4MiB
kills: 8
mount_flags: [noatime]
parameters: {onDelete: delete}
other_parameters: {onDelete: archive}
";
        let setup = Setup::new()?.rootless("tested", "nfs", &keys);
        passes("nfs", &test_program(&[], program.to_str().context("a path that is no text")?, setup, params)?, 60)
    }
}

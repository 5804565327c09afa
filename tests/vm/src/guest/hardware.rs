//! What a guest has beside the machine's files.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Network;

/// The memory of a guest, its disks and its place on a network.
#[derive(Debug, Clone)]
pub struct Hardware {
    mebibytes: u32,
    disks: Vec<PathBuf>,
    plug: Option<(Network, u8)>,
}

/// 3 GiB of memory and nothing else.
impl Default for Hardware {
    fn default() -> Self {
        Self { mebibytes: 3 << 10, disks: Vec::new(), plug: None }
    }
}

impl Hardware {
    /// Gives it this much memory.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.mebibytes = mebibytes;
        self
    }

    /// Adds a disk, whose bytes are those of a file: the first is `/dev/vda`. What is written to it stays.
    #[must_use]
    pub fn disk(mut self, file: &Path) -> Self {
        self.disks.push(file.into());
        self
    }

    /// Plugs it into a network, on which it has the [address](Network::address) of `number`.
    #[must_use]
    pub fn plug(mut self, network: &Network, number: u8) -> Self {
        self.plug = Some((network.clone(), number));
        self
    }

    /// What is added to the kernel's command line, for the agent.
    pub(super) fn append(&self) -> String {
        let address = |(_, number): &(Network, u8)| format!(" dunnage.address={}", Network::address(*number));
        self.plug.as_ref().map(address).unwrap_or_default()
    }

    /// What QEMU is told of it.
    pub(super) fn arguments(&self) -> Result<Vec<String>> {
        let mut arguments = vec!["-m".into(), format!("{}M", self.mebibytes)];
        for (number, file) in self.disks.iter().enumerate() {
            let drive = format!("file={},if=none,id=disk{number},format=raw,cache=writeback", text(file));
            let device = format!("virtio-blk-pci,drive=disk{number}");
            arguments.extend(["-drive".into(), drive, "-device".into(), device]);
        }
        match &self.plug {
            Some((network, number)) => {
                let socket = network.plug(*number)?;
                let back_end = format!("stream,id=net,server=off,addr.type=unix,addr.path={}", text(&socket));
                // Cards with one address would be one card to the others.
                let device = format!("virtio-net-pci,netdev=net,mac=52:54:00:77:00:{number:02x}");
                arguments.extend(["-netdev".into(), back_end, "-device".into(), device]);
            }
            None => arguments.extend(["-nic".into(), "none".into()]),
        }
        Ok(arguments)
    }
}

/// A path in one of QEMU's lists of options, in which a comma ends a value.
pub(super) fn text(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

//! How full a volume is.

use std::path::Path;

use dunnage_driver_api::{Bytes, Error, Result, VolumeId};

use super::Engine;
use super::place;
use super::uses::Use;

/// How much of something a volume has (CSI VolumeUsage).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What is counted.
    pub unit: Unit,
    /// How much there is in all.
    pub total: u64,
    /// How much is left for an ordinary user; unknown for raw block.
    pub available: Option<u64>,
    /// How much is taken; unknown for raw block.
    pub used: Option<u64>,
}

/// What a [`Usage`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Inodes.
    Inodes,
}

impl Engine {
    /// How full the volume is, seen at a path where it is staged or published. Takes no lock and may hang with a server
    /// that is silent: the caller bounds it.
    ///
    /// # Errors
    /// NotFound where the volume is not at `path`.
    pub fn stats(&self, volume: &VolumeId, path: &Path) -> Result<Vec<Usage>> {
        let record = self.records.load(volume)?;
        let root = match self.find_use(&record, path)? {
            Use::FileSystem(root) => root,
            Use::Block => {
                let device = record.stage.as_ref().and_then(|stage| stage.device.as_ref());
                let size = device.map_or(Ok(Bytes::ZERO), |device| device.number.size())?;
                return Ok(vec![Usage { unit: Unit::Bytes, total: size.get(), available: None, used: None }]);
            }
        };
        let gone = || Error::not_found(format!("volume {volume} is not mounted at {}", path.display()));
        let opened = place::open_mounted(path, root)?.ok_or_else(gone)?;
        let seen = rustix::fs::fstatvfs(&opened)
            .map_err(|error| Error::io(format!("cannot measure the file system at {}", path.display()), error))?;
        let usage = |unit, scale: u64, total: u64, free: u64, available: u64| Usage {
            unit,
            total: total.saturating_mul(scale),
            available: Some(available.saturating_mul(scale)),
            used: Some(total.saturating_sub(free).saturating_mul(scale)),
        };
        let mut usages = vec![usage(Unit::Bytes, seen.f_frsize, seen.f_blocks, seen.f_bfree, seen.f_bavail)];
        // btrfs has no fixed number of inodes and says 0.
        if seen.f_files > 0 {
            usages.push(usage(Unit::Inodes, 1, seen.f_files, seen.f_ffree, seen.f_favail));
        }
        Ok(usages)
    }
}

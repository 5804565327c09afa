//! How full a volume is.

use std::path::Path;

use dunnage_driver_api::{Bytes, Error, Result, VolumeId, VolumeUsage};

use super::place;
use super::uses::Use;
use super::{ANSWER, Engine};

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
        let (root, served) = match self.find_use(&record, path)? {
            Use::FileSystem(root) => (root, false),
            Use::Served(root) => (root, true),
            Use::Block => {
                let device = record.stage.as_ref().and_then(|stage| stage.device.as_ref());
                let size = device.map_or(Ok(Bytes::ZERO), |device| device.number.size())?;
                return Ok(vec![Usage { unit: Unit::Bytes, total: size.get(), available: None, used: None }]);
            }
        };
        let gone = || Error::not_found(format!("volume {volume} is not mounted at {}", path.display()));
        let opened = place::open_mounted(path, root)?.ok_or_else(gone)?;
        let measured = if served {
            self.questions.ask(&root.device(), ANSWER, move || rustix::fs::fstatvfs(&opened))?.ok_or_else(|| {
                Error::internal(format!(
                    "the server of the volume at {} does not answer: see whether it runs, and the network between",
                    path.display()
                ))
            })?
        } else {
            rustix::fs::fstatvfs(&opened)
        };
        let seen = measured
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

/// The same with what a driver has counted for the volume, which shares its file system with others: what is left of its
/// size, if that is left at all.
pub(crate) fn of_its_own(mut usages: Vec<Usage>, own: Option<VolumeUsage>) -> Vec<Usage> {
    let Some(own) = own else { return usages };
    for usage in usages.iter_mut().filter(|usage| usage.unit == Unit::Bytes) {
        let left = own.total.minus(own.used).get();
        usage.total = own.total.get();
        usage.used = Some(own.used.get());
        usage.available = usage.available.map(|free| left.min(free));
    }
    usages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_counts_goes_before_what_the_shared_file_system_has() {
        let shared = Usage { unit: Unit::Bytes, total: 1000, available: Some(50), used: Some(900) };
        let inodes = Usage { unit: Unit::Inodes, ..shared };
        let own = |total, used| Some(VolumeUsage::new(Bytes::new(total), Bytes::new(used)));
        let counted = |own| of_its_own(vec![shared, inodes], own);
        assert_eq!(counted(None), [shared, inodes]);
        for (total, used, available) in [(100, 70, 30), (100, 10, 50), (100, 110, 0)] {
            let expected = Usage { unit: Unit::Bytes, total, available: Some(available), used: Some(used) };
            assert_eq!(counted(own(total, used)), [expected, inodes]);
        }
    }
}

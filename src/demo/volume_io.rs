//! What a pod does in its volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::client::{Result, blocking};

/// The file that the pods of the demo write.
pub(crate) const FILE: &str = "hello.txt";

/// What is in it.
pub(crate) const TEXT: &str = "written by the first pod";

/// Writes the file, through to the storage.
pub(crate) async fn write(volume: &Path) -> Result<()> {
    blocking("cannot write in the volume at", volume, |volume| {
        let mut file = File::create(volume.join(FILE))?;
        file.write_all(TEXT.as_bytes())?;
        file.sync_all()
    })
    .await
}

/// What the file holds.
pub(crate) async fn read(volume: &Path) -> Result<String> {
    blocking("cannot read in the volume at", volume, |volume| fs::read_to_string(volume.join(FILE))).await
}

/// Tries to write where that must not work: the kernel's error, `None` where it was written.
pub(crate) async fn refused_write(volume: &Path) -> Result<Option<io::Error>> {
    blocking("cannot try to write in the volume at", volume, |volume| {
        Ok(fs::write(volume.join("second.txt"), "not to be written").err())
    })
    .await
}

/// Bytes of the file system as statfs tells.
pub(crate) async fn total_bytes(volume: &Path) -> Result<u64> {
    blocking("cannot ask for the size of", volume, |volume| {
        let stat = rustix::fs::statvfs(volume)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    })
    .await
}

/// Writes a block at the end of a device and reads it back: the device's size.
pub(crate) async fn write_device(device: &Path) -> Result<u64> {
    const BLOCK: [u8; 4096] = [0xD5; 4096];
    blocking("cannot use the device", device, |device| {
        let mut device = OpenOptions::new().read(true).write(true).open(device)?;
        let size = device.seek(SeekFrom::End(0))?;
        let last = size.checked_sub(BLOCK.len() as u64).ok_or_else(|| io::Error::other("it has no block"))?;
        device.seek(SeekFrom::Start(last))?;
        device.write_all(&BLOCK)?;
        device.sync_all()?;
        device.seek(SeekFrom::Start(last))?;
        let mut read = [0; BLOCK.len()];
        device.read_exact(&mut read)?;
        if read == BLOCK { Ok(size) } else { Err(io::Error::other("another block came back than was written")) }
    })
    .await
}

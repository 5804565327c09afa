//! The file that a volume's bytes are in.

use std::fs::File;
use std::io;

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{Error, ErrorKind, Result, VolumeKey};
use rustix::fs::{FallocateFlags, FsWord, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::config::Allocation;

/// Opens an image for reading and writing.
///
/// # Errors
/// As openat2(2): a symlink is refused.
pub(crate) fn open(images: &Folder, key: &VolumeKey) -> io::Result<File> {
    images.open(key.as_str(), OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)
}

/// Makes an empty file for an image, in the place of one that a cut-off attempt left.
///
/// # Errors
/// `FailedPrecondition` where a file with data in it has the name: somebody lost its record.
pub(crate) fn make(images: &Folder, key: &VolumeKey) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let failed = |error| images.failed("make the image", key.as_str())(error);
    match images.open(key.as_str(), flags, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(failed),
    }
    clear(images, key)?;
    images.open(key.as_str(), flags, 0o600).map_err(failed)
}

/// Removes what a cut-off attempt left under the name of an image, if anything.
///
/// # Errors
/// As [`make`].
pub(crate) fn clear(images: &Folder, key: &VolumeKey) -> Result<()> {
    let failed = |error| images.failed("look into the image", key.as_str())(error);
    match open(images, key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(image) if never_written(&image).map_err(failed)? => images.unlink(key.as_str()).map_err(failed),
        Ok(_) => Err(Error::precondition(format!(
            "{} holds data and no volume has it: move it away, or restore its record from a backup",
            images.path().join(key.as_str()).display()
        ))),
    }
}

/// Whether no byte of it was ever written: allocated or not, there is only a hole.
///
/// # Errors
/// As lseek(2).
pub(crate) fn never_written(image: &File) -> io::Result<bool> {
    match rustix::fs::seek(image, SeekFrom::Data(0)) {
        Err(Errno::NXIO) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file system itself proves that every byte of the image reads zero. It does where it finds no data from the
/// first byte to the last, as those named here do: they count what is written in memory alone as data, and a hole, or
/// blocks that were allocated and never written, can only be read as zeros. A file system that knows nothing of holes
/// answers that all is data. One with a server of its own may not know yet what was written here, so it is not asked.
///
/// Nothing may write to the image meanwhile: it is locked, and no loop device has it.
pub(crate) fn is_proven_blank(image: &File) -> bool {
    const EXT4: FsWord = 0xef53;
    const XFS: FsWord = 0x5846_5342;
    const BTRFS: FsWord = 0x9123_683e;
    const TMPFS: FsWord = 0x0102_1994;
    let known = rustix::fs::fstatfs(image).is_ok_and(|seen| [EXT4, XFS, BTRFS, TMPFS].contains(&seen.f_type));
    known && never_written(image).unwrap_or(false)
}

/// Makes the image at least `size` bytes long; what is new reads as zero. Never cuts it. After an error it is as long
/// as before and holds no more of the disk.
///
/// # Errors
/// `ResourceExhausted` where the disk is full; `OutOfRange` where the file system has no files as large;
/// `FailedPrecondition` where it cannot allocate.
pub(crate) fn grow(image: &File, size: u64, allocation: Allocation) -> Result<()> {
    let length = rustix::fs::fstat(image).map_err(|error| explain(error, size))?.st_size.cast_unsigned();
    let grown = match allocation {
        Allocation::Sparse => Ok(()),
        // The length comes after the blocks: whoever opens the image in between sees it as it was.
        Allocation::Preallocated => {
            rustix::io::retry_on_intr(|| rustix::fs::fallocate(image, FallocateFlags::KEEP_SIZE, 0, size))
        }
    };
    if length < size {
        let grown = grown.and_then(|()| rustix::fs::ftruncate(image, size));
        return grown.map_err(|error| {
            // Gives back the blocks behind the end. Where that fails, they go with the image.
            let _ = rustix::fs::ftruncate(image, length);
            explain(error, size)
        });
    }
    grown.map_err(|error| explain(error, size))
}

fn explain(error: Errno, size: u64) -> Error {
    let message = match error {
        Errno::FBIG => format!("the file system of the root has no files of {size} bytes"),
        Errno::OPNOTSUPP => {
            "the file system of the root cannot allocate: use ext4, xfs or btrfs, or allocation sparse".into()
        }
        _ => format!("cannot make the image {size} bytes long"),
    };
    match error {
        Errno::FBIG => Error::new(ErrorKind::OutOfRange, message).caused_by(std::io::Error::from(error)),
        Errno::OPNOTSUPP => Error::precondition(message).caused_by(std::io::Error::from(error)),
        _ => Error::io(message, error),
    }
}

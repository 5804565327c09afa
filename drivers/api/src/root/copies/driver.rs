//! What the copies of folders have to know of a driver.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::capacity::Bytes;
use crate::error::{Error, Result};
use crate::id::VolumeKey;
use crate::root::{Folder, Records, Reservation, Root, SnapshotRecords, Target};
use crate::volume::CreateVolume;

const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const UNFINISHED: &str = "unfinished";

/// An opened root whose volumes and snapshots are folders. `E` is the driver's own part of a record.
///
/// ```text
/// <root>/volumes/      the data of the volumes, as the driver lays it out
/// <root>/snapshots/    that of the snapshots, each under its key
/// <root>/unfinished/   copies that are being made
/// ```
pub struct Folders<E> {
    /// The root.
    pub root: Root,
    /// The records of the volumes.
    pub records: Records<E>,
    /// Where their data is.
    pub data: Folder,
    /// The records of the snapshots.
    pub snapshots: SnapshotRecords<E>,
    /// Where their data is.
    pub snapshot_data: Folder,
    pub(super) unfinished: Folder,
}

impl<E: Serialize + DeserializeOwned> Folders<E> {
    /// Opens the folders of a root; they are made where the root is new, or older than its driver's snapshots.
    ///
    /// # Errors
    /// As [`Root::data`].
    pub fn open(root: Root) -> Result<Self> {
        let records = root.records()?;
        let data = root.data(VOLUMES, &records)?;
        let snapshots = root.snapshots()?;
        let snapshot_data = root.data_of_snapshots(SNAPSHOTS, &snapshots)?;
        let unfinished = root.folder().folder_or_make(UNFINISHED, 0o700);
        let unfinished = unfinished.map_err(root.folder().failed("open", UNFINISHED))?;
        Ok(Self { root, records, data, snapshots, snapshot_data, unfinished })
    }

    /// Whether the copy is a volume or a snapshot already.
    pub(super) fn is_made(&self, target: &Target) -> Result<bool> {
        Ok(match target {
            Target::Volume(volume) => {
                let record = self.records.get(&volume.key)?;
                record.is_some_and(|record| record.volume.generation == volume.generation)
            }
            Target::Snapshot { key, generation, .. } => {
                let record = self.snapshots.get(key)?;
                record.is_some_and(|record| record.snapshot.generation == *generation && record.snapshot.ready)
            }
        })
    }

    /// Whether it is a snapshot that was deleted: one has its record before its job is worked on.
    pub(super) fn is_deleted(&self, target: &Target) -> Result<bool> {
        let Target::Snapshot { key, generation, .. } = target else { return Ok(false) };
        let record = self.snapshots.get(key)?;
        Ok(record.is_none_or(|record| record.snapshot.generation != *generation))
    }

    /// The size that is promised to a copy.
    pub(super) fn size(&self, target: &Target) -> Result<Bytes> {
        match target {
            Target::Volume(volume) => Ok(volume.capacity),
            Target::Snapshot { key, .. } => {
                let record = self.snapshots.get(key)?;
                let gone = || Error::internal(format!("the record of snapshot {key} is gone"));
                Ok(record.ok_or_else(gone)?.snapshot.size)
            }
        }
    }
}

/// What a driver whose volumes are folders says of them, so that they can be copied by
/// [`FolderCopies`](super::FolderCopies).
pub trait FolderDriver: Send + Sync + 'static {
    /// The driver's own part of a record.
    type Extra: Serialize + DeserializeOwned + Default + Send + Sync + 'static;
    /// What the driver keeps of a copy until that is a volume or a snapshot.
    type Plan: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// Whether the files are on another machine: [`TreeCopy::over_network`](crate::root::TreeCopy).
    const OVER_NETWORK: bool;

    /// The opened root.
    fn folders(&self) -> &Folders<Self::Extra>;

    /// What to keep of a copy that is begun now: of a volume for its request, of a snapshot for none.
    ///
    /// # Errors
    /// Where the request cannot be met.
    fn plan(&self, request: Option<&CreateVolume>) -> Result<Self::Plan>;

    /// The plan by which a copy is to be begun anew, where an attempt before this one cannot be gone on with.
    ///
    /// # Errors
    /// Where that cannot be told.
    fn plan_anew(&self, _plan: &Self::Plan) -> Result<Option<Self::Plan>> {
        Ok(None)
    }

    /// The size of the volume that a request asks for.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) where there is none.
    fn size(&self, request: &CreateVolume) -> Result<Bytes>;

    /// Speaks for the room of a volume, where volumes that are being copied have the room `copies`.
    ///
    /// # Errors
    /// Where it does not fit.
    fn reserve(&self, size: Bytes, copies: Bytes) -> Result<Reservation>;

    /// The same of a snapshot, where it is promised any.
    ///
    /// # Errors
    /// Where it does not fit.
    fn reserve_snapshot(&self, _size: Bytes, _copies: Bytes) -> Result<Option<Reservation>> {
        Ok(None)
    }

    /// How much a volume or a snapshot holds, where that is known.
    ///
    /// # Errors
    /// Where the file system does not say.
    fn used(&self, _extra: &Self::Extra) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// Whether this process may change the root now: asked before each step that others could see, and now and then while a
    /// copy is made.
    ///
    /// # Errors
    /// Why not.
    fn may_change(&self) -> Result<()> {
        Ok(())
    }

    /// Whether trees can be copied here with all that they have.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) with the reason.
    fn may_copy(&self) -> Result<()> {
        Ok(())
    }

    /// Whether a copy may take more room, where none was promised to it.
    ///
    /// # Errors
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted).
    fn has_room(&self) -> Result<()>;

    /// What is told of an error that ended an attempt to make a copy of this size.
    fn told(&self, error: Error, _size: Bytes) -> Error {
        error
    }

    /// Whether an error that ended an attempt passes by itself: the copy is then kept, and gone on with later.
    fn is_passing(&self, _error: &Error) -> bool {
        false
    }

    /// Takes the place of a volume that is to be made, whose key the caller holds. What a create left there that was cut off
    /// goes.
    ///
    /// # Errors
    /// Where it is another's.
    fn take(&self, key: &VolumeKey, plan: &Self::Plan) -> Result<()>;

    /// Takes it again, for a copy that an ended process began.
    fn hold(&self, _key: &VolumeKey, _plan: &Self::Plan) {}

    /// Gives it back.
    fn let_go(&self, _key: &VolumeKey, _plan: &Self::Plan) {}

    /// The folder that a volume's is to lie in, and its name there.
    ///
    /// # Errors
    /// Where that folder cannot be opened, or made.
    fn place(&self, key: &VolumeKey, plan: &Self::Plan) -> Result<(Folder, String)>;

    /// The folder of a volume.
    ///
    /// # Errors
    /// Where it cannot be opened.
    fn open(&self, key: &VolumeKey) -> Result<Folder>;

    /// Gets the folder ready that a tree is copied into, which may have some of it already.
    ///
    /// # Errors
    /// Where that cannot be.
    fn prepare(&self, _copy: &Folder, _size: Bytes) -> Result<()> {
        Ok(())
    }

    /// What is to be kept of the copy that has this name in this folder.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    fn extra(&self, folder: &Folder, name: &str, plan: &Self::Plan) -> Result<Self::Extra>;

    /// Gives back what the file system knows of a folder that is to be removed, as its quota. What is `known` of it says its
    /// record; of what nobody but this process ever had there is none.
    ///
    /// # Errors
    /// The file system's.
    fn forget(&self, _folder: &Folder, _name: &str, _known: Option<&Self::Extra>) -> io::Result<()> {
        Ok(())
    }
}

//! The node half: how a volume is brought to this node.
//!
//! A driver answers with a [`Source`]; everything after that (probe, format, check, mount, bind, read-only, raw block,
//! growth, statistics, unmount, recovery) is the host's mount engine.

mod directory;
mod mount;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use directory::{DirectoryParent, DirectorySource, OwnMount};
pub(crate) use mount::NoMounts;
pub use mount::{MountSource, Mounts};

use crate::attach::Attachment;
use crate::capability::FsType;
use crate::capacity::Bytes;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::id::VolumeId;

/// Bringing volumes to this node. Calls for one volume never run at once.
pub trait Node: Send + Sync {
    /// Brings the volume to this node, or finds that it is here already: a repeated call gives the same source.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where the store is proven and does not have the volume in this
    /// generation. After an error nothing is left that only a record could find.
    fn source(&self, cx: &Context, request: &SourceRequest<'_>) -> Result<Source>;

    /// Makes a grown volume's new size visible in the device that the record names. Sources without a device have
    /// nothing to do here.
    ///
    /// # Errors
    /// Where the kernel does not take the new size.
    fn refresh(&self, _cx: &Context, _record: &ReleaseRecord) -> Result<()> {
        Ok(())
    }

    /// How much of the volume is taken, where its file system does not tell that of the volume alone (CSI
    /// NodeGetVolumeStats). Otherwise `None`: the host asks the file system.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn usage(&self, _cx: &Context, _volume: &VolumeId) -> Result<Option<VolumeUsage>> {
        Ok(None)
    }
}

/// How much of a volume is taken, as its driver counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeUsage {
    /// Its size.
    pub total: Bytes,
    /// What it has taken of that.
    pub used: Bytes,
}

impl VolumeUsage {
    /// So much of a volume of this size.
    pub fn new(total: Bytes, used: Bytes) -> Self {
        Self { total, used }
    }
}

/// Whether volumes of a backend are staged before they are published (CSI STAGE_UNSTAGE_VOLUME). Sources that are
/// devices are; directories need no such step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// The orchestrator stages once a node, then publishes from there.
    Needed,
    /// The orchestrator publishes at once.
    None,
}

/// Which volume is wanted on this node, and as what.
#[derive(Clone)]
#[non_exhaustive]
pub struct SourceRequest<'a> {
    /// The volume. The driver checks that it has it in this generation.
    pub volume: &'a VolumeId,
    /// What CreateVolume answered (CSI volume_context); empty where the orchestrator does not pass it on.
    pub volume_context: &'a BTreeMap<String, String>,
    /// What ControllerPublishVolume answered (CSI publish_context). May be empty on a repeated stage.
    pub publish_context: &'a BTreeMap<String, String>,
    /// The record that was kept last for this volume in this boot, by this process or one before: where to look first
    /// for what is here already.
    pub kept: Option<&'a ReleaseRecord>,
    /// Keeps a release record, durably for this boot, before the driver does what only that record can undo. The record
    /// in the [`Source`] replaces it.
    pub keep: &'a dyn Fn(&ReleaseRecord) -> Result<()>,
}

static NONE: BTreeMap<String, String> = BTreeMap::new();

impl<'a> SourceRequest<'a> {
    /// A request as the host makes it, and a test of a driver.
    pub fn new(volume: &'a VolumeId, keep: &'a dyn Fn(&ReleaseRecord) -> Result<()>) -> Self {
        Self { volume, volume_context: &NONE, publish_context: &NONE, kept: None, keep }
    }

    /// The same with what CreateVolume and ControllerPublishVolume answered.
    #[must_use]
    pub fn with_contexts(
        mut self,
        volume_context: &'a BTreeMap<String, String>,
        publish_context: &'a BTreeMap<String, String>,
    ) -> Self {
        self.volume_context = volume_context;
        self.publish_context = publish_context;
        self
    }

    /// Which attachment the volume is used by, where ControllerPublishVolume made one: [`Attachment::word`].
    pub fn attachment(&self) -> Option<&str> {
        self.publish_context.get(Attachment::WORD).map(String::as_str)
    }

    /// The same with the record that was kept last.
    #[must_use]
    pub fn with_kept(mut self, kept: Option<&'a ReleaseRecord>) -> Self {
        self.kept = kept;
        self
    }
}

/// What a driver brings to the node for the mount engine to use.
#[derive(Debug)]
#[non_exhaustive]
pub enum Source {
    /// A block device.
    Device(DeviceSource),
    /// A directory of a file system that is mounted already.
    Directory(DirectorySource),
    /// A file system on the network, which is mounted for each target. Such volumes are not staged: mounts of one server
    /// share what is worth sharing in the kernel.
    Mount(MountSource),
}

/// A block device that holds one volume and nothing else.
#[derive(Debug)]
#[non_exhaustive]
pub struct DeviceSource {
    /// The device, open for reading: held from the probe until it is mounted, so that its name stays its own.
    pub device: File,
    /// Its name, absolute, beneath `/dev`.
    pub path: PathBuf,
    /// What is the same about this volume's device at every attach.
    pub identity: Identity,
    /// What undoes it.
    pub release: ReleaseRecord,
    /// The file system for a volume whose capability names none.
    pub default_fs_type: FsType,
    /// Whether every byte that was never written reads as zero, as in a new sparse file: formatting may then leave
    /// out what it would otherwise zero.
    pub reads_zero: bool,
    /// Whether the driver has proof that no byte of it was ever written: it is then not read before it is formatted.
    pub blank: bool,
}

impl DeviceSource {
    /// A device that may hold anything where it was never written, and for which ext4 is the file system of choice.
    pub fn new(device: File, path: PathBuf, identity: Identity, release: ReleaseRecord) -> Self {
        Self { device, path, identity, release, default_fs_type: FsType::Ext4, reads_zero: false, blank: false }
    }

    /// The same with another file system for a volume whose capability names none.
    #[must_use]
    pub fn with_default_fs_type(mut self, fs_type: FsType) -> Self {
        self.default_fs_type = fs_type;
        self
    }

    /// The same, of which every byte that was never written reads as zero.
    #[must_use]
    pub fn reading_zero(mut self) -> Self {
        self.reads_zero = true;
        self
    }

    /// The same, of which the driver has proof that no byte was ever written, and every byte reads as zero. Such proof
    /// comes from the storage itself (a file that is one hole, a volume without an extent), was asked for while nothing
    /// could write to the device, and is about what caches hold as well: so never for a device that was here already. A
    /// driver's own record that a volume is new is no proof. What was proven wrongly is formatted: where in doubt, leave
    /// this out, and the device is read.
    #[must_use]
    pub fn blank(mut self) -> Self {
        self.blank = true;
        self.reading_zero()
    }
}

/// What is the same about a volume's device at every attach, in the words of its kind: a WWID, an NGUID, the file
/// behind a loop device. Two volumes never share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub String);

/// What a driver needs to undo a [`Source`], opaque to the host: kept in the node's stage record. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseRecord(serde_json::Value);

impl ReleaseRecord {
    /// A record of a type of the driver's. It is read by the next release of the driver too.
    ///
    /// # Errors
    /// Where the type cannot be written as JSON.
    pub fn new(record: &impl Serialize) -> Result<Self> {
        serde_json::to_value(record)
            .map(Self)
            .map_err(|error| Error::internal("cannot write the release record").caused_by(error))
    }

    /// The record as the driver's type.
    ///
    /// # Errors
    /// Where it is of another type: written by a release that this one does not know.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.0)
            .map_err(|error| Error::internal("cannot read the release record of this volume").caused_by(error))
    }
}

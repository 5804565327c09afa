//! A snapshot as the controller half knows it, and what a volume is made from.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::capacity::Bytes;
use crate::error::{Error, Result};
use crate::id::{Fingerprint, Generation, GroupSnapshotId, InstanceId, SnapshotId, SnapshotKey, VolumeId};
use crate::parameters::Parameters;
use crate::volume::Volume;

/// A snapshot that exists in an instance: it was cut. The driver keeps these fields in its store, in whatever form, from
/// before CreateSnapshot answers until DeleteSnapshot does, and gives back exactly what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it is found by.
    pub key: SnapshotKey,
    /// The name in CreateSnapshot, for people to read.
    pub name: String,
    /// Which of those that bore the key.
    pub generation: Generation,
    /// The volume it was taken of, which may be gone.
    pub source: VolumeId,
    /// The size of that volume then: a volume made from the snapshot is not smaller.
    pub size: Bytes,
    /// The digest of the request that made it; the host compares it with a repeated one.
    pub fingerprint: Fingerprint,
    /// The moment whose content it has, as the time since 1970.
    pub created: Duration,
    /// Whether volumes can be made from it now (CSI ready_to_use); until then the driver copies.
    pub ready: bool,
    /// The group it is a member of; it then goes with the group alone.
    pub group: Option<GroupSnapshotId>,
}

impl Snapshot {
    /// A snapshot that is ready and of which nothing more is known: its other fields are empty, and may be set.
    pub fn new(key: SnapshotKey, generation: Generation, source: VolumeId, size: Bytes) -> Self {
        let (name, fingerprint) = (key.to_string(), Fingerprint::of(&Default::default()));
        Self { key, name, generation, source, size, fingerprint, created: Duration::ZERO, ready: true, group: None }
    }
}

/// A checked CreateSnapshot, for a key that [`find`](crate::Snapshots::find) did not know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateSnapshot {
    /// What the snapshot is to be found by.
    pub key: SnapshotKey,
    /// The name in the request, for people to read.
    pub name: String,
    /// The id of the volume it is to be taken of.
    pub source: VolumeId,
    /// That volume, as it was found.
    pub volume: Volume,
    /// Parameters of the snapshot's class, checked against the backend's [`ParameterType`](crate::ParameterType) for
    /// snapshots.
    pub parameters: Parameters,
    /// To be kept with the snapshot.
    pub fingerprint: Fingerprint,
}

impl CreateSnapshot {
    /// A request as the host makes it, and a test of a driver.
    pub fn new(
        name: impl Into<String>,
        source: VolumeId,
        volume: Volume,
        parameters: Parameters,
        fingerprint: Fingerprint,
    ) -> Self {
        let name = name.into();
        Self { key: SnapshotKey::of_name(&name), name, source, volume, parameters, fingerprint }
    }

    /// The snapshot that this request makes, cut now and ready, with a new generation. A driver that cuts later sets
    /// `created` anew.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot {
            key: self.key.clone(),
            name: self.name.clone(),
            generation: Generation::random()?,
            source: self.source.clone(),
            size: self.volume.capacity,
            fingerprint: self.fingerprint.clone(),
            created: now()?,
            ready: true,
            group: None,
        })
    }
}

/// Snapshots of several volumes, all of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// What it is found by: names of groups and of snapshots are apart.
    pub key: SnapshotKey,
    /// The name in CreateVolumeGroupSnapshot, for people to read.
    pub name: String,
    /// Which of those that bore the key.
    pub generation: Generation,
    /// The digest of the request that made it; the host compares it with a repeated one.
    pub fingerprint: Fingerprint,
    /// The moment whose content the members have, as the time since 1970.
    pub created: Duration,
    /// The members, in the order of their volumes' ids.
    pub snapshots: Vec<Snapshot>,
}

impl GroupSnapshot {
    /// A group of which nothing but its members is known: its other fields are empty, and may be set.
    pub fn new(key: SnapshotKey, generation: Generation, snapshots: Vec<Snapshot>) -> Self {
        let (name, fingerprint) = (key.to_string(), Fingerprint::of(&Default::default()));
        Self { key, name, generation, fingerprint, created: Duration::ZERO, snapshots }
    }
}

/// A checked CreateVolumeGroupSnapshot, for a key that [`find`](crate::Groups::find) did not know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateGroupSnapshot {
    /// What the group is to be found by.
    pub key: SnapshotKey,
    /// The name in the request, for people to read.
    pub name: String,
    /// The volumes, at least one, each once and in the order of their ids, with the keys of their snapshots.
    pub members: Vec<CreateSnapshot>,
    /// To be kept with the group.
    pub fingerprint: Fingerprint,
}

impl CreateGroupSnapshot {
    /// A request as the host makes it, and a test of a driver. The volumes come with their ids.
    pub fn new(
        name: impl Into<String>,
        mut volumes: Vec<(VolumeId, Volume)>,
        parameters: &Parameters,
        fingerprint: Fingerprint,
    ) -> Self {
        let name = name.into();
        volumes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let member = |(source, volume): (VolumeId, Volume)| {
            // No request has a name with this character, so that no other snapshot has the key of a member.
            let key = SnapshotKey::of_name(&format!("{name}\u{1}{source}"));
            let shown = format!("{name}/{source}");
            let member = CreateSnapshot::new(shown, source, volume, parameters.clone(), fingerprint.clone());
            CreateSnapshot { key, ..member }
        };
        let members = volumes.into_iter().map(member).collect();
        Self { key: SnapshotKey::of_name(&name), name, members, fingerprint }
    }

    /// The group that this request makes, cut now and ready, with new generations.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn group(&self, instance: &InstanceId) -> Result<GroupSnapshot> {
        let (key, generation, created) = (self.key.clone(), Generation::random()?, now()?);
        let id = GroupSnapshotId { instance: instance.clone(), key: key.clone(), generation: generation.clone() };
        let member = |member: &CreateSnapshot| {
            member.snapshot().map(|snapshot| Snapshot { created, group: Some(id.clone()), ..snapshot })
        };
        let snapshots = self.members.iter().map(member).collect::<Result<_>>()?;
        let (name, fingerprint) = (self.name.clone(), self.fingerprint.clone());
        Ok(GroupSnapshot { key, name, generation, fingerprint, created, snapshots })
    }
}

/// The time since 1970.
///
/// # Errors
/// Where the clock of this node is before that.
pub(crate) fn now() -> Result<Duration> {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|error| Error::internal("the clock of this node is before 1970: set it").caused_by(error))
}

/// What a volume was made from, kept with it: the answer to CreateVolume says it each time (CSI
/// volume_content_source). The source itself may be gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceId {
    /// A snapshot: the volume is a restore.
    Snapshot(SnapshotId),
    /// Another volume: it is a clone.
    Volume(VolumeId),
}

/// The id.
impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => id.fmt(f),
            Self::Volume(id) => id.fmt(f),
        }
    }
}

/// What a new volume is to hold: found by the host, of the same instance, ready, and not larger than the volume may be.
/// It is not removed while the driver copies from it in the call; what must outlive the call the driver sees to.
#[derive(Debug, Clone)]
pub enum ContentSource {
    /// The content of a snapshot.
    Snapshot(Snapshot),
    /// The content that another volume has now.
    Volume(Volume),
}

impl ContentSource {
    /// The least size of what is made from it.
    pub fn size(&self) -> Bytes {
        match self {
            Self::Snapshot(snapshot) => snapshot.size,
            Self::Volume(volume) => volume.capacity,
        }
    }
}

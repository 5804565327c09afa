//! A volume as the controller half knows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capability::VolumeCapability;
use crate::capacity::{Bytes, CapacityRange};
use crate::error::Result;
use crate::id::{Fingerprint, Generation, VolumeKey};
use crate::parameters::Parameters;
use crate::snapshot::{ContentSource, SourceId, now};

/// A volume that exists in an instance. The driver keeps these fields in its store, in whatever form, from before
/// CreateVolume answers until DeleteVolume does, and gives back exactly what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Volume {
    /// What it is found by.
    pub key: VolumeKey,
    /// The name in CreateVolume, for people to read.
    pub name: String,
    /// Which of those that bore the key.
    pub generation: Generation,
    /// Its size.
    pub capacity: Bytes,
    /// The digest of the request that made it; the host compares it with a repeated one.
    pub fingerprint: Fingerprint,
    /// What every node is to be told of it (CSI volume_context), at most 4 KiB. No secrets: it is kept in the clear.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceId>,
}

impl Volume {
    /// A volume that nobody made here, as one that an admin or another system made: its other fields are empty, and may
    /// be set.
    pub fn new(key: VolumeKey, generation: Generation, capacity: Bytes) -> Self {
        let (name, fingerprint) = (key.to_string(), Fingerprint::of(&BTreeMap::new()));
        Self { key, name, generation, capacity, fingerprint, context: BTreeMap::new(), created: 0, source: None }
    }
}

/// A checked CreateVolume, for a key that [`find`](crate::Volumes::find) did not know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreateVolume {
    /// What the volume is to be found by.
    pub key: VolumeKey,
    /// The name in the request, for people to read.
    pub name: String,
    /// How large it must be and may be.
    pub capacity: CapacityRange,
    /// How it is to be used; at least one.
    pub capabilities: Vec<VolumeCapability>,
    /// Class parameters, checked against the backend's [`ParameterType`](crate::ParameterType).
    pub parameters: Parameters,
    /// Parameters that can be changed later, checked against the backend's type for them. A repeated request may have
    /// others: they are no part of the fingerprint.
    pub mutable_parameters: Parameters,
    /// Whose claim it is for, where the orchestrator tells: no part of the fingerprint.
    pub claim: Option<ClaimNames>,
    /// To be kept with the volume.
    pub fingerprint: Fingerprint,
    /// The name of what it is to hold, to be kept with the volume.
    pub source: Option<SourceId>,
    /// What it is to hold; an empty volume holds nothing. Only for a driver that hands out
    /// [`snapshots`](crate::Backend::snapshots), or [`clones`](crate::Backend::clones). `capacity` then requires at least
    /// its size.
    pub content: Option<ContentSource>,
}

impl CreateVolume {
    /// A request as the host makes it, and a test of a driver.
    pub fn new(
        name: impl Into<String>,
        capacity: CapacityRange,
        capabilities: Vec<VolumeCapability>,
        parameters: Parameters,
        fingerprint: Fingerprint,
    ) -> Self {
        let name = name.into();
        Self {
            key: VolumeKey::of_name(&name),
            name,
            capacity,
            capabilities,
            parameters,
            mutable_parameters: Parameters::default(),
            claim: None,
            fingerprint,
            source: None,
            content: None,
        }
    }

    /// The same for a volume that is to hold `content`, which has this id.
    ///
    /// # Errors
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) where the volume may not be as large.
    pub fn holding(mut self, source: SourceId, content: ContentSource) -> Result<Self> {
        self.capacity = self.capacity.at_least(content.size())?;
        (self.source, self.content) = (Some(source), Some(content));
        Ok(self)
    }

    /// The volume of `capacity` that this request makes, with a new generation and the time of now.
    ///
    /// # Errors
    /// Where the kernel gives no random bytes.
    pub fn volume(&self, capacity: Bytes) -> Result<Volume> {
        let mut volume = Volume::new(self.key.clone(), Generation::random()?, capacity);
        volume.name.clone_from(&self.name);
        volume.fingerprint = self.fingerprint.clone();
        volume.created = now()?.as_secs();
        volume.source.clone_from(&self.source);
        Ok(volume)
    }
}

/// The names of the claim that a volume is made for (`csi.storage.k8s.io/pvc/...` of a request).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClaimNames {
    /// The namespace of the PersistentVolumeClaim.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ClaimNames {
    /// A claim of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// What room there is for new volumes (CSI GetCapacity).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capacity {
    /// The sum of what new volumes may take.
    pub available: Bytes,
    /// The greatest size of one volume, where that is less than `available` or known better.
    pub maximum_volume_size: Option<Bytes>,
    /// The least size of one volume.
    pub minimum_volume_size: Option<Bytes>,
}

impl Capacity {
    /// Room for this much, in volumes of any size.
    pub fn new(available: Bytes) -> Self {
        Self { available, ..Self::default() }
    }

    /// The same, where no volume may be larger.
    #[must_use]
    pub fn at_most(mut self, size: Bytes) -> Self {
        self.maximum_volume_size = Some(size);
        self
    }

    /// The same, where no volume may be smaller.
    #[must_use]
    pub fn at_least(mut self, size: Bytes) -> Self {
        self.minimum_volume_size = Some(size);
        self
    }
}

/// All volumes of an instance together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Total {
    /// How many there are.
    pub volumes: u64,
    /// The sum of their sizes.
    pub capacity: Bytes,
}

impl Total {
    /// So many volumes of this size together.
    pub fn new(volumes: u64, capacity: Bytes) -> Self {
        Self { volumes, capacity }
    }
}

/// A volume after it grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expanded {
    /// Its size now.
    pub capacity: Bytes,
    /// Whether a node must do something before a workload sees it (CSI node_expansion_required).
    pub node_expansion_required: bool,
}

impl Expanded {
    /// Grown to this size, and visible to a workload at once.
    pub fn to(capacity: Bytes) -> Self {
        Self { capacity, node_expansion_required: false }
    }

    /// The same, once NodeExpandVolume was called.
    #[must_use]
    pub fn after_node_expansion(mut self) -> Self {
        self.node_expansion_required = true;
        self
    }
}

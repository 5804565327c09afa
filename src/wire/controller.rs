//! Requests to the controller service.

use std::collections::BTreeMap;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_driver_api::{
    Access, BackendName, CapacityRange, CreateVolume, Error, ErrorKind, Fingerprint, NodeId, Parameters, Result,
    Secrets, SourceId, VolumeCapability,
};

use super::capability::{capabilities, capability};
use super::limits::{self, VolumeHandle, missing, passing, volume_handle};
use super::parameters::{ClassParameters, is_orchestrators, mutable};
use super::snapshot::content_source;
use super::topology::{Segment, Topology, TopologyRequirement};

/// A checked CreateVolume.
#[derive(Debug, Clone)]
pub struct Create {
    /// The backend that is to have it, where the request names one.
    pub backend: Option<BackendName>,
    /// Where it must be accessible from.
    pub accessibility: Option<TopologyRequirement>,
    /// What the driver is asked for.
    pub request: CreateVolume,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked CreateVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument), or
/// [`OutOfRange`](dunnage_driver_api::ErrorKind::OutOfRange) for a range that holds no size.
pub fn create_volume(wire: csi::CreateVolumeRequest) -> Result<Create> {
    let name = limits::name("name", wire.name)?;
    let mut wanted = capabilities(wire.volume_capabilities)?;
    let class = ClassParameters::from_wire(wire.parameters)?;
    let source = content_source(wire.volume_content_source)?;
    for capability in &mut wanted {
        if let Access::Mount(mount) = &mut capability.access {
            mount.fs_type = mount.fs_type.or(class.fs_type);
        }
    }
    let capacity = range(wire.capacity_range)?.unwrap_or_default();
    let fingerprint = fingerprint(&wanted, &class.driver, source.as_ref());
    let mut request = CreateVolume::new(name, capacity, wanted, class.driver, fingerprint);
    request.mutable_parameters = mutable(wire.mutable_parameters)?;
    request.source = source;
    request.claim = class.claim;
    Ok(Create {
        backend: class.backend,
        accessibility: wire.accessibility_requirements.map(TopologyRequirement::from_wire).transpose()?,
        request,
        secrets: limits::secrets(wire.secrets)?,
    })
}

/// The digest of what makes a volume what it is: what it is accessed as, its class parameters, and what it is made from.
/// Access modes and mount flags are not in it, since they bind each use and not the volume; neither are parameters that
/// can be changed.
fn fingerprint(wanted: &[VolumeCapability], parameters: &Parameters, source: Option<&SourceId>) -> Fingerprint {
    let mut parts = parameters.pairs().iter().map(|(key, value)| (format!("parameter {key}"), value.clone())).collect();
    access_parts(wanted, &mut parts);
    match source {
        Some(SourceId::Snapshot(id)) => parts.insert("source snapshot".to_owned(), id.to_string()),
        Some(SourceId::Volume(id)) => parts.insert("source volume".to_owned(), id.to_string()),
        None => None,
    };
    Fingerprint::of(&parts)
}

fn access_parts(wanted: &[VolumeCapability], parts: &mut BTreeMap<String, String>) {
    for capability in wanted {
        let access = match &capability.access {
            Access::Block => "block".to_owned(),
            Access::Mount(mount) => {
                format!("mount {}", mount.fs_type.map(|fs_type| fs_type.to_string()).unwrap_or_default())
            }
        };
        parts.insert(format!("access {access}"), String::new());
    }
}

/// The range of a request: `None` where it has none.
fn range(wire: Option<csi::CapacityRange>) -> Result<Option<CapacityRange>> {
    wire.map(|wire| CapacityRange::new(wire.required_bytes, wire.limit_bytes)).transpose()
}

/// A checked ControllerExpandVolume.
#[derive(Debug, Clone)]
pub struct Expand {
    /// The volume.
    pub volume: VolumeHandle,
    /// How large it must be and may be.
    pub capacity: CapacityRange,
    /// How it is used, where the request says so.
    pub capability: Option<VolumeCapability>,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked ControllerExpandVolumeRequest.
///
/// # Errors
/// As [`create_volume`]; a range without any size is [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument).
pub fn expand_volume(wire: csi::ControllerExpandVolumeRequest) -> Result<Expand> {
    let volume = volume_handle(wire.volume_id)?;
    let capacity = range(wire.capacity_range)?.ok_or_else(|| missing("capacity_range"))?;
    if capacity == CapacityRange::default() {
        return Err(Error::invalid("capacity_range names no size: set required_bytes or limit_bytes"));
    }
    Ok(Expand {
        volume,
        capacity,
        capability: wire.volume_capability.map(|one| capability(Some(one))).transpose()?,
        secrets: limits::secrets(wire.secrets)?,
    })
}

/// A checked ControllerModifyVolume.
#[derive(Debug, Clone)]
pub struct Modify {
    /// The volume.
    pub volume: VolumeHandle,
    /// What is to be changed.
    pub parameters: Parameters,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked ControllerModifyVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn modify_volume(wire: csi::ControllerModifyVolumeRequest) -> Result<Modify> {
    let volume = volume_handle(wire.volume_id)?;
    let parameters = mutable(wire.mutable_parameters)?;
    if parameters.pairs().is_empty() {
        return Err(missing("mutable_parameters"));
    }
    Ok(Modify { volume, parameters, secrets: limits::secrets(wire.secrets)? })
}

/// A checked ControllerPublishVolume.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The volume.
    pub volume: VolumeHandle,
    /// The node that is to use it.
    pub node: NodeId,
    /// How it is to be used.
    pub capability: VolumeCapability,
    /// Whether the node may not write.
    pub readonly: bool,
    /// What is thought to be the volume's context, without the orchestrator's own keys; empty where the request does not say.
    pub volume_context: BTreeMap<String, String>,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// The most bytes of a node_id.
const NODE_ID: usize = 256;

/// A checked ControllerPublishVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed;
/// [`NotFound`](dunnage_driver_api::ErrorKind::NotFound) for a node that is none of ours.
pub fn attach(wire: csi::ControllerPublishVolumeRequest) -> Result<Attach> {
    let volume = volume_handle(wire.volume_id)?;
    passing("volume_context", &wire.volume_context)?;
    if wire.node_id.is_empty() {
        return Err(missing("node_id"));
    }
    let capability = capability(wire.volume_capability)?;
    Ok(Attach {
        volume,
        node: node_id(&wire.node_id)?,
        capability,
        readonly: wire.readonly,
        volume_context: wire.volume_context.into_iter().filter(|(key, _)| !is_orchestrators(key)).collect(),
        secrets: limits::secrets(wire.secrets)?,
    })
}

fn node_id(text: &str) -> Result<NodeId> {
    if text.len() > NODE_ID {
        return Err(Error::invalid(format!("node_id has {} bytes: at most {NODE_ID} are allowed", text.len())));
    }
    text.parse()
}

/// From where a volume is to be detached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DetachFrom {
    /// From every node.
    All,
    /// From this one.
    Node(NodeId),
    /// From one that is none of ours: nothing is attached to it.
    Unknown,
}

/// A checked ControllerUnpublishVolume.
#[derive(Debug, Clone)]
pub struct Detach {
    /// The volume.
    pub volume: VolumeHandle,
    /// From where.
    pub from: DetachFrom,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked ControllerUnpublishVolumeRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn detach(wire: csi::ControllerUnpublishVolumeRequest) -> Result<Detach> {
    let volume = volume_handle(wire.volume_id)?;
    let from = match node_id(&wire.node_id) {
        _ if wire.node_id.is_empty() => DetachFrom::All,
        Ok(node) => DetachFrom::Node(node),
        Err(error) if error.kind() == ErrorKind::NotFound => DetachFrom::Unknown,
        Err(error) => return Err(error),
    };
    Ok(Detach { volume, from, secrets: limits::secrets(wire.secrets)? })
}

/// A checked ValidateVolumeCapabilities.
#[derive(Debug, Clone)]
pub struct Validate {
    /// The volume.
    pub volume: VolumeHandle,
    /// What it is to be used as.
    pub capabilities: Vec<VolumeCapability>,
    /// Class parameters to compare, sorted.
    pub parameters: ClassParameters,
    /// Parameters that can be changed, to compare.
    pub mutable_parameters: Parameters,
    /// What is thought to be its context, without the orchestrator's own keys; empty where the request does not say.
    pub volume_context: BTreeMap<String, String>,
    /// The request as it came, to be confirmed as it came.
    pub wire: csi::validate_volume_capabilities_response::Confirmed,
    /// For the driver alone.
    pub secrets: Secrets,
}

/// A checked ValidateVolumeCapabilitiesRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is missing or malformed.
pub fn validate(wire: csi::ValidateVolumeCapabilitiesRequest) -> Result<Validate> {
    let volume = volume_handle(wire.volume_id)?;
    passing("volume_context", &wire.volume_context)?;
    let context = wire.volume_context.iter().filter(|(key, _)| !is_orchestrators(key));
    Ok(Validate {
        volume,
        volume_context: context.map(|(key, value)| (key.clone(), value.clone())).collect(),
        capabilities: capabilities(wire.volume_capabilities.clone())?,
        parameters: ClassParameters::from_wire(wire.parameters.clone())?,
        mutable_parameters: mutable(wire.mutable_parameters.clone())?,
        wire: csi::validate_volume_capabilities_response::Confirmed {
            volume_context: wire.volume_context,
            volume_capabilities: wire.volume_capabilities,
            parameters: wire.parameters,
            mutable_parameters: wire.mutable_parameters,
        },
        secrets: limits::secrets(wire.secrets)?,
    })
}

/// A checked GetCapacity.
#[derive(Debug, Clone)]
pub struct GetCapacity {
    /// How volumes are to be used; empty where the request does not say.
    pub capabilities: Vec<VolumeCapability>,
    /// Class parameters, sorted.
    pub parameters: ClassParameters,
    /// From where they are to be accessible, where the request says so.
    pub topology: Option<Topology>,
}

impl GetCapacity {
    /// Whether volumes that `segment` alone can use are asked for.
    pub fn includes(&self, segment: &Segment) -> bool {
        self.topology.as_ref().is_none_or(|topology| segment.is_in(topology))
    }
}

/// A checked GetCapacityRequest.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) for what is malformed.
pub fn get_capacity(wire: csi::GetCapacityRequest) -> Result<GetCapacity> {
    Ok(GetCapacity {
        capabilities: wire.volume_capabilities.into_iter().map(|one| capability(Some(one))).collect::<Result<_>>()?,
        parameters: ClassParameters::from_wire(wire.parameters)?,
        topology: wire.accessible_topology.map(Topology::from_wire).transpose()?,
    })
}

//! CreateVolume: once, again, otherwise, at once, and with a client that goes.

use std::time::Duration;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::volume_content_source::{self, VolumeSource};
use dunnage_csi_proto::csi::v1::*;
use futures_util::future::join_all;
use tonic::Code;

use super::identity::{MAP, STRING, size};
use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::using::volume_of;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);

area! {
    "create-volume/answer", "CreateVolume", [CREATES] => |kit| answer(kit);
    "create-volume/again", "CreateVolume", [CREATES] => |kit| again(kit);
    "create-volume/again-larger", "CreateVolume Errors", [CREATES] => |kit| again_larger(kit);
    "create-volume/again-smaller-limit", "CreateVolume Errors", [CREATES] => |kit| again_smaller(kit);
    "create-volume/again-other-parameters", "CreateVolume Errors", [CREATES, Need::OtherParameters]
        => |kit| again_parameters(kit);
    "create-volume/again-other-source", "CreateVolume Errors",
        [CREATES, Need::Controller(ControllerRpc::CloneVolume)] => |kit| again_source(kit);
    "create-volume/at-once", "Concurrency", [CREATES] => |kit| at_once(kit);
    "create-volume/client-gone", "Timeouts", [CREATES] => |kit| client_gone(kit);
    "create-volume/exact-size", "CreateVolume", [CREATES] => |kit| exact_size(kit);
    "create-volume/limit-below-required", "CreateVolume Errors", [CREATES] => |kit| limit_below(kit);
    "create-volume/negative-size", "CreateVolume", [CREATES] => |kit| negative(kit);
    "create-volume/too-large", "CreateVolume Errors", [CREATES] => |kit| too_large(kit);
    "create-volume/without-size", "CreateVolume", [CREATES] => |kit| without_size(kit);
    "create-volume/names", "CreateVolume", [CREATES] => |kit| names(kit);
    "create-volume/banned-characters", "CreateVolume", [CREATES] => |kit| banned(kit);
    "create-volume/unsupported-source", "CreateVolume Errors",
        [CREATES, Need::Without(ControllerRpc::CloneVolume)] => |kit| unsupported_source(kit);
    "create-volume/topology", "CreateVolume",
        [CREATES, Need::Service(PluginService::VolumeAccessibilityConstraints), Need::Topology]
        => |kit| topology(kit);
}

async fn answer(kit: &Kit) -> Checked {
    let request = kit.request("answer");
    let required = kit.params().size();
    let made = kit.ok(request).await?;
    let volume = volume_of(&made)?;
    made.must(volume.volume_id.len() <= STRING, "a volume_id of at most 128 bytes (\"Size Limits\")")?;
    made.must(size(&volume.volume_context) <= MAP, "a volume_context of at most 4 KiB (\"Size Limits\")")?;
    let unknown = volume.capacity_bytes == 0;
    made.must(unknown || volume.capacity_bytes >= required, "a volume of at least required_bytes")?;
    made.must(volume.content_source.is_none(), "no content_source: none was asked for")?;
    let constrained = kit.plugin().offers().service(PluginService::VolumeAccessibilityConstraints);
    let wants = "accessible_topology only with VOLUME_ACCESSIBILITY_CONSTRAINTS";
    made.must(constrained || volume.accessible_topology.is_empty(), wants)
}

/// "the Plugin MUST reply `0 OK` with the corresponding `CreateVolumeResponse`".
async fn again(kit: &Kit) -> Checked {
    let request = kit.request("again");
    let first = kit.ok(request.clone()).await?;
    let second = kit.ok(request).await?;
    second.same_as(&first.answer, "the same answer as to the first call, field by field: the call is idempotent")
}

const INCOMPATIBLE: &str = "a volume of this name exists, and is incompatible";

async fn again_larger(kit: &Kit) -> Checked {
    let mut request = kit.request("larger");
    let volume = kit.create(request.clone()).await?;
    if volume.capacity_bytes == 0 {
        return Err(Stop::Skipped("the capacity of volumes is unknown to the plugin (capacity_bytes 0)".to_owned()));
    }
    request.capacity_range = range(volume.capacity_bytes.saturating_mul(2), 0);
    kit.refused(request, &[Code::AlreadyExists], INCOMPATIBLE).await
}

async fn again_smaller(kit: &Kit) -> Checked {
    let mut request = kit.request("smaller");
    let volume = kit.create(request.clone()).await?;
    if volume.capacity_bytes < 2 {
        return Err(Stop::Skipped("the capacity of volumes is unknown to the plugin (capacity_bytes 0)".to_owned()));
    }
    request.capacity_range = range(0, volume.capacity_bytes - 1);
    let codes = [Code::AlreadyExists];
    kit.refused(request, &codes, INCOMPATIBLE).await
}

async fn again_parameters(kit: &Kit) -> Checked {
    let mut request = kit.request("parameters");
    kit.create(request.clone()).await?;
    request.parameters.clone_from(&kit.params().other_parameters);
    kit.refused(request, &[Code::AlreadyExists], INCOMPATIBLE).await
}

pub(super) fn from_volume(volume: &Volume) -> Option<VolumeContentSource> {
    let source = VolumeSource { volume_id: volume.volume_id.clone() };
    Some(VolumeContentSource { r#type: Some(volume_content_source::Type::Volume(source)) })
}

async fn again_source(kit: &Kit) -> Checked {
    let source = kit.volume("source").await?;
    let mut request = kit.request("sourceless");
    kit.create(request.clone()).await?;
    request.volume_content_source = from_volume(&source);
    kit.refused(request, &[Code::AlreadyExists], INCOMPATIBLE).await
}

/// Two calls in flight are allowed to meet; they may not make two volumes.
async fn at_once(kit: &Kit) -> Checked {
    let request = kit.request("at-once");
    let all = join_all((0..4).map(|_| kit.ok_or_refused(request.clone(), &[Code::Aborted], "a call is pending"))).await;
    let last = kit.settled(request).await?;
    for answered in all {
        if let Some(answered) = answered? {
            answered.same_as(&last.answer, "the same answer to all of several calls with one name")?;
        }
    }
    Ok(())
}

/// How long clients wait before they go: before, while and after the plugin works.
pub(super) const PATIENCE: [Duration; 4] =
    [Duration::from_micros(300), Duration::from_millis(2), Duration::from_millis(10), Duration::from_millis(40)];

/// "a retried call with the same fields continues where it left off".
async fn client_gone(kit: &Kit) -> Checked {
    for after in PATIENCE {
        let request = kit.request("gone");
        kit.abandon(request.clone(), after).await;
        let first = kit.settled(request.clone()).await?;
        let second = kit.settled(request).await?;
        second.same_as(&first.answer, "the same answer to each repetition of a call whose client was gone")?;
    }
    Ok(())
}

pub(super) fn range(required_bytes: i64, limit_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes, limit_bytes })
}

/// "To specify an exact size, `required_bytes` and `limit_bytes` SHALL be set to the same value."
async fn exact_size(kit: &Kit) -> Checked {
    for bytes in [kit.params().size(), kit.params().size() + 1] {
        let request = CreateVolumeRequest { capacity_range: range(bytes, bytes), ..kit.request("exact") };
        let why = "the plugin may not be able to make this size";
        if let Some(made) = kit.ok_or_refused(request, &[Code::OutOfRange], why).await? {
            let volume = volume_of(&made)?;
            let wants = format!("a volume of exactly {bytes} bytes, or OUT_OF_RANGE");
            made.must(volume.capacity_bytes == 0 || volume.capacity_bytes == bytes, wants)?;
        }
    }
    Ok(())
}

const SIZES: [Code; 2] = [Code::OutOfRange, Code::InvalidArgument];

async fn limit_below(kit: &Kit) -> Checked {
    let size = kit.params().size();
    let request = CreateVolumeRequest { capacity_range: range(size, size / 2), ..kit.request("limit") };
    kit.refused(request, &SIZES, "no volume has at least required_bytes and at most a smaller limit_bytes").await
}

async fn negative(kit: &Kit) -> Checked {
    for capacity_range in [range(-1, 0), range(0, -1)] {
        let request = CreateVolumeRequest { capacity_range, ..kit.request("negative") };
        kit.refused(request, &SIZES, "the value of this field MUST NOT be negative").await?;
    }
    Ok(())
}

async fn too_large(kit: &Kit) -> Checked {
    let bytes = i64::MAX / 4;
    let request = CreateVolumeRequest { capacity_range: range(bytes, 0), ..kit.request("too-large") };
    let codes = [Code::OutOfRange, Code::ResourceExhausted];
    match kit.ok_or_refused(request, &codes, "the capacity range is not allowed").await? {
        Some(made) => {
            let volume = volume_of(&made)?;
            made.must(volume.capacity_bytes >= bytes, "a volume of at least required_bytes: it MUST always be honored")
        }
        None => Ok(()),
    }
}

async fn without_size(kit: &Kit) -> Checked {
    let request = CreateVolumeRequest { capacity_range: None, ..kit.request("sizeless") };
    let made = kit.ok(request).await?;
    let volume = volume_of(&made)?;
    made.must(volume.capacity_bytes >= 0, "no negative capacity_bytes")
}

/// "Any Unicode string that conforms to the length limit is allowed except those containing" control characters.
async fn names(kit: &Kit) -> Checked {
    let long = kit.name("");
    let rest = STRING - long.len();
    let names = [
        format!("{long}{}", "é".repeat(rest / 2)),
        format!("{long}{}", "x".repeat(rest)),
        format!("{long}A"),
        format!("{long}a"),
        format!("{long}/../a"),
        format!("{long} a\tb"),
        format!("..{long}"),
    ];
    let mut ids = Vec::new();
    for name in names {
        let made = kit.ok(CreateVolumeRequest { name, ..kit.request("names") }).await?;
        let volume = volume_of(&made)?;
        made.must(!ids.contains(&volume.volume_id), "another volume_id than that of a volume with another name")?;
        ids.push(volume.volume_id);
    }
    Ok(())
}

async fn banned(kit: &Kit) -> Checked {
    for letter in ['\u{1}', '\u{b}', '\u{1f}', '\u{7f}', '\u{9f}'] {
        let name = format!("{}{letter}", kit.name("banned"));
        let request = CreateVolumeRequest { name, ..kit.request("banned") };
        kit.refused(request, &[Code::InvalidArgument], "the name has a banned character").await?;
    }
    Ok(())
}

async fn unsupported_source(kit: &Kit) -> Checked {
    let source = kit.volume("source").await?;
    let request =
        CreateVolumeRequest { volume_content_source: from_volume(&source), ..kit.request("unsupported-source") };
    kit.refused(request, &[Code::InvalidArgument], "CLONE_VOLUME is not advertised: the source is not supported").await
}

/// "If requisite is specified, the provisioned volume MUST be accessible from at least one of the requisite topologies."
async fn topology(kit: &Kit) -> Checked {
    let made = kit.ok(kit.request("here")).await?;
    let volume = volume_of(&made)?;
    let here = kit.topology();
    let met = volume.accessible_topology.is_empty()
        || volume.accessible_topology.iter().any(|own| Some(own) == here.as_ref());
    made.must(met, "a volume that is accessible from a requisite topology")?;
    let Some(mut nowhere) = here else { return Ok(()) };
    nowhere.segments.values_mut().for_each(|segment| *segment = "conformance-nowhere".to_owned());
    let requirement = TopologyRequirement { requisite: vec![nowhere.clone()], preferred: vec![nowhere] };
    let request = CreateVolumeRequest { accessibility_requirements: Some(requirement), ..kit.request("nowhere") };
    let codes = [Code::ResourceExhausted, Code::InvalidArgument];
    kit.refused(request, &codes, "nothing can be provisioned in a topology that does not exist").await
}

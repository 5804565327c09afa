//! The Identity service, and what is advertised.

use std::collections::{BTreeMap, HashMap};

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as PluginService;
use dunnage_csi_proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;
use crate::conformance::samples::{self, Tried};

area! {
    "identity/plugin-info", "GetPluginInfo", [] => |kit| plugin_info(kit);
    "identity/capabilities", "GetPluginCapabilities", [] => |kit| capabilities(kit);
    "identity/probe", "Probe", [] => |kit| probe(kit);
    "identity/volume-expansion", "GetPluginCapabilities", [] => |kit| volume_expansion(kit);
    "identity/capabilities-that-need-others", "ControllerGetCapabilities", [] => |kit| needed(kit);
    "identity/advertised-rpcs", "Error Scheme", [] => |kit| advertised(kit);
    "identity/other-rpcs", "Error Scheme", [] => |kit| others(kit);
    "node/info", "NodeGetInfo", [Need::Controller(ControllerRpc::PublishUnpublishVolume)] => |kit| node_info(kit);
    "node/topology", "CreateVolume", [Need::Topology] => |kit| topology(kit);
}

/// "The name MUST follow domain name notation format … It MUST be 63 characters or less".
async fn plugin_info(kit: &Kit) -> Checked {
    let info = kit.ok(GetPluginInfoRequest {}).await?;
    let wants = "a name in domain name notation of at most 63 characters";
    info.must(is_name(&info.name, |letter| matches!(letter, '-' | '.')), wants)?;
    info.must(!info.vendor_version.is_empty(), "a vendor_version, which is REQUIRED")?;
    info.must(size(&info.manifest) <= MAP, "a manifest of at most 4 KiB (\"Size Limits\")")
}

/// The most that a map of strings may have.
pub(super) const MAP: usize = 4096;
/// The most bytes that a string may have.
pub(super) const STRING: usize = 128;

pub(super) fn size(map: &HashMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// At most 63 letters and digits, with `between` allowed inside.
fn is_name(text: &str, between: impl Fn(char) -> bool) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    let ends = text.starts_with(plain) && text.ends_with(plain);
    ends && text.len() <= 63 && text.chars().all(|letter| plain(letter) || between(letter))
}

/// "All instances of the same version … SHALL return the same set of capabilities".
async fn capabilities(kit: &Kit) -> Checked {
    let count = |answer: &GetPluginCapabilitiesResponse| {
        let mut counts = BTreeMap::new();
        answer.capabilities.iter().for_each(|own| *counts.entry(format!("{own:?}")).or_insert(0) += 1);
        counts
    };
    let first = kit.ok(GetPluginCapabilitiesRequest {}).await?;
    let second = kit.ok(GetPluginCapabilitiesRequest {}).await?;
    second.must(count(&first) == count(&second), format_args!("the same set of capabilities as before: {first:?}"))
}

/// "A successful response is returned with a readiness value of `true`", or without one.
async fn probe(kit: &Kit) -> Checked {
    let probed = kit.ok(ProbeRequest {}).await?;
    probed.must(probed.ready.unwrap_or(true), "a plugin that has finished initializing, to go on with")
}

/// "When a Plugin implements this capability it MUST implement either the EXPAND_VOLUME controller capability or …".
async fn volume_expansion(kit: &Kit) -> Checked {
    let plugin = kit.plugin();
    let offers = plugin.offers();
    let answered = kit.ok(GetPluginCapabilitiesRequest {}).await?;
    let node = offers.node(NodeRpc::ExpandVolume);
    if offers.expansion(Expansion::Online) {
        answered.must(offers.expands() || node, "EXPAND_VOLUME of the controller, the node or both, with ONLINE")?;
    }
    if offers.expansion(Expansion::Offline) {
        answered.must(offers.expands(), "EXPAND_VOLUME of the controller, with OFFLINE")?;
    }
    Ok(())
}

async fn needed(kit: &Kit) -> Checked {
    let plugin = kit.plugin();
    let offers = plugin.offers();
    if !offers.service(PluginService::ControllerService) {
        return Err(Stop::Skipped("not advertised: CONTROLLER_SERVICE (plugin)".to_owned()));
    }
    let answered = kit.ok(ControllerGetCapabilitiesRequest {}).await?;
    for (with, without) in [
        (ControllerRpc::ListVolumeHealth, ControllerRpc::GetVolumeHealth),
        (ControllerRpc::ListVolumesPublishedNodes, ControllerRpc::PublishUnpublishVolume),
    ] {
        let met = !offers.controller(with) || offers.controller(without);
        let wants = format!("{} beside {}, which needs it", without.as_str_name(), with.as_str_name());
        answered.must(met, wants)?;
    }
    Ok(())
}

async fn tried(kit: &Kit) -> Vec<Tried> {
    let mut tried = samples::controllers(kit).await;
    tried.extend(samples::node(kit).await);
    tried
}

/// UNIMPLEMENTED: "The invoked RPC is not implemented by the Plugin".
async fn advertised(kit: &Kit) -> Checked {
    for Tried { rpc, advertised, code, sent } in tried(kit).await {
        if advertised && code == Code::Unimplemented {
            return Err(Stop::failed(sent, "UNIMPLEMENTED", format_args!("{rpc} implemented: it is advertised")));
        }
    }
    Ok(())
}

async fn others(kit: &Kit) -> Checked {
    for Tried { rpc, advertised, code, sent } in tried(kit).await {
        if !advertised && code != Code::Unimplemented {
            let wants = format!("UNIMPLEMENTED: {rpc} is not advertised, or disabled in this mode");
            return Err(Stop::failed(sent, crate::client::code_name(code), wants));
        }
    }
    Ok(())
}

/// "The identifier of the node as understood by the SP. This field is REQUIRED."
async fn node_info(kit: &Kit) -> Checked {
    let info = kit.ok(NodeGetInfoRequest {}).await?;
    info.must(!info.node_id.is_empty(), "a node_id, which is REQUIRED")?;
    info.must(info.node_id.len() <= 256, "a node_id of at most 256 bytes")?;
    info.must(info.max_volumes_per_node >= 0, "no negative max_volumes_per_node")
}

/// What "Topology" says of its keys and values, and who may return one.
async fn topology(kit: &Kit) -> Checked {
    let info = kit.ok(NodeGetInfoRequest {}).await?;
    let constrained = kit.plugin().offers().service(PluginService::VolumeAccessibilityConstraints);
    let Some(topology) = &info.accessible_topology else { return Ok(()) };
    info.must(constrained, "VOLUME_ACCESSIBILITY_CONSTRAINTS advertised by a plugin that returns a topology")?;
    let between = |letter| matches!(letter, '-' | '_' | '.');
    let mut seen = BTreeMap::new();
    for (key, value) in &topology.segments {
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
        let prefixed = prefix.is_empty() || is_name(prefix, |letter| matches!(letter, '-' | '.'));
        info.must(is_name(name, between) && prefixed, format_args!("a valid topology key, not {key:?}"))?;
        info.must(is_name(value, between), format_args!("a valid topology segment, not {value:?}"))?;
        let twin = seen.insert(key.to_ascii_lowercase(), key);
        info.must(twin.is_none(), format_args!("no two keys that differ in case only, as {key:?}"))?;
    }
    Ok(())
}

//! What a plugin offers, as the three lists of CSI.

use dunnage_csi_proto::csi::v1::controller_service_capability::{self, rpc::Type as ControllerRpc};
use dunnage_csi_proto::csi::v1::group_controller_service_capability::{self, rpc::Type as GroupRpc};
use dunnage_csi_proto::csi::v1::node_service_capability::{self, rpc::Type as NodeRpc};
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as Service;
use dunnage_csi_proto::csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use dunnage_csi_proto::csi::v1::plugin_capability::{self, VolumeExpansion};
use dunnage_csi_proto::csi::v1::{
    ControllerServiceCapability, GroupControllerServiceCapability, NodeServiceCapability, PluginCapability,
};

use crate::registry::Offers;

/// Those of `entries` that are so.
fn true_ones<T, const N: usize>(entries: [(bool, T); N]) -> impl Iterator<Item = T> {
    entries.into_iter().filter_map(|(there, entry)| there.then_some(entry))
}

/// GetPluginCapabilities.
pub(super) fn plugin(offers: Offers) -> Vec<PluginCapability> {
    use plugin_capability::Type;
    true_ones([
        (offers.controller, Type::Service(service(Service::ControllerService))),
        (offers.constraints, Type::Service(service(Service::VolumeAccessibilityConstraints))),
        (offers.groups, Type::Service(service(Service::GroupControllerService))),
        (offers.snapshot_constraints(), Type::Service(service(Service::SnapshotAccessibilityConstraints))),
        (offers.snapshot_metadata, Type::Service(service(Service::SnapshotMetadataService))),
        (
            offers.expand || offers.expand_node,
            Type::VolumeExpansion(VolumeExpansion { r#type: Expansion::Online.into() }),
        ),
    ])
    .map(|one| PluginCapability { r#type: Some(one) })
    .collect()
}

fn service(service: Service) -> plugin_capability::Service {
    plugin_capability::Service { r#type: service.into() }
}

/// ControllerGetCapabilities.
pub(super) fn controller(offers: Offers) -> Vec<ControllerServiceCapability> {
    use controller_service_capability::{Rpc, Type};
    true_ones([
        (offers.create, ControllerRpc::CreateDeleteVolume),
        (offers.controller, ControllerRpc::ListVolumes),
        (offers.controller, ControllerRpc::GetVolume),
        (offers.controller, ControllerRpc::SingleNodeMultiWriter),
        (offers.attach, ControllerRpc::PublishUnpublishVolume),
        (offers.attachments, ControllerRpc::PublishReadonly),
        (offers.attachments, ControllerRpc::ListVolumesPublishedNodes),
        (offers.room, ControllerRpc::GetCapacity),
        (offers.expand, ControllerRpc::ExpandVolume),
        (offers.snapshots, ControllerRpc::CreateDeleteSnapshot),
        (offers.snapshots, ControllerRpc::ListSnapshots),
        (offers.snapshots, ControllerRpc::GetSnapshot),
        (offers.clones, ControllerRpc::CloneVolume),
        (offers.modify, ControllerRpc::ModifyVolume),
        (offers.health, ControllerRpc::GetVolumeHealth),
        (offers.health, ControllerRpc::ListVolumeHealth),
    ])
    .map(|one| ControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: one.into() })) })
    .collect()
}

/// GroupControllerGetCapabilities.
pub(super) fn group_controller(offers: Offers) -> Vec<GroupControllerServiceCapability> {
    use group_controller_service_capability::{Rpc, Type};
    true_ones([(offers.groups, GroupRpc::CreateDeleteGetVolumeGroupSnapshot)])
        .map(|one| GroupControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: one.into() })) })
        .collect()
}

/// NodeGetCapabilities.
pub(super) fn node(offers: Offers) -> Vec<NodeServiceCapability> {
    use node_service_capability::{Rpc, Type};
    true_ones([
        (offers.stage, NodeRpc::StageUnstageVolume),
        (offers.node, NodeRpc::GetVolumeStats),
        (offers.node, NodeRpc::SingleNodeMultiWriter),
        (offers.node, NodeRpc::GetVolumeHealth),
        (offers.node, NodeRpc::GetStorageHealth),
        (offers.expand_node, NodeRpc::ExpandVolume),
    ])
    .map(|one| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: one.into() })) })
    .collect()
}

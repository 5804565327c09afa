//! The GroupController service.

use std::collections::BTreeSet;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::group_controller_server::GroupController;
use dunnage_driver_api::{Error, GroupSnapshot, SnapshotId, SnapshotKey, VolumeId};
use tonic::{Request, Response};

use super::call::{Answer, Call, refused};
use super::{Services, Shared, capabilities};
use crate::operations::{Key, Keys, Lane};
use crate::registry::{NewGroup, ServedBackend};
use crate::wire;

#[tonic::async_trait]
impl GroupController for Services {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::GroupControllerGetCapabilitiesResponse> {
        let shared = self.offering(self.0.plugin.offers.groups, "GroupControllerGetCapabilities")?;
        let capabilities = capabilities::group_controller(shared.plugin.offers);
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::CreateVolumeGroupSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.groups, "CreateVolumeGroupSnapshot")?;
        let call = Call::of("CreateVolumeGroupSnapshot", &request);
        let wire::CreateGroup { name, sources, parameters, fingerprint, secrets } =
            wire::create_group(request.into_inner()).map_err(refused)?;
        let instances: BTreeSet<_> = sources.iter().map(|id| id.instance.clone()).collect();
        let [instance] = &instances.into_iter().collect::<Vec<_>>()[..] else {
            return Err(refused(apart(&sources)));
        };
        let backend = shared.plugin.backend_with(instance).map_err(refused)?;
        let key = SnapshotKey::of_name(&name);
        let of_sources = sources.iter().flat_map(|id| Keys::of_source(id, backend.backend.copies_in_use));
        let keys = Keys::new([Key::group(instance.clone(), key.clone())], of_sources);
        let fields = fingerprint.clone();
        let new = NewGroup { name, sources, parameters, fingerprint };
        let (served, lane) = (backend.clone(), Lane::ChangesOfSnapshot(key));
        let group = shared
            .change_all(call.with_secrets(secrets), backend, keys, lane, &fields, move |_, backend, cx| {
                backend.create_group(cx, new)
            })
            .await?;
        let group_snapshot = Some(shared.group_to_wire(&served, &group));
        Ok(Response::new(csi::CreateVolumeGroupSnapshotResponse { group_snapshot }))
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::DeleteVolumeGroupSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.groups, "DeleteVolumeGroupSnapshot")?;
        let call = Call::of("DeleteVolumeGroupSnapshot", &request);
        let request = request.into_inner();
        let wire::Group { id, members, secrets } =
            wire::group(request.group_snapshot_id, request.snapshot_ids, request.secrets).map_err(refused)?;
        let Some(id) = id else { return Ok(Response::new(csi::DeleteVolumeGroupSnapshotResponse {})) };
        let backend = shared.plugin.backend_with(&id.instance).map_err(refused)?;
        // What copies from a member shares its key.
        let of_members = members.iter().filter_map(|text| text.parse::<SnapshotId>().ok());
        let of_members = of_members.filter(|member| member.instance == id.instance);
        let of_members = of_members.map(|id| Key::snapshot(id.instance, id.key));
        let keys = Keys::new(of_members.chain([Key::group(id.instance.clone(), id.key.clone())]), []);
        let (lane, fields) = (Lane::ChangesOfSnapshot(id.key.clone()), (id.clone(), members.clone()));
        shared
            .change_all(call.with_secrets(secrets), backend, keys, lane, &fields, move |_, backend, cx| {
                backend.delete_group(cx, &id, &members)
            })
            .await?;
        Ok(Response::new(csi::DeleteVolumeGroupSnapshotResponse {}))
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::GetVolumeGroupSnapshotResponse> {
        let shared = self.offering(self.0.plugin.offers.groups, "GetVolumeGroupSnapshot")?;
        let call = Call::of("GetVolumeGroupSnapshot", &request);
        let request = request.into_inner();
        let wire::Group { id, members, secrets } =
            wire::group(request.group_snapshot_id, request.snapshot_ids, request.secrets).map_err(refused)?;
        let id = id.ok_or_else(|| refused(Error::not_found("group_snapshot_id is not of the form made here")))?;
        let backend = shared.plugin.backend_with(&id.instance).map_err(refused)?;
        let (served, lane) = (backend.clone(), Lane::ReadsOfSnapshot(id.key.clone()));
        let read = move |_: &Shared, backend: &ServedBackend, cx: &_| backend.group(cx, &id, &members);
        let group = shared.read_in(call.with_secrets(secrets), backend, Some(lane), read).await?;
        let group_snapshot = Some(shared.group_to_wire(&served, &group));
        Ok(Response::new(csi::GetVolumeGroupSnapshotResponse { group_snapshot }))
    }
}

/// Why volumes of several stores make no group.
fn apart(sources: &BTreeSet<VolumeId>) -> Error {
    let (first, last) = (sources.first(), sources.last());
    let named: Vec<_> = first.into_iter().chain(last).map(ToString::to_string).collect();
    Error::precondition(format!(
        "the volumes lie in different stores, and nothing makes snapshots of several stores at one moment: {}",
        named.join(" and ")
    ))
}

impl Shared {
    fn group_to_wire(&self, backend: &ServedBackend, group: &GroupSnapshot) -> csi::VolumeGroupSnapshot {
        wire::group_to_wire(group, &backend.backend.instance, self.segment_of(backend))
    }
}

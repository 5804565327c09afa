//! Volumes.

use std::collections::{BTreeMap, HashMap};

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::controller_server::Controller;
use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as Rpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::{Code, Request, Status};

use super::disk::{self, failed};
use super::state::{Source, State, Volume};
use super::{Answer, NODE, Plugin, here, is_block, ok, page};
use crate::mutant::Mutant;

const MIB: i64 = 1 << 20;
const LARGEST: i64 = 1 << 40;
/// How long a mutant stands where it must not be killed.
pub(super) const WINDOW: std::time::Duration = std::time::Duration::from_millis(20);

/// A name that is allowed.
fn check_name(plugin: &Plugin, name: &str) -> Result<(), Status> {
    plugin.required("name", name, Mutant::AcceptsNoName)?;
    let banned = |letter: char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r');
    if name.chars().any(banned) && !plugin.is(Mutant::AcceptsControlCharacters) {
        return Err(Status::invalid_argument("the name has a control character"));
    }
    if !name.is_ascii() && plugin.is(Mutant::RefusesUnicode) {
        return Err(Status::invalid_argument("the name is not ASCII"));
    }
    Ok(())
}

impl Plugin {
    pub(super) fn check_name(&self, name: &str) -> Result<(), Status> {
        check_name(self, name)
    }

    fn check_range(&self, range: Option<&CapacityRange>) -> Result<(), Status> {
        let Some(range) = range else { return Ok(()) };
        if (range.required_bytes < 0 || range.limit_bytes < 0) && !self.is(Mutant::AcceptsNegativeSize) {
            return Err(Status::out_of_range("a negative size"));
        }
        let crossed = range.limit_bytes > 0 && range.limit_bytes < range.required_bytes;
        if crossed && !self.is(Mutant::AcceptsLimitBelowRequired) {
            return Err(Status::out_of_range("the limit is below what is required"));
        }
        if range.required_bytes > LARGEST && !self.is(Mutant::AcceptsTooLarge) {
            return Err(Status::out_of_range("there are no volumes so large"));
        }
        Ok(())
    }

    fn choose(&self, range: Option<&CapacityRange>, source: i64) -> Result<i64, Status> {
        self.check_range(range)?;
        let range = range.copied().unwrap_or_default();
        let mut capacity = range.required_bytes.max(source);
        if capacity == 0 {
            capacity = if range.limit_bytes > 0 { range.limit_bytes.min(MIB) } else { MIB };
        }
        if range.limit_bytes > 0 && capacity > range.limit_bytes && !self.is(Mutant::AcceptsSmallerCopy) {
            return match self.is(Mutant::AcceptsLimitBelowRequired) {
                true => Ok(capacity),
                false => Err(Status::out_of_range("smaller than the source")),
            };
        }
        capacity = capacity.min(LARGEST);
        if self.is(Mutant::SmallerThanRequired) {
            capacity /= 2;
        }
        if self.is(Mutant::RoundsOverTheLimit) {
            capacity = (capacity + MIB - 1) / MIB * MIB;
        }
        Ok(capacity)
    }

    fn same(&self, volume: &Volume, request: &CreateVolumeRequest) -> Result<bool, Status> {
        let range = request.capacity_range.unwrap_or_default();
        let enough = match self.is(Mutant::ComparesTheExactSize) {
            true => volume.capacity == range.required_bytes,
            false => volume.capacity >= range.required_bytes,
        };
        let fits = enough && (range.limit_bytes == 0 || volume.capacity <= range.limit_bytes);
        let parameters: BTreeMap<_, _> = request.parameters.clone().into_iter().collect();
        let block = is_block(&request.volume_capabilities[0])?;
        let source = Source::of(request.volume_content_source.as_ref());
        Ok((fits || self.is(Mutant::IgnoresSizeOnRetry))
            && (parameters == volume.parameters || self.is(Mutant::IgnoresParametersOnRetry))
            && block == volume.block
            && (source == volume.source || self.is(Mutant::IgnoresSourceOnRetry))
            && !(volume.source.is_some() && self.is(Mutant::RefusesRetriedClone)))
    }

    fn check_create(&self, request: &CreateVolumeRequest) -> Result<bool, Status> {
        check_name(self, &request.name)?;
        if request.volume_capabilities.is_empty() && !self.is(Mutant::AcceptsNoCapabilities) {
            return Err(Status::invalid_argument("volume_capabilities is required"));
        }
        let blocks: Vec<bool> = match request.volume_capabilities.iter().map(is_block).collect() {
            Ok(blocks) => blocks,
            Err(_) if self.is(Mutant::AcceptsNoAccessMode) => vec![false],
            Err(refused) => return Err(refused),
        };
        if blocks.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Status::invalid_argument("a volume is a folder or a device"));
        }
        if request.capacity_range.is_none() && self.is(Mutant::NeedsASize) {
            return Err(Status::invalid_argument("capacity_range is required"));
        }
        if blocks.contains(&true) && self.is(Mutant::ConfirmsWhatItRefuses) {
            return Err(Status::invalid_argument("there are no block volumes"));
        }
        if !request.mutable_parameters.is_empty() && self.is(Mutant::RefusesMutableOnCreate) {
            return Err(Status::invalid_argument("there are no mutable parameters"));
        }
        if request.parameters.keys().any(|key| key != "class") {
            return Err(Status::invalid_argument("the only parameter is class"));
        }
        check_mutable(self, &request.mutable_parameters)?;
        let wanted = request.accessibility_requirements.iter().flat_map(|own| own.requisite.iter());
        let wanted: Vec<_> = wanted.collect();
        if !wanted.is_empty() && !wanted.contains(&&here()) && !self.is(Mutant::IgnoresTopology) {
            return Err(Status::resource_exhausted("volumes are accessible from this node alone"));
        }
        Ok(blocks.first().copied().unwrap_or(false))
    }

    /// The size of the source, and where its data lies.
    fn source(
        &self,
        state: &State,
        request: &CreateVolumeRequest,
        block: bool,
    ) -> Result<Option<(i64, std::path::PathBuf)>, Status> {
        let Some(asked) = &request.volume_content_source else { return Ok(None) };
        let source = match Source::of(Some(asked)) {
            Some(Source::Snapshot(id) | Source::Volume(id)) if id.is_empty() => None,
            source => source,
        };
        let Some(source) = source else {
            let why = "volume_content_source has no type or no id";
            return if self.is(Mutant::AcceptsNoSourceId) { Ok(None) } else { Err(Status::invalid_argument(why)) };
        };
        let (found, path) = match &source {
            Source::Snapshot(id) => {
                let found = state.snapshots.get(id).map(|own| (own.size, own.block));
                (found, self.snapshot_path(id))
            }
            Source::Volume(id) => (state.volumes.get(id).map(|own| (own.capacity, own.block)), self.volume_path(id)),
        };
        match found {
            None if self.is(Mutant::AcceptsUnknownSource) => Ok(None),
            None => Err(Status::not_found(format!("there is no {source:?}"))),
            Some((_, other)) if other != block => Err(Status::invalid_argument("the source is of another kind")),
            Some((size, _)) => Ok(Some((size, path))),
        }
    }

    /// Where a mutant keeps the data of a volume that is gone.
    fn kept(&self, name: &str) -> std::path::PathBuf {
        self.root.join(format!("kept {}", name.replace('/', "_")))
    }

    fn make(&self, state: &mut State, request: &CreateVolumeRequest, block: bool) -> Result<Volume, Status> {
        let source = self.source(state, request, block)?;
        let capacity = self.choose(request.capacity_range.as_ref(), source.as_ref().map_or(0, |(size, _)| *size))?;
        let id = state.id('v');
        let path = self.volume_path(&id);
        if self.is(Mutant::RecordsBeforeItMakes) {
            let parameters = request.parameters.clone().into_iter().collect();
            let source = Source::of(request.volume_content_source.as_ref());
            let early = Volume { id: id.clone(), name: request.name.clone(), capacity, block, parameters, source };
            state.volumes.insert(id.clone(), early);
            self.save(state);
            std::thread::sleep(WINDOW);
        }
        match &source {
            Some((_, from)) if self.is(Mutant::CopySharesData) => {
                std::os::unix::fs::symlink(from, &path).map_err(failed)?;
            }
            None if self.is(Mutant::VolumesShareData) => {
                let shared = self.root.join(if block { "shared-block" } else { "shared-mount" });
                if !shared.exists() {
                    disk::make(&shared, block, capacity).map_err(failed)?;
                }
                std::os::unix::fs::symlink(shared, &path).map_err(failed)?;
            }
            None if self.kept(&request.name).exists() => {
                std::fs::rename(self.kept(&request.name), &path).map_err(failed)?;
            }
            Some((_, from)) if !self.is(Mutant::CopyIsEmpty) => disk::copy(from, &path).map_err(failed)?,
            _ => disk::make(&path, block, capacity).map_err(failed)?,
        }
        if !(source.is_some() && self.is(Mutant::CopyKeepsSourceSize)) {
            disk::grow(&path, capacity).map_err(failed)?;
        }
        Ok(Volume {
            id,
            name: request.name.clone(),
            capacity,
            block,
            parameters: request.parameters.clone().into_iter().collect(),
            source: Source::of(request.volume_content_source.as_ref()),
        })
    }

    fn told(&self, volume: &Volume, again: bool) -> csi::Volume {
        let mut told = volume.to_wire();
        if self.is(Mutant::NoVolumeId) {
            told.volume_id.clear();
        }
        if self.is(Mutant::LongVolumeId) {
            told.volume_id = format!("{}{}", told.volume_id, "x".repeat(130));
        }
        if self.is(Mutant::NoCapacityOnRetry) && again {
            told.capacity_bytes = 0;
        }
        if self.is(Mutant::ContextChanges) {
            told.volume_context.insert("time".to_owned(), format!("{:?}", super::now()));
        }
        if self.is(Mutant::NoContentSource) {
            told.content_source = None;
        }
        told
    }
}

fn check_mutable(plugin: &Plugin, parameters: &HashMap<String, String>) -> Result<(), Status> {
    match parameters.keys().find(|key| *key != "speed") {
        Some(key) if !plugin.is(Mutant::ModifyIgnoresUnknown) => {
            Err(Status::invalid_argument(format!("there is no mutable parameter {key}")))
        }
        _ => Ok(()),
    }
}

/// A page whose token is the last id of the one before, which must still be there.
fn after(state: &State, most: usize, token: &str) -> Answer<ListVolumesResponse> {
    if !token.is_empty() && !state.volumes.contains_key(token) {
        return Err(Status::internal(format!("there is no volume {token} to go on from")));
    }
    let rest: Vec<_> = state.volumes.values().filter(|own| own.id.as_str() > token).collect();
    let more = rest.len() > most;
    let next_token = rest.get(most.wrapping_sub(1)).filter(|_| more).map(|own| own.id.clone()).unwrap_or_default();
    let entry = |own: &&Volume| list_volumes_response::Entry { volume: Some(own.to_wire()), status: None };
    ok(ListVolumesResponse { entries: rest.iter().take(most).map(entry).collect(), next_token })
}

fn no_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {id}"))
}

#[tonic::async_trait]
impl Controller for Plugin {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        let mut rpcs = vec![
            Rpc::CreateDeleteVolume,
            Rpc::PublishUnpublishVolume,
            Rpc::PublishReadonly,
            Rpc::ListVolumes,
            Rpc::ListVolumesPublishedNodes,
            Rpc::GetCapacity,
            Rpc::CreateDeleteSnapshot,
            Rpc::ListSnapshots,
            Rpc::GetSnapshot,
            Rpc::CloneVolume,
            Rpc::ExpandVolume,
            Rpc::GetVolume,
            Rpc::ModifyVolume,
            Rpc::SingleNodeMultiWriter,
            Rpc::GetVolumeHealth,
            Rpc::ListVolumeHealth,
        ];
        for (mutant, without) in [
            (Mutant::HealthListWithoutGet, Rpc::GetVolumeHealth),
            (Mutant::DoesMoreThanAdvertised, Rpc::GetCapacity),
            (Mutant::ClonesNotAdvertised, Rpc::CloneVolume),
            (Mutant::ExpansionWithoutRpc, Rpc::ExpandVolume),
        ] {
            rpcs.retain(|rpc| !(self.is(mutant) && *rpc == without));
        }
        let capability = |rpc: Rpc| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(controller_service_capability::Rpc {
                r#type: rpc.into(),
            })),
        };
        ok(ControllerGetCapabilitiesResponse { capabilities: rpcs.into_iter().map(capability).collect() })
    }

    async fn create_volume(&self, request: Request<CreateVolumeRequest>) -> Answer<CreateVolumeResponse> {
        let mut request = request.into_inner();
        if self.is(Mutant::FoldsNames) {
            request.name = request.name.to_lowercase();
        }
        let block = self.check_create(&request).map_err(|refused| self.spoiled(refused))?;
        self.middle("CreateVolume").await?;
        let known = |state: &State| state.volumes.values().find(|own| own.name == request.name).cloned();
        let found = known(&self.state());
        if self.is(Mutant::LooksBeforeItLocks) {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut state = self.state();
        let found = if self.is(Mutant::LooksBeforeItLocks) { found } else { known(&state) };
        if let Some(volume) = found.filter(|_| !self.is(Mutant::NewIdEachCreate)) {
            if !self.same(&volume, &request)? {
                return Err(Status::already_exists("a volume of this name is different"));
            }
            return ok(CreateVolumeResponse { volume: Some(self.told(&volume, true)) });
        }
        let volume = self.make(&mut state, &request, block)?;
        if self.is(Mutant::MakesASecondVolume) {
            let twin = Volume { id: state.id('v'), name: String::new(), ..volume.clone() };
            disk::make(&self.volume_path(&twin.id), block, MIB).map_err(failed)?;
            state.volumes.insert(twin.id.clone(), twin);
        }
        let told = self.told(&volume, false);
        state.volumes.insert(volume.id.clone(), volume);
        self.save(&state);
        ok(CreateVolumeResponse { volume: Some(told) })
    }

    async fn delete_volume(&self, request: Request<DeleteVolumeRequest>) -> Answer<DeleteVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.required("volume_id", &id, Mutant::DeletesWithoutId)?;
        self.middle("DeleteVolume").await?;
        let mut state = self.state();
        if self.is(Mutant::DeleteDoesNothing) {
            return ok(DeleteVolumeResponse {});
        }
        if !state.volumes.contains_key(&id) && self.is(Mutant::DeleteUnknownFails) {
            return Err(no_volume(&id));
        }
        if id.contains('/') && self.is(Mutant::DeleteOfOddIdFails) {
            return Err(Status::internal("no such file"));
        }
        let published = state.published.values().any(|own| own.volume == id);
        if state.attached.contains_key(&id) || published {
            return Err(Status::failed_precondition("the volume is published"));
        }
        if self.is(Mutant::DeletesTheDataFirst) && state.volumes.contains_key(&id) {
            if !self.volume_path(&id).exists() {
                return Err(Status::internal("the data is not there"));
            }
            disk::remove(&self.volume_path(&id)).map_err(failed)?;
            std::thread::sleep(WINDOW);
        }
        if let Some(volume) = state.volumes.remove(&id) {
            self.save(&state);
            let path = self.volume_path(&volume.id);
            match self.is(Mutant::DeleteKeepsTheData) {
                true => std::fs::rename(&path, self.kept(&volume.name)).map_err(failed)?,
                false => disk::remove(&path).map_err(failed)?,
            }
            state.gone.insert(volume.id, volume.name);
            if self.is(Mutant::SnapshotsGoWithTheirVolume) {
                state.snapshots.retain(|_, own| own.source != id);
            }
        }
        if self.is(Mutant::LateDeleteMeetsTheSuccessor)
            && let Some(name) = state.gone.get(&id).cloned()
        {
            state.volumes.retain(|_, own| own.name != name);
        }
        ok(DeleteVolumeResponse {})
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::AttachesWithoutId)?;
        self.required("node_id", &request.node_id, Mutant::AttachesWithoutNode)?;
        let capability = request.volume_capability.ok_or_else(|| Status::invalid_argument("no volume_capability"))?;
        is_block(&capability)?;
        let mut state = self.state();
        if !state.volumes.contains_key(&request.volume_id) && !self.is(Mutant::AttachesUnknownVolume) {
            return Err(no_volume(&request.volume_id));
        }
        if request.node_id != NODE && !self.is(Mutant::AttachesToUnknownNode) {
            return Err(Status::not_found(format!("there is no node {}", request.node_id)));
        }
        match state.attached.get(&request.volume_id) {
            Some(readonly) if *readonly != request.readonly && !self.is(Mutant::AttachIgnoresReadonly) => {
                return Err(Status::already_exists("it is attached otherwise"));
            }
            _ => {}
        }
        state.attached.insert(request.volume_id.clone(), request.readonly);
        self.save(&state);
        let mut publish_context = HashMap::from([("attached".to_owned(), request.volume_id)]);
        if self.is(Mutant::PublishContextChanges) {
            publish_context.insert("time".to_owned(), format!("{:?}", super::now()));
        }
        ok(ControllerPublishVolumeResponse { publish_context })
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::AttachesWithoutId)?;
        let mut state = self.state();
        if request.node_id.is_empty() && self.is(Mutant::DetachNeedsNode) {
            return ok(ControllerUnpublishVolumeResponse {});
        }
        let was = state.attached.remove(&request.volume_id);
        if was.is_none() && self.is(Mutant::DetachTwiceFails) {
            return Err(Status::internal("it is not attached"));
        }
        self.save(&state);
        ok(ControllerUnpublishVolumeResponse {})
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ValidatesWithoutId).map_err(|own| self.spoiled(own))?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is required"));
        }
        let state = self.state();
        let Some(volume) = state.volumes.get(&request.volume_id) else {
            return match self.is(Mutant::ValidatesUnknown) {
                true => ok(ValidateVolumeCapabilitiesResponse::default()),
                false => Err(self.spoiled(no_volume(&request.volume_id))),
            };
        };
        let mut fits = true;
        for capability in &request.volume_capabilities {
            fits &= is_block(capability)? == volume.block || self.is(Mutant::ConfirmsWhatItRefuses);
        }
        let mut confirmed = validate_volume_capabilities_response::Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        if self.is(Mutant::ConfirmsNoCapabilities) {
            confirmed.volume_capabilities.clear();
        }
        let confirmed = (fits && !self.is(Mutant::ConfirmsNothing)).then_some(confirmed);
        ok(ValidateVolumeCapabilitiesResponse { confirmed, message: String::new() })
    }

    async fn list_volumes(&self, request: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        let ListVolumesRequest { max_entries, starting_token } = request.into_inner();
        if max_entries < 0 && self.is(Mutant::EndsByItself) {
            std::process::exit(1);
        }
        let state = self.state();
        let mut all: Vec<_> = state
            .volumes
            .values()
            .map(|volume| {
                let published_node_ids = state.attached.get(&volume.id).map(|_| NODE.to_owned()).into_iter().collect();
                let status = list_volumes_response::VolumeStatus { published_node_ids };
                list_volumes_response::Entry { volume: Some(volume.to_wire()), status: Some(status) }
            })
            .collect();
        if self.is(Mutant::ListsWithoutStatus) {
            all.iter_mut().for_each(|entry| entry.status = None);
        }
        if self.is(Mutant::ListsWithoutLast) {
            all.pop();
        }
        if self.is(Mutant::TokenOfADeletedVolumeFails) && max_entries > 0 {
            return after(&state, usize::try_from(max_entries).unwrap(), &starting_token);
        }
        let most = if self.is(Mutant::IgnoresMaxEntries) { 0 } else { max_entries };
        let checks = (!self.is(Mutant::AcceptsAnyToken), !self.is(Mutant::AcceptsNegativeMaxEntries));
        let (entries, next_token) = page(all, most, &starting_token, checks)?;
        if self.is(Mutant::PagesOverlap) && !next_token.is_empty() && max_entries > 1 {
            let next_token = (next_token.parse::<usize>().unwrap() - 1).to_string();
            return ok(ListVolumesResponse { entries, next_token });
        }
        if self.is(Mutant::FirstPageOnly) {
            return ok(ListVolumesResponse { entries, next_token: String::new() });
        }
        ok(ListVolumesResponse { entries, next_token })
    }

    async fn get_capacity(&self, _: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        if self.is(Mutant::AdvertisedAndUnimplemented) {
            return Err(Status::unimplemented("not yet"));
        }
        let available_capacity = if self.is(Mutant::NegativeCapacity) { -1 } else { LARGEST };
        ok(GetCapacityResponse { available_capacity, maximum_volume_size: Some(LARGEST), minimum_volume_size: None })
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        let id = request.into_inner().volume_id;
        self.required("volume_id", &id, Mutant::GetsWithoutId)?;
        let state = self.state();
        let status = Some(controller_get_volume_response::VolumeStatus::default());
        match state.volumes.get(&id) {
            Some(volume) => {
                let status = status.filter(|_| !self.is(Mutant::GetsWithoutStatus));
                ok(ControllerGetVolumeResponse { volume: Some(volume.to_wire()), status })
            }
            None if self.is(Mutant::GetsUnknown) => {
                let volume = Some(csi::Volume { volume_id: id, ..Default::default() });
                ok(ControllerGetVolumeResponse { volume, status })
            }
            None if self.is(Mutant::GetsWithoutId) => ok(ControllerGetVolumeResponse::default()),
            None => Err(no_volume(&id)),
        }
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        if self.is(Mutant::ExpansionWithoutRpc) {
            return Err(Status::unimplemented("no"));
        }
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ExpandsWithoutId)?;
        let range = request.capacity_range.ok_or_else(|| Status::invalid_argument("capacity_range is required"))?;
        self.check_range(Some(&range))?;
        self.middle("ControllerExpandVolume").await?;
        let mut state = self.state();
        let published = state.published.values().any(|own| own.volume == request.volume_id);
        if published && self.is(Mutant::OnlineExpansionRefused) {
            return Err(Status::failed_precondition("the volume is published"));
        }
        let path = self.volume_path(&request.volume_id);
        let Some(volume) = state.volumes.get_mut(&request.volume_id) else {
            return match self.is(Mutant::ExpandsUnknown) || self.is(Mutant::ExpandsWithoutId) {
                true => {
                    ok(ControllerExpandVolumeResponse { capacity_bytes: range.required_bytes, ..Default::default() })
                }
                false => Err(no_volume(&request.volume_id)),
            };
        };
        let before = volume.capacity;
        if before >= range.required_bytes && self.is(Mutant::ExpandTwiceFails) {
            return Err(Status::out_of_range("it is as large already"));
        }
        volume.capacity =
            if self.is(Mutant::ExpandShrinks) { range.required_bytes } else { before.max(range.required_bytes) };
        let capacity_bytes = if self.is(Mutant::ExpandTellsTheOldSize) { before } else { volume.capacity };
        if !self.is(Mutant::ExpandIsNotSeen) {
            disk::grow(&path, volume.capacity).map_err(failed)?;
        }
        if self.is(Mutant::ExpandIsForgotten) {
            volume.capacity = before;
        }
        self.save(&state);
        disk::refresh(&path).map_err(failed)?;
        ok(ControllerExpandVolumeResponse { capacity_bytes, node_expansion_required: true })
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        self.required("volume_id", &request.volume_id, Mutant::ModifiesWithoutId)?;
        if request.mutable_parameters.is_empty() && !self.is(Mutant::ModifiesNothing) {
            return Err(Status::invalid_argument("mutable_parameters is required"));
        }
        check_mutable(self, &request.mutable_parameters)?;
        let known = self.state().volumes.contains_key(&request.volume_id);
        if !known && !self.is(Mutant::ModifiesUnknown) && !self.is(Mutant::ModifiesWithoutId) {
            return Err(no_volume(&request.volume_id));
        }
        if self.is(Mutant::ModifyTwiceFails) && !self.busy.lock().unwrap().insert("ControllerModifyVolume") {
            return Err(Status::internal("it is modified already"));
        }
        ok(ControllerModifyVolumeResponse {})
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Answer<ControllerGetVolumeHealthResponse> {
        let id = request.into_inner().volume_id;
        self.health(&id)
            .map(|health| tonic::Response::new(ControllerGetVolumeHealthResponse { volume_health: Some(health) }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Answer<ControllerListVolumeHealthResponse> {
        let request = request.into_inner();
        let ids: Vec<String> = self.state().volumes.keys().cloned().collect();
        let all = ids.iter().map(|id| self.health(id)).collect::<Result<Vec<_>, _>>()?;
        let checks = (!self.is(Mutant::HealthAcceptsAnyToken), !self.is(Mutant::HealthAcceptsNegative));
        let most = if self.is(Mutant::HealthIgnoresMaxEntries) { 0 } else { request.max_entries };
        let (entries, next_token) = page(all, most, &request.starting_token, checks)?;
        ok(ControllerListVolumeHealthResponse { entries, next_token })
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Answer<CreateSnapshotResponse> {
        self.middle("CreateSnapshot").await?;
        self.snapshot(request.into_inner())
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Answer<DeleteSnapshotResponse> {
        self.unsnapshot(request.into_inner())
    }

    async fn list_snapshots(&self, request: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        self.snapshots(request.into_inner())
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Answer<GetSnapshotResponse> {
        self.find_snapshot(request.into_inner())
    }
}

impl Plugin {
    /// An error as a mutant tells it.
    fn spoiled(&self, refused: Status) -> Status {
        if self.is(Mutant::ErrorsWithoutMessage) {
            return Status::new(refused.code(), "");
        }
        if self.is(Mutant::ErrorsWithDetails) {
            return Status::with_details(refused.code(), refused.message(), (&b"details"[..]).into());
        }
        if self.is(Mutant::EverythingIsInternal) {
            return Status::new(Code::Internal, refused.message());
        }
        refused
    }

    pub(super) fn health(&self, id: &str) -> Result<VolumeHealth, Status> {
        self.required("volume_id", id, Mutant::HealthWithoutId)?;
        if !self.state().volumes.contains_key(id)
            && !self.is(Mutant::HealthOfUnknown)
            && !self.is(Mutant::HealthWithoutId)
        {
            return Err(no_volume(id));
        }
        let entry = volume_health::VolumeHealthEntry {
            status: VolumeHealthErrorType::Degraded.into(),
            reason: "SlowDisk".to_owned(),
            message: "the disk is slow".to_owned(),
        };
        let reason = if self.is(Mutant::HealthReasonIsASentence) { "the disk is slow" } else { "NearlyFull" };
        let other = volume_health::VolumeHealthEntry { reason: reason.to_owned(), ..entry.clone() };
        let health_statuses =
            if self.is(Mutant::HealthTwiceTheSame) { vec![entry.clone(), entry] } else { vec![entry, other] };
        let volume_id = if self.is(Mutant::HealthOfAnother) { "other".to_owned() } else { id.to_owned() };
        Ok(VolumeHealth { volume_id, health_statuses })
    }
}

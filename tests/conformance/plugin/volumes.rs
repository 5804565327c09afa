//! Volumes that are made and deleted.

use std::collections::{BTreeMap, HashMap};

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::*;
use tonic::Status;

use super::controller::{LARGEST, WINDOW, no_volume};
use super::disk::{self, failed};
use super::state::{Source, State, Volume};
use super::{Answer, Plugin, here, is_block, ok};
use crate::mutant::Mutant;

pub(super) const MIB: i64 = 1 << 20;

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

    pub(super) fn check_range(&self, range: Option<&CapacityRange>) -> Result<(), Status> {
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

pub(super) fn check_mutable(plugin: &Plugin, parameters: &HashMap<String, String>) -> Result<(), Status> {
    match parameters.keys().find(|key| *key != "speed") {
        Some(key) if !plugin.is(Mutant::ModifyIgnoresUnknown) => {
            Err(Status::invalid_argument(format!("there is no mutable parameter {key}")))
        }
        _ => Ok(()),
    }
}

impl Plugin {
    pub(super) async fn create(&self, mut request: CreateVolumeRequest) -> Answer<CreateVolumeResponse> {
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

    pub(super) async fn delete(&self, id: String) -> Answer<DeleteVolumeResponse> {
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
}

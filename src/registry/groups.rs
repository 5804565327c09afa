//! The rules over groups of snapshots that are the same for every driver.

use std::collections::BTreeSet;

use dunnage_driver_api::{
    Context, CreateGroupSnapshot, Error, ErrorKind, Fingerprint, GroupSnapshot, GroupSnapshotId, Groups, Parameters,
    Result, SnapshotId, SnapshotKey, VolumeId,
};

use super::backend::ServedBackend;
use super::volumes::unsupported;

/// A group that is wanted.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Its name.
    pub name: String,
    /// The volumes.
    pub sources: BTreeSet<VolumeId>,
    /// Parameters of its class.
    pub parameters: Parameters,
    /// The digest of the request.
    pub fingerprint: Fingerprint,
}

impl ServedBackend {
    fn groups(&self) -> Result<&dyn Groups> {
        self.backend.groups.as_deref().ok_or_else(|| unsupported("takes no snapshots of groups"))
    }

    /// The group of this id, which has these members.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none; [`ErrorKind::InvalidArgument`] where it has other members.
    pub fn group(&self, cx: &Context, id: &GroupSnapshotId, members: &BTreeSet<String>) -> Result<GroupSnapshot> {
        let found = self.groups()?.find(cx, &id.key)?.filter(|group| group.generation == id.generation);
        let group = found.ok_or_else(|| Error::not_found("this group does not exist").with("group", id))?;
        let id_of = |snapshot: &dunnage_driver_api::Snapshot| {
            let (instance, key, generation) =
                (self.backend.instance.clone(), snapshot.key.clone(), snapshot.generation.clone());
            SnapshotId { instance, key, generation }.to_string()
        };
        let own: BTreeSet<String> = group.snapshots.iter().map(id_of).collect();
        if own == *members {
            return Ok(group);
        }
        let named: Vec<_> = own.symmetric_difference(members).map(String::as_str).collect();
        Err(Error::invalid(format!("snapshot_ids are not the members of the group: {} differ", named.join(", ")))
            .with("group", id))
    }

    /// Takes the group, or finds the one that the same request took before.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where the name is taken by a group that this request would not have taken;
    /// [`ErrorKind::NotFound`] where a volume does not exist.
    pub fn create_group(&self, cx: &Context, new: NewGroup) -> Result<GroupSnapshot> {
        let groups = self.groups()?;
        if let Some((_, parameters)) = &self.backend.snapshots {
            parameters.check(&new.parameters).map_err(|error| error.with("backend", &self.name))?;
        }
        match groups.find(cx, &SnapshotKey::of_name(&new.name))? {
            Some(existing) if existing.fingerprint == new.fingerprint => return Ok(existing),
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    "a group of this name exists, of other volumes or with other parameters: use another name",
                )
                .with("name", &new.name));
            }
            None => {}
        }
        let volumes = new.sources.iter().map(|id| Ok((id.clone(), self.volume(cx, id)?))).collect::<Result<_>>()?;
        let request = CreateGroupSnapshot::new(new.name, volumes, &new.parameters, new.fingerprint);
        groups.create(cx, &request)
    }

    /// Removes the group; succeeds where it is gone already.
    ///
    /// # Errors
    /// As [`group`](Self::group), and where something still needs it.
    pub fn delete_group(&self, cx: &Context, id: &GroupSnapshotId, members: &BTreeSet<String>) -> Result<()> {
        match self.group(cx, id, members) {
            Ok(group) => self.groups()?.delete(cx, &group),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

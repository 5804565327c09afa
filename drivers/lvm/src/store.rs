//! The controller half: logical volumes and their tags.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex};

use dunnage_driver_api::{
    Bytes, CapacityRange, Commands, Context, Create, CreateVolume, Error, ErrorKind, Expand, Expanded, InstanceId,
    Opening, Result, Total, Volume, VolumeKey, Volumes,
};

use crate::config::{Kind, Lvm};
use crate::group::Group;
use crate::layout::Layout;
use crate::report::{Logical, Report};
use crate::reports::{Reports, Reservation};
use crate::tags::{self, Entry, Own};
use crate::{device, marker, name};

/// An opened volume group.
pub(crate) struct Store {
    pub(crate) config: Lvm,
    pub(crate) group: Group,
    pub(crate) reports: Reports,
    pub(crate) instance: InstanceId,
    /// The size of an extent, which a group never changes here.
    pub(crate) extent: u64,
    /// LVM's id of the group, as the kernel's devices have it.
    uuid: String,
    /// Held while a thick volume takes extents, and while those that were wiped for one are nobody's.
    pub(crate) extents: Mutex<()>,
    /// Keeps others from serving the group.
    _lock: File,
}

impl Store {
    /// Opens the group of this configuration, and removes what was not finished.
    ///
    /// # Errors
    /// `FailedPrecondition` where the group is not there, has no tags of ours, or is served by another.
    pub(crate) fn open(config: Lvm, opening: &Opening) -> Result<Arc<Self>> {
        let commands = &*opening.commands;
        let lock = marker::lock(&config)?;
        let group = Group::new(&config.vg, &config.devices);
        let reports = Reports::new(group.clone());
        // What the process before this one has begun ends first: it holds LVM's lock.
        let report = reports.get_fresh(commands)?;
        let instance = marker::find(&report, &config)?.ok_or_else(|| {
            Error::precondition(format!(
                "the volume group {} has no tag of ours: if its disk was replaced, put it back; if it is new, run `dunnage \
                 init`",
                config.vg
            ))
        })?;
        if let Some(pool) = config.pool() {
            // Nothing is known of how full it is until it is active; a volume would make it so.
            if report.pool(pool)?.data_percent.is_none() {
                group.change(commands, "lvchange", ["--activate", "y", &group.path(pool)])?;
                reports.forget();
            }
        }
        let extent = report.extent;
        let uuid = report.uuid.clone();
        let store = Self { config, group, reports, instance, extent, uuid, extents: Mutex::new(()), _lock: lock };
        store.remove_unfinished(commands, &report)?;
        store.resume(commands)?;
        Ok(Arc::new(store))
    }

    /// Removes what was not finished when the last process that served the group ended.
    fn remove_unfinished(&self, commands: &dyn Commands, report: &Report) -> Result<()> {
        for (name, logical) in &report.logical {
            if logical.entry != Some(Entry::Unfinished) {
                continue;
            }
            tracing::info!(logical_volume = self.group.path(name), "what was not finished is removed");
            // It is no volume, and does no harm where it stays: the next one of its name removes it.
            if let Err(error) = self.remove(commands, name, tags::UNFINISHED) {
                tracing::warn!(error = error.report(), "what was not finished cannot be removed yet");
            }
        }
        Ok(())
    }

    /// Lets devices go on that a killed command has left suspended, those of pools and of the images of a RAID too: who uses
    /// them hangs until then. LVM's lock sees to it that one which is suspended for a moment is left alone.
    fn resume(&self, commands: &dyn Commands) -> Result<()> {
        let devices = device::suspended(&self.uuid)?;
        if devices.is_empty() {
            return Ok(());
        }
        let report = self.reports.get(commands)?;
        let owner =
            |device: &String| name::owner_of(&self.config.vg, device, report.logical.keys().map(String::as_str));
        let owners: BTreeSet<&str> = devices.iter().filter_map(owner).collect();
        for name in owners {
            tracing::warn!(logical_volume = self.group.path(name), "a device that was left suspended is resumed");
            self.group.change(commands, "lvchange", ["--refresh", &self.group.path(name)])?;
        }
        Ok(())
    }

    /// After a command that failed: nothing is known of what it did, and it may have been killed.
    fn recover(&self, commands: &dyn Commands) {
        self.reports.forget();
        if let Err(error) = self.resume(commands) {
            tracing::warn!(error = error.report(), "cannot see whether a device was left suspended");
        }
    }

    /// The volume of this key with what is kept beside it, in a report.
    ///
    /// # Errors
    /// `FailedPrecondition` where its logical volume has lost its tags: such a volume exists.
    pub(crate) fn volume_in<'a>(
        &self,
        report: &'a Report,
        key: &VolumeKey,
    ) -> Result<Option<(&'a Logical, &'a Volume, Own)>> {
        match report.volume(key) {
            Some((_, logical @ Logical { entry: Some(Entry::Volume(volume, own)), .. })) => {
                Ok(Some((logical, volume, *own)))
            }
            _ => self.refuse_untagged(report, &name::of_volume(key)).map(|()| None),
        }
    }

    /// That no logical volume has this name which is no volume and no remains of one.
    pub(crate) fn refuse_untagged(&self, report: &Report, name: &str) -> Result<()> {
        let why = match report.logical.get(name).map(|logical| &logical.entry) {
            None | Some(Some(Entry::Unfinished)) => return Ok(()),
            Some(Some(Entry::Broken(why))) => why.as_str(),
            Some(_) => "it has no tags of ours, or another's",
        };
        Err(Error::precondition(format!(
            "the logical volume {} has the name of this one and not its tags: {why}; restore them with vgcfgrestore, or \
             rename it",
            self.group.path(name)
        )))
    }

    /// Removes what an attempt before has left under this name, for which there is no volume.
    pub(crate) fn clear(&self, commands: &dyn Commands, name: &str) -> Result<()> {
        let report = self.reports.get(commands)?;
        match report.logical.get(name).map(|logical| &logical.entry) {
            Some(Some(Entry::Unfinished)) => self.remove(commands, name, tags::UNFINISHED),
            _ => self.refuse_untagged(&report, name),
        }
    }

    /// Removes the logical volume of this name if it has this tag. Succeeds where there is none.
    ///
    /// # Errors
    /// `FailedPrecondition` where it is in use.
    pub(crate) fn remove(&self, commands: &dyn Commands, name: &str, tag: &str) -> Result<()> {
        self.refuse_partial(commands)?;
        let path = self.group.path(name);
        let removed = self.group.change(commands, "lvremove", [&path, "--select", &format!("lv_tags={{\"{tag}\"}}")]);
        if let Err(error) = removed {
            self.recover(commands);
            let report = self.reports.get(commands)?;
            return if report.logical.contains_key(name) { Err(error) } else { Ok(()) };
        }
        match self.config.kind {
            Kind::Thin => self.reports.removed(name),
            // How much the group has got back, LVM knows.
            Kind::Thick => self.reports.forget(),
        }
        Ok(())
    }

    /// Runs a command that makes or changes something; after a failure nothing is known of it.
    pub(crate) fn change<S: AsRef<str>>(
        &self,
        commands: &dyn Commands,
        command: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        self.refuse_partial(commands)?;
        self.group.change(commands, command, arguments).inspect_err(|_| self.recover(commands))
    }

    /// That no disk is missing: what is changed meanwhile that disk does not know, and LVM takes it back only by hand.
    fn refuse_partial(&self, commands: &dyn Commands) -> Result<()> {
        match self.reports.get(commands)?.missing {
            0 => Ok(()),
            missing => Err(marker::missing(&self.config, missing)),
        }
    }

    /// What is in the group once a volume or a snapshot was made.
    pub(crate) fn made(&self, entry: Entry, size: Bytes) -> Logical {
        let pool = self.config.pool();
        Logical {
            uuid: None,
            size: size.get(),
            layout: String::new(),
            pool: pool.unwrap_or_default().into(),
            data_percent: None,
            metadata_percent: None,
            health: String::new(),
            when_full: String::new(),
            zeroes: false,
            entry: Some(entry),
        }
    }

    /// The arguments that make a thin volume or snapshot with these tags.
    pub(crate) fn tagged(name: &str, tags: &[String]) -> Vec<String> {
        // Not made active here, and not kept from being made so.
        let fixed = ["--activate", "n", "--setactivationskip", "n", "--name", name].map(str::to_owned);
        let tags = tags.iter().flat_map(|tag| ["--addtag".to_owned(), tag.clone()]);
        fixed.into_iter().chain(tags).collect()
    }

    /// Makes an empty volume.
    fn create_empty(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        let fs_type = request.fs_type(self.config.fs_type);
        if self.config.kind == Kind::Thick {
            return self.create_thick(cx, request, fs_type);
        }
        let size = request.device_size(self.config.fs_type, Bytes::new(self.extent))?;
        let (volume, own) = (request.volume(size)?, Own { fs_type, layout: Layout::LINEAR });
        let (commands, name) = (&*cx.commands, name::of_volume(&request.key));
        self.clear(commands, &name)?;
        let room = self.reserve(commands, own.layout, size, size)?;
        let mut arguments = Self::tagged(&name, &tags::of_volume(&volume, own));
        arguments.extend(["--virtualsize".into(), format!("{}b", size.get()), "--thinpool".into()]);
        arguments.extend(self.config.pool().map(str::to_owned));
        arguments.push(self.config.vg.clone());
        self.change(commands, "lvcreate", arguments)?;
        room.made(&name, self.made(Entry::Volume(volume.clone(), own), size), false);
        Ok(volume)
    }

    /// Makes the volume larger that is in the group as `logical`.
    pub(crate) fn extend(
        &self,
        commands: &dyn Commands,
        room: Reservation<'_>,
        logical: &Logical,
        volume: &Volume,
        own: Own,
        size: Bytes,
    ) -> Result<()> {
        let name = name::of_volume(&volume.key);
        match self.config.kind {
            Kind::Thin => {
                let size = format!("{}b", size.get());
                self.change(commands, "lvextend", ["--size", &size, &self.group.path(&name)])?;
            }
            Kind::Thick => self.extend_thick(commands, &name, own, size.minus(volume.capacity))?,
        }
        let mut volume = volume.clone();
        volume.capacity = size;
        let grown = Logical { size: size.get(), entry: Some(Entry::Volume(volume, own)), ..logical.clone() };
        room.made(&name, grown, self.config.kind == Kind::Thick);
        Ok(())
    }
}

impl Volumes for Store {
    fn find(&self, cx: &Context, key: &VolumeKey) -> Result<Option<Volume>> {
        let report = self.reports.get(&*cx.commands)?;
        Ok(self.volume_in(&report, key)?.map(|(_, volume, _)| volume.clone()))
    }

    fn list(&self, cx: &Context, after: Option<&VolumeKey>, limit: usize) -> Result<Vec<Volume>> {
        let report = self.reports.get(&*cx.commands)?;
        let volumes = report.volumes_after(after).filter_map(|logical| match &logical.entry {
            Some(Entry::Volume(volume, _)) => Some(volume.clone()),
            _ => None,
        });
        Ok(volumes.take(limit).collect())
    }

    fn total(&self, cx: &Context) -> Result<Option<Total>> {
        let report = self.reports.get(&*cx.commands)?;
        let (count, sum) = report
            .volumes_after(None)
            .fold((0, 0_u128), |(count, sum), logical| (count + 1, sum + u128::from(logical.size)));
        Ok(Some(Total::new(count, Bytes::cut(sum))))
    }

    fn probe(&self, cx: &Context) -> Result<()> {
        let report = self.reports.get_fresh(&*cx.commands)?;
        if marker::find(&report, &self.config)?.as_ref() != Some(&self.instance) {
            return Err(Error::precondition(format!(
                "the volume group {} is not the one that was opened: restart the host once it is back",
                self.config.vg
            )));
        }
        if report.missing > 0 {
            return Err(marker::missing(&self.config, report.missing));
        }
        self.config.pool().map_or(Ok(()), |pool| report.pool(pool).map(drop))
    }
}

impl Create for Store {
    fn create(&self, cx: &Context, request: &CreateVolume) -> Result<Volume> {
        let made = match &request.content {
            Some(content) => self.create_copy(cx, request, content),
            None => self.create_empty(cx, request),
        };
        made.map_err(|error| error.during("create the logical volume").with("volume", &request.key))
    }

    fn delete(&self, cx: &Context, volume: &Volume) -> Result<()> {
        let name = name::of_volume(&volume.key);
        self.remove(&*cx.commands, &name, &tags::of_generation(&volume.generation))
    }
}

impl Expand for Store {
    fn expand(&self, cx: &Context, volume: &Volume, capacity: CapacityRange) -> Result<Expanded> {
        let commands = &*cx.commands;
        let report = self.reports.get(commands)?;
        let found = self.volume_in(&report, &volume.key)?;
        let (logical, volume, own) =
            found.ok_or_else(|| Error::not_found(format!("there is no volume {}", volume.key)))?;
        let old = volume.capacity;
        if capacity.limit().is_some_and(|limit| limit < old) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!("the volume has {} bytes, asked for {capacity}: a volume never becomes smaller", old.get()),
            ));
        }
        if capacity.required() <= old {
            return Ok(Expanded::to(old).after_node_expansion());
        }
        let size = capacity.choose(old, own.layout.unit(self.extent))?;
        let room = self.reserve(commands, own.layout, size.minus(old), size)?;
        self.extend(commands, room, logical, volume, own, size)?;
        Ok(Expanded::to(size).after_node_expansion())
    }
}

impl Store {
    /// The device of a logical volume that is active, by its name.
    ///
    /// # Errors
    /// `FailedPrecondition` where it is not there, or is another group's.
    pub(crate) fn active(&self, report: &Report, name: &str) -> Result<device::Device> {
        let wanted = name::of_device(&self.config.vg, name);
        let found =
            device::find_named(&wanted)?.filter(|device| device.uuid.starts_with(&format!("LVM-{}", report.uuid)));
        found.ok_or_else(|| {
            Error::precondition(format!("the kernel has no device {wanted}: LVM says that it has made it active"))
        })
    }
}

//! The node half: making a logical volume active and letting its device go.
//!
//! The order is: keep a record that names the device by LVM's id of it, have LVM make it active. To let it go needs neither
//! LVM nor a disk, only the kernel and the record.

use std::path::PathBuf;
use std::sync::Arc;

use dunnage_driver_api::{
    Context, DeviceSource, Error, Identity, Node, ReleaseRecord, Result, Source, SourceRequest, VolumeId,
};
use serde::{Deserialize, Serialize};

use crate::device::{self, Device};
use crate::name;
use crate::report::{Logical, Report};
use crate::store::Store;
use crate::tags::Own;

/// What undoes an active logical volume.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Active {
    group: String,
    volume: String,
    /// The ids of the kernel's devices: of the volume first, then of what it alone is made of.
    devices: Vec<String>,
}

/// Takes the devices of a release record from the kernel, whatever has become of the group.
///
/// # Errors
/// `FailedPrecondition` where they are still in use.
pub(crate) fn release(cx: &Context, record: &ReleaseRecord) -> Result<()> {
    let mut active: Active = record.read()?;
    // Cut off before its parts were in the record.
    if let Some(device) = active.devices.first().map(|uuid| device::find(uuid)).transpose()?.flatten() {
        for part in device.parts()? {
            if !active.devices.contains(&part.uuid) {
                active.devices.push(part.uuid);
            }
        }
    }
    active.devices.iter().try_for_each(|uuid| device::remove(&*cx.commands, uuid))?;
    // The link that LVM made beside the device leads nowhere now.
    let folder = PathBuf::from("/dev").join(&active.group);
    if std::fs::metadata(folder.join(&active.volume)).is_err() {
        // What else is there is somebody's, and a link that stays does no harm.
        let _ = std::fs::remove_file(folder.join(&active.volume));
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

/// The node half of an opened group.
pub(crate) struct LvmNode(pub(crate) Arc<Store>);

impl LvmNode {
    /// The logical volume of this volume in this generation, with its id.
    fn logical(&self, cx: &Context, volume: &VolumeId) -> Result<(Arc<Report>, Logical, Own, String)> {
        let store = &self.0;
        let look = |report: Arc<Report>| {
            let found = store.volume_in(&report, &volume.key)?;
            let found = found.filter(|(_, found, _)| found.generation == volume.generation);
            let (logical, _, own) = found.ok_or_else(|| Error::not_found(format!("there is no volume {volume}")))?;
            let logical = logical.clone();
            Ok::<_, Error>((report, logical, own))
        };
        let (mut report, mut logical, mut own) = look(store.reports.get(&*cx.commands)?)?;
        if logical.uuid.is_none() {
            (report, logical, own) = look(store.reports.get_fresh(&*cx.commands)?)?;
        }
        let uuid = logical.uuid.clone().ok_or_else(|| Error::internal("LVM has told no id of the logical volume"))?;
        Ok((report, logical, own, uuid))
    }

    /// Has LVM make the kernel's device, or make it anew where it is too small.
    fn activate(&self, cx: &Context, name: &str, uuid: &str, size: u64) -> Result<Device> {
        let (store, commands) = (&self.0, &*cx.commands);
        let path = store.group.path(name);
        let found = match device::find(uuid)? {
            Some(device) => Some(device),
            None => {
                store.group.change(commands, "lvchange", ["--activate", "y", "--ignoreactivationskip", &path])?;
                device::find(uuid)?
            }
        };
        let device = found.ok_or_else(|| {
            Error::internal(format!("LVM says that {path} is active, and the kernel has no device {uuid}"))
        })?;
        // Grown by a call that ended between LVM's metadata and the kernel.
        if device.size()? < size {
            store.group.change(commands, "lvchange", ["--refresh", &path])?;
        }
        Ok(device)
    }
}

impl Node for LvmNode {
    fn source(&self, cx: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let (_, logical, own, uuid) = self.logical(cx, request.volume)?;
        let name = name::of_volume(&request.volume.key);
        let mut active = Active { group: self.0.config.vg.clone(), volume: name, devices: vec![uuid.clone()] };
        (request.keep)(&ReleaseRecord::new(&active)?)?;
        let device = self.activate(cx, &active.volume, &uuid, logical.size)?;
        active.devices.extend(device.parts()?.into_iter().map(|part| part.uuid));
        let (file, release) = (device.open(false)?, ReleaseRecord::new(&active)?);
        let source = DeviceSource::new(file, device.path(), Identity(format!("lvm:{uuid}")), release);
        let source = source.with_default_fs_type(own.fs_type);
        Ok(Source::Device(if self.0.config.hides_all() { source.reading_zero() } else { source }))
    }

    fn refresh(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        let active: Active = record.read()?;
        let uuid = active.devices.first().map(String::as_str).unwrap_or_default();
        let report = self.0.reports.get(&*cx.commands)?;
        let size = report.logical.get(&active.volume).map_or(0, |logical| logical.size);
        if device::find(uuid)?.is_none() {
            return Err(Error::precondition("the volume's device is gone: unstage the volume and stage it again")
                .with("volume", &active.volume));
        }
        self.activate(cx, &active.volume, uuid, size).map(drop)
    }
}

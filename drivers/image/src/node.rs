//! The node half: binding images to loop devices and letting them go.
//!
//! A device stays bound until it is released, also while nobody has it open. The order is: lock the image, keep a
//! record that names it, bind. Killed after any step, the release from the kept record finds a device or none, and a
//! repeated source finds the device that is there.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunnage_driver_api::root::Record;
use dunnage_driver_api::{Context, DeviceSource, Error, Identity, Node, ReleaseRecord, Result, Source, SourceRequest};
use serde::{Deserialize, Serialize};

use crate::image_file;
use crate::loop_device::{self, Attacher, Backing, LoopDevice};
use crate::store::{Extra, Store};

/// How long a lock without a device is waited for: somebody is letting the image go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What undoes a bound device.
#[derive(Debug, Serialize, Deserialize)]
struct Bound {
    /// The number of the loop device; `None` in the record that is kept before there is one.
    number: Option<u32>,
    backing: Backing,
}

/// Lets the device of a release record go, whatever has become of its root.
///
/// # Errors
/// `FailedPrecondition` where it is still mounted or open.
pub(crate) fn release(cx: &Context, record: &ReleaseRecord) -> Result<()> {
    let bound: Bound = record.read()?;
    let number = match bound.number {
        Some(number) => Some(number),
        None => find(&bound.backing)?.map(|device| device.number),
    };
    number.map_or(Ok(()), |number| loop_device::detach(number, &bound.backing, cx.deadline))
}

/// The device of ours that has the image, if there is one.
fn find(backing: &Backing) -> Result<Option<LoopDevice>> {
    Ok(LoopDevice::find(backing)?.into_iter().find(|device| device.is_ours(backing)))
}

/// The device that a release record names, if it is still that of the record's image.
fn recorded(record: &Bound) -> Result<Option<LoopDevice>> {
    match record.number {
        Some(number) => {
            let device = LoopDevice::bound(number, &record.backing)?;
            Ok(device.filter(|device| device.is_ours(&record.backing)))
        }
        None => find(&record.backing),
    }
}

/// The node half of an opened root.
pub(crate) struct LoopNode {
    store: Arc<Store>,
    attacher: Attacher,
}

impl LoopNode {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, attacher: Attacher::default() }
    }

    /// Opens the image that the record speaks of, if it is whole.
    fn image(&self, record: &Record<Extra>) -> Result<File> {
        let key = record.volume.key.as_str();
        let images = &self.store.images;
        let image = image_file::open(images, &record.volume.key).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::precondition(format!(
                "the image {} is missing: restore it from a snapshot or a backup, or delete the volume",
                images.path().join(key).display()
            )),
            _ => images.failed("open the image", key)(error),
        })?;
        let length = image.metadata().map_err(images.failed("look at", key))?.len();
        if length < record.volume.capacity.get() {
            return Err(Error::precondition(format!(
                "the image {} has {length} bytes and its volume {}: it was cut; restore it from a backup",
                images.path().join(key).display(),
                record.volume.capacity.get()
            )));
        }
        Ok(image)
    }

    /// The device that has the image, bound if there is none, and whether the image is proven to be blank.
    fn device(
        &self,
        cx: &Context,
        request: &SourceRequest<'_>,
        record: &Record<Extra>,
    ) -> Result<(LoopDevice, Backing, bool)> {
        let image = self.image(record)?;
        let backing = self.store.backing(&record.volume, &image)?;
        let until = cx.deadline.min(Instant::now() + PATIENCE);
        let kept = request.kept.map(ReleaseRecord::read::<Bound>).transpose()?.filter(|kept| kept.backing == backing);
        while !loop_device::lock(&image)? {
            // The kept number saves a search.
            let device = kept.as_ref().map(recorded).transpose()?.flatten();
            if let Some(device) = device.map_or_else(|| find(&backing), |device| Ok(Some(device)))? {
                device.keep()?;
                // Its cache may hold what nobody has written to the image yet.
                return Ok((device, backing, false));
            }
            if Instant::now() >= until {
                return Err(Error::precondition("the image is locked, and no loop device has it: which program does?")
                    .with("volume", &backing.file_name)
                    .retry(true));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // Looked for with the lock in hand: who begins a copy looks for the lock with the job in hand.
        self.store.jobs.refuse_volume(&record.volume.key)?;
        if let Some(foreign) = LoopDevice::find_unexpected(&image, &backing)?.first() {
            return Err(Error::precondition(format!(
                "another program has bound the image to {}: two devices for one image would destroy its data; run \
                 `losetup --detach` once it is not in use",
                loop_device::path(foreign.number).display()
            ))
            .with("volume", &backing.file_name));
        }
        (request.keep)(&ReleaseRecord::new(&Bound { number: None, backing: backing.clone() })?)?;
        let blank = image_file::is_proven_blank(&image);
        let block_size = record.extra.block_size.bytes();
        let device = self.attacher.attach(&image, &backing, block_size, self.store.config.direct_io)?;
        Ok((device, backing, blank))
    }
}

impl Node for LoopNode {
    fn source(&self, cx: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let record = self.store.records.get(&request.volume.key)?;
        let record = record
            .filter(|record| record.volume.generation == request.volume.generation)
            .ok_or_else(|| Error::not_found(format!("there is no volume {}", request.volume)))?;
        let (device, backing, blank) = self.device(cx, request, &record)?;
        // Grown while it was bound, by a call whose second half never came.
        if device.size()? < record.volume.capacity.get() {
            device.refresh()?;
        }
        let release = ReleaseRecord::new(&Bound { number: Some(device.number), backing })?;
        let identity = Identity(format!("image:{}", request.volume));
        let source = DeviceSource::new(device.file, loop_device::path(device.number), identity, release);
        let source = source.with_default_fs_type(record.extra.fs_type).reading_zero();
        Ok(Source::Device(if blank { source.blank() } else { source }))
    }

    fn refresh(&self, _: &Context, record: &ReleaseRecord) -> Result<()> {
        let bound: Bound = record.read()?;
        let device = recorded(&bound)?.ok_or_else(|| {
            Error::precondition("the volume's loop device is gone: unstage the volume and stage it again")
                .with("volume", &bound.backing.file_name)
        })?;
        device.refresh()
    }
}

//! NodePublishVolume: a volume is shown at a target.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use dunnage_driver_api::{
    Context, Error, ErrorKind, ReleaseRecord, Result, Source, SourceRequest, Staging, StagingPath, VolumeId,
};

use super::holding::Holding;
use super::options::{Attributes, Options};
use super::place::{self, Kind, Place, Seen};
use super::record::{Asked, Published, Record, Stage};
use super::request::{NodeHalf, PublishVolume};
use super::root::Root;
use super::stage::{Contexts, IfBlank, by_an_attachment_that_ended, options_of};
use super::uses::published;
use super::{Engine, bind, directory, served, sys};

/// How long a server may take until a volume of it is mounted.
const MOUNTED: Duration = Duration::from_secs(20);

/// One publish, as its steps need it.
#[derive(Clone, Copy)]
struct Call<'a> {
    cx: &'a Context,
    half: NodeHalf<'a>,
    request: &'a PublishVolume,
    options: &'a Options,
    asked: &'a Asked,
}

impl Engine {
    /// Shows the volume at the target. Where it is shown there already, as asked, nothing is done.
    ///
    /// # Errors
    /// AlreadyExists where it is there with other arguments; FailedPrecondition where it is not staged, where a mode
    /// forbids a further target, and where something else is in the way.
    pub fn publish(&self, cx: &Context, half: NodeHalf<'_>, staging: Staging, request: &PublishVolume) -> Result<()> {
        let options = options_of(&request.capability)?;
        let asked = Asked::new(&request.capability, &options, request.readonly);
        let mut record = self.records.load(&request.volume)?;
        self.take_lost_targets(&mut record)?;
        let holding = Holding::new(half.reach, &request.publish_context);
        if let Some(stage) = record.stage.as_ref().filter(|stage| !stage.is_by(&holding)) {
            return Err(by_an_attachment_that_ended(stage, &request.volume));
        }
        if let Some(published) = record.published.get(&request.target_path)
            && let Some(place) = Place::find(request.target_path.as_path())?
            && place.look_alive(&self.questions)? == Seen::Mount(published.root)
        {
            return if published.asked == asked { Ok(()) } else { Err(published_otherwise(request)) };
        }
        self.forget_gone_targets(&mut record)?;
        check_other_targets(&record, request, &asked)?;
        let call = Call { cx, half, request, options: &options, asked: &asked };
        let (mount, served) = match staging {
            Staging::None => self.mount_of_source(call)?,
            Staging::Needed => (self.mount_of_stage(call, &mut record)?, false),
        };
        let place = self.target_place(request, &asked)?;
        let read_only = asked.is_read_only() || options.attributes.is_read_only();
        let published = Published { asked, read_only, served, root: Root::of(&mount)? };
        record.published.insert(request.target_path.clone(), published);
        self.records.store(&record)?;
        let attached = self.settle_device(&record).and_then(|()| place.attach(mount.as_fd()));
        if attached.is_err() {
            record.published.remove(&request.target_path);
            self.records.store(&record)?;
            self.settle_device(&record)?;
            place.remove()?;
        }
        attached
    }

    /// Takes raw block targets away whose device is gone: its number may have come to be another volume's.
    pub(super) fn take_lost_targets(&self, record: &mut Record) -> Result<()> {
        let stage = record.stage.as_ref().filter(|stage| stage.asked.block);
        let lost = stage.and_then(|stage| stage.device.as_ref()).is_some_and(|device| !device.number.exists());
        if !lost || record.published.is_empty() {
            return Ok(());
        }
        for (path, published) in &record.published {
            if let Some(place) = Place::find(path.as_path())? {
                place.unmount_all(&self.questions, Some(published.root), published.served)?;
            }
        }
        record.published.clear();
        self.records.store(record)
    }

    /// Drops targets at which nothing is mounted any more: they hold nothing, not even a device read-only.
    fn forget_gone_targets(&self, record: &mut Record) -> Result<()> {
        let there: Vec<_> = published(record)?.into_iter().map(|(path, _)| path.clone()).collect();
        record.published.retain(|path, _| there.contains(path));
        Ok(())
    }

    /// A mount of a volume that is not staged, which is made anew for each target; and whether a server on the network has
    /// what is mounted.
    fn mount_of_source(&self, call: Call<'_>) -> Result<(OwnedFd, bool)> {
        let Call { cx, half, request, options, asked } = call;
        if asked.block {
            return Err(Error::precondition(format!(
                "volume {} is a directory and cannot be a raw block device: ask for mount access",
                request.volume
            )));
        }
        let keep = |_: &ReleaseRecord| Err(Error::internal("a volume that is not staged has no release record"));
        let wanted =
            SourceRequest::new(&request.volume, &keep).with_contexts(&request.volume_context, &request.publish_context);
        match half.node.source(cx, &wanted)? {
            Source::Directory(source) => {
                let attributes = options.of_mount_alone()?.read_only(asked.is_read_only());
                Ok((directory::copy_of(&source, attributes)?, false))
            }
            Source::Mount(source) => {
                let within = cx.deadline.saturating_duration_since(Instant::now()).min(MOUNTED);
                Ok((served::mount(&self.creators, &source, options, asked.is_read_only(), within)?, true))
            }
            _ => Err(Error::internal("the driver gave a device for a volume that it does not want staged")),
        }
    }

    /// A mount of a volume that is staged.
    fn mount_of_stage(&self, call: Call<'_>, record: &mut Record) -> Result<OwnedFd> {
        let Call { request, asked, .. } = call;
        let path = request.staging_path.as_ref().ok_or_else(|| {
            Error::precondition(format!(
                "staging_target_path is not set: stage volume {} and say where it is staged",
                request.volume
            ))
        })?;
        let stage = match &record.stage {
            Some(stage) if stage.path == *path && stage.device.is_some() => stage.clone(),
            _ => return Err(not_staged(&request.volume, path)),
        };
        if stage.asked.block != asked.block {
            return Err(Error::precondition(format!(
                "volume {} is staged for {} access and cannot be published for {} access: unstage it first",
                request.volume,
                access(stage.asked.block),
                access(asked.block)
            )));
        }
        if asked.block {
            self.mount_of_device(call, record, stage)
        } else {
            self.mount_of_filesystem(call, record, stage)
        }
    }

    /// The driver is asked for the device again: of the one in the record only the number is known, and a number may
    /// have come to be another device's.
    fn mount_of_device(&self, call: Call<'_>, record: &mut Record, stage: Stage) -> Result<OwnedFd> {
        let Call { cx, half, request, asked, .. } = call;
        let contexts = Contexts { volume: &request.volume_context, publish: &request.publish_context };
        let begun = |release: &ReleaseRecord, _: Option<Stage>| Stage { release: release.clone(), ..stage.clone() };
        let source = self.source(cx, half, record, &contexts, &begun)?;
        let device = source.device.try_clone().map_err(|error| Error::io("cannot hold the device", error))?;
        record.stage = Some(begun(&source.release, None));
        self.mount_source(cx, record, source, None, &Options::default(), IfBlank::Refuse)?;
        let read_only = record.stage.iter().filter_map(|stage| stage.device.as_ref()).any(|device| device.read_only);
        if read_only && !asked.is_read_only() {
            return Err(Error::precondition(format!(
                "the device of volume {} is read-only: publish it with readonly or a reader's access mode",
                request.volume
            )));
        }
        bind::copy_of(device, Attributes::default().read_only(asked.is_read_only()))
    }

    /// A second mount of the file system at the staging path, which is proven to be the volume's.
    fn mount_of_filesystem(&self, call: Call<'_>, record: &mut Record, stage: Stage) -> Result<OwnedFd> {
        let Call { request, options, asked, .. } = call;
        let volume = &request.volume;
        let differs = |what: &str| {
            Err(Error::precondition(format!(
                "volume {volume} is staged with {what} than this publish asks for: publish with the same capability, or \
                 unstage it first"
            )))
        };
        if !asked.tells_file_system_the_same(&stage.asked) {
            return differs("other mount options of the file system");
        }
        if !self.is_staged(&stage)? {
            self.mend(call, record, &stage).map_err(|error| not_staged(volume, &stage.path).caused_by(error))?;
        }
        let mounted = record.stage.as_ref().and_then(|stage| stage.device.as_ref()?.filesystem.as_ref());
        let Some(mounted) = mounted else { return Err(not_staged(volume, &stage.path)) };
        if asked.fs_type.is_some_and(|wanted| wanted != mounted.fs_type) {
            return differs("another file system");
        }
        let attributes = options.attributes.read_only(asked.is_read_only());
        if mounted.read_only && !attributes.is_read_only() {
            return differs("less: read-only");
        }
        let root =
            place::open_mounted(stage.path.as_path(), mounted.root)?.ok_or_else(|| not_staged(volume, &stage.path))?;
        bind::copy_of(root, attributes)
    }

    /// Mounts a staged volume again whose mount is gone, from the record of this boot: the same device, never formatted.
    /// Its own options are those of this publish, which are the same; those of a mount each target has for itself.
    fn mend(&self, call: Call<'_>, record: &mut Record, stage: &Stage) -> Result<()> {
        let Call { cx, half, request, options, .. } = call;
        let (place, _) = self.staging_place(stage.path.as_path())?;
        let contexts = Contexts { volume: &request.volume_context, publish: &request.publish_context };
        let begun = |release: &ReleaseRecord, _: Option<Stage>| Stage { release: release.clone(), ..stage.clone() };
        let source = self.source(cx, half, record, &contexts, &begun)?;
        record.stage = Some(begun(&source.release, None));
        let mounted = stage.device.as_ref().and_then(|device| device.filesystem.as_ref());
        let read_only = mounted.is_some_and(|mounted| mounted.read_only);
        let options =
            Options { attributes: Attributes::default().read_only(read_only), filesystem: options.filesystem.clone() };
        self.mount_source(cx, record, source, place.as_ref(), &options, IfBlank::Refuse)
    }

    /// The place of the target, empty and of the right kind.
    fn target_place(&self, request: &PublishVolume, asked: &Asked) -> Result<Place> {
        let path = request.target_path.as_path();
        let kind = if asked.block { Kind::File } else { Kind::Directory };
        let place = Place::make(path, &self.namespace)?;
        match (place.look_alive(&self.questions)?, kind) {
            (Seen::Missing, kind) => place.create(kind)?,
            (Seen::Directory, Kind::Directory) | (Seen::File, Kind::File) => {}
            (Seen::Mount(_), _) => return Err(place.foreign_mount()),
            (Seen::Failed(_), _) => return Err(place.failed_mount()),
            (_, kind) => {
                return Err(Error::precondition(format!(
                    "{} is not a {}, which {} access needs: remove what is there",
                    path.display(),
                    if kind == Kind::File { "file" } else { "folder" },
                    access(asked.block)
                )));
            }
        }
        Ok(place)
    }

    /// Makes the device of a raw block volume read-only while it is published so: the kernel minds a read-only mount
    /// only where files and folders are written.
    pub(super) fn settle_device(&self, record: &Record) -> Result<()> {
        let Some(stage) = record.stage.as_ref().filter(|stage| stage.asked.block) else { return Ok(()) };
        let Some(device) = &stage.device else { return Ok(()) };
        let wanted = device.read_only || record.published.values().any(|published| published.asked.is_read_only());
        if !device.number.exists() || device.number.is_read_only()? == wanted {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Error::io(format!("cannot change whether {} is read-only", device.path.display()), error)
        };
        match device.number.open(&device.path, false).map_err(|error| failed(error.into()))? {
            Some(opened) => sys::set_device_read_only(opened, wanted).map_err(failed),
            None => Ok(()),
        }
    }
}

/// Checks what the modes of the other targets leave possible.
fn check_other_targets(record: &Record, request: &PublishVolume, asked: &Asked) -> Result<()> {
    for (path, other) in &record.published {
        if *path == request.target_path {
            continue;
        }
        if asked.mode.is_single_target() || other.asked.mode.is_single_target() {
            return Err(Error::precondition(format!(
                "volume {} is published at {path}, and SINGLE_NODE_SINGLE_WRITER allows one target: unpublish it \
                 there first",
                request.volume
            )));
        }
        if asked.block && other.asked.block && asked.is_read_only() != other.asked.is_read_only() {
            return Err(Error::precondition(format!(
                "volume {} is published at {path} {}, and a raw block device is read-only for all or for nobody: \
                 unpublish it there first",
                request.volume,
                if asked.is_read_only() { "to be written to" } else { "read-only" }
            )));
        }
    }
    Ok(())
}

fn access(block: bool) -> &'static str {
    if block { "block" } else { "mount" }
}

fn not_staged(volume: &VolumeId, path: &StagingPath) -> Error {
    Error::precondition(format!("volume {volume} is not staged at {path}: stage it there first"))
}

fn published_otherwise(request: &PublishVolume) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "volume {} is published at {} with another capability or readonly flag: unpublish it first",
            request.volume, request.target_path
        ),
    )
}

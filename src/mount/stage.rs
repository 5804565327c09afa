//! NodeStageVolume: a device is brought to this node, and its file system mounted.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use dunnage_driver_api::{
    Access, Context, Error, ErrorKind, FsType, ReleaseRecord, Result, Source, SourceRequest, VolumeCapability, VolumeId,
};

use super::device::DeviceNumber;
use super::format::{self, Intent, Word};
use super::holding::{Brought, Holding};
use super::options::Options;
use super::place::{Kind, Place, Seen};
use super::probe::{FileSystem, Probe, probe};
use super::record::{Asked, Device, Mounted, Record, Stage};
use super::request::{NodeHalf, Release, StageVolume};
use super::root::Root;
use super::uses::published;
use super::{Engine, check, filesystem, grow};

/// Of a device whose formatting was cut off here, and that another node may have used since.
const DOUBTED: &str = "a formatting of it was cut off on this node, and another node may have written to it since, so it is not \
                       formatted again; if nothing on it is of use, wipe the device with blkdiscard -z";

/// What an orchestrator passes on from the calls before.
pub(super) struct Contexts<'a> {
    pub(super) volume: &'a BTreeMap<String, String>,
    pub(super) publish: &'a BTreeMap<String, String>,
}

/// Whether a blank device may be formatted: at a stage it is new, later it has lost its data, and nobody may write to what is
/// attached read-only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfBlank {
    Format,
    Refuse,
    ReadOnly,
}

impl Engine {
    /// Brings the volume to this node, once for all its targets. A volume that is staged already stays as it is.
    ///
    /// Only for backends whose volumes are staged; for the others there is nothing to do.
    ///
    /// # Errors
    /// AlreadyExists where it is staged elsewhere or as something else; FailedPrecondition where something of somebody
    /// else's is at the path or on the device. After an error the device is given back, or found by the next attempt.
    pub fn stage(&self, cx: &Context, half: NodeHalf<'_>, release: Release<'_>, request: &StageVolume) -> Result<()> {
        let options = options_of(&request.capability)?;
        let asked = Asked::new(&request.capability, &options, false);
        let mut record = self.records.load(&request.volume)?;
        self.take_lost_targets(&mut record)?;
        let holding = Holding::new(half.reach, &request.publish_context);
        if let Some(stage) = record.stage.clone().filter(|stage| !stage.is_by(&holding)) {
            // Another node may have written since: what is known here of the device is of then.
            if !published(&record)?.is_empty() {
                return Err(by_an_attachment_that_ended(&stage, &request.volume));
            }
            self.end_stage(cx, release, record, &stage)?;
            record = self.records.load(&request.volume)?;
        }
        if let Some(stage) = &record.stage {
            let same = stage.path == request.staging_path && stage.asked == asked;
            match (self.is_staged(stage)?, same) {
                (true, true) => return Ok(()),
                (false, true) => {}
                (live, false) if live || !published(&record)?.is_empty() => {
                    return Err(staged_otherwise(stage, request));
                }
                (_, false) => {}
            }
        }
        // Before the driver is asked, and might be asked to undo what it did.
        Intent::settled(&self.folder, &request.volume, cx.deadline)?;
        let path = request.staging_path.as_path();
        let (place, made) = if asked.block { (None, false) } else { self.staging_place(path)? };
        record.stage = record.stage.take().filter(|stage| stage.path == request.staging_path);
        let begun = |release: &ReleaseRecord, before: Option<Stage>| Stage {
            path: request.staging_path.clone(),
            made: made || before.as_ref().is_some_and(|before| before.made),
            asked: asked.clone(),
            attachment: holding.attachment().map(str::to_owned),
            release: release.clone(),
            device: before.and_then(|before| before.device),
        };
        let contexts = Contexts { volume: &request.volume_context, publish: &request.publish_context };
        let staged = self.source(cx, half, &record, &contexts, &begun).and_then(|source| {
            let stage = begun(&source.release, record.stage.take());
            let undo = stage.device.is_none().then(|| stage.release.clone());
            record.stage = Some(stage);
            let mounted = self.mount_source(cx, &mut record, source, place.as_ref(), &options, IfBlank::Format);
            if let (Err(_), Some(kept)) = (&mounted, undo) {
                self.give_back(cx, release, record, &kept)?;
            }
            mounted
        });
        if let (Err(_), Some(place)) = (&staged, place.filter(|_| made)) {
            // The first error says more than that an empty folder stays.
            let _ = place.remove();
        }
        staged
    }

    /// Whether what the record says is there, once dead mounts are out of its way: the mount of a file system, or the
    /// device of a raw block volume.
    pub(super) fn is_staged(&self, stage: &Stage) -> Result<bool> {
        let Some(device) = &stage.device else { return Ok(false) };
        match &device.filesystem {
            Some(mounted) => match Place::find(stage.path.as_path())? {
                Some(place) => Ok(place.look_alive(&self.questions)? == Seen::Mount(mounted.root)),
                None => Ok(false),
            },
            None if stage.asked.block => Ok(device.number.size().is_ok_and(|size| size.get() > 0)),
            None => Ok(false),
        }
    }

    /// The place where a file system will be mounted, empty, and whether its folder was made for it.
    pub(super) fn staging_place(&self, path: &Path) -> Result<(Option<Place>, bool)> {
        let place = Place::make(path, &self.namespace)?;
        match place.look_alive(&self.questions)? {
            Seen::Missing => {
                place.create(Kind::Directory)?;
                Ok((Some(place), true))
            }
            Seen::Directory => Ok((Some(place), false)),
            Seen::Mount(_) => Err(place.foreign_mount()),
            Seen::Failed(_) => Err(place.failed_mount()),
            _ => Err(Error::precondition(format!("{} is not a folder: remove what is there", path.display()))),
        }
    }

    /// Asks the driver for the device; what it wants kept goes into the record at once.
    pub(super) fn source(
        &self,
        cx: &Context,
        half: NodeHalf<'_>,
        record: &Record,
        contexts: &Contexts<'_>,
        begun: &dyn Fn(&ReleaseRecord, Option<Stage>) -> Stage,
    ) -> Result<Brought> {
        let kept = record.stage.as_ref().map(|stage| &stage.release);
        let keep = |release: &ReleaseRecord| {
            let mut kept = record.clone();
            kept.stage = Some(begun(release, kept.stage.take()));
            self.records.store(&kept)
        };
        let request =
            SourceRequest::new(&record.volume, &keep).with_contexts(contexts.volume, contexts.publish).with_kept(kept);
        let Source::Device(source) = half.node.source(cx, &request)? else {
            return Err(Error::internal("the driver gave no device for a volume that it wants staged"));
        };
        match record.stage.as_ref().and_then(|stage| stage.device.as_ref()) {
            Some(device) if device.identity != source.identity => Err(Error::precondition(format!(
                "volume {} was staged from device {:?} and is now on device {:?}: unstage it first",
                record.volume, device.identity.0, source.identity.0
            ))),
            _ => Ok(Brought { source, holding: Holding::new(half.reach, contexts.publish) }),
        }
    }

    /// Mounts the device of a record that has its stage begun, at `place`, or nowhere for raw block. The record is
    /// complete before anything can be seen.
    pub(super) fn mount_source(
        &self,
        cx: &Context,
        record: &mut Record,
        source: Brought,
        place: Option<&Place>,
        options: &Options,
        if_blank: IfBlank,
    ) -> Result<()> {
        let in_use = !published(record)?.is_empty();
        let volume = record.volume.to_string();
        let Some(stage) = &mut record.stage else { return Err(Error::internal("the stage was not begun")) };
        let number = DeviceNumber::of(&source)?;
        // What was said of another device is not said of this one.
        let before = stage.device.as_ref().filter(|device| device.number == number);
        let is_read_only = number.is_read_only()?;
        let make_read_only = source.holding.is_read_only() && !is_read_only;
        let made_read_only = make_read_only || before.is_some_and(|device| device.made_read_only);
        let read_only = made_read_only || before.map_or(is_read_only, |device| device.read_only);
        let device = Device {
            path: source.path.clone(),
            number,
            identity: source.identity.clone(),
            read_only,
            made_read_only,
            filesystem: None,
        };
        let Some(place) = place else {
            // From here on bytes of no known form are the workload's.
            Intent::settled(&self.folder, &record.volume, cx.deadline)?.remove()?;
            if make_read_only {
                source.make_read_only()?;
            }
            stage.device = Some(device);
            return self.records.store(record);
        };
        if make_read_only {
            // Before anything is looked for, and a program started. A mount that is read-only writes all the same: a log is
            // replayed.
            source.make_read_only()?;
        }
        let may_not = source.holding.is_read_only() && if_blank == IfBlank::Format;
        let if_blank = if may_not { IfBlank::ReadOnly } else { if_blank };
        let found = self.filesystem_on(cx, &record.volume, &source, number, stage.asked.fs_type, if_blank);
        let found = found.inspect_err(|_| {
            if make_read_only {
                // It is given back without a word of this in the record. The first error says more.
                let _ = source.make_writable();
            }
        })?;
        let read_only = stage.asked.is_read_only() || options.attributes.is_read_only() || read_only;
        if !read_only && !in_use {
            check::mend(cx, &source.path, &found)?;
        }
        let has_room = !read_only && grow::has_room(&device, found.size)?;
        let online = grow::can_online(found.fs_type);
        let late = |grown: Result<()>| {
            if let Err(error) = grown {
                let (volume_id, error) = (volume.as_str(), error.report());
                tracing::warn!(volume_id, error, "the file system is smaller than its volume and does not grow");
            }
        };
        if has_room && !online && !in_use {
            check::check_ext4(cx, &source.path, &["-f", "-p"])?;
            late(grow::grow_unmounted(cx, &source.path));
        }
        let mount = filesystem::mount(&source.path, found.fs_type, options, read_only)?;
        if has_room && online {
            late(grow::grow(&mount, found.fs_type, number.size()?));
        }
        let mounted = Mounted { fs_type: found.fs_type, read_only, root: Root::of(&mount)? };
        stage.device = Some(Device { filesystem: Some(mounted), ..device });
        self.records.store(record)?;
        place.attach(mount.as_fd())
    }

    /// The file system that is on the device, or is made on it now.
    fn filesystem_on(
        &self,
        cx: &Context,
        volume: &VolumeId,
        source: &Brought,
        number: DeviceNumber,
        wanted: Option<FsType>,
        if_blank: IfBlank,
    ) -> Result<FileSystem> {
        let mut intent = Intent::settled(&self.folder, volume, cx.deadline)?;
        let size = number.size()?;
        let holds = |what: String, remedy: &str| {
            Err(Error::precondition(format!("{} holds {what}: {remedy}", source.path.display())).with("volume", volume))
        };
        if !source.blank {
            source.forget_cached()?;
        }
        // The intent needs no look where the device is blank: one that names it is written anew.
        let found = if source.blank { Probe::Blank } else { probe(&source.device, &source.path, size)? };
        let again = match found {
            Probe::FileSystem(found) if wanted.is_none_or(|wanted| wanted == found.fs_type) => {
                let word = intent.word(source)?;
                if word == Word::None || check::is_whole(cx, &source.path, &found)? {
                    intent.remove()?;
                    return Ok(found);
                }
                if word == Word::Doubted {
                    return holds(format!("an {} file system that is not whole", found.fs_type), DOUBTED);
                }
                true
            }
            Probe::FileSystem(found) => {
                return holds(format!("an {} file system", found.fs_type), "ask for that fs_type, or for none");
            }
            Probe::Other(name) => return holds(name.into(), "it is not mounted and not formatted"),
            Probe::Blank if if_blank == IfBlank::Refuse => {
                return holds("nothing, where a file system was".into(), "its data is lost, or this is another device");
            }
            Probe::Blank if if_blank == IfBlank::ReadOnly => {
                return holds(
                    "nothing".into(),
                    "it is attached read-only and not formatted: attach it to be written first",
                );
            }
            Probe::Blank => false,
            Probe::Unknown(offset) => {
                let what = format!("data of no known form (the first at byte {offset})");
                match intent.word(source)? {
                    Word::Blank if if_blank == IfBlank::Format => true,
                    Word::Doubted => return holds(what, DOUBTED),
                    _ => {
                        return holds(
                            what,
                            "it is not formatted; if it may be lost, wipe the device with blkdiscard -z",
                        );
                    }
                }
            }
        };
        number.wait_until_free(&source.path, Instant::now())?;
        let made = format::format(cx, source, size, wanted.unwrap_or(source.default_fs_type), &mut intent, again)?;
        intent.remove()?;
        Ok(made)
    }

    /// Gives a device back of which nothing came to be mounted. Where that fails the record keeps what undoes it.
    fn give_back(&self, cx: &Context, release: Release<'_>, mut record: Record, kept: &ReleaseRecord) -> Result<()> {
        match release(cx, kept) {
            Ok(()) => record.stage = None,
            Err(error) => {
                tracing::warn!(volume_id = %record.volume, error = %error.report(), "cannot release the device")
            }
        }
        self.records.store(&record)
    }
}

/// The options of a capability.
///
/// # Errors
/// InvalidArgument for options that cannot be read, and for a group, which only a file system with an option for it
/// could have.
pub(super) fn options_of(capability: &VolumeCapability) -> Result<Options> {
    match &capability.access {
        Access::Block => Ok(Options::default()),
        Access::Mount(mount) if mount.volume_mount_group.is_some() => Err(Error::invalid(
            "volume_mount_group is set, and the file systems here have no option for a group: leave it out, so that the \
             orchestrator changes the group of the files itself",
        )),
        Access::Mount(mount) => Options::parse(&mount.mount_flags),
    }
}

pub(super) fn by_an_attachment_that_ended(stage: &Stage, volume: &VolumeId) -> Error {
    Error::precondition(format!(
        "volume {volume} is staged at {} by an attachment that has ended, and another node may have written to it since: \
         unpublish it on this node and unstage it first",
        stage.path
    ))
}

fn staged_otherwise(stage: &Stage, request: &StageVolume) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "volume {} is staged at {} with another path or capability ({}): unstage it there first",
            request.volume, stage.path, stage.asked.mode
        ),
    )
}

//! The marker that makes an empty volume group an instance of ours: tags of the group.
//!
//! They are added by one command that looks at the group and changes it under one lock of LVM's: of two `init` at once one
//! wins, and both say the same. A second process that serves the group is kept out by a lock on a file in LVM's own folder
//! for locks, which has nothing in it.

use std::fs::File;
use std::time::{Duration, Instant};

use dunnage_driver_api::{Commands, Error, Init, InstanceId, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::config::{Kind, Lvm};
use crate::group::Group;
use crate::report::Report;
use crate::tags;

const FORM: &str = "1";
const LOCKS: &str = "/run/lock/lvm";
/// A lock that was just given up is held for a moment by a program that is being started.
const PATIENCE: Duration = Duration::from_millis(200);

/// Marks the group, if it is empty.
pub(crate) fn init(config: &Lvm, group: &Group, commands: &dyn Commands) -> Result<Init> {
    let report = group.report(commands)?;
    if let Some(instance) = find(&report, config)? {
        return Ok(Init::Existing(instance));
    }
    if report.missing > 0 {
        return Err(missing(config, report.missing));
    }
    refuse_foreign(config, &report)?;
    let instance = InstanceId::random()?;
    let tags =
        [tags::tag("instance", instance.as_str()), tags::tag("form", FORM), tags::tag("type", config.kind.as_str())];
    let marked = format!("vg_tags={{\"{}\"}}", tags[1]);
    // Volumes are brought to the node when they are used, and not when it starts.
    let mut arguments = vec!["--setautoactivation".into(), "n".into()];
    for tag in &tags {
        arguments.extend(["--addtag".into(), tag.clone()]);
    }
    let unchanged = format!("vg_name=\"{}\" && lv_count={} && !({marked})", config.vg, report.logical.len());
    arguments.extend(["--select".into(), unchanged]);
    group.change(commands, "vgchange", arguments)?;
    match find(&group.report(commands)?, config)? {
        Some(found) if found == instance => Ok(Init::Created(found)),
        Some(found) => Ok(Init::Existing(found)),
        None => Err(Error::precondition(format!(
            "the volume group {} was changed by somebody while it was marked: try again",
            config.vg
        ))
        .retry(true)),
    }
}

/// The instance that the tags of the group name; `None` where it has none of ours.
///
/// # Errors
/// `FailedPrecondition` where they cannot be read, are of a later release, or are not of this configuration.
pub(crate) fn find(report: &Report, config: &Lvm) -> Result<Option<InstanceId>> {
    if !report.tags.iter().any(|tag| tag.starts_with(tags::OURS)) {
        return Ok(None);
    }
    let broken = |why: String| {
        Error::precondition(format!("the tags of the volume group {} are not as they should be: {why}", config.vg))
    };
    let field = |name: &str| {
        let value = tags::value(&report.tags, name).map_err(broken)?;
        value.ok_or_else(|| broken(format!("{}{name} is missing", tags::OURS)))
    };
    let form = field("form")?;
    if form != FORM {
        return Err(broken(format!("form {form} is not known, this release knows {FORM}: use a later release")));
    }
    let kind = field("type")?;
    if kind != config.kind.as_str() {
        return Err(Error::precondition(format!(
            "the volume group {} was marked with type {kind}, and the configuration says {}: correct it",
            config.vg,
            config.kind.as_str()
        )));
    }
    field("instance")?.parse::<InstanceId>().map(Some).map_err(|error| broken(error.to_string()))
}

/// That nothing is in the group but the pool that is meant for us, which must be there.
pub(crate) fn refuse_foreign(config: &Lvm, report: &Report) -> Result<()> {
    if let Some(pool) = config.pool() {
        report.pool(pool)?;
    }
    let ours = |name: &String| config.kind == Kind::Thin && config.pool() == Some(name);
    let mut foreign: Vec<_> = report.logical.keys().filter(|name| !ours(name)).map(String::as_str).collect();
    if let Some(pool) = config.pool().filter(|pool| foreign.is_empty() && report.promised(pool) > 0) {
        foreign.push(pool);
    }
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.truncate(3);
    Err(Error::precondition(format!(
        "the volume group {} is not empty (it has {}) and has no tag of ours: use one without logical volumes{}",
        config.vg,
        foreign.join(", "),
        if config.kind == Kind::Thin { " but the pool" } else { "" }
    )))
}

/// That disks are missing.
pub(crate) fn missing(config: &Lvm, count: u64) -> Error {
    Error::precondition(format!(
        "{count} disks of the volume group {} are missing: list all of them in the key devices, or bring them back",
        config.vg
    ))
}

/// Keeps every other process from serving the group for as long as the file is open.
///
/// # Errors
/// `FailedPrecondition` where another one serves it.
pub(crate) fn lock(config: &Lvm) -> Result<File> {
    let path = format!("{LOCKS}/dunnage-{}", config.vg);
    let failed = |error| Error::io(format!("cannot lock {path}"), error);
    std::fs::create_dir_all(LOCKS).map_err(failed)?;
    let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(PATIENCE / 20),
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::precondition(format!(
                    "the volume group {} is served already, by another process or another backend of this one: one \
                     group is one backend's",
                    config.vg
                ))
                .retry(true));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

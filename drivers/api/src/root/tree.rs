//! Copies trees.
//!
//! Whatever is below one folder is made anew below another of the same file system: data that shares its blocks with the
//! original's where the file system can do that, with holes as holes, and with owners, modes, times, extended attributes,
//! ACLs and hard links. The tree may be in use meanwhile: each file is then copied as it is at some moment, and what
//! vanishes, comes or changes its kind is no error.
//!
//! A copy that was cut off goes on where it was: a file that has the size, times, owner and mode of its original is whole,
//! since mode and times are set last, once all else of it was made durable. That holds after a kill, after a sync that
//! failed, after a reboot, and on another machine.
//!
//! Everything is relative to descriptors. A symlink is copied as what it is, no mount is entered, and however deep the
//! tree is, only the lowest of the folders on the way are open: one further up is opened again from below, and entered
//! only if it is the folder that it was.
//!
//! Not copied: the ids of projects (a copy belongs to the project that it lies in), the times of birth and of change,
//! immutability and append-only (a copy could not be removed), and the label of the security module where that lets none be
//! set.

mod attributes;
mod data;
mod entry;
mod level;
mod links;
mod pending;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::folder::Folder;
use super::trash::Names;
use crate::error::{Error, Result};
use level::{Here, Levels};
use pending::Unsettled;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// How many files are whole, of any kind but folders; those of an attempt before this one count too.
    pub files: u64,
    /// How many bytes of data are copied, shared or found copied; holes do not count.
    pub bytes: u64,
}

/// A copy of a tree, to be made.
#[derive(Clone, Copy)]
pub struct TreeCopy<'a> {
    /// What is copied.
    pub source: &'a Folder,
    /// What it is copied to: an empty folder of the same file system, or what an attempt before this one left. Nobody else
    /// may reach it, nor change it.
    pub target: &'a Folder,
    /// A folder beside the target, empty or of the attempt before this one. It gets a second name of each file that has
    /// several, so that they are found again without a list in memory, and is to be discarded when the copy has ended.
    pub beside: &'a Folder,
    /// Whether the files are on a server. Then each is made durable alone, where else many are together; and the server is
    /// asked to copy no more at once than it does in one call: for what takes longer a client waits until it is called
    /// back, which may be never.
    pub over_network: bool,
}

impl TreeCopy<'_> {
    /// Makes the copy, durably. `reached` is told how far it is between any two steps, and ends it by an error. After an
    /// error the same can be called again and goes on.
    ///
    /// The quotas and the reserve of the file system hold this work, whatever the rights of the process.
    ///
    /// # Errors
    /// That of `reached`; otherwise it names the path that could not be copied.
    /// [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) where the file system or the quota of the target is full.
    pub fn run(&self, reached: &mut dyn FnMut(Copied) -> Result<()>) -> Result<()> {
        let _held = held_by_quotas()?;
        // Before anything is written: it is told of the errors of what is written from now on.
        let synced = self.target.reopen().map_err(self.target.failed("open", ""))?;
        let mut copier = Copier {
            beside: self.beside,
            copied: Copied::default(),
            reached,
            ended: None,
            names: Names::new()?,
            over_network: self.over_network,
            synced: &synced,
            unsettled: Unsettled::default(),
            shares: true,
            ranges: true,
            buffer: vec![0; data::PIECE],
            list: vec![0; attributes::LARGEST],
            value: vec![0; attributes::LARGEST],
        };
        let mut levels = Levels::default();
        let walked = copier.walk(self, &mut levels).and_then(|()| copier.settle());
        if let Some(error) = copier.ended {
            return Err(error);
        }
        walked.map_err(|Failed { what, name, error }| {
            let path = levels.path(self.source, name.as_deref());
            Error::io(format!("cannot {what} {}", path.display()), error)
        })?;
        rustix::fs::syncfs(&synced).map_err(|error| self.target.failed("sync", "")(error.into()))
    }
}

/// What is at work, and what it has learned of the file system.
struct Copier<'a> {
    beside: &'a Folder,
    copied: Copied,
    reached: &'a mut dyn FnMut(Copied) -> Result<()>,
    /// What `reached` ended it by.
    ended: Option<Error>,
    /// For what is in the way of the copy, and is put aside.
    names: Names,
    over_network: bool,
    /// What a sync is asked of: it was open before anything was written.
    synced: &'a Folder,
    unsettled: Unsettled,
    /// Whether files can share blocks.
    shares: bool,
    /// Whether the kernel copies from file to file.
    ranges: bool,
    buffer: Vec<u8>,
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Copier<'_> {
    /// Goes through the tree: a folder's own attributes last, since its time changes with what is made in it.
    fn walk(&mut self, copy: &TreeCopy<'_>, levels: &mut Levels) -> Result<(), Failed> {
        let source = copy.source.reopen().map_err(to("open"))?;
        let target = copy.target.reopen().map_err(to("open the copy of"))?;
        levels.down(OsString::new(), self.enter(source, target)?)?;
        loop {
            self.between_steps()?;
            let Some((name, kind)) = levels.next()? else {
                let Some(here) = levels.here() else { break };
                self.leave(&here)?;
                levels.up(copy)?;
                continue;
            };
            let Some(Here { source: Some(source), target, .. }) = levels.here() else { continue };
            let below = self.entry(&Pair { source, target, name: &name }, kind);
            if let Some(below) = below.map_err(|failed| failed.of(&name))? {
                levels.down(name, below)?;
            }
        }
        Ok(())
    }

    fn between_steps(&mut self) -> Result<(), Failed> {
        (self.reached)(self.copied).map_err(|error| {
            self.ended = Some(error);
            to("go on with")(io::ErrorKind::Interrupted)
        })
    }
}

/// An entry, and what it is copied to.
#[derive(Clone, Copy)]
struct Pair<'a> {
    source: &'a Folder,
    target: &'a Folder,
    name: &'a OsStr,
}

/// What could not be done, and to which entry where it was one of the folder's.
#[derive(Debug)]
struct Failed {
    what: Cow<'static, str>,
    name: Option<OsString>,
    error: io::Error,
}

impl Failed {
    fn of(self, name: &OsStr) -> Self {
        Self { name: Some(name.into()), ..self }
    }
}

/// Says what could not be done: `.map_err(to("read"))`.
fn to<E: Into<io::Error>>(what: impl Into<Cow<'static, str>>) -> impl FnOnce(E) -> Failed {
    move |error| Failed { what: what.into(), name: None, error: error.into() }
}

/// While it lives this thread has no right to pass the hard limit of a quota (which ext4 lets it), nor to use the blocks
/// that are kept for root.
struct HeldByQuotas(Option<CapabilitySet>);

fn held_by_quotas() -> Result<HeldByQuotas> {
    let failed = |error: rustix::io::Errno| Error::io("cannot give up CAP_SYS_RESOURCE", error);
    let mut own = capabilities(None).map_err(failed)?;
    let before = own.effective;
    if !before.contains(CapabilitySet::SYS_RESOURCE) {
        return Ok(HeldByQuotas(None));
    }
    own.effective = before.difference(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, own).map_err(failed)?;
    Ok(HeldByQuotas(Some(before)))
}

impl Drop for HeldByQuotas {
    fn drop(&mut self) {
        if let (Some(before), Ok(mut own)) = (self.0, capabilities(None)) {
            own.effective = before;
            // It is permitted still. Where it fails all the same the thread goes on with less.
            let _ = set_capabilities(None, own);
        }
    }
}

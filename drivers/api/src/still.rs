//! "Hold still": a service of the host for a driver that takes a snapshot or a clone.

use std::sync::Arc;
use std::time::Duration;

use crate::attach::Attach;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::id::VolumeId;

/// How a volume is in use on this node, while it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InUse {
    /// It is not mounted and its device is not handed to anybody here. Another node may use it, where volumes can be
    /// used from several.
    No,
    /// Its file system is frozen: all that was written before is in the device, and nothing is written until it is let
    /// go. It holds this volume and nothing else.
    Frozen,
    /// It is a directory of a file system that holds other things too, or a raw block device: nothing holds its writers
    /// back. What they flushed before the call is in the store.
    Writable,
}

/// Volumes that are held. They are let go of when this is dropped, and by the kernel's and the host's own means where
/// this process dies or the time is up.
pub trait Held: Send {
    /// How each of the volumes is in use, in the order they were asked for.
    fn uses(&self) -> &[InUse];

    /// Lets them go, and says whether they were held all the time until now. Only after this has succeeded is what was
    /// copied meanwhile of one moment.
    ///
    /// # Errors
    /// Where one was let go before, or cannot be let go: the copy is to be thrown away.
    fn let_go(self: Box<Self>) -> Result<()>;
}

/// Holds volumes of this node still.
pub trait HoldStill: Send + Sync {
    /// Holds all of these volumes at once, for at most `within`. What was written before this returns is in their
    /// devices.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) that names the volume, where somebody else has frozen
    /// its file system, or it cannot be frozen. None is held then.
    fn hold(&self, volumes: &[VolumeId], within: Duration) -> Result<Box<dyn Held>>;
}

/// Where no volume is ever used by anybody: for tests of a driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotInUse;

impl HoldStill for NotInUse {
    fn hold(&self, volumes: &[VolumeId], _: Duration) -> Result<Box<dyn Held>> {
        Ok(Box::new(Uses(vec![InUse::No; volumes.len()])))
    }
}

/// For a process that serves the controller half alone: it cannot know who uses a volume of its node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unknown;

impl HoldStill for Unknown {
    fn hold(&self, volumes: &[VolumeId], _: Duration) -> Result<Box<dyn Held>> {
        let Some(volume) = volumes.first() else { return Ok(Box::new(Uses(Vec::new()))) };
        Err(Error::precondition(
            "this process serves the controller half alone and cannot hold a file system of its node still: serve both \
             halves (mode: all) where the store is",
        )
        .with("volume", volume))
    }
}

/// For volumes that other nodes use: what holds still here does not there.
pub(crate) struct OfAttached {
    pub(crate) cx: Context,
    pub(crate) attach: Arc<dyn Attach>,
}

impl HoldStill for OfAttached {
    fn hold(&self, volumes: &[VolumeId], within: Duration) -> Result<Box<dyn Held>> {
        let held = self.cx.hold(volumes, within)?;
        let mut uses = held.uses().to_vec();
        for (volume, used) in volumes.iter().zip(&mut uses) {
            if *used == InUse::No && !self.attach.attached(&self.cx, &volume.key, &volume.generation)?.is_empty() {
                *used = InUse::Writable;
            }
        }
        Ok(Box::new(HeldHere { held, uses }))
    }
}

struct HeldHere {
    held: Box<dyn Held>,
    uses: Vec<InUse>,
}

impl Held for HeldHere {
    fn uses(&self) -> &[InUse] {
        &self.uses
    }

    fn let_go(self: Box<Self>) -> Result<()> {
        self.held.let_go()
    }
}

struct Uses(Vec<InUse>);

impl Held for Uses {
    fn uses(&self) -> &[InUse] {
        &self.0
    }

    fn let_go(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

//! Thick volumes: what they get of the group is wiped before anybody sees it.
//!
//! A volume is made with a tag that says it is not finished, wiped, and then has that tag taken away: cut off before, it is
//! no volume, and is removed by the next attempt or the next start. What it grows by is wiped before it is a part of it,
//! since a device that is in use shows new extents at once: they are held, wiped and let go by a logical volume of their
//! own, and the volume grows by exactly these.

use std::sync::PoisonError;

use dunnage_driver_api::{Bytes, Commands, Context, CreateVolume, FsType, Result, Volume};

use crate::config::Wipe;
use crate::layout::ThickClass;
use crate::store::Store;
use crate::tags::{self, Entry, Own, UNFINISHED};
use crate::{name, wipe};

impl Store {
    /// Makes an empty thick volume.
    pub(crate) fn create_thick(&self, cx: &Context, request: &CreateVolume, fs_type: FsType) -> Result<Volume> {
        let commands = &*cx.commands;
        let layout = request.parameters.parse::<ThickClass>()?.layout()?;
        let size = request.device_size(self.config.fs_type, Bytes::new(layout.unit(self.extent)))?;
        let (volume, own) = (request.volume(size)?, Own { fs_type, layout });
        let name = name::of_volume(&request.key);
        self.clear(commands, &name)?;
        let room = self.reserve(commands, layout, size, size)?;
        self.make_wiped(commands, &name, &tags::of_volume(&volume, own), own, size)
            .and_then(|()| self.change(commands, "lvchange", ["--deltag", UNFINISHED, &self.group.path(&name)]))
            // What is left after an error is removed now or by the next attempt.
            .inspect_err(|_| drop(self.remove(commands, &name, UNFINISHED)))?;
        room.made(&name, self.made(Entry::Volume(volume.clone(), own), size), true);
        Ok(volume)
    }

    /// Makes a logical volume that is not finished and has been wiped. It is active.
    fn make_wiped(&self, commands: &dyn Commands, name: &str, tags: &[String], own: Own, size: Bytes) -> Result<()> {
        let fixed = ["--activate", "y", "--wipesignatures", "n", "--zero", "n", "--name", name, "--addtag", UNFINISHED];
        let mut arguments: Vec<String> = fixed.map(str::to_owned).into();
        arguments.extend(tags.iter().flat_map(|tag| ["--addtag".to_owned(), tag.clone()]));
        arguments.extend(["--size".into(), format!("{}b", size.get())]);
        arguments.extend(own.layout.arguments(self.config.wipe() == Wipe::Zero));
        arguments.push(self.config.vg.clone());
        self.taking_extents(|| self.change(commands, "lvcreate", arguments))?;
        let report = self.reports.get(commands)?;
        wipe::wipe(&self.active(&report, name)?, self.config.wipe())
    }

    /// Makes a thick volume larger by so much.
    pub(crate) fn extend_thick(&self, commands: &dyn Commands, name: &str, own: Own, more: Bytes) -> Result<()> {
        let wiped = name::of_wiped(name);
        self.clear(commands, &wiped)?;
        let extents = self
            .make_wiped(commands, &wiped, &[], own, more)
            .and_then(|()| self.group.extents(commands, &wiped))
            .inspect_err(|_| drop(self.remove(commands, &wiped, UNFINISHED)))?;
        let mut arguments = vec!["--size".into(), format!("+{}b", more.get()), self.group.path(name)];
        arguments.extend(extents);
        // Nobody of ours takes the extents while nothing holds them; where somebody else does, LVM refuses to grow.
        self.taking_extents(|| {
            self.remove(commands, &wiped, UNFINISHED)?;
            self.change(commands, "lvextend", arguments)
        })
    }

    fn taking_extents(&self, take: impl FnOnce() -> Result<()>) -> Result<()> {
        let _turn = self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        take()
    }
}

//! What a node remembers of its backends, so that a store that does not come back is missed:
//! `<state>/backends/<name>.json`.
//!
//! A place that is empty, or holds another store, where a backend had its own is a disk that did not mount, or the wrong
//! one. And a plugin whose store does not open still takes away what is mounted of it, which needs its offers.

use std::io;
use std::path::{Path, PathBuf};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{BackendName, Error, InstanceId, Result};
use serde::{Deserialize, Serialize};

use crate::config::Mode;
use crate::registry::{Offers, Remembered};

const VERSION: u32 = 1;
/// Far more than any of these files has.
const LARGEST: u64 = 64 << 10;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    version: u32,
    instance: InstanceId,
    /// What it offered, and in which mode. Nothing where it was only marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offers: Option<(Mode, Offers)>,
}

/// What a node remembers of its backends.
#[derive(Debug, Clone)]
pub struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// The memory in the folder `state` of a node. Nothing is made before there is something to remember.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("backends") }
    }

    /// The instance that a backend was last, or was accepted to be.
    ///
    /// # Errors
    /// Where the file cannot be read, or is of a later release: nothing may be concluded then.
    pub fn instance(&self, backend: &BackendName) -> Result<Option<InstanceId>> {
        Ok(self.load(backend)?.map(|stored| stored.instance))
    }

    /// What a backend was when it was open last in this mode.
    pub(super) fn remembered(&self, backend: &BackendName, mode: Mode) -> Option<Remembered> {
        let Stored { instance, offers, .. } = self.load(backend).ok()??;
        let (_, offers) = offers.filter(|(then, _)| *then == mode)?;
        Some(Remembered { instance, offers })
    }

    /// Accepts an instance as that of a backend, as an admin may. Answers the one it takes the place of.
    ///
    /// # Errors
    /// Where the file cannot be read or written.
    pub fn accept(&self, backend: &BackendName, instance: &InstanceId) -> Result<Option<InstanceId>> {
        let before = self.load(backend)?.map(|stored| stored.instance);
        if before.as_ref() != Some(instance) {
            self.store(backend, &Stored { version: VERSION, instance: instance.clone(), offers: None })?;
        }
        Ok(before.filter(|before| before != instance))
    }

    /// Remembers an open backend.
    ///
    /// # Errors
    /// [`FailedPrecondition`](dunnage_driver_api::ErrorKind::FailedPrecondition) where it was another instance before;
    /// otherwise where the file cannot be read or written.
    pub(super) fn remember(&self, backend: &BackendName, mode: Mode, open: Remembered) -> Result<()> {
        let before = self.load(backend)?;
        if let Some(before) = &before
            && before.instance != open.instance
        {
            return Err(Error::precondition(format!(
                "the place of backend {backend} holds instance {}, and on this node it was instance {} before: mount the \
                 right disk; if the change is meant, run `dunnage init {backend}`",
                open.instance, before.instance
            )));
        }
        let now = Stored { version: VERSION, instance: open.instance, offers: Some((mode, open.offers)) };
        if before.as_ref() == Some(&now) { Ok(()) } else { self.store(backend, &now) }
    }

    fn load(&self, backend: &BackendName) -> Result<Option<Stored>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let mut text = Vec::new();
        match Folder::at(&self.folder).and_then(|folder| folder.read(file(backend), &mut text, LARGEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed("read", backend, error))?,
        }
        let broken = |error: serde_json::Error| self.failed("read", backend, error.into());
        let Version { version } = serde_json::from_slice(&text).map_err(broken)?;
        if version != VERSION {
            return Err(Error::precondition(format!(
                "{} has version {version}, this release knows {VERSION}: run a later one",
                self.folder.join(file(backend)).display()
            )));
        }
        serde_json::from_slice(&text).map(Some).map_err(broken)
    }

    fn store(&self, backend: &BackendName, stored: &Stored) -> Result<()> {
        let name = file(backend);
        let new = format!("{name}.new");
        let written = || {
            std::fs::create_dir_all(&self.folder)?;
            let folder = Folder::at(&self.folder)?;
            folder.write(&new, &serde_json::to_vec(stored)?)?;
            folder.rename(&new, &folder, &name)?;
            folder.sync()
        };
        written().map_err(|error| self.failed("write", backend, error))
    }

    fn failed(&self, what: &str, backend: &BackendName, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.folder.join(file(backend)).display()), error)
    }
}

fn file(backend: &BackendName) -> String {
    format!("{backend}.json")
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::ErrorKind;

    use super::*;

    fn memory() -> (tempfile::TempDir, Memory, BackendName) {
        let state = tempfile::tempdir().unwrap();
        let memory = Memory::new(state.path());
        (state, memory, "disks".parse().unwrap())
    }

    fn open(instance: &InstanceId) -> Remembered {
        let offers = Offers {
            controller: true,
            create: true,
            room: true,
            expand: true,
            node: true,
            stage: true,
            expand_node: true,
            constraints: true,
        };
        Remembered { instance: instance.clone(), offers }
    }

    #[test]
    fn another_instance_is_refused_until_it_is_accepted() {
        let (_state, memory, name) = memory();
        let (first, second) = (InstanceId::random().unwrap(), InstanceId::random().unwrap());
        memory.remember(&name, Mode::All, open(&first)).unwrap();
        memory.remember(&name, Mode::All, open(&first)).unwrap();
        let refused = memory.remember(&name, Mode::All, open(&second)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert!(refused.to_string().contains("dunnage init disks"), "{refused}");
        assert_eq!(memory.accept(&name, &second).unwrap(), Some(first));
        assert_eq!(memory.accept(&name, &second).unwrap(), None);
        memory.remember(&name, Mode::All, open(&second)).unwrap();
    }

    #[test]
    fn offers_are_remembered_for_the_mode_they_were_made_in() {
        let (_state, memory, name) = memory();
        let instance = InstanceId::random().unwrap();
        assert_eq!(memory.remembered(&name, Mode::All), None);
        memory.accept(&name, &instance).unwrap();
        assert_eq!(memory.remembered(&name, Mode::All), None, "it was never open");
        memory.remember(&name, Mode::All, open(&instance)).unwrap();
        assert_eq!(memory.remembered(&name, Mode::All), Some(open(&instance)));
        assert_eq!(memory.remembered(&name, Mode::Node), None);
    }

    #[test]
    fn a_file_of_a_later_release_is_no_reason_to_conclude_anything() {
        let (state, memory, name) = memory();
        std::fs::create_dir(state.path().join("backends")).unwrap();
        std::fs::write(state.path().join("backends/disks.json"), r#"{"version": 2, "who": "knows"}"#).unwrap();
        for error in [
            memory.instance(&name).unwrap_err(),
            memory.remember(&name, Mode::All, open(&InstanceId::random().unwrap())).unwrap_err(),
        ] {
            assert!(error.to_string().contains("version 2"), "{error}");
        }
    }
}

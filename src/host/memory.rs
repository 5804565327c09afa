//! What a node remembers of its backends, so that a store that does not come back is missed:
//! `<state>/backends/<name>.json`.
//!
//! A place that is empty, or holds another store, where a backend had its own is a disk that did not mount, or the wrong
//! one. And a plugin whose store does not open still takes away what is mounted of it, which needs its offers.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dunnage_driver_api::root::Folder;
use dunnage_driver_api::{BackendName, Error, Finding, InstanceId, Result, Severity};
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
    /// Those that an admin had another one take the place of: their volumes may still be mounted here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<InstanceId>,
    /// What it advertised when it was open. Nothing where it was only marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advertised: Option<Advertised>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Advertised {
    mode: Mode,
    offers: Offers,
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

    /// What is wrong with the place of a backend, of which its driver has `found` this much, by what is remembered of it.
    pub(crate) fn mismatch(&self, backend: &BackendName, found: &[Finding]) -> Option<Finding> {
        let known = match self.instance(backend) {
            Ok(known) => known?,
            Err(error) => return Some(Finding::error(error.report(), "mend that file first")),
        };
        let claims = || found.iter().flat_map(|finding| &finding.claims);
        let is_there = claims().any(|claim| claim.thing == format!("instance {known}"));
        let another = claims().find_map(|claim| claim.thing.strip_prefix("instance "));
        let text = match another {
            _ if is_there => return None,
            Some(another) => format!("on this node it was instance {known}, and in its place is instance {another}"),
            // Where its driver finds nothing wrong, it does not tell instances.
            None if !found.iter().any(|finding| finding.severity == Severity::Error) => return None,
            None => format!("on this node it was instance {known}, which is not in its place"),
        };
        let remedy = format!("mount the right disk; if the change is meant, run `dunnage init {backend}`");
        Some(Finding::error(text, remedy))
    }

    /// What a backend was when it was open last in this mode.
    pub(super) fn remembered(&self, backend: &BackendName, mode: Mode) -> Option<Remembered> {
        let Stored { instance, advertised, .. } = self.load(backend).ok()??;
        let offers = advertised.filter(|advertised| advertised.mode == mode)?.offers;
        Some(Remembered { instance, offers })
    }

    /// The instances of a backend that others took the place of.
    pub(super) fn former(&self, backend: &BackendName) -> Vec<InstanceId> {
        self.load(backend).ok().flatten().map(|stored| stored.former).unwrap_or_default()
    }

    /// Accepts an instance as that of a backend, as an admin may, over a file that cannot be read too. Answers the one it
    /// takes the place of.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn accept(&self, backend: &BackendName, instance: &InstanceId) -> Result<Option<InstanceId>> {
        let before = self.load(backend).unwrap_or_default();
        if before.as_ref().is_some_and(|before| before.instance == *instance) {
            return Ok(None);
        }
        let replaced = before.as_ref().map(|before| before.instance.clone());
        let former = before.into_iter().flat_map(|before| before.former).chain(replaced.clone());
        let former = former.filter(|one| one != instance).collect();
        let now = Stored { version: VERSION, instance: instance.clone(), former, advertised: None };
        self.store(backend, &now)?;
        Ok(replaced)
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
        let former = before.as_ref().map(|before| before.former.clone()).unwrap_or_default();
        let advertised = Some(Advertised { mode, offers: open.offers });
        let now = Stored { version: VERSION, instance: open.instance, former, advertised };
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
        let broken = |error: serde_json::Error| {
            Error::precondition(format!(
                "{} is damaged: see that the right disk is in the place of {backend}, then run `dunnage init {backend}`",
                self.folder.join(file(backend)).display()
            ))
            .caused_by(error)
        };
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
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
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
            snapshots: false,
            groups: false,
            snapshot_metadata: false,
            clones: false,
            modify: false,
            health: false,
            attachments: false,
            attach: false,
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
        assert_eq!(memory.accept(&name, &second).unwrap(), Some(first.clone()));
        assert_eq!(memory.accept(&name, &second).unwrap(), None);
        memory.remember(&name, Mode::All, open(&second)).unwrap();
        assert_eq!(memory.former(&name), [first]);
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
    fn a_damaged_file_is_named_with_its_remedy_and_may_be_written_over() {
        let (state, memory, name) = memory();
        std::fs::create_dir(state.path().join("backends")).unwrap();
        std::fs::write(state.path().join("backends/disks.json"), r#"{"vers"#).unwrap();
        assert!(memory.instance(&name).unwrap_err().to_string().contains("run `dunnage init disks`"));
        memory.accept(&name, &InstanceId::random().unwrap()).unwrap();
        memory.instance(&name).unwrap().unwrap();
    }

    #[test]
    fn what_the_release_before_did_not_know_was_not_offered() {
        let (state, memory, name) = memory();
        let instance = InstanceId::random().unwrap();
        std::fs::create_dir(state.path().join("backends")).unwrap();
        let text = format!(
            r#"{{"version": 1, "instance": "{instance}", "advertised": {{"mode": "all", "offers": {{"node": true}}}}}}"#
        );
        std::fs::write(state.path().join("backends/disks.json"), text).unwrap();
        let offers = Offers { node: true, ..Offers::default() };
        assert_eq!(memory.remembered(&name, Mode::All), Some(Remembered { instance, offers }));
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

//! Volumes that are directories below a root.
//!
//! A volume's data is `<root>/volumes/<key>`, its record `<root>/.dunnage/volumes/<key>`. The size of a volume is
//! enforced by a project quota of the file system, or, where the configuration says so, not at all. Snapshots, restores and
//! clones are copies of trees, made by jobs of the root.

mod config;
mod copies;
mod quota;
mod store;
mod unlimited;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dunnage_driver_api::root::{self, FolderCopies, Folders, Root};
use dunnage_driver_api::{
    Backend, DirectoryParent, Driver, Error, Finding, Init, KeyError, NoParameters, Opening, ParameterType,
    Permissions, Reach, Result, Staging,
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use config::{ProjectIds, Quota};

use quota::ProjectQuota;
use store::{Parts, Store};

/// Directories below a root on this node.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dir {
    /// The folder that holds everything: absolute, and empty when it is first used. Give it a file system of its own.
    #[schemars(extend("pattern" = "^/"))]
    pub root: PathBuf,

    /// How the size of a volume is enforced. It must be said.
    #[schemars(required)]
    pub quota: Option<Quota>,

    /// The permissions of a new volume, octal and in quotes. The default, "0777", lets every pod write, whatever user
    /// it runs as; nobody else on the node can reach the volume, since the folder above is root's alone. With a stricter
    /// mode pods need an fsGroup, or the user that this process runs as.
    #[serde(default)]
    pub mode: Permissions,

    /// From which project ids volumes get theirs, with `quota: project`. No id in use is ever taken.
    #[serde(default)]
    pub project_ids: ProjectIds,
}

impl Dir {
    fn quota(&self) -> Result<Quota, KeyError> {
        self.quota.ok_or_else(|| KeyError {
            pointer: String::new(),
            message: format!(
                "missing key `quota`: say `quota: project` to enforce the sizes of volumes ({}), or `quota: none` to let \
                 every volume fill the disk",
                quota::HOW_TO_ENABLE
            ),
        })
    }

    /// Opens the root.
    fn store(&self, opening: &Opening) -> Result<Arc<Store>> {
        let quota = self.quota().map_err(|error| Error::invalid(error.message))?;
        let root = Root::open(&self.root, Self::NAME)?;
        // For its owner alone: what lies below is reached by the mounts that the host makes.
        let folders = Folders::open(root)?;
        let quota = match quota {
            Quota::Project => {
                let quota = ProjectQuota::new(&folders.data, self.project_ids)?;
                unlimited::warn(self.root.clone())?;
                Some(quota)
            }
            Quota::None => None,
        };
        let parent = folders.data.reopen().map_err(folders.data.failed("open", ""))?;
        let parent = Arc::new(DirectoryParent::new(parent));
        let mode = self.mode.bits();
        let parts = Arc::new(Parts { folders, parent, quota, mode, turn: Mutex::new(()) });
        let copies = Arc::new(FolderCopies::open(parts.clone(), opening.threads)?);
        let store = Arc::new(Store { parts, copies });
        root::sweep(&store, |store| (&store.records, &store.data), Store::remove_remains)?;
        Ok(store)
    }
}

impl Driver for Dir {
    const NAME: &'static str = "dir";

    fn check_keys(&self) -> Result<(), KeyError> {
        Root::check_key(&self.root)?;
        self.quota().map(drop)
    }

    fn init(&self, _: &Opening) -> Result<Init> {
        Root::init(&self.root, Self::NAME)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        let store = self.store(opening)?;
        let (instance, copies) = (store.root.instance().clone(), store.copies.clone());
        Ok(Backend::new(instance, Reach::Node, ParameterType::of::<NoParameters>())
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_health(store.clone())
            .with_room(store.clone())
            .with_copying(copies.copying())
            .with_snapshots(copies, ParameterType::of::<NoParameters>())
            .with_clones()
            .with_copies_in_use()
            .with_node(store, Staging::None))
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        let mut findings = Root::check(&self.root, Self::NAME);
        match self.quota() {
            Ok(Quota::Project) => {
                findings.push(Root::promises_room(&self.root, quota::check(&self.root)));
                findings.extend(unlimited::check(&self.root));
            }
            Ok(Quota::None) => findings.push(Finding::warning(
                format!("root {} has no quota: any volume can fill the disk", self.root.display()),
                format!("for `quota: project`, {}", quota::HOW_TO_ENABLE),
            )),
            Err(error) => findings.push(Finding::error(error, "set `quota` to `project` or `none`")),
        }
        findings
    }
}

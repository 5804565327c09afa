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
mod work;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dunnage_driver_api::root::{self, Root};
use dunnage_driver_api::{
    Backend, DirectoryParent, Driver, Error, Finding, Init, KeyError, NoParameters, Opening, ParameterType,
    Permissions, Reach, Result, Staging,
};
use schemars::JsonSchema;
use serde::Deserialize;

pub use config::{ProjectIds, Quota};

use quota::ProjectQuota;
use store::{Parts, Store};

const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const UNFINISHED: &str = "unfinished";

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
        let quota = self.quota().map_err(|error| Error::invalid(error.message))?;
        let root = Root::open(&self.root, Self::NAME)?;
        // For its owner alone: what lies below is reached by the mounts that the host makes.
        let records = root.records()?;
        let data = root.data(VOLUMES, &records)?;
        let quota = match quota {
            Quota::Project => {
                let quota = ProjectQuota::new(&data, self.project_ids)?;
                unlimited::warn(self.root.clone())?;
                Some(quota)
            }
            Quota::None => None,
        };
        let instance = root.instance().clone();
        let open = |name: &str| root.folder().folder(name).map_err(root.folder().failed("open", name));
        let parent = Arc::new(DirectoryParent::new(open(VOLUMES)?));
        let snapshots = root.snapshots()?;
        let snapshot_data = root.data_of_snapshots(SNAPSHOTS, &snapshots)?;
        let unfinished = root.folder().folder_or_make(UNFINISHED, 0o700);
        let unfinished = unfinished.map_err(root.folder().failed("open", UNFINISHED))?;
        let jobs = Arc::new(root.jobs(opening.threads)?);
        let mode = self.mode.bits();
        let parts = Parts { records, data, parent, snapshots, snapshot_data, unfinished, quota, mode, root };
        let store = Arc::new(Store { parts: Arc::new(parts), jobs: jobs.clone(), turn: Mutex::new(()) });
        store.take_up_copies()?;
        root::sweep(&store, |store| (&store.records, &store.data), Store::remove_remains)?;
        Ok(Backend::new(instance, Reach::Node, ParameterType::of::<NoParameters>())
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_health(store.clone())
            .with_room(store.clone())
            .with_snapshots(store.clone(), ParameterType::of::<NoParameters>())
            .with_clones()
            .with_copying(jobs)
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

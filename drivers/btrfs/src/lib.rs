//! Volumes that are subvolumes of a btrfs.
//!
//! A volume's data is the subvolume `<root>/volumes/<key>`, its record `<root>/.dunnage/volumes/<key>`; a snapshot's are
//! `<root>/snapshots/<key>`, read-only, and `<root>/.dunnage/snapshots/<key>`. The size of a volume is the limit of its
//! group of quotas.

mod attributes;
mod check;
mod config;
mod node;
mod quota;
mod room;
mod snapshots;
mod store;
mod subvolumes;
mod sys;

use std::sync::Arc;

use dunnage_driver_api::root::{Folder, Root};
use dunnage_driver_api::{
    Backend, DirectoryParent, Driver, Finding, Init, KeyError, NoParameters, Opening, ParameterType, Reach, Result,
    Staging,
};

pub use config::Btrfs;

use config::{Attributes, Quota};
use quota::Groups;
use store::Store;
use subvolumes::Subvolumes;

const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";

impl Driver for Btrfs {
    const NAME: &'static str = "btrfs";

    fn check_keys(&self) -> Result<(), KeyError> {
        Root::check_key(&self.root)
    }

    fn init(&self, _: &Opening) -> Result<Init> {
        // Where it cannot be opened, `Root` says so with the remedy.
        if let Ok(root) = Folder::at(&self.root) {
            check::is_btrfs(&root)?;
            check::enable_on_empty(self, &root)?;
        }
        Root::init(&self.root, Self::NAME)
    }

    fn open(&self, _: &Opening) -> Result<Backend> {
        let root = Root::open(&self.root, Self::NAME)?;
        check::is_btrfs(root.folder())?;
        let groups = match self.quota {
            Quota::None => None,
            _ => check::proven(self, root.folder()).map(|_| Some(Groups::new()))?,
        };
        let records = root.records()?;
        let volumes = Subvolumes::new(root.data(VOLUMES, &records)?);
        let again = root.folder().folder(VOLUMES).map_err(root.folder().failed("open", VOLUMES))?;
        let parent = Arc::new(DirectoryParent::new(again));
        let snapshot_records = root.snapshots()?;
        let snapshots = Subvolumes::new(root.data_of_snapshots(SNAPSHOTS, &snapshot_records)?);
        let instance = root.instance().clone();
        let store = Arc::new(Store { root, records, volumes, parent, snapshot_records, snapshots, groups });
        store.sweep()?;
        let attributes = ParameterType::of::<Attributes>;
        Ok(Backend::new(instance, Reach::Node, attributes())
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_modify(store.clone(), attributes())
            .with_snapshots(store.clone(), ParameterType::of::<NoParameters>())
            .with_clones()
            .with_health(store.clone())
            .with_room(store.clone())
            .with_node(store, Staging::None))
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        check::check(self, Self::NAME)
    }
}

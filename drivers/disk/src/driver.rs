//! The driver: opening a root and handing out what it can do.

use std::sync::Arc;

use dunnage_driver_api::root::Root;
use dunnage_driver_api::{
    Backend, Context, Driver, Finding, Init, KeyError, NoParameters, Opening, ParameterType, Reach, ReleaseRecord,
    Result, Staging,
};

use crate::check;
use crate::config::Disk;
use crate::node::{DiskNode, InUse};
use crate::store::Store;

impl Driver for Disk {
    const NAME: &'static str = "disk";

    fn check_keys(&self) -> Result<(), KeyError> {
        Root::check_key(&self.root)?;
        self.keys_together()
    }

    fn init(&self, _: &Opening) -> Result<Init> {
        Root::init(&self.root, Self::NAME)
    }

    fn open(&self, _: &Opening) -> Result<Backend> {
        let store = Store::open(self.clone(), Self::NAME)?;
        *self.opened.lock() = Arc::downgrade(&store);
        let node = Arc::new(DiskNode(store.clone()));
        let backend = Backend::new(store.root.instance().clone(), Reach::Node, ParameterType::of::<NoParameters>())
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_health(store.clone())
            .with_room(store)
            .with_node(node, Staging::Needed);
        Ok(if self.hides_all() { backend.with_block() } else { backend })
    }

    fn release(&self, _: &Context, record: &ReleaseRecord) -> Result<()> {
        let InUse { disk } = record.read()?;
        // A store that is not open sees at the next use what is there.
        if let Some(store) = self.opened.lock().upgrade()
            && let Err(error) = store.leave(&disk)
        {
            tracing::warn!(disk = disk.0, error = error.report(), "what a volume has left on its disk is not known");
        }
        Ok(())
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        check::check(self, Self::NAME)
    }
}

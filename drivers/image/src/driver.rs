//! The driver: opening a root and handing out what it can do.

use std::sync::Arc;

use dunnage_driver_api::root::Root;
use dunnage_driver_api::{
    Backend, Context, Driver, Finding, Init, KeyError, NoParameters, Opening, ParameterType, Reach, ReleaseRecord,
    Result, Staging,
};

use crate::config::Image;
use crate::node::{self, LoopNode};
use crate::store::Store;
use crate::{check, fiemap};

impl Driver for Image {
    const NAME: &'static str = "image";

    const CARVES: bool = true;

    fn check_keys(&self) -> Result<(), KeyError> {
        Root::check_key(&self.root)?;
        self.keys_together()
    }

    fn init(&self, _: &Opening) -> Result<Init> {
        Root::init(&self.root, Self::NAME)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        let store = Store::open(self.clone(), Self::NAME, opening.threads)?;
        let node = Arc::new(LoopNode::new(store.clone()));
        let instance = store.root.instance().clone();
        let backend = Backend::new(instance, Reach::Node, ParameterType::of::<NoParameters>())
            .with_volumes(store.clone())
            .with_block()
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_health(store.clone())
            .with_room(store.clone())
            .with_snapshots(store.clone(), ParameterType::of::<NoParameters>())
            .with_clones()
            .with_copying(store.jobs.clone())
            .with_node(node, Staging::Needed);
        if !store.shares {
            return Ok(backend);
        }
        let backend = backend.with_groups(store.clone());
        let is_trusted = fiemap::is_trusted(&store.snapshots);
        Ok(if is_trusted { backend.with_changed_blocks(store) } else { backend })
    }

    fn check(&self, _: &Opening) -> Vec<Finding> {
        check::check(self, Self::NAME)
    }

    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        node::release(cx, record)
    }
}

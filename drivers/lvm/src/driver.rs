//! The driver: opening a group and handing out what it can do.

use std::sync::Arc;

use dunnage_driver_api::{
    Backend, Context, Driver, Finding, Init, KeyError, NoParameters, Opening, ParameterType, Reach, ReleaseRecord,
    Result, Staging, Tool,
};

use crate::config::{Kind, Lvm};
use crate::group::{DMSETUP, Group, LVM};
use crate::layout::ThickClass;
use crate::node::{self, LvmNode};
use crate::store::Store;
use crate::{check, marker};

impl Driver for Lvm {
    const NAME: &'static str = "lvm";

    const CARVES: bool = true;
    const TOOLS: &'static [Tool] = &[LVM, DMSETUP];

    fn check_keys(&self) -> Result<(), KeyError> {
        self.keys_together()
    }

    fn init(&self, opening: &Opening) -> Result<Init> {
        marker::init(self, &Group::new(&self.vg, &self.devices), &*opening.commands)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        let store = Store::open(self.clone(), opening)?;
        let node = Arc::new(LvmNode(store.clone()));
        let parameters = match self.kind {
            Kind::Thick => ParameterType::of::<ThickClass>(),
            Kind::Thin => ParameterType::of::<NoParameters>(),
        };
        let backend = Backend::new(store.instance.clone(), Reach::Node, parameters)
            .with_volumes(store.clone())
            .with_create(store.clone())
            .with_expand(store.clone())
            .with_health(store.clone())
            .with_room(store.clone())
            .with_node(node, Staging::Needed);
        let backend = if self.hides_all() { backend.with_block() } else { backend };
        Ok(match self.kind {
            Kind::Thick => backend,
            Kind::Thin => backend.with_snapshots(store, ParameterType::of::<NoParameters>()).with_clones(),
        })
    }

    fn check(&self, opening: &Opening) -> Vec<Finding> {
        check::check(self, &*opening.commands)
    }

    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        node::release(cx, record)
    }
}

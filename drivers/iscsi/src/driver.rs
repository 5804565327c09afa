//! The driver: what is opened where.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dunnage_driver_api::{
    Backend, Carry, Configured, Context, Error, Exports, Finding, Init, InstanceId, KeyError, NoParameters, NodeId,
    Opening, ParameterType, Reach, ReleaseRecord, Result, Staging, Tool,
};

use crate::check;
use crate::config::{ChapPolicy, Iscsi};
use crate::initiator::ISCSIADM;
use crate::lio::{CONFIGFS, Lio, MODULE};
use crate::node::{self, IscsiNode};

impl Carry for Iscsi {
    const NAME: &'static str = "iscsi";
    const TOOLS: &'static [Tool] = &[ISCSIADM];

    fn check_keys(&self, has_store: bool) -> Result<(), KeyError> {
        self.keys_together(has_store)
    }

    fn init(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Result<Init> {
        match (store, self.instance()) {
            (Some(store), named) => {
                let done = Exports::<Lio>::init(store, opening, self.grants()?, Self::NAME)?;
                let (Init::Created(found) | Init::Existing(found)) = &done;
                check_instance(named.as_ref(), found).map(|()| done)
            }
            // There is nothing to be marked: the configuration itself says it.
            (None, Some(instance)) => Ok(Init::Existing(instance)),
            (None, None) => Err(no_instance()),
        }
    }

    fn open(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Result<Backend> {
        let node = Arc::new(IscsiNode::new(self, &NodeId::of(&opening.node)));
        if let Some(store) = store.filter(|_| opening.store_here) {
            let target = Lio::new(
                CONFIGFS.as_ref(),
                MODULE.as_ref(),
                SocketAddr::new(self.address, self.port),
                self.chap == ChapPolicy::Required,
            );
            let exports = Exports::open(store, opening, self.grants()?, Self::NAME, target)?;
            check_instance(self.instance().as_ref(), exports.instance())?;
            return Ok(exports.backend(node));
        }
        let instance = self.instance().ok_or_else(no_instance)?;
        let parameters = ParameterType::of::<NoParameters>();
        Ok(Backend::new(instance, Reach::Everywhere, parameters).with_block().with_node(node, Staging::Needed))
    }

    fn check(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Vec<Finding> {
        let store = store.filter(|_| opening.store_here).zip(self.grants().ok());
        let mut findings = match store {
            Some((store, grants)) => Exports::<Lio>::check(store, opening, grants, Self::NAME),
            None => vec![check::instance(self.instance().as_ref())],
        };
        if store.is_some() {
            findings.extend(check::named(self.instance().as_ref(), &findings));
            findings.push(check::target());
            findings.push(check::forged(self.chap));
        }
        findings.push(check::initiator());
        findings
    }

    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        node::release(cx, record)
    }
}

impl Iscsi {
    fn grants(&self) -> Result<&Path> {
        self.grants.as_deref().ok_or_else(|| Error::internal("the keys were not checked: grants is missing"))
    }
}

/// That the configuration names the store's instance, where it names one.
fn check_instance(named: Option<&InstanceId>, found: &InstanceId) -> Result<()> {
    match named {
        Some(named) if named != found => Err(Error::precondition(format!(
            "the store is instance {found}, and the key `instance` says {named}: mount the right disk, or correct the key \
             on all nodes"
        ))),
        _ => Ok(()),
    }
}

fn no_instance() -> Error {
    Error::precondition(
        "the key `instance` is missing, by which a node without the store knows its volumes: run `dunnage init` on the \
         store's node, and write what it prints into the configuration of all nodes",
    )
}

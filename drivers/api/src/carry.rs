//! Carrying: what one driver carves on a node, used on all others.
//!
//! A carrying driver knows the protocol (NVMe/TCP, iSCSI); the host puts the opened driver of the `store` into it, of
//! whatever kind that is. On the node that has the store, the carried volumes are made, grown, copied and removed by the
//! store, whose abilities go through unchanged; the carrying driver adds [`Attach`](crate::Attach), and a node half of its
//! own for every node. [`Exports`] has all of that which is the same for each protocol.

mod exports;
mod grants;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use exports::{Export, ExportId, Exports, Target};

use crate::command::Tool;
use crate::context::Context;
use crate::driver::{Backend, Configured, Init, Opening};
use crate::error::Result;
use crate::finding::Finding;
use crate::key::KeyError;
use crate::node::ReleaseRecord;

/// A driver that makes block devices of another one usable on other nodes. The type is its own part of the backend's
/// configuration, as for [`Driver`](crate::Driver); the host owns the key `store` as well.
///
/// Without a store it takes volumes that exist already, and has the node half alone.
pub trait Carry: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name in `driver:`.
    const NAME: &'static str;

    /// Programs it runs.
    const TOOLS: &'static [Tool] = &[];

    /// As [`Driver::check_keys`](crate::Driver::check_keys), for a backend with a store or without.
    ///
    /// # Errors
    /// What is wrong, and the key.
    fn check_keys(&self, _has_store: bool) -> Result<(), KeyError> {
        Ok(())
    }

    /// As [`Driver::init`](crate::Driver::init): marks the store, and what the driver itself keeps beside it.
    ///
    /// # Errors
    /// As [`Driver::init`](crate::Driver::init).
    fn init(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Result<Init>;

    /// As [`Driver::open`](crate::Driver::open). The store is opened where [`Opening::store_here`] says that it is, and
    /// nowhere else.
    ///
    /// # Errors
    /// As [`Driver::open`](crate::Driver::open).
    fn open(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Result<Backend>;

    /// As [`Driver::check`](crate::Driver::check).
    fn check(&self, store: Option<&Arc<dyn Configured>>, opening: &Opening) -> Vec<Finding>;

    /// As [`Driver::release`](crate::Driver::release), of the driver's own node half.
    ///
    /// # Errors
    /// As [`Driver::release`](crate::Driver::release).
    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()>;
}

/// A carrying driver with its configuration and its store.
pub(crate) struct Carrying<D> {
    pub(crate) driver: D,
    pub(crate) store: Option<Arc<dyn Configured>>,
}

impl<D: Carry> Configured for Carrying<D> {
    fn init(&self, opening: &Opening) -> Result<Init> {
        self.driver.init(self.store.as_ref(), opening)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        self.driver.open(self.store.as_ref(), opening)
    }

    fn check(&self, opening: &Opening) -> Vec<Finding> {
        self.driver.check(self.store.as_ref(), opening)
    }

    fn release(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        self.driver.release(cx, record)
    }
}

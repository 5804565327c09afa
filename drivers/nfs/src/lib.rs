//! Volumes that are folders of an NFS export.
//!
//! The export is a root of ours: its marker proves which store it is, its records say which volumes there are. One process
//! at a time serves the controller half; it holds the lock on the marker, which the server keeps. The node half reads
//! marker and record, and has the host mount the volume's folder for each target. Both look into the export through a
//! mount of their own that is attached nowhere, and whose calls fail after 15 seconds without an answer.
//!
//! ```text
//! <export>/.dunnage/            marker, records, trash
//! <export>/volumes/<key>        the data of a volume
//! <export>/volumes/<folder>     the same, of a class that has `folder`
//! <export>/archive/...          what `onDelete: archive` keeps
//! <export>/retained/...         which folders `onDelete: retain` has left in their places
//! <export>/snapshots/<key>      the data of a snapshot
//! <export>/unfinished/          copies that are being made
//! ```

mod class;
mod config;
mod controller;
mod copies;
mod export;
mod node;
mod paths;
mod places;
mod retained;
mod store;

use std::sync::Arc;

use dunnage_driver_api::root::Root;
use dunnage_driver_api::{
    Backend, Driver, Error, ErrorKind, Finding, Init, KeyError, NoParameters, Opening, ParameterType, Reach, Result,
    Staging,
};

pub use class::{Class, OnDelete};
pub use config::{Nfs, Quota, Version};

use controller::Controller;
use export::Export;
use node::NodeHalf;

const VOLUMES: &str = "volumes";

impl Driver for Nfs {
    const NAME: &'static str = "nfs";

    const REACH: Reach = Reach::Everywhere;

    fn check_keys(&self) -> Result<(), KeyError> {
        self.check()
    }

    fn init(&self, opening: &Opening) -> Result<Init> {
        Root::init_in(self.export(opening).mount()?, Self::NAME)
    }

    fn open(&self, opening: &Opening) -> Result<Backend> {
        let export = Arc::new(self.export(opening));
        let parameters = ParameterType::of::<Class>();
        let node = NodeHalf::open(export.clone())?;
        let instance = node.instance().clone();
        let backend = Backend::new(instance, Reach::Everywhere, parameters).with_node(Arc::new(node), Staging::None);
        if !opening.store_here {
            return Ok(backend);
        }
        let controller = Controller::open(self.clone(), export, opening.node.clone(), opening.threads);
        let controller = Arc::new(controller.map_err(|error| match error.kind() {
            ErrorKind::FailedPrecondition => Error::precondition(
                "the controller half cannot be served here: let one process have it, by naming one node in `nodes`, or by \
                 `mode: node` for all others",
            )
            .retry(true)
            .caused_by(error),
            _ => error,
        })?);
        Ok(backend
            .with_volumes(controller.clone())
            .with_create(controller.clone())
            .with_expand(controller.clone())
            .with_health(controller.clone())
            .with_room(controller.clone())
            .with_copying(controller.clone())
            .with_snapshots(controller, ParameterType::of::<NoParameters>())
            .with_clones()
            .with_copies_in_use())
    }

    fn check(&self, opening: &Opening) -> Vec<Finding> {
        let export = self.export(opening);
        let mut findings = match export.mount() {
            Ok(folder) => {
                let mut findings = Root::check_in(&folder, Self::NAME);
                findings.extend(export::squash(&folder).map(|(text, remedy)| Finding::warning(text, remedy)));
                findings
            }
            Err(error) => vec![Finding::error(
                error.report(),
                "see to `server`, `export` and `version`, and that the server exports it to this node",
            )],
        };
        findings.push(Finding::warning(
            format!("export {} has no quota: any volume can fill it", export.shown()),
            "give volumes that may fill the disk an export of their own",
        ));
        findings
    }
}

impl Nfs {
    fn export(&self, opening: &Opening) -> Export {
        Export::new(self.clone(), opening.mounts.clone())
    }
}

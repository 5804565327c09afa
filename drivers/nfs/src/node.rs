//! The node half: it reads what there is, and changes nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use dunnage_driver_api::root::RootView;
use dunnage_driver_api::{
    Context, Driver, Error, InstanceId, MountSource, Node, Result, Source, SourceRequest, VolumeId,
};

use crate::VOLUMES;
use crate::config::Nfs;
use crate::export::{Export, is_stale};
use crate::store::Extra;

/// An export as a node uses it.
pub(crate) struct NodeHalf(Arc<Inner>);

struct Inner {
    export: Arc<Export>,
    instance: InstanceId,
    view: Mutex<Arc<RootView>>,
}

impl NodeHalf {
    /// Mounts the export and proves that it is a root of ours.
    pub(crate) fn open(export: Arc<Export>) -> Result<Self> {
        let view = RootView::open(export.mount()?, Nfs::NAME)?;
        Ok(Self(Arc::new(Inner { instance: view.instance().clone(), view: Mutex::new(Arc::new(view)), export })))
    }

    pub(crate) fn instance(&self) -> &InstanceId {
        &self.0.instance
    }
}

impl Inner {
    fn view(&self) -> Arc<RootView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Mounts the export anew, whose mount has gone stale.
    fn mount_again(&self) -> Result<Arc<RootView>> {
        let view = Arc::new(RootView::open(self.export.mount()?, Nfs::NAME)?);
        if *view.instance() != self.instance {
            return Err(Error::precondition(format!(
                "{} has become instance {}, and was {}: bring the right one back, or restart",
                self.export.shown(),
                view.instance(),
                self.instance
            )));
        }
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(view)
    }

    fn find(&self, view: &RootView, volume: &VolumeId) -> Result<MountSource> {
        let found = view.record::<Extra>(&volume.key)?.filter(|found| found.volume.generation == volume.generation);
        let found = found.ok_or_else(|| Error::not_found(format!("there is no volume {volume}")))?;
        let path = found.extra.path(&volume.key);
        let folder = view.folder().folder(VOLUMES).and_then(|data| {
            let folder = path.parent(&data)?.open_path(path.last())?;
            Ok(rustix::fs::fstat(&folder)?)
        });
        match folder {
            Ok(stat) => self.export.volume(&path, stat.st_ino),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::precondition(format!(
                "the data of volume {volume} is gone: {}/{VOLUMES}/{path} does not exist; if its deletion was cut off, \
                 delete it again",
                self.export.shown()
            ))),
            Err(error) => Err(view.folder().failed("open", format!("{VOLUMES}/{path}"))(error)),
        }
    }
}

impl Node for NodeHalf {
    fn source(&self, _: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let (inner, volume) = (self.0.clone(), request.volume.clone());
        let found = self.0.export.look(move || match inner.find(&inner.view(), &volume) {
            Err(error) if is_stale(&error) => inner.find(&*inner.mount_again()?, &volume),
            found => found,
        });
        found.map(Source::Mount)
    }
}

//! The node half: logging in to a volume's target and letting it go.

use std::time::{Duration, Instant};

use dunnage_driver_api::{Context, DeviceSource, Identity, Node, NodeId, ReleaseRecord, Result, Source, SourceRequest};

use crate::chap::Chap;
use crate::config::Iscsi;
use crate::initiator::{Initiator, Options};
use crate::wanted::{LoggedIn, Wanted};

/// How long a target is waited for by one call.
const PATIENCE: Duration = Duration::from_secs(20);

/// Logs out of the target of a release record.
///
/// # Errors
/// `FailedPrecondition` where its device is still in use.
pub(crate) fn release(cx: &Context, record: &ReleaseRecord) -> Result<()> {
    Initiator::default().logout(cx, &record.read()?, cx.deadline)
}

/// The node half of a backend.
pub(crate) struct IscsiNode {
    config: Iscsi,
    options: Options,
    initiator: Initiator,
}

impl IscsiNode {
    pub(crate) fn new(config: &Iscsi, node: &NodeId) -> Self {
        Self { config: config.clone(), options: Options::new(config, node), initiator: Initiator::default() }
    }
}

impl Node for IscsiNode {
    fn source(&self, cx: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let wanted = Wanted::new(&self.config, request)?;
        let chap = Chap::of(&cx.secrets)?;
        let release = ReleaseRecord::new(&LoggedIn::from(&wanted))?;
        let before = request.kept.map(ReleaseRecord::read::<LoggedIn>).transpose()?;
        if let Some(before) = before.filter(|before| before.iqn != wanted.iqn) {
            // By an attachment that has ended since: nothing can come through it any more.
            self.initiator.logout(cx, &before, cx.deadline)?;
        }
        (request.keep)(&release)?;
        let until = cx.deadline.min(Instant::now() + PATIENCE);
        let (device, path) = self.initiator.bring(cx, &wanted, &self.options, chap.as_ref(), until)?;
        // That it is this volume's the target and the unit have proven. Two volumes may name one unit that exists already.
        let identity = Identity(match request.attachment() {
            Some(_) => format!("iscsi:{}", request.volume),
            None => format!("iscsi:{}:{}", wanted.iqn, wanted.unit),
        });
        Ok(Source::Device(DeviceSource::new(device, path, identity, release)))
    }

    fn refresh(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        let LoggedIn { iqn, .. } = record.read()?;
        self.initiator.refresh(&iqn, cx.deadline)
    }
}

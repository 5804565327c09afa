//! The node half: connecting to a volume's subsystem and letting it go.

use std::time::{Duration, Instant};

use dunnage_driver_api::{Context, DeviceSource, Identity, Node, NodeId, ReleaseRecord, Result, Source, SourceRequest};

use crate::config::NvmeTcp;
use crate::initiator::{Connected, Initiator, Options};
use crate::wanted::Wanted;

/// How long a target is waited for by one call.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the connection of a release record.
///
/// # Errors
/// `FailedPrecondition` where its device is still in use.
pub(crate) fn release(cx: &Context, record: &ReleaseRecord) -> Result<()> {
    Initiator::default().disconnect(&record.read()?, cx.deadline)
}

/// The node half of a backend.
pub(crate) struct NvmeNode {
    config: NvmeTcp,
    options: Options,
    initiator: Initiator,
}

impl NvmeNode {
    pub(crate) fn new(config: &NvmeTcp, node: &NodeId) -> Self {
        Self { config: config.clone(), options: Options::new(config, node), initiator: Initiator::default() }
    }
}

impl Node for NvmeNode {
    fn source(&self, cx: &Context, request: &SourceRequest<'_>) -> Result<Source> {
        let wanted = Wanted::new(&self.config, request)?;
        let (nqn, host) = (wanted.nqn.clone(), self.options.host().to_owned());
        let release = ReleaseRecord::new(&Connected { nqn, namespace: wanted.namespace, host })?;
        let before = request.kept.map(ReleaseRecord::read::<Connected>).transpose()?;
        if let Some(before) = before.filter(|before| before.nqn != wanted.nqn) {
            // By an attachment that has ended since: nothing can come through it any more.
            self.initiator.disconnect(&before, cx.deadline)?;
        }
        (request.keep)(&release)?;
        let until = cx.deadline.min(Instant::now() + PATIENCE);
        let (device, path) = self.initiator.bring(&wanted, &self.options, until)?;
        // That it is this volume's the subsystem and the namespace have proven.
        let identity = Identity(format!("nvme-tcp:{}", request.volume));
        let source = DeviceSource::new(device, path, identity, release);
        Ok(Source::Device(source))
    }

    fn refresh(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        let Connected { nqn, .. } = record.read()?;
        self.initiator.refresh(&nqn, cx.deadline)
    }
}

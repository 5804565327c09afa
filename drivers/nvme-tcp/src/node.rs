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
        let source = DeviceSource::new(device, path, identity(request, &wanted), release);
        Ok(Source::Device(source))
    }

    fn refresh(&self, cx: &Context, record: &ReleaseRecord) -> Result<()> {
        let Connected { nqn, .. } = record.read()?;
        self.initiator.refresh(&nqn, cx.deadline)
    }
}

/// Which device it is. Of an attachment it is the volume's, as the subsystem and the namespace have proven, by each
/// attachment the same; a volume that exists already is the namespace that its context names, which may come to be another.
fn identity(request: &SourceRequest<'_>, wanted: &Wanted) -> Identity {
    match request.attachment() {
        Some(_) => Identity(format!("nvme-tcp:{}", request.volume)),
        None => Identity(format!("nvme-tcp:{} {}", wanted.nqn, wanted.namespace)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dunnage_driver_api::{Attachment, VolumeId};

    use super::*;

    fn identity_of(volume_context: &[(&str, &str)], publish_context: &[(&str, &str)]) -> String {
        let config: NvmeTcp = serde_json::from_str(r#"{"address": "10.0.0.1"}"#).unwrap();
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let volume: VolumeId = format!("{}.v.static", "a".repeat(26)).parse().unwrap();
        let (volume_context, publish_context) = (map(volume_context), map(publish_context));
        let keep = |_: &_| Ok(());
        let request = SourceRequest::new(&volume, &keep).with_contexts(&volume_context, &publish_context);
        identity(&request, &Wanted::new(&config, &request).unwrap()).0
    }

    #[test]
    fn a_device_is_the_volume_that_is_attached_or_the_namespace_that_is_named() {
        let by = |word| identity_of(&[], &[(Attachment::WORD, word)]);
        assert_eq!(by("aaaaaaaaaaaaa"), by("bbbbbbbbbbbbb"));
        let (one, other) = ("12345678-1234-1234-1234-123456789abc", "00000000-1234-1234-1234-123456789abc");
        let named = |nqn, key, value| identity_of(&[("nqn", nqn), (key, value)], &[]);
        let first = named("nqn.x:a", "uuid", one);
        assert_eq!(first, format!("nvme-tcp:nqn.x:a UUID {one}"));
        for (nqn, key, value) in [("nqn.x:b", "uuid", one), ("nqn.x:a", "uuid", other), ("nqn.x:a", "nguid", one)] {
            assert_ne!(named(nqn, key, value), first);
        }
    }
}

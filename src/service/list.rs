//! Lists: pages over all backends of a plugin that no client's limit is too small for. ListVolumes is the plainest.

use std::fmt;
use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::list_volumes_response::{Entry, VolumeStatus};
use dunnage_driver_api::{Context, Error, InstanceId, Result, Volume, VolumeKey};
use prost::Message;
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
use crate::registry::ServedBackend;
use crate::wire::Token;

/// The greatest answer, in bytes. gRPC clients refuse more than 4 MiB; an answer takes several times its size of memory
/// while it is made, and larger ones are not faster.
const LARGEST: usize = 1 << 20;
/// How many volumes a backend is asked for at once: one call for a page of the usual 1000.
const CHUNK: usize = 1024;

/// The volumes after `start`, in the order of their instances and keys: at most `max_entries`, and never more than an
/// answer can hold.
pub(super) async fn volumes(
    shared: &Arc<Shared>,
    call: Call,
    max_entries: Option<usize>,
    start: Option<Token<VolumeKey>>,
) -> std::result::Result<csi::ListVolumesResponse, Status> {
    all_open(shared, "volumes cannot be listed: a list without them would say that they are gone")?;
    let look = |shared: &Shared, backend: &ServedBackend, cx: &Context, after: Option<&VolumeKey>, room: usize| {
        let limit = room.min(CHUNK);
        let found = backend.volumes()?.list(cx, after, limit)?;
        let more_after = found.last().filter(|_| found.len() == limit).map(|volume| volume.key.clone());
        let attaches = backend.backend.attach.is_some();
        let entry = |volume: Volume| {
            let published_node_ids = backend.attached_nodes(cx, &volume)?;
            let status = attaches.then_some(VolumeStatus { published_node_ids });
            Ok((volume.key.clone(), Entry { volume: Some(shared.volume_to_wire(backend, &volume)), status }))
        };
        let entries = found.into_iter().map(entry).collect::<Result<_>>()?;
        Ok(Looked { entries, more_after })
    };
    let (entries, next_token) = pages(shared, call, Page::new(max_entries), start, |_| true, look).await?;
    Ok(csi::ListVolumesResponse { entries, next_token })
}

/// That each backend of the plugin is open: else a list would be short of what is there, which `untold` says.
pub(super) fn all_open(shared: &Shared, untold: &str) -> std::result::Result<(), Status> {
    match shared.plugin.absent().as_slice() {
        [] => Ok(()),
        [absent, ..] => Err(refused(Error::precondition(format!(
            "the store of backend {absent} is not open, so that its {untold}"
        )))),
    }
}

/// What a backend was asked for at once.
pub(super) struct Looked<E, K> {
    /// What is to be listed of it.
    pub(super) entries: Vec<(K, E)>,
    /// The last key that was looked at, where there may be more after it.
    pub(super) more_after: Option<K>,
}

/// Fills a page from the backends that are `wanted`, by the order of their instances. `look` is asked, on the threads of a
/// backend, for what comes after a key, and told how many entries are of use: one more than there is room for tells
/// whether there is another page.
pub(super) async fn pages<E, K, L>(
    shared: &Arc<Shared>,
    call: Call,
    mut page: Page<E, K>,
    start: Option<Token<K>>,
    wanted: impl Fn(&InstanceId) -> bool,
    look: L,
) -> std::result::Result<(Vec<E>, String), Status>
where
    E: Message + 'static,
    K: fmt::Display + Clone + Send + 'static,
    L: Fn(&Shared, &ServedBackend, &Context, Option<&K>, usize) -> Result<Looked<E, K>> + Clone + Send + 'static,
{
    for backend in shared.plugin.backends() {
        let instance = &backend.backend.instance;
        let mut after = match &start {
            Some(token) if *instance < token.instance => continue,
            Some(token) if *instance == token.instance => Some(token.after.clone()),
            _ => None,
        };
        if !wanted(instance) {
            continue;
        }
        loop {
            let (look, room) = (look.clone(), (page.most - page.entries.len()).saturating_add(1));
            let work = move |shared: &Shared, backend: &ServedBackend, cx: &Context| {
                look(shared, backend, cx, after.as_ref(), room)
            };
            let Looked { entries, more_after } = shared.read(call.clone(), backend.clone(), None, work).await?;
            for (key, entry) in entries {
                if !page.add(entry, instance, key) {
                    return Ok(page.full());
                }
            }
            if more_after.is_none() {
                break;
            }
            after = more_after;
        }
    }
    Ok((page.entries, String::new()))
}

/// A page of any list that goes by instances and keys.
pub(super) struct Page<E, K> {
    entries: Vec<E>,
    size: usize,
    most: usize,
    last: Option<Token<K>>,
}

impl<E: Message, K: fmt::Display> Page<E, K> {
    /// An empty page of at most `max_entries`.
    pub(super) fn new(max_entries: Option<usize>) -> Self {
        Self { entries: Vec::new(), size: 0, most: max_entries.unwrap_or(usize::MAX), last: None }
    }

    /// Adds an entry, or says that it belongs to the next page.
    fn add(&mut self, entry: E, instance: &InstanceId, key: K) -> bool {
        let size = entry.encoded_len() + 8;
        if self.entries.len() == self.most || self.size + size > LARGEST {
            return false;
        }
        self.size += size;
        self.entries.push(entry);
        match &mut self.last {
            Some(token) if token.instance == *instance => token.after = key,
            last => *last = Some(Token { instance: instance.clone(), after: key }),
        }
        true
    }

    /// The entries and the token of the next page.
    fn full(self) -> (Vec<E>, String) {
        let next_token = self.last.map(|token| token.to_string()).unwrap_or_default();
        (self.entries, next_token)
    }
}

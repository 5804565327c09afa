//! ListVolumes: pages over all backends of a plugin that no client's limit is too small for.

use std::fmt;
use std::sync::Arc;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::list_volumes_response::Entry;
use dunnage_driver_api::{Error, InstanceId, VolumeKey};
use prost::Message;
use tonic::Status;

use super::Shared;
use super::call::{Call, refused};
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
) -> Result<csi::ListVolumesResponse, Status> {
    let mut page = Page::new(max_entries);
    if let [absent, ..] = shared.plugin.absent().as_slice() {
        return Err(refused(Error::precondition(format!(
            "the store of backend {absent} is not open, so that its volumes cannot be listed: a list without them would \
             say that they are gone"
        ))));
    }
    for backend in shared.plugin.backends() {
        let instance = &backend.backend.instance;
        let mut from = match &start {
            Some(token) if *instance < token.instance => continue,
            Some(token) if *instance == token.instance => Some(token.after.clone()),
            _ => None,
        };
        loop {
            // One more than there is room for tells whether there is another page.
            let limit = (page.most - page.entries.len()).saturating_add(1).min(CHUNK);
            let volumes = shared
                .read(call.clone(), backend.clone(), None, move |_, backend, cx| {
                    backend.volumes()?.list(cx, from.as_ref(), limit)
                })
                .await?;
            let more = volumes.len() == limit;
            for volume in volumes {
                let entry = Entry { volume: Some(shared.volume_to_wire(&backend, &volume)), status: None };
                if !page.add(entry, instance, volume.key) {
                    let (entries, next_token) = page.full();
                    return Ok(csi::ListVolumesResponse { entries, next_token });
                }
            }
            if !more {
                break;
            }
            from = page.last.as_ref().map(|token| token.after.clone());
        }
    }
    Ok(csi::ListVolumesResponse { entries: page.entries, next_token: String::new() })
}

/// A page of any list that goes by instances and keys.
pub(super) struct Page<E, K> {
    pub(super) entries: Vec<E>,
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
    pub(super) fn add(&mut self, entry: E, instance: &InstanceId, key: K) -> bool {
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
    pub(super) fn full(self) -> (Vec<E>, String) {
        let next_token = self.last.map(|token| token.to_string()).unwrap_or_default();
        (self.entries, next_token)
    }
}

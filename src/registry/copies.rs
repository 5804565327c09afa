//! The copies that backends make in the background: in the manifest of their plugin, and in the answers of calls for them.

use std::collections::HashMap;

use dunnage_driver_api::{CopyProgress, Error, InstanceId, SourceId, TargetKey};
use serde::{Deserialize, Serialize};

use super::backend::ServedBackend;

/// How a key of the manifest begins that tells of a copy; its id follows.
const COPY: &str = "copy ";
/// The most bytes that a map may have ("Size Limits" of the specification).
const MAP: usize = 4096;
/// The most characters that are told of an error.
const LINE: usize = 160;

/// A copy that is not whole yet, as the manifest tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackgroundCopy {
    /// `snapshot` or `volume`.
    pub kind: String,
    /// The name in the request.
    pub name: String,
    /// The id of what it is copied from.
    pub source: String,
    /// How many bytes were looked at.
    pub done: u64,
    /// How many there are.
    pub total: u64,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl BackgroundCopy {
    fn of(progress: &CopyProgress) -> Self {
        let cut = |error: &Error| error.report().chars().take(LINE).collect();
        Self {
            kind: progress.target.kind().into(),
            name: progress.name.clone(),
            source: match &progress.source {
                SourceId::Snapshot(id) => id.to_string(),
                SourceId::Volume(id) => id.to_string(),
            },
            done: progress.done.get(),
            total: progress.total.get(),
            error: progress.error.as_ref().map(cut),
        }
    }

    /// How far it is, and what keeps it from getting on.
    pub fn state(&self) -> String {
        let percent = (u128::from(self.done) * 100).checked_div(u128::from(self.total)).unwrap_or_default();
        match &self.error {
            Some(error) => format!("copying {percent} %, failing: {error}"),
            None => format!("copying {percent} %"),
        }
    }
}

/// Adds the copies of these backends to a manifest, as far as there is room; first those that fail.
pub(super) fn tell(backends: &[impl AsRef<ServedBackend>], manifest: &mut HashMap<String, String>) {
    let mut copies: Vec<_> = backends.iter().flat_map(|one| told(one.as_ref())).collect();
    copies.sort_by_key(|(_, copy)| copy.error.is_none());
    let mut size: usize = manifest.iter().map(|(key, value)| key.len() + value.len()).sum();
    for (key, copy) in copies {
        // A struct of texts and numbers has a JSON.
        let Ok(text) = serde_json::to_string(&copy) else { continue };
        if size + key.len() + text.len() <= MAP {
            size += key.len() + text.len();
            manifest.insert(key, text);
        }
    }
}

fn told(served: &ServedBackend) -> Vec<(String, BackgroundCopy)> {
    let Some(copying) = &served.backend.copying else { return Vec::new() };
    let key = |one: &CopyProgress| format!("{COPY}{}", id(&served.backend.instance, one));
    copying.copies().iter().map(|one| (key(one), BackgroundCopy::of(one))).collect()
}

fn id(instance: &InstanceId, copy: &CopyProgress) -> String {
    format!("{instance}.{}.{}", copy.target.key(), copy.generation)
}

/// The copies that a manifest tells of, by their ids.
pub fn copies_in(manifest: &HashMap<String, String>) -> HashMap<String, BackgroundCopy> {
    let copy = |(key, value): (&String, &String)| {
        let id = key.strip_prefix(COPY)?;
        serde_json::from_str(value).ok().map(|copy| (id.to_owned(), copy))
    };
    manifest.iter().filter_map(copy).collect()
}

impl ServedBackend {
    /// Why a copy in the background fails, if it does.
    pub(super) fn failure(&self, target: &TargetKey) -> Option<Error> {
        let copies = self.backend.copying.as_ref()?.copies();
        copies.into_iter().find(|copy| copy.target == *target)?.error
    }
}

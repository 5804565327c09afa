//! The copies that backends make in the background: in the manifest of their plugin, and in the answers of calls for them.

use std::collections::HashMap;
use std::sync::Arc;

use dunnage_driver_api::{Bytes, CopyProgress, Error, InstanceId, SnapshotId, SourceId, TargetKey, VolumeId};
use serde::{Deserialize, Serialize};

use super::backend::ServedBackend;

/// How a key of the manifest begins that tells of a copy; its id follows.
const COPY: &str = "copy ";
/// The key that says how many copies there was no room to tell of.
const UNTOLD: &str = "copies untold";
/// The most bytes that a map may have ("Size Limits" of the specification).
const MAP: usize = 4096;
/// What the last key may take of it, with a number of any length.
const LAST: usize = UNTOLD.len() + 20;
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
    /// The size that the volume will have; of a snapshot nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
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
            source: progress.source.to_string(),
            done: progress.done.get(),
            total: progress.total.get(),
            capacity: progress.capacity.map(Bytes::get),
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

/// Adds what these backends copy to a manifest, as far as there is room, first what fails; and how many more there are.
pub(super) fn tell(backends: &[Arc<ServedBackend>], manifest: &mut HashMap<String, String>) {
    let of = |served: &Arc<ServedBackend>| {
        let copies = served.backend.copying.as_ref().map(|copying| copying.copies()).unwrap_or_default();
        let instance = served.backend.instance.clone();
        copies.into_iter().map(move |copy| (id(&instance, &copy), BackgroundCopy::of(&copy))).collect::<Vec<_>>()
    };
    add(backends.iter().flat_map(of).collect(), manifest);
}

fn add(mut copies: Vec<(SourceId, BackgroundCopy)>, manifest: &mut HashMap<String, String>) {
    copies.sort_by_key(|(_, copy)| copy.error.is_none());
    let mut size: usize = manifest.iter().map(|(key, value)| key.len() + value.len()).sum();
    let mut untold = 0;
    for (id, copy) in copies {
        // A struct of texts and numbers has a JSON.
        let Ok(text) = serde_json::to_string(&copy) else { continue };
        let key = format!("{COPY}{id}");
        if size + key.len() + text.len() + LAST <= MAP {
            size += key.len() + text.len();
            manifest.insert(key, text);
        } else {
            untold += 1;
        }
    }
    if untold > 0 {
        manifest.insert(UNTOLD.into(), untold.to_string());
    }
}

fn id(instance: &InstanceId, copy: &CopyProgress) -> SourceId {
    let (instance, generation) = (instance.clone(), copy.generation.clone());
    match copy.target.clone() {
        TargetKey::Snapshot(key) => SourceId::Snapshot(SnapshotId { instance, key, generation }),
        TargetKey::Volume(key) => SourceId::Volume(VolumeId { instance, key, generation }),
    }
}

/// The copies that a manifest tells of, by their ids.
pub fn copies_in(manifest: &HashMap<String, String>) -> HashMap<String, BackgroundCopy> {
    let copy = |(key, value): (&String, &String)| {
        let id = key.strip_prefix(COPY)?;
        serde_json::from_str(value).ok().map(|copy| (id.to_owned(), copy))
    };
    manifest.iter().filter_map(copy).collect()
}

/// How many more copies there are than a manifest tells of.
pub fn untold_in(manifest: &HashMap<String, String>) -> u64 {
    manifest.get(UNTOLD).and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl ServedBackend {
    /// Why a copy in the background fails, if it does.
    pub(super) fn failure(&self, target: &TargetKey) -> Option<Error> {
        let copies = self.backend.copying.as_ref()?.copies();
        copies.into_iter().find(|copy| copy.target == *target)?.error
    }
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::{Generation, VolumeKey};

    use super::*;

    fn copy(name: &str) -> CopyProgress {
        let instance: InstanceId = "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap();
        let (key, generation) = (VolumeKey::of_name("source"), "266hue3m7ekdg".parse::<Generation>().unwrap());
        let source = SourceId::Volume(VolumeId { instance, key, generation: generation.clone() });
        let target = TargetKey::Volume(VolumeKey::of_name(name));
        let mut copy = CopyProgress::new(target, name.into(), generation, source, Bytes::new(300));
        (copy.done, copy.capacity) = (Bytes::new(100), Some(Bytes::new(400)));
        copy
    }

    fn manifest(copies: &[CopyProgress]) -> HashMap<String, String> {
        let mut manifest = HashMap::from([("mzxw6ytboimzxw6ytboimzxw6y".to_owned(), "disks".to_owned())]);
        let instance = "mzxw6ytboimzxw6ytboimzxw6y".parse().unwrap();
        add(copies.iter().map(|copy| (id(&instance, copy), BackgroundCopy::of(copy))).collect(), &mut manifest);
        manifest
    }

    #[test]
    fn a_copy_comes_through_the_manifest_with_how_far_it_is() {
        let found = copies_in(&manifest(&[copy("clone")]));
        let (id, told) = found.iter().next().unwrap();
        let id: VolumeId = id.parse().unwrap();
        assert_eq!((found.len(), id.key.as_str(), told.state().as_str()), (1, "clone", "copying 33 %"));
        assert_eq!((told.capacity, untold_in(&manifest(&[copy("clone")]))), (Some(400), 0));
        assert_eq!(told.source.parse::<VolumeId>().unwrap().key.as_str(), "source");
    }

    #[test]
    fn a_manifest_never_has_more_than_a_map_may_and_what_fails_is_told_first() {
        let mut copies: Vec<_> = (0..100).map(|number| copy(&format!("clone-{number}"))).collect();
        copies[77].error = Some(Error::internal("no ".repeat(1000)));
        let manifest = manifest(&copies);
        let size: usize = manifest.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(size <= MAP && size > MAP / 2, "{size}");
        let found = copies_in(&manifest);
        assert_eq!(found.len() as u64 + untold_in(&manifest), 100);
        let failing = found.values().find(|copy| copy.error.is_some()).expect("it is not told");
        assert!(failing.name == "clone-77" && failing.state().starts_with("copying 33 %, failing: no no"));
    }
}

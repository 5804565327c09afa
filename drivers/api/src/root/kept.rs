//! A volume as the index keeps it: a list of a hundred thousand must neither read as many files nor hold much memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::capacity::Bytes;
use crate::id::{Fingerprint, Generation, VolumeKey};
use crate::snapshot::SourceId;
use crate::volume::Volume;

/// A volume without its key, under which it is kept.
pub(super) struct Kept {
    pub(super) capacity: Bytes,
    /// The number of the generation.
    generation: u64,
    fingerprint: Arc<Fingerprint>,
    created: u64,
    rare: Option<Box<Rare>>,
}

/// What few volumes have: a name that is not the key itself, a context, a generation that is not the text of a number, a
/// source.
struct Rare {
    name: String,
    context: BTreeMap<String, String>,
    generation: Generation,
    source: Option<SourceId>,
}

/// The fingerprints of all volumes, each once: there are as many as storage classes, and not as volumes.
#[derive(Default)]
pub(super) struct Fingerprints(HashSet<Arc<Fingerprint>>);

impl Fingerprints {
    /// How many there may be before those of volumes that are gone are looked for.
    const FEW: usize = 64;

    fn share(&mut self, fingerprint: Fingerprint) -> Arc<Fingerprint> {
        if let Some(known) = self.0.get(&fingerprint) {
            return known.clone();
        }
        if self.0.len() >= Self::FEW && self.0.len().is_power_of_two() {
            self.0.retain(|fingerprint| Arc::strong_count(fingerprint) > 1);
        }
        let fingerprint = Arc::new(fingerprint);
        self.0.insert(fingerprint.clone());
        fingerprint
    }
}

impl Kept {
    pub(super) fn new(volume: Volume, fingerprints: &mut Fingerprints) -> Self {
        let Volume { key, name, generation, capacity, fingerprint, context, created, source } = volume;
        let number = generation.to_number().filter(|_| name == key.as_str() && context.is_empty() && source.is_none());
        let rare = if number.is_some() { None } else { Some(Box::new(Rare { name, context, generation, source })) };
        let (generation, fingerprint) = (number.unwrap_or_default(), fingerprints.share(fingerprint));
        Self { capacity, generation, fingerprint, created, rare }
    }

    /// The volume of this key again.
    pub(super) fn volume(&self, key: &VolumeKey) -> Volume {
        let (name, context, generation, source) = match &self.rare {
            Some(rare) => (rare.name.clone(), rare.context.clone(), rare.generation.clone(), rare.source.clone()),
            None => (key.as_str().to_owned(), BTreeMap::new(), Generation::from_number(self.generation), None),
        };
        Volume {
            key: key.clone(),
            name,
            generation,
            capacity: self.capacity,
            fingerprint: Fingerprint::clone(&self.fingerprint),
            context,
            created: self.created,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::CapacityRange;
    use crate::parameters::Parameters;
    use crate::volume::CreateVolume;

    fn volume(name: &str, class: &str) -> Volume {
        let fingerprint = Fingerprint::of(&BTreeMap::from([("class".into(), class.into())]));
        let request = CreateVolume::new(name, CapacityRange::default(), Vec::new(), Parameters::default(), fingerprint);
        request.volume(Bytes::new(7)).unwrap()
    }

    #[test]
    fn a_volume_comes_back_whole() {
        let mut fingerprints = Fingerprints::default();
        let with_context = Volume { context: [("a".into(), "b".into())].into(), ..volume("pvc-2", "x") };
        let with_uuid = Volume { generation: Generation::from_uuid([7; 16]), ..volume("pvc-3", "x") };
        for volume in [volume("pvc-1", "x"), volume("A name/that is no key", "x"), with_context, with_uuid] {
            assert_eq!(Kept::new(volume.clone(), &mut fingerprints).volume(&volume.key), volume);
        }
    }

    #[test]
    fn fingerprints_are_kept_once_each_and_not_for_ever() {
        let mut fingerprints = Fingerprints::default();
        let kept: Vec<_> = (0..10).map(|_| Kept::new(volume("a", "x"), &mut fingerprints)).collect();
        assert_eq!(fingerprints.0.len(), 1);
        (0..10_000).for_each(|class| drop(Kept::new(volume("a", &class.to_string()), &mut fingerprints)));
        assert!(fingerprints.0.len() <= 2 * Fingerprints::FEW, "{}", fingerprints.0.len());
        assert!(fingerprints.0.contains(&kept[0].fingerprint));
    }
}

//! Class parameters: whose each key is.

use std::collections::{BTreeMap, HashMap};

use dunnage_driver_api::{BackendName, ClaimNames, Error, FsType, Parameters, Result};

use super::limits::kept;

/// Prefixes of the keys that belong to the orchestrator. They tell who asks, not what for: two requests that differ
/// in them alone are the same.
const ORCHESTRATOR: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];
/// The one key of the orchestrator that says what is wanted.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
/// The keys of the orchestrator that tell whose claim a volume is for: each with its place in [`ClaimNames`].
const CLAIM: [&str; 2] = ["csi.storage.k8s.io/pvc/namespace", "csi.storage.k8s.io/pvc/name"];
/// The host's own key: which backend of a shared plugin is to have the volume.
const BACKEND: &str = "backend";

/// The parameters of a class, each where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassParameters {
    /// The backend that is to have the volume, where the request names one.
    pub backend: Option<BackendName>,
    /// The file system for capabilities that name none.
    pub fs_type: Option<FsType>,
    /// Whose claim the volume is for, where the orchestrator tells.
    pub claim: Option<ClaimNames>,
    /// The rest: the driver's.
    pub driver: Parameters,
}

impl ClassParameters {
    /// Parameters from the wire, at most 4 KiB.
    ///
    /// # Errors
    /// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) where they are too large, or a key of the
    /// host or of the orchestrator has a wrong value.
    pub fn from_wire(map: HashMap<String, String>) -> Result<Self> {
        kept("parameters", &map)?;
        let claim = CLAIM.map(|key| map.get(key).cloned());
        let claim = match claim {
            [Some(namespace), Some(name)] => Some(ClaimNames::new(namespace, name)),
            _ => None,
        };
        let mut sorted = Self { claim, ..Self::default() };
        let mut driver = BTreeMap::new();
        for (key, value) in map {
            if key == BACKEND {
                sorted.backend = Some(value.parse()?);
            } else if key == FS_TYPE {
                sorted.fs_type = Some(value.parse()?);
            } else if !is_orchestrators(&key) {
                driver.insert(key, value);
            }
        }
        sorted.driver = Parameters::new(driver);
        Ok(sorted)
    }
}

/// Parameters that can be changed, at most 4 KiB, without the keys of the orchestrator.
///
/// # Errors
/// [`InvalidArgument`](dunnage_driver_api::ErrorKind::InvalidArgument) where they are too large, or one is the host's.
pub(super) fn mutable(map: HashMap<String, String>) -> Result<Parameters> {
    kept("mutable_parameters", &map)?;
    if map.contains_key(BACKEND) {
        return Err(Error::invalid("the parameter \"backend\" cannot be changed: a volume stays where it was made"));
    }
    Ok(Parameters::new(map.into_iter().filter(|(key, _)| !is_orchestrators(key)).collect()))
}

/// Whether a key of a map belongs to the orchestrator.
pub(super) fn is_orchestrators(key: &str) -> bool {
    ORCHESTRATOR.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_goes_where_it_belongs() {
        let map = [
            ("backend", "warm"),
            ("csi.storage.k8s.io/fstype", "xfs"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "team"),
            ("storage.kubernetes.io/x", "y"),
            ("sparse", "true"),
        ];
        let sorted = ClassParameters::from_wire(map.map(|(k, v)| (k.into(), v.into())).into()).unwrap();
        assert_eq!(sorted.backend.unwrap().as_str(), "warm");
        assert_eq!(sorted.fs_type, Some(FsType::Xfs));
        assert_eq!(sorted.claim, Some(ClaimNames::new("team", "claim")));
        assert_eq!(sorted.driver.pairs().keys().collect::<Vec<_>>(), ["sparse"]);
    }
}

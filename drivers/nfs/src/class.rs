//! The class parameters.

use dunnage_driver_api::{CreateVolume, Error, Permissions, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::paths::VolumePath;

/// What a class may say of its volumes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Class {
    /// The folder of a volume below `volumes`, as `${pvc.namespace}/${pvc.name}`. Also `${name}`, the name in CreateVolume.
    pub folder: Option<String>,

    /// What becomes of the files of a volume that is deleted.
    pub on_delete: Option<OnDelete>,

    /// The permissions of a new volume.
    pub mode: Option<Permissions>,

    /// The user that a new volume belongs to.
    pub uid: Option<u32>,

    /// The group that a new volume belongs to.
    pub gid: Option<u32>,
}

/// What becomes of the files of a volume that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// They are removed.
    #[default]
    Delete,
    /// They stay in their place, whose name no new volume gets.
    Retain,
    /// They are moved below `archive`.
    Archive,
}

/// What stands between `${` and `}`.
const KNOWN: &str = "${pvc.namespace}, ${pvc.name} and ${name}";

impl Class {
    /// The path that the class gives a volume.
    ///
    /// # Errors
    /// InvalidArgument for a template that is none, for a claim that is not told, and for what cannot be a path.
    pub(crate) fn path(&self, request: &CreateVolume) -> Result<Option<VolumePath>> {
        self.folder
            .as_deref()
            .map(|template| filled(template, request).and_then(|text| VolumePath::new(&text)))
            .transpose()
    }
}

fn filled(template: &str, request: &CreateVolume) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            return Err(Error::invalid(format!("class parameter folder {template:?} has a `${{` without a `}}`")));
        };
        text.push_str(before);
        text.push_str(&value(template, name, request)?);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

/// A value is one name of the path, and never makes two of it.
fn value(template: &str, name: &str, request: &CreateVolume) -> Result<String> {
    let claim = || {
        request.claim.as_ref().ok_or_else(|| {
            Error::invalid(format!(
                "class parameter folder {template:?} needs the names of the claim, and the request has none: start the \
                 external-provisioner with --extra-create-metadata"
            ))
        })
    };
    let value = match name {
        "pvc.namespace" => &claim()?.namespace,
        "pvc.name" => &claim()?.name,
        "name" => &request.name,
        _ => {
            return Err(Error::invalid(format!(
                "class parameter folder {template:?} has ${{{name}}}, and there are {KNOWN}"
            )));
        }
    };
    if value.contains('/') || value.is_empty() {
        return Err(Error::invalid(format!("{value:?} for ${{{name}}} is not the name of one folder")));
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dunnage_driver_api::{CapacityRange, ClaimNames, Fingerprint, Parameters};
    use proptest::prelude::*;

    use super::*;

    fn request(name: &str, claim: Option<ClaimNames>) -> CreateVolume {
        let fingerprint = Fingerprint::of(&BTreeMap::new());
        let mut request =
            CreateVolume::new(name, CapacityRange::default(), Vec::new(), Parameters::default(), fingerprint);
        request.claim = claim;
        request
    }

    fn path(template: &str, claim: Option<ClaimNames>) -> Result<String> {
        let class = Class { folder: Some(template.into()), ..Class::default() };
        Ok(class.path(&request("pvc-1", claim))?.unwrap().to_string())
    }

    #[test]
    fn a_template_is_filled_with_the_names_of_the_claim() {
        let claim = Some(ClaimNames::new("team-a", "data.0"));
        assert_eq!(path("${pvc.namespace}/${pvc.name}", claim.clone()).unwrap(), "team-a/data.0");
        assert_eq!(path("k8s/${pvc.namespace}-${pvc.name}_${name}", claim).unwrap(), "k8s/team-a-data.0_pvc-1");
        assert_eq!(path("${name}", None).unwrap(), "pvc-1");
        assert!(Class::default().path(&request("pvc-1", None)).unwrap().is_none());
    }

    #[test]
    fn what_leaves_its_place_or_means_nothing_is_refused() {
        let claim = |namespace: &str, name: &str| Some(ClaimNames::new(namespace, name));
        for (template, claim, words) in [
            ("${pvc.namespace}/${pvc.name}", None, "--extra-create-metadata"),
            ("${pvc.namespace}/${pvc.name}", claim("..", "a"), "cannot be"),
            ("${pvc.namespace}/${pvc.name}", claim("a", "../b"), "not the name of one folder"),
            ("${pvc.name}", claim("a", ""), "not the name of one folder"),
            ("../${pvc.name}", claim("a", "b"), "cannot be"),
            ("/${pvc.name}", claim("a", "b"), "cannot be"),
            ("${pvc.name}/", claim("a", "b"), "cannot be"),
            ("${pvc.labels}", claim("a", "b"), "there are ${pvc.namespace}"),
            ("${pvc.name", claim("a", "b"), "without a `}`"),
            ("a b", None, "cannot be"),
            ("", None, "cannot be"),
        ] {
            let error = path(template, claim).unwrap_err().to_string();
            assert!(error.contains(words), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_claim_is_called_its_volume_stays_below_and_has_as_many_names_as_the_template(
            namespace in ".*", name in ".*",
        ) {
            if let Ok(path) = path("${pvc.namespace}/x-${pvc.name}", Some(ClaimNames::new(namespace, name))) {
                let names: Vec<_> = path.split('/').collect();
                prop_assert_eq!(names.len(), 2);
                prop_assert!(names.iter().all(|name| !name.starts_with('.') && !name.is_empty()));
            }
        }
    }
}

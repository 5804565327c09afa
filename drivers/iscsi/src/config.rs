//! The keys of a backend in the configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use dunnage_driver_api::{InstanceId, KeyError};
use schemars::JsonSchema;
use serde::Deserialize;

/// Volumes of a store on one node, used on all others by iSCSI; or logical units that exist already.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Iscsi {
    /// The IP address of the target: with a `store` that of its node, on which the kernel's target then listens.
    pub(crate) address: IpAddr,
    /// The TCP port of the target.
    #[serde(default = "port")]
    #[schemars(range(min = 1))]
    pub(crate) port: u16,
    /// The instance of the store, as `dunnage init` prints it on the store's node; all other nodes need it to know whose
    /// volumes they are asked for. Without a `store` it is any 26 characters of a-z and 2-7, and is needed everywhere.
    #[schemars(extend("pattern" = "^[a-z2-7]{26}$"))]
    pub(crate) instance: Option<String>,
    /// The folder, on the store's node, that keeps which nodes may use which volumes; marked by `dunnage init` while it is
    /// empty. Best on the disk of the store. With a `store` alone, and needed there.
    #[schemars(extend("pattern" = "^/"))]
    pub(crate) grants: Option<PathBuf>,
    /// Whether a node must prove by CHAP who it is, with the secrets of ControllerPublishVolume and NodeStageVolume. Without
    /// it a secret is used where a request brings one.
    #[serde(default)]
    pub(crate) chap: ChapPolicy,
    /// For how many seconds reads and writes wait for a target that is gone before they fail.
    #[serde(default = "loss_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub(crate) loss_seconds: u32,
    /// After how many seconds of silence the target is thought to be gone.
    #[serde(default = "keep_alive_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub(crate) keep_alive_seconds: u32,
}

/// Whether nodes prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChapPolicy {
    /// Where a request brings a secret.
    #[default]
    Offered,
    /// Always: a request without a secret is refused.
    Required,
}

fn port() -> u16 {
    3260
}

fn loss_seconds() -> u32 {
    600
}

fn keep_alive_seconds() -> u32 {
    5
}

impl Iscsi {
    /// Whether the keys go together, and are within their bounds.
    ///
    /// # Errors
    /// What is wrong, and the key.
    pub(crate) fn keys_together(&self, has_store: bool) -> Result<(), KeyError> {
        let wrong = |key: &str, message: String| {
            let pointer = if key.is_empty() { String::new() } else { format!("/{key}") };
            Err(KeyError { pointer, message })
        };
        if self.address.is_unspecified() || self.address.is_multicast() {
            return wrong("address", format!("{} is no address that other nodes can reach", self.address));
        }
        for (key, value, least, most) in [
            ("port", u32::from(self.port), 1, 65535),
            ("loss_seconds", self.loss_seconds, 1, 86400),
            ("keep_alive_seconds", self.keep_alive_seconds, 1, 600),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(key, format!("{key} {value} is not from {least} to {most}"));
            }
        }
        if let Some(text) = &self.instance
            && let Err(error) = text.parse::<InstanceId>()
        {
            return wrong("instance", error.to_string());
        }
        match (&self.grants, has_store) {
            (Some(_), false) => {
                wrong("grants", "grants has no meaning without a store: leave it out, or add the key store".into())
            }
            (None, true) => wrong("", "missing key `grants`: a folder on the store's node".into()),
            (Some(path), true) if !path.is_absolute() => {
                wrong("grants", format!("grants {path:?} is not an absolute path: begin it with /"))
            }
            (None, false) if self.instance.is_none() => wrong(
                "",
                "missing key `instance`: without a store it is any 26 characters of a-z and 2-7, or add the key `store`"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    /// The instance that the configuration names.
    pub(crate) fn instance(&self) -> Option<InstanceId> {
        self.instance.as_ref().and_then(|text| text.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str, has_store: bool) -> Result<Iscsi, String> {
        let config: Iscsi = serde_json::from_str(keys).map_err(|error| error.to_string())?;
        config.keys_together(has_store).map_err(|error| format!("{} {}", error.pointer, error.message))?;
        Ok(config)
    }

    #[test]
    fn an_address_and_a_folder_are_all_that_must_be_said_of_a_store() {
        let config = read(r#"{"address": "10.0.0.1", "grants": "/srv/grants"}"#, true).unwrap();
        assert_eq!((config.port, config.loss_seconds, config.keep_alive_seconds), (3260, 600, 5));
        assert_eq!(config.chap, ChapPolicy::Offered);
        let instance = "a".repeat(26);
        let without = read(&format!(r#"{{"address": "fd00::1", "instance": "{instance}"}}"#), false).unwrap();
        assert_eq!(without.instance().unwrap().as_str(), instance);
    }

    #[test]
    fn wrong_keys_are_refused_with_the_key() {
        for (keys, has_store, said) in [
            (r#""address": "storage.example.com", "grants": "/g""#, true, "IP address"),
            (r#""address": "0.0.0.0", "grants": "/g""#, true, "/address "),
            (r#""address": "10.0.0.1""#, true, " missing key `grants`"),
            (r#""address": "10.0.0.1", "grants": "g""#, true, "/grants "),
            (r#""address": "10.0.0.1", "grants": "/g""#, false, "/grants "),
            (r#""address": "10.0.0.1""#, false, " missing key `instance`"),
            (r#""address": "10.0.0.1", "instance": "x""#, false, "/instance "),
            (r#""address": "10.0.0.1", "grants": "/g", "port": 0"#, true, "/port port 0"),
            (r#""address": "10.0.0.1", "grants": "/g", "loss_seconds": 0"#, true, "/loss_seconds "),
            (r#""address": "10.0.0.1", "grants": "/g", "chap": "yes""#, true, "required"),
            (r#""address": "10.0.0.1", "grants": "/g", "nqn": "x""#, true, "nqn"),
        ] {
            let error = read(&format!("{{{keys}}}"), has_store).unwrap_err();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(Iscsi)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"].as_object().unwrap().len(), 7);
    }
}

//! The keys of the configuration.

use dunnage_driver_api::{KeyError, Permissions};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::class::OnDelete;

/// Folders of an NFS export.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nfs {
    /// The server: a name, or an IP address.
    #[schemars(length(min = 1))]
    pub server: String,

    /// The folder on the server that holds everything, as clients mount it: absolute, and empty when it is first used.
    #[schemars(extend("pattern" = "^/"))]
    pub export: String,

    /// How the size of a volume is enforced. It must be said: NFS has no way, so that any volume can fill the export.
    #[schemars(required)]
    pub quota: Option<Quota>,

    /// The version of NFS.
    #[serde(default)]
    pub version: Version,

    /// The port of the server.
    #[serde(default = "port")]
    pub port: u16,

    /// Mount options of all volumes, in the words of nfs(5): `nconnect=4`, `timeo=300`. A class adds its own in
    /// `mountOptions`.
    #[serde(default)]
    pub options: Vec<String>,

    /// The permissions of a new volume, octal and in quotes. The default, "0777", lets every pod write, whatever user it
    /// runs as. A class may say another.
    #[serde(default)]
    pub mode: Permissions,

    /// What becomes of the files of a volume that is deleted. A class may say otherwise.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// How the size of a volume is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// Not at all: any volume can fill the export.
    None,
}

/// A version of NFS whose sessions let no call be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum Version {
    /// 4.1.
    #[serde(rename = "4.1")]
    V4_1,
    /// 4.2.
    #[default]
    #[serde(rename = "4.2")]
    V4_2,
}

fn port() -> u16 {
    2049
}

/// Options of which every mount of one server has its own: the kernel makes another file system where they differ.
pub(crate) const OF_A_MOUNT: &[&str] = &[
    "ac",
    "noac",
    "acdirmax",
    "acdirmin",
    "acregmax",
    "acregmin",
    "actimeo",
    "cto",
    "nocto",
    "hard",
    "soft",
    "softerr",
    "softreval",
    "nosoftreval",
    "lookupcache",
    "rdirplus",
    "nordirplus",
    "rsize",
    "wsize",
    "sharecache",
    "nosharecache",
];
/// Options that mounts of one export share, which the first one sets.
const OF_AN_EXPORT: &[&str] = &["retrans", "timeo"];
/// Options of the connections to a server.
const OF_A_CONNECTION: &[&str] = &["max_connect", "nconnect", "noresvport", "resvport"];

impl Nfs {
    pub(crate) fn check(&self) -> Result<(), KeyError> {
        let wrong = |key: &str, message: String| Err(KeyError { pointer: format!("/{key}"), message });
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
        if self.server.is_empty() || !self.server.chars().all(is_host) {
            return wrong("server", format!("server {:?} is neither a name nor an IP address", self.server));
        }
        let climbs = self.export.split('/').any(|part| part == "." || part == "..");
        if !self.export.starts_with('/') || climbs || self.export.chars().any(char::is_control) {
            return wrong(
                "export",
                format!("export {:?} is not an absolute path: begin it with /, without . and ..", self.export),
            );
        }
        if self.quota.is_none() {
            let message =
                "missing key `quota`: say `quota: none`, since NFS has no way to enforce the sizes of volumes";
            return wrong("", message.to_owned()).map_err(|error| KeyError { pointer: String::new(), ..error });
        }
        for (index, option) in self.options.iter().enumerate() {
            let key = key(option);
            if ![OF_A_MOUNT, OF_AN_EXPORT, OF_A_CONNECTION].concat().contains(&key) || option.contains([',', '\0']) {
                return wrong(
                    &format!("options/{index}"),
                    format!(
                        "option {key:?} is none of {}; each is an entry of its own",
                        [OF_A_MOUNT, OF_AN_EXPORT, OF_A_CONNECTION].concat().join(", ")
                    ),
                );
            }
        }
        Ok(())
    }

    /// The options of the connections, which the first mount of a server sets for all.
    pub(crate) fn connection_options(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(String::as_str).filter(|option| OF_A_CONNECTION.contains(&key(option)))
    }
}

fn key(option: &str) -> &str {
    option.split_once('=').map_or(option, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: &str) -> Result<(), String> {
        let mut value = serde_json::json!({"server": "nas.example.com", "export": "/srv/pods", "quota": "none"});
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (key, new) in change.as_object().unwrap() {
            value[key] = new.clone();
        }
        let nfs: Nfs = serde_json::from_value(value).map_err(|error| error.to_string())?;
        nfs.check().map_err(|error| format!("{}: {}", error.pointer, error.message))
    }

    #[test]
    fn keys_that_can_never_work_are_refused_where_they_stand() {
        checked("{}").unwrap();
        checked(r#"{"server": "fe80::1%eth0", "version": "4.1", "options": ["nconnect=4", "soft"]}"#).unwrap();
        for (change, words) in [
            (r#"{"server": "a/b"}"#, "/server: "),
            (r#"{"server": ""}"#, "/server: "),
            (r#"{"export": "srv"}"#, "/export: "),
            (r#"{"export": "/srv/../etc"}"#, "/export: "),
            (r#"{"quota": null}"#, "missing key `quota`"),
            (r#"{"options": ["hard", "sec=krb5"]}"#, "/options/1: option \"sec\""),
            (r#"{"options": ["sloppy"]}"#, "/options/0: "),
            (r#"{"options": ["hard,soft"]}"#, "/options/0: "),
            (r#"{"version": "3"}"#, "unknown variant"),
        ] {
            let error = checked(change).unwrap_err();
            assert!(error.contains(words), "{change}: {error}");
        }
    }
}

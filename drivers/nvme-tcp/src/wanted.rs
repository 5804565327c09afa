//! Which namespace a volume is, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dunnage_driver_api::{Error, ErrorKind, ExportId, Result, SourceRequest};
use serde::{Deserialize, Serialize};

use crate::config::NvmeTcp;
use crate::names::{self, Uuid};

/// The keys of the contexts.
pub(crate) const ADDRESS: &str = "address";
pub(crate) const PORT: &str = "port";
const NQN: &str = "nqn";
const UUID: &str = "uuid";
const NGUID: &str = "nguid";

/// Which namespace a volume is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The subsystem.
    pub(crate) nqn: String,
    /// The namespace in it.
    pub(crate) namespace: NamespaceId,
    /// The target.
    pub(crate) target: SocketAddr,
}

/// What tells a namespace from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceId {
    Uuid(Uuid),
    Nguid(Uuid),
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "UUID {uuid}"),
            Self::Nguid(nguid) => write!(f, "NGUID {}", nguid.hex()),
        }
    }
}

impl Wanted {
    /// What a request wants: the export of its attachment, or, of a volume that exists already, what its context says.
    pub(crate) fn new(config: &NvmeTcp, request: &SourceRequest<'_>) -> Result<Self> {
        match request.attachment() {
            Some(word) => {
                let word = word
                    .parse()
                    .map_err(|error| Error::invalid("publish_context has no attachment of ours").caused_by(error))?;
                let id = ExportId { volume: request.volume.clone(), word };
                let (nqn, namespace) = (names::subsystem(&id), NamespaceId::Uuid(names::namespace(&id)));
                Ok(Self { nqn, namespace, target: target(config, request.publish_context)? })
            }
            None if request.volume_context.contains_key(NQN) => Self::of_existing(config, request.volume_context),
            None => Err(Error::precondition(
                "the volume is not attached to this node: its publish_context is that of no ControllerPublishVolume, and \
                 its volume_context names no `nqn`",
            )),
        }
    }

    fn of_existing(config: &NvmeTcp, context: &BTreeMap<String, String>) -> Result<Self> {
        for name in context.keys() {
            if ![NQN, UUID, NGUID, ADDRESS, PORT].contains(&name.as_str()) {
                return Err(Error::invalid(format!(
                    "volume_context has {name:?}: there are {NQN}, {UUID} or {NGUID}, {ADDRESS}, {PORT}"
                )));
            }
        }
        let nqn = context.get(NQN).cloned().unwrap_or_default();
        if !names::is_nqn(&nqn) {
            return Err(Error::invalid(format!("{NQN} {nqn:?} in volume_context is no NVMe qualified name")));
        }
        let namespace = match (context.get(UUID), context.get(NGUID)) {
            (Some(uuid), None) => NamespaceId::Uuid(uuid.parse()?),
            (None, Some(nguid)) => NamespaceId::Nguid(nguid.parse()?),
            _ => {
                return Err(Error::invalid(format!(
                    "volume_context must have one of {UUID} and {NGUID}: by it the namespace is known before it is used"
                )));
            }
        };
        Ok(Self { nqn, namespace, target: target(config, context)? })
    }
}

/// Where a context says that the target is, or the configuration.
fn target(config: &NvmeTcp, context: &BTreeMap<String, String>) -> Result<SocketAddr> {
    let wrong = |key: &str, text: &str| {
        Error::new(ErrorKind::InvalidArgument, format!("{key} {text:?} of the context is wrong: it must be a number"))
    };
    let address: Option<IpAddr> =
        context.get(ADDRESS).map(|text| text.parse().map_err(|_| wrong(ADDRESS, text))).transpose()?;
    let port = context.get(PORT).map(|text| text.parse().map_err(|_| wrong(PORT, text))).transpose()?;
    Ok(SocketAddr::new(address.unwrap_or(config.address), port.unwrap_or(config.port)))
}

#[cfg(test)]
mod tests {
    use dunnage_driver_api::{Attachment, VolumeId};

    use super::*;

    fn wanted(volume_context: &[(&str, &str)], publish_context: &[(&str, &str)]) -> Result<Wanted> {
        let config: NvmeTcp = serde_json::from_str(r#"{"address": "10.0.0.1"}"#).unwrap();
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let volume: VolumeId = format!("{}.v.static", "a".repeat(26)).parse().unwrap();
        let (volume_context, publish_context) = (map(volume_context), map(publish_context));
        let keep = |_: &_| Ok(());
        let request = SourceRequest::new(&volume, &keep).with_contexts(&volume_context, &publish_context);
        Wanted::new(&config, &request)
    }

    #[test]
    fn an_attachment_names_the_subsystem_and_the_namespace() {
        let one = wanted(&[], &[(Attachment::WORD, "aaaa"), (ADDRESS, "fd00::1"), (PORT, "4421")]).unwrap();
        let other = wanted(&[], &[(Attachment::WORD, "bbbb")]).unwrap();
        assert_eq!(
            (one.target.to_string(), other.target.to_string()),
            ("[fd00::1]:4421".into(), "10.0.0.1:4420".into())
        );
        assert!(one.nqn.ends_with(".v.static.aaaa") && one.nqn != other.nqn && one.namespace != other.namespace);
    }

    #[test]
    fn a_volume_that_exists_is_named_by_its_context() {
        let (nqn, uuid) = ("nqn.2014-08.com.example:array", "12345678-1234-1234-1234-123456789abc");
        let found = wanted(&[(NQN, nqn), (UUID, uuid)], &[]).unwrap();
        assert_eq!((found.nqn.as_str(), found.namespace), (nqn, NamespaceId::Uuid(uuid.parse().unwrap())));
        let found = wanted(&[(NQN, nqn), (NGUID, uuid), (ADDRESS, "10.0.0.9")], &[]).unwrap();
        assert!(matches!(found.namespace, NamespaceId::Nguid(_)) && found.target.to_string() == "10.0.0.9:4420");
        for (context, words) in [
            (&[][..], "not attached to this node"),
            (&[(NQN, nqn)], "one of uuid and nguid"),
            (&[(NQN, nqn), (UUID, uuid), (NGUID, uuid)], "one of uuid and nguid"),
            (&[(NQN, nqn), (UUID, "x")], "is no UUID"),
            (&[(NQN, "iqn.x"), (UUID, uuid)], "no NVMe qualified name"),
            (&[(NQN, nqn), (UUID, uuid), ("host", "x")], "\"host\""),
            (&[(NQN, nqn), (UUID, uuid), (ADDRESS, "a.example.com")], "a.example.com"),
            (&[(NQN, nqn), (UUID, uuid), (PORT, "70000")], "70000"),
        ] {
            let error = wanted(context, &[]).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

//! Which logical unit a volume is, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dunnage_driver_api::{Error, ExportId, Result, SourceRequest};
use serde::{Deserialize, Serialize};

use crate::config::Iscsi;
use crate::names;

/// The keys of the contexts.
pub(crate) const ADDRESS: &str = "address";
pub(crate) const PORT: &str = "port";
const IQN: &str = "iqn";
const LUN: &str = "lun";
const SERIAL: &str = "serial";
const WWID: &str = "wwid";

/// Which logical unit a volume is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The target.
    pub(crate) iqn: String,
    /// The number of the unit.
    pub(crate) lun: u64,
    /// What tells the unit from all others.
    pub(crate) unit: UnitId,
    /// Where the target is.
    pub(crate) portal: SocketAddr,
}

/// A unit that this node has logged in for: what undoes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggedIn {
    /// The target.
    pub(crate) iqn: String,
    /// The number of the unit.
    pub(crate) lun: u64,
    /// What tells it from all others.
    pub(crate) unit: UnitId,
}

impl From<&Wanted> for LoggedIn {
    fn from(wanted: &Wanted) -> Self {
        Self { iqn: wanted.iqn.clone(), lun: wanted.lun, unit: wanted.unit.clone() }
    }
}

/// What a unit says of itself, in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnitId {
    /// VPD page 0x80.
    Serial(String),
    /// VPD page 0x83: `naa.…`, `eui.…`.
    Wwid(String),
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Serial(text) | Self::Wwid(text)) = self;
        f.write_str(text)
    }
}

impl Wanted {
    /// What a request wants: the export of its attachment, or, of a volume that exists already, what its context says.
    pub(crate) fn new(config: &Iscsi, request: &SourceRequest<'_>) -> Result<Self> {
        match request.attachment() {
            Some(word) => {
                let word = word
                    .parse()
                    .map_err(|error| Error::invalid("publish_context has no attachment of ours").caused_by(error))?;
                let id = ExportId { volume: request.volume.clone(), word };
                let (iqn, unit) = (names::target(&id), UnitId::Serial(names::serial(&id)));
                Ok(Self { iqn, lun: 0, unit, portal: portal(config, request.publish_context)? })
            }
            None if request.volume_context.contains_key(IQN) => Self::of_existing(config, request.volume_context),
            None => Err(Error::precondition(
                "the volume is not attached to this node: its publish_context is that of no ControllerPublishVolume, and \
                 its volume_context names no `iqn`",
            )),
        }
    }

    fn of_existing(config: &Iscsi, context: &BTreeMap<String, String>) -> Result<Self> {
        let known = [IQN, LUN, SERIAL, WWID, ADDRESS, PORT];
        if let Some(name) = context.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "volume_context has {name:?}: there are {IQN}, {LUN}, {SERIAL} or {WWID}, {ADDRESS}, {PORT}"
            )));
        }
        let iqn = context.get(IQN).cloned().unwrap_or_default();
        if !names::is_name(&iqn) {
            return Err(Error::invalid(format!("{IQN} {iqn:?} in volume_context is no iSCSI name")));
        }
        let lun = context.get(LUN).map_or(Ok(0), |text| text.parse::<u16>().map_err(|_| wrong(LUN, text)))?;
        let unit = match (context.get(SERIAL), context.get(WWID)) {
            (Some(serial), None) if !serial.trim().is_empty() => UnitId::Serial(serial.trim().to_owned()),
            (None, Some(wwid)) if wwid.starts_with("naa.") || wwid.starts_with("eui.") => UnitId::Wwid(wwid.to_owned()),
            _ => {
                return Err(Error::invalid(format!(
                    "volume_context must have one of {SERIAL} and {WWID} (naa.… or eui.…): by it the unit is known before \
                     it is used"
                )));
            }
        };
        Ok(Self { iqn, lun: u64::from(lun), unit, portal: portal(config, context)? })
    }
}

fn wrong(key: &str, text: &str) -> Error {
    Error::invalid(format!("{key} {text:?} of the context is wrong: it must be a number"))
}

/// Where a context says that the target is, or the configuration.
fn portal(config: &Iscsi, context: &BTreeMap<String, String>) -> Result<SocketAddr> {
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
        let config: Iscsi = serde_json::from_str(r#"{"address": "10.0.0.1"}"#).unwrap();
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let volume: VolumeId = format!("{}.v.static", "a".repeat(26)).parse().unwrap();
        let (volume_context, publish_context) = (map(volume_context), map(publish_context));
        let keep = |_: &_| Ok(());
        let request = SourceRequest::new(&volume, &keep).with_contexts(&volume_context, &publish_context);
        Wanted::new(&config, &request)
    }

    #[test]
    fn an_attachment_names_the_target_and_the_unit() {
        let one = wanted(&[], &[(Attachment::WORD, "aaaa"), (ADDRESS, "fd00::1"), (PORT, "3261")]).unwrap();
        let other = wanted(&[], &[(Attachment::WORD, "bbbb")]).unwrap();
        assert_eq!(
            (one.portal.to_string(), other.portal.to_string()),
            ("[fd00::1]:3261".into(), "10.0.0.1:3260".into())
        );
        assert!(one.iqn.ends_with(".v.static.aaaa") && one.iqn != other.iqn && one.unit != other.unit);
    }

    #[test]
    fn a_volume_that_exists_is_named_by_its_context() {
        let iqn = "iqn.2014-08.com.example:array";
        let found = wanted(&[(IQN, iqn), (LUN, "7"), (SERIAL, " a1 ")], &[]).unwrap();
        assert_eq!((found.iqn.as_str(), found.lun, found.unit), (iqn, 7, UnitId::Serial("a1".into())));
        let found = wanted(&[(IQN, iqn), (WWID, "naa.6001405"), (ADDRESS, "10.0.0.9")], &[]).unwrap();
        assert!(matches!(found.unit, UnitId::Wwid(_)) && found.portal.to_string() == "10.0.0.9:3260");
        for (context, words) in [
            (&[][..], "not attached to this node"),
            (&[(IQN, iqn)], "one of serial and wwid"),
            (&[(IQN, iqn), (SERIAL, "a"), (WWID, "naa.6")], "one of serial and wwid"),
            (&[(IQN, iqn), (WWID, "6001405")], "one of serial and wwid"),
            (&[(IQN, "nqn.x"), (SERIAL, "a")], "no iSCSI name"),
            (&[(IQN, iqn), (SERIAL, "a"), (LUN, "x")], "\"x\""),
            (&[(IQN, iqn), (SERIAL, "a"), ("host", "x")], "\"host\""),
            (&[(IQN, iqn), (SERIAL, "a"), (ADDRESS, "a.example.com")], "a.example.com"),
            (&[(IQN, iqn), (SERIAL, "a"), (PORT, "70000")], "70000"),
        ] {
            let error = wanted(context, &[]).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

//! Sizes as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};

use super::Bytes;
use crate::error::{Error, Result};

const FORM: &str = "a whole number of bytes, or one with a unit: 512MiB, 10GiB, 1TB";

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no size: write {FORM}"));
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor = factor(unit.strip_prefix(' ').unwrap_or(unit)).ok_or_else(wrong)?;
        number
            .checked_mul(factor)
            .and_then(|bytes| Self::try_from(bytes).ok())
            .ok_or_else(|| Error::invalid(format!("{text:?} is more than CSI can say (2^63 - 1 bytes)")))
    }
}

/// The bytes of a unit: powers of 1024 with an `i` (IEC), of 1000 without (SI). The `B` may be left out.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    let (prefix, base): (_, u64) = match unit.strip_suffix('i') {
        Some(prefix) => (prefix, 1024),
        None => (unit, 1000),
    };
    let power = match prefix {
        "" if base == 1000 => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        "E" => 6,
        _ => return None,
    };
    base.checked_pow(power)
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORM)
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Bytes, E> {
        Bytes::try_from(bytes).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Bytes, E> {
        u64::try_from(bytes).map_err(|_| E::custom(format_args!("{bytes} is no size: write {FORM}"))).map(Bytes)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: a whole number of bytes, or one with a unit.",
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9]+ ?(([KkMGTPE]i?)?B?)$",
            "examples": ["10GiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit() {
        let sizes = [
            ("0", 0),
            ("1B", 1),
            ("10GiB", 10 << 30),
            ("10 GiB", 10 << 30),
            ("10Gi", 10 << 30),
            ("2kB", 2000),
            ("2K", 2000),
            ("2KiB", 2048),
            ("7EiB", 7 << 60),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), bytes, "{text}");
            assert_eq!(serde_json::from_value::<Bytes>(text.into()).unwrap().get(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5GiB", "1  GiB", "1iB", "1gib", "8EiB", "99999999999999999999", "1GiBx", "+1"]
        {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        for value in [serde_json::json!(-1), serde_json::json!(1.5), serde_json::json!(u64::MAX), serde_json::json!([])]
        {
            assert!(serde_json::from_value::<Bytes>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn what_a_record_says_is_read_back() {
        let written = serde_json::to_value(Bytes::MAX).unwrap();
        assert_eq!(serde_json::from_value::<Bytes>(written).unwrap(), Bytes::MAX);
    }
}

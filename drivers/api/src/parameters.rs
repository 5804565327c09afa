//! Parameters of a class, of volumes or of snapshots: its strings as a type of the driver's.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_path_to_error::Segment;

use crate::error::{Error, Result};
use crate::key::in_words;
use crate::text::Quoted;

/// The parameters of a request, without the keys that belong to the orchestrator or to the host. The driver
/// reads them as a type of its own, which should deny unknown fields.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Parameters(BTreeMap<String, String>);

/// Shows the names alone: values come from whoever may write a class.
impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Parameters {
    /// Parameters as they came.
    pub fn new(pairs: BTreeMap<String, String>) -> Self {
        Self(pairs)
    }

    /// The pairs in the order of their names.
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The parameters as `T`. Strings, numbers, booleans, unit enums and options of them are read from their text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) that names the parameter and what is allowed.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let pairs = self.0.iter().map(|(name, value)| (name.as_str(), Text(value)));
        let pairs = MapDeserializer::<_, serde::de::value::Error>::new(pairs);
        serde_path_to_error::deserialize(pairs).map_err(|error| {
            let message = in_words(&error.inner().to_string(), "parameter");
            match error.path().iter().next() {
                Some(Segment::Map { key }) if self.0.contains_key(key) && !message.contains(&format!("`{key}`")) => {
                    Error::invalid(format!("parameter `{key}`: {message}"))
                }
                _ => Error::invalid(message),
            }
        })
    }
}

/// What parameters a backend takes: how they are checked before a driver is called, and how they are documented.
#[derive(Clone)]
pub struct ParameterType {
    check: fn(&Parameters) -> Result<()>,
    schema: fn() -> Schema,
}

impl ParameterType {
    /// Parameters that are read as `T`.
    pub fn of<T: DeserializeOwned + JsonSchema>() -> Self {
        Self { check: |parameters| parameters.parse::<T>().map(drop), schema: || schemars::schema_for!(T) }
    }

    /// Whether these parameters can be read.
    ///
    /// # Errors
    /// As [`Parameters::parse`].
    pub fn check(&self, parameters: &Parameters) -> Result<()> {
        (self.check)(parameters)
    }

    /// Whether there is a parameter of this name. A type that takes any takes this one too.
    pub fn has(&self, name: &str) -> bool {
        let schema = self.schema();
        let closed = schema.get("additionalProperties").is_some_and(|more| more == false);
        !closed || schema.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// Their JSON Schema.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }
}

/// The type of a backend that takes no class parameter.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// One value, read as whatever type the field has.
struct Text<'a>(&'a str);

impl<'de> IntoDeserializer<'de> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Text<'_> {
    fn read<T: std::str::FromStr>(&self, what: &str) -> Result<T, serde::de::value::Error> {
        self.0.parse().map_err(|_| serde::de::Error::custom(format_args!("{} is not {what}", Quoted(self.0))))
    }
}

macro_rules! numbers {
    ($($method:ident => $visit:ident $what:literal),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.$visit(self.read($what)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        IntoDeserializer::<Self::Error>::into_deserializer(self.0).deserialize_enum(name, variants, visitor)
    }

    numbers! {
        deserialize_bool => visit_bool "true or false",
        deserialize_u8 => visit_u8 "a number from 0 to 255",
        deserialize_u16 => visit_u16 "a number from 0 to 65535",
        deserialize_u32 => visit_u32 "a whole number",
        deserialize_u64 => visit_u64 "a whole number",
        deserialize_i64 => visit_i64 "a whole number",
        deserialize_f64 => visit_f64 "a number"
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Class {
        sparse: bool,
        replicas: Option<u32>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Thin,
        Thick,
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Class> {
        Parameters::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()).parse()
    }

    #[test]
    fn strings_become_the_types_of_the_fields() {
        assert_eq!(
            parse(&[("sparse", "true"), ("replicas", "3"), ("kind", "thin")]).unwrap(),
            Class { sparse: true, replicas: Some(3), kind: Kind::Thin }
        );
    }

    #[test]
    fn a_type_knows_the_names_of_its_parameters() {
        let class = ParameterType::of::<Class>();
        assert!(class.has("replicas") && !class.has("colour"));
        assert!(!ParameterType::of::<NoParameters>().has("replicas"));
        assert!(ParameterType::of::<BTreeMap<String, String>>().has("anything"));
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_with_what_is_allowed() {
        for (pairs, words) in [
            (
                &[("kind", "thin"), ("sparse", "true"), ("colour", "red")][..],
                "unknown parameter `colour`, expected one of",
            ),
            (&[("kind", "thin"), ("sparse", "yes")], "parameter `sparse`: \"yes\" is not true or false"),
            (
                &[("kind", "fat"), ("sparse", "true")],
                "parameter `kind`: unknown value `fat`, expected `thin` or `thick`",
            ),
            (&[("sparse", "true")], "missing parameter `kind`"),
        ] {
            let error = parse(pairs).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

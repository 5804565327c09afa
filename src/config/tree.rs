//! The file as a tree that knows where each key and value stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{ConfigError, Place};

/// How deep lists and maps may lie in each other. A file needs about five levels.
const MAX_DEPTH: usize = 24;

/// A value of the file.
#[derive(Debug)]
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// The whole file.
#[derive(Debug)]
pub(super) struct Document(Spanned<Tree>);

impl Document {
    /// Reads YAML.
    ///
    /// # Errors
    /// Where it is no YAML, has more than one document, a key twice in one place, or is a bomb of aliases.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let options = serde_saphyr::options! {
            // YAML 1.1 takes `no` for false and 0755 for 493; what is written without quotes stays what it looks like.
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            // Reading recurses, and no stack is endless: tens of KiB a level in a debug build.
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, flow_nesting_limit: MAX_DEPTH },
        };
        serde_saphyr::from_str_with_options(text, options).map(Self).map_err(|error| {
            let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
            ConfigError::new(place, UserMessageFormatter.format_message(error.without_snippet()))
        })
    }

    /// The same without places.
    pub(super) fn value(&self) -> Value {
        value(&self.0.value)
    }

    /// Where what a JSON Pointer names stands: the key in a map, the item in a list. What is not there is where it is
    /// missing.
    pub(super) fn place(&self, pointer: &str) -> Place {
        let mut node = &self.0;
        let mut place = start(node);
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Tree::Map(entries) => entries.iter().find(|(key, _)| key.value == step).map(|(key, next)| {
                    place = start(key);
                    next
                }),
                Tree::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)).inspect(|item| {
                    place = start(item);
                }),
                Tree::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        place
    }
}

fn start<T>(node: &Spanned<T>) -> Place {
    Place { line: node.referenced.line(), column: node.referenced.column() }
}

fn value(tree: &Tree) -> Value {
    match tree {
        Tree::Scalar(scalar) => scalar.clone(),
        Tree::List(items) => items.iter().map(|item| value(&item.value)).collect(),
        Tree::Map(entries) => entries.iter().map(|(key, item)| (key.value.clone(), value(&item.value))).collect(),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyTree)
    }
}

struct AnyTree;

macro_rules! scalars {
    ($($method:ident $type:ty),*) => {
        $(fn $method<E>(self, scalar: $type) -> Result<Tree, E> {
            Ok(Tree::Scalar(scalar.into()))
        })*
    };
}

impl<'de> Visitor<'de> for AnyTree {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars!(visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

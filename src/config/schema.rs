//! The JSON Schema of the file, with the keys of every driver that is compiled in.

use dunnage_driver_api::{DriverEntry, Role};
use serde_json::{Map, Value, json};

use super::file::{BackendKeys, File};

/// The key of a carrying driver's backend that has the store.
pub(super) const STORE: &str = "store";

/// The JSON Schema (2020-12) of a configuration file with these drivers.
pub fn schema(drivers: &[DriverEntry]) -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    let mut host = remove(&mut schema, &["$defs", "BackendKeys"]);
    remove(&mut host, &["properties", "driver"]);
    let carving: Vec<_> = drivers.iter().filter(|driver| driver.role == Role::Carving).collect();
    for driver in drivers {
        let mut backend = (driver.schema)().to_value();
        for (name, definition) in object(remove(&mut backend, &["$defs"])) {
            schema["$defs"][format!("{}.{name}", driver.name)] = scoped(definition, driver.name);
        }
        backend = scoped(backend, driver.name);
        if driver.role == Role::Carving {
            let title = format!("A store with the driver {}", driver.name);
            schema["$defs"][format!("store.{}", driver.name)] =
                merged(backend.clone(), &json!({ "required": ["driver"] }), driver.name, &title);
        }
        if driver.role == Role::Carrying {
            let stores: Vec<_> =
                carving.iter().map(|one| json!({ "$ref": format!("#/$defs/store.{}", one.name) })).collect();
            let description = "What makes the volumes on the one node in `nodes`: a driver with its keys. Without it the \
                               backend takes volumes that exist already.";
            backend["properties"][STORE] = json!({ "description": description, "oneOf": stores });
        }
        let title = format!("A backend with the driver {}", driver.name);
        schema["$defs"][format!("backend.{}", driver.name)] = merged(backend, &host, driver.name, &title);
    }
    let references: Vec<_> =
        drivers.iter().map(|driver| json!({ "$ref": format!("#/$defs/backend.{}", driver.name) })).collect();
    schema["properties"]["backends"]["items"] = json!({ "oneOf": references });
    schema
}

/// The keys that the host reads of every backend.
pub(super) fn backend_keys() -> Vec<String> {
    let schema = schemars::schema_for!(BackendKeys).to_value();
    schema["properties"].as_object().map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
}

/// What may stand in `driver`.
pub(super) fn drivers_in_words(drivers: &[DriverEntry]) -> String {
    let names: Vec<_> = drivers.iter().map(|driver| driver.name).collect();
    if names.is_empty() { "this program has none".into() } else { format!("this program has {}", names.join(", ")) }
}

/// One object of the keys of the host and of the driver.
fn merged(mut backend: Value, host: &Value, driver: &str, title: &str) -> Value {
    let mut properties = object(remove(&mut backend, &["properties"]));
    properties.extend(object(host["properties"].clone()));
    properties.insert("driver".into(), json!({ "description": "The kind of storage.", "const": driver }));
    let mut required = list(remove(&mut backend, &["required"]));
    required.extend(list(host["required"].clone()));
    remove(&mut backend, &["$schema"]);
    backend["title"] = title.into();
    backend["properties"] = properties.into();
    backend["required"] = required.into();
    backend
}

/// A schema of a driver whose references stay within the definitions of that driver.
fn scoped(schema: Value, driver: &str) -> Value {
    match schema {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| match (key.as_str(), value.as_str().and_then(|text| text.strip_prefix("#/$defs/"))) {
                ("$ref", Some(name)) => (key, format!("#/$defs/{driver}.{name}").into()),
                _ => (key, scoped(value, driver)),
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| scoped(item, driver)).collect(),
        scalar => scalar,
    }
}

fn remove(schema: &mut Value, path: &[&str]) -> Value {
    let (Some((last, parents)), true) = (path.split_last(), schema.is_object()) else { return Value::Null };
    let parent = parents.iter().try_fold(schema, |value, key| value.get_mut(*key)).and_then(Value::as_object_mut);
    parent.and_then(|parent| parent.remove(*last)).unwrap_or_default()
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn list(value: Value) -> Vec<Value> {
    if let Value::Array(items) = value { items } else { Vec::new() }
}

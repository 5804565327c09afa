//! Compares two descriptors as data, so that no part of them can be forgotten.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

/// Where two `FileDescriptorProto`s differ, one line each: the place, then both values.
///
/// Order counts. Comments do not, and empty options are no options.
pub(crate) fn differences(left: &DynamicMessage, right: &DynamicMessage) -> Vec<String> {
    let mut found = Vec::new();
    compare_messages("", left, right, &mut found);
    found
}

fn compare_messages(place: &str, left: &DynamicMessage, right: &DynamicMessage, found: &mut Vec<String>) {
    let parts: BTreeSet<String> = parts(left).chain(parts(right)).collect();
    for name in parts {
        compare_values(&format!("{place}.{name}"), part(left, &name), part(right, &name), found);
    }
}

/// The names of what is set: fields, and extensions in brackets.
fn parts(message: &DynamicMessage) -> impl Iterator<Item = String> {
    let fields = message.fields().map(|(field, _)| field.name().to_owned());
    let extensions = message.extensions().map(|(option, _)| format!("[{}]", option.full_name()));
    fields.chain(extensions).filter(|name| name != "source_code_info")
}

fn part<'a>(message: &'a DynamicMessage, name: &str) -> Option<&'a Value> {
    let field = message.fields().find(|(field, _)| field.name() == name);
    let bracketed = name.trim_matches(['[', ']']);
    let extension = message.extensions().find(|(option, _)| option.full_name() == bracketed);
    let value = field.map(|(_, value)| value).or(extension.map(|(_, value)| value))?;
    let is_empty = value.as_message().is_some_and(|message| parts(message).next().is_none());
    (!is_empty).then_some(value)
}

fn compare_values(place: &str, left: Option<&Value>, right: Option<&Value>, found: &mut Vec<String>) {
    match (left, right) {
        (Some(Value::Message(left)), Some(Value::Message(right))) => {
            compare_messages(place, left, right, found);
        }
        (Some(Value::List(left)), Some(Value::List(right))) => {
            for index in 0..left.len().max(right.len()) {
                let (left, right) = (left.get(index), right.get(index));
                let label = left.or(right).and_then(name_of).unwrap_or(index.to_string());
                compare_values(&format!("{place}[{label}]"), left, right, found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{place}: {} != {}", short(left), short(right))),
    }
}

fn name_of(value: &Value) -> Option<String> {
    let message = value.as_message()?;
    message.descriptor().get_field_by_name("name")?;
    Some(message.get_field_by_name("name")?.as_str()?.to_owned())
}

fn short(value: Option<&Value>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(Value::Message(_)) => "a descriptor".to_owned(),
        Some(other) => format!("{other:?}"),
    }
}

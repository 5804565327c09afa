//! What serde says of a wrong value, in the words of whoever wrote the file.

/// The names that serde and Rust have for what is expected, and what a person writes.
const EXPECTED: &[(&str, &str)] = &[
    ("a string", "a text: put it in quotes"),
    ("path string", "a path: put it in quotes"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("a map", "a map of keys"),
    ("string or map", "a word"),
    ("map with a single key", "a word"),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("a nonzero u8", "a whole number from 1 to 255"),
    ("a nonzero u16", "a whole number from 1 to 65535"),
    ("a nonzero u32", "a whole number from 1 to 4294967295"),
    ("a nonzero u64", "a whole number, 1 or more"),
    ("f32", "a number"),
    ("f64", "a number"),
];

/// The same message without the names of Rust's types; `thing` is what a field of a type is called where it is written.
pub(crate) fn in_words(message: &str, thing: &str) -> String {
    for (serde, words) in [("unknown field ", "unknown "), ("missing field ", "missing ")] {
        if let Some(rest) = message.strip_prefix(serde) {
            return format!("{words}{thing} {}", rest.replace("there are no fields", "there are none"));
        }
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown value {rest}");
    }
    let wrong = ["invalid type: ", "invalid value: "].iter().find_map(|prefix| message.strip_prefix(prefix));
    let Some((found, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let expected = EXPECTED.iter().find(|(serde, _)| *serde == expected).map_or(expected, |(_, words)| *words);
    match found {
        "null" | "unit value" | "Option value" => format!("there is no value: write {expected}"),
        found => format!("{} is not {expected}", what(found)),
    }
}

/// A value as it was written.
fn what(found: &str) -> &str {
    match found {
        "map" => "a map of keys",
        "sequence" => "a list",
        "string" => "a text",
        found => match found.split_once(' ') {
            Some(("string", text)) => text,
            // `integer `5``, `floating point `1.5``, `boolean `true``.
            Some(_) if found.ends_with('`') => found.split('`').nth(1).unwrap_or(found),
            _ => found,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::path::PathBuf;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    fn said<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
        in_words(&serde_json::from_value::<T>(value).unwrap_err().to_string(), "key")
    }

    #[test]
    fn no_name_of_a_type_reaches_the_one_who_wrote_the_value() {
        for (said, expected) in [
            (said::<String>(json!(5)), "5 is not a text: put it in quotes"),
            (said::<PathBuf>(json!(1.5)), "1.5 is not a path: put it in quotes"),
            (said::<bool>(json!("yes")), "\"yes\" is not true or false"),
            (said::<Vec<String>>(json!("a, expected b")), "\"a, expected b\" is not a list"),
            (said::<u32>(json!("5s")), "\"5s\" is not a whole number from 0 to 4294967295"),
            (said::<u32>(json!(-1)), "-1 is not a whole number from 0 to 4294967295"),
            (said::<NonZeroU16>(json!(0)), "0 is not a whole number from 1 to 65535"),
            (said::<NonZeroU16>(json!(true)), "true is not a whole number from 1 to 65535"),
            (said::<f64>(json!([])), "a list is not a number"),
            (said::<f64>(json!(null)), "there is no value: write a number"),
            (said::<Colour>(json!({})), "a map of keys is not a word"),
            (said::<Colour>(json!(5)), "5 is not a word"),
            (said::<Colour>(json!("blue")), "unknown value `blue`, expected `red` or `green`"),
        ] {
            assert_eq!(said, expected);
        }
        // Both are wrong above, so that nothing reads these.
        let _ = (Colour::Red, Colour::Green);
    }

    #[test]
    fn what_is_no_message_of_serde_stays_as_it_is() {
        assert_eq!(
            in_words("\"x\" is no absolute path: begin it with /", "key"),
            "\"x\" is no absolute path: begin it with /"
        );
    }
}

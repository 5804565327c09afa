//! The faults and their sentences, as the tests have them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

const SOURCE: &str = "tests/common/src/fault.rs";
const NAME: &str = "Fault";

/// A fault's name and what is said of it, in the order in which they are told.
pub(crate) type Faults = Vec<(String, String)>;

/// Reads them from the source.
pub(crate) fn read(root: &Path) -> Result<Faults> {
    let text = fs::read_to_string(root.join(SOURCE)).with_context(|| format!("cannot read {SOURCE}"))?;
    parse(&text).with_context(|| format!("{SOURCE} has not the faults"))
}

fn parse(text: &str) -> Result<Faults> {
    let items = syn::parse_file(text)?.items.into_iter();
    let mut enums = items.filter_map(|item| if let Item::Enum(found) = item { Some(found) } else { None });
    let found = enums.find(|found| found.ident == NAME).with_context(|| format!("there is no enum {NAME}"))?;
    let variants = found.variants.iter();
    Ok(variants.map(|variant| (variant.ident.to_string(), sentence(&variant.attrs))).collect())
}

/// The words of a doc comment.
fn sentence(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sentences_are_read_in_their_order() {
        let found =
            parse("/// All.\nenum Fault {\n    /// One\n    /// thing.\n    B,\n    /// Other.\n    A,\n}\n").unwrap();
        assert_eq!(found, [("B".into(), "One thing.".into()), ("A".into(), "Other.".into())]);
        assert!(parse("enum Other {}").is_err());
    }
}

//! The listing of a crate: for each module what is public in it, printed as Rust without its bodies.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::{Item, ItemMod};

use super::surface;

/// The lint `unreachable_pub` is denied here, so that what says `pub` can be reached from outside: a listing of all that
/// says so is the public API, whatever path it is re-exported by.
pub(super) fn of(source: &Path) -> Result<String> {
    let mut modules = Vec::new();
    read(source, "crate", &source.join("lib.rs"), source, &mut modules)?;
    let public: BTreeSet<String> = modules.iter().flat_map(|module| surface::names(&module.items)).collect();
    let mut text = String::from("// The public API, as `cargo xtask public-api --bless` lists it.\n");
    for module in modules {
        let items = surface::of(module.items, &public);
        if !items.is_empty() {
            let mut file = syn::parse_file("")?;
            file.items = items;
            text.push_str(&format!("\n// {}\n{}", module.path, prettyplease::unparse(&file)));
        }
    }
    Ok(text)
}

struct Module {
    path: String,
    items: Vec<Item>,
}

/// Reads a file, and the files of the modules it declares beneath `folder`.
fn read(source: &Path, path: &str, file: &Path, folder: &Path, modules: &mut Vec<Module>) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    take(source, path, parsed.items, folder, modules)
}

fn take(source: &Path, path: &str, items: Vec<Item>, folder: &Path, modules: &mut Vec<Module>) -> Result<()> {
    let (children, items): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| matches!(item, Item::Mod(_)));
    let at = modules.len();
    modules.push(Module { path: path.into(), items });
    for child in children {
        let Item::Mod(child) = child else { continue };
        if surface::is_for_tests(&child.attrs) {
            continue;
        }
        let name = child.ident.to_string();
        let (path, below) = (format!("{path}::{name}"), folder.join(&name));
        modules[at].items.push(Item::Mod(ItemMod { content: None, semi: Some(Default::default()), ..child.clone() }));
        match child.content {
            Some((_, items)) => take(source, &path, items, &below, modules)?,
            None => read(source, &path, &file_of(folder, &name), &below, modules)?,
        }
    }
    Ok(())
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_public_is_listed_and_no_body_is() {
        let folder = tempfile::tempdir().unwrap();
        let lib = "mod a;\npub use a::T;\npub(crate) fn hidden() {}\n#[cfg(test)]\nmod tests { pub fn no() {} }";
        let a = "/// Doc.\n#[derive(Debug)]\npub struct T { pub x: u8, secret: u8 }\n\
            impl T { pub fn get(&self) -> u8 { self.secret } fn own(&self) {} }\n\
            impl Drop for T { fn drop(&mut self) { own() } }\n\
            struct Inner;\nimpl Clone for Inner { fn clone(&self) -> Self { Inner } }\n\
            pub trait R { fn must(&self); fn may(&self) -> u8 { 7 } }";
        fs::write(folder.path().join("lib.rs"), lib).unwrap();
        fs::write(folder.path().join("a.rs"), a).unwrap();
        let listing = of(folder.path()).unwrap();
        for there in
            ["pub use a::T;", "pub x: u8", "pub fn get(&self) -> u8 {}", "impl Drop for T {}", "fn must(&self);"]
        {
            assert!(listing.contains(there), "{there} is not in {listing}");
        }
        for absent in ["hidden", "secret", "own", "Inner", "Doc", "no()", "7"] {
            assert!(!listing.contains(absent), "{absent} is in {listing}");
        }
    }
}

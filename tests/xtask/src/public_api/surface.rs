//! Cutting items down to what a user of the crate can see.

use std::collections::BTreeSet;

use syn::punctuated::Punctuated;
use syn::{
    Attribute, Block, Field, Fields, FieldsNamed, ImplItem, Item, ItemImpl, ItemTrait, Path, TraitItem, Type,
    Visibility, parse_quote,
};

/// Names of the public types and traits.
pub(super) fn names(items: &[Item]) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Struct(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Enum(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Trait(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Type(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    let of_tests = |attribute: &Attribute| attribute.parse_args::<Path>().is_ok_and(|path| path.is_ident("test"));
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && of_tests(attribute))
}

/// The public part of a module. `public` names the types of the crate whose implementations are of interest.
pub(super) fn of(items: Vec<Item>, public: &BTreeSet<String>) -> Vec<Item> {
    // A macro of the module's own makes items where it is invoked: then both belong to what is public.
    let invoked: BTreeSet<String> = items.iter().filter_map(invocation).collect();
    items.into_iter().filter_map(|item| cut(item, public, &invoked)).collect()
}

fn cut(item: Item, public: &BTreeSet<String>, invoked: &BTreeSet<String>) -> Option<Item> {
    let mut item = item;
    let (keep, attributes) = match &mut item {
        Item::Const(item) => (is_public(&item.vis), &mut item.attrs),
        Item::Static(item) => (is_public(&item.vis), &mut item.attrs),
        Item::Type(item) => (is_public(&item.vis), &mut item.attrs),
        Item::Use(item) => (is_public(&item.vis), &mut item.attrs),
        Item::Mod(item) => (is_public(&item.vis), &mut item.attrs),
        Item::Fn(item) => {
            *item.block = empty();
            (is_public(&item.vis), &mut item.attrs)
        }
        Item::Struct(item) => {
            hide_private(&mut item.fields);
            (is_public(&item.vis), &mut item.attrs)
        }
        Item::Enum(item) => {
            for variant in &mut item.variants {
                keep_telling(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_telling(&mut field.attrs));
            }
            (is_public(&item.vis), &mut item.attrs)
        }
        Item::Trait(item) => {
            cut_trait(item);
            (is_public(&item.vis), &mut item.attrs)
        }
        Item::Impl(item) => (cut_impl(item, public), &mut item.attrs),
        Item::Macro(item) => {
            let own = item.ident.as_ref().is_none_or(|name| invoked.contains(&name.to_string()));
            let exported = item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"));
            (own || exported, &mut item.attrs)
        }
        _ => return None,
    };
    if !keep || is_for_tests(attributes) {
        return None;
    }
    keep_telling(attributes);
    Some(item)
}

fn cut_trait(item: &mut ItemTrait) {
    for item in &mut item.items {
        match item {
            TraitItem::Fn(item) => {
                item.default = item.default.as_ref().map(|_| empty());
                keep_telling(&mut item.attrs);
            }
            TraitItem::Const(item) => keep_telling(&mut item.attrs),
            TraitItem::Type(item) => keep_telling(&mut item.attrs),
            _ => {}
        }
    }
}

/// What an implementation adds to a public type; false where that is nothing.
fn cut_impl(item: &mut ItemImpl, public: &BTreeSet<String>) -> bool {
    let of_trait = item.trait_.is_some();
    item.items.retain_mut(|item| match item {
        ImplItem::Fn(item) if !of_trait && is_public(&item.vis) => {
            item.block = empty();
            keep_telling(&mut item.attrs);
            true
        }
        ImplItem::Const(item) if !of_trait && is_public(&item.vis) => {
            keep_telling(&mut item.attrs);
            true
        }
        // The functions of a trait are its own; which types it is given is this implementation's.
        ImplItem::Type(_) => true,
        _ => false,
    });
    of_public(&item.self_ty, public) && (of_trait || !item.items.is_empty())
}

/// A type of another crate, or one made of several, is listed: leaving out too much would hide a change.
fn of_public(implementor: &Type, public: &BTreeSet<String>) -> bool {
    match implementor {
        Type::Path(path) => match path.path.get_ident() {
            Some(name) => public.contains(&name.to_string()) || name.to_string().len() == 1,
            None => path.path.segments.last().is_none_or(|last| public.contains(&last.ident.to_string())),
        },
        _ => true,
    }
}

/// Private fields become one `_private: _`, which tells that there are some.
fn hide_private(fields: &mut Fields) {
    match fields {
        Fields::Named(FieldsNamed { named, .. }) => {
            let all = named.len();
            let mut shown: Punctuated<Field, _> =
                std::mem::take(named).into_iter().filter(|field| is_public(&field.vis)).collect();
            shown.iter_mut().for_each(|field| keep_telling(&mut field.attrs));
            if shown.len() < all {
                let private: FieldsNamed = parse_quote!({ _private: _ });
                shown.extend(private.named);
            }
            *named = shown;
        }
        Fields::Unnamed(unnamed) => {
            for field in &mut unnamed.unnamed {
                keep_telling(&mut field.attrs);
                if !is_public(&field.vis) {
                    field.ty = parse_quote!(_);
                }
            }
        }
        Fields::Unit => {}
    }
}

/// Only these attributes are part of the contract.
fn keep_telling(attributes: &mut Vec<Attribute>) {
    const TELLING: [&str; 6] = ["derive", "non_exhaustive", "must_use", "deprecated", "serde", "cfg"];
    attributes.retain(|attribute| TELLING.iter().any(|name| attribute.path().is_ident(name)));
}

fn invocation(item: &Item) -> Option<String> {
    match item {
        Item::Macro(item) if item.ident.is_none() => item.mac.path.get_ident().map(ToString::to_string),
        _ => None,
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn empty() -> Block {
    parse_quote!({})
}

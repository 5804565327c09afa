//! The rules, by area.

mod clones;
mod controller_publish;
mod crash;
mod create_volume;
mod delete_volume;
mod end;
mod errors;
mod expand;
mod groups;
mod health;
mod identity;
mod lists;
mod metadata;
mod modify;
mod node;
mod node_again;
mod node_content;
mod node_refusals;
mod required;
mod snapshots;
mod volumes;

pub(super) use end::Before;

use super::plan::Case;

pub(super) fn all() -> Vec<Case> {
    [
        identity::area(),
        errors::area(),
        create_volume::area(),
        required::area(),
        volumes::area(),
        delete_volume::area(),
        controller_publish::area(),
        expand::area(),
        modify::area(),
        lists::area(),
        node::area(),
        node_again::area(),
        node_refusals::area(),
        node_content::area(),
        snapshots::area(),
        clones::area(),
        groups::area(),
        metadata::area(),
        health::area(),
        crash::area(),
        end::area(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

//! ListVolumes: what is in it, and its pages.

use std::collections::HashSet;

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_csi_proto::csi::v1::*;
use tonic::Code;

use crate::conformance::failure::{Checked, Stop};
use crate::conformance::kit::Kit;
use crate::conformance::needs::Need;
use crate::conformance::plan::area;

const CREATES: Need = Need::Controller(ControllerRpc::CreateDeleteVolume);
const LISTS: Need = Need::Controller(ControllerRpc::ListVolumes);

area! {
    "list-volumes/all", "ListVolumes", [CREATES, LISTS] => |kit| all(kit);
    "list-volumes/pages", "ListVolumes", [CREATES, LISTS] => |kit| pages(kit);
    "list-volumes/pages-under-change", "ListVolumes", [CREATES, LISTS] => |kit| under_change(kit);
    "list-volumes/invalid-token", "ListVolumes Errors", [LISTS] => |kit| invalid_token(kit);
    "list-volumes/negative-max-entries", "ListVolumes", [LISTS] => |kit| negative(kit);
    "list-volumes/capacity-after-expand", "ListVolumes",
        [CREATES, LISTS, Need::Controller(ControllerRpc::ExpandVolume)] => |kit| after_expand(kit);
}

type Entry = list_volumes_response::Entry;

/// More pages than any list of the kit has: a plugin whose tokens go round is not followed for ever.
const MOST_PAGES: usize = 100_000;

/// All entries, in pages of at most `max_entries` (the plugin's choice for 0).
pub(super) async fn all_entries(kit: &Kit, max_entries: i32) -> Checked<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut starting_token = String::new();
    for _ in 0..MOST_PAGES {
        let page = kit.ok(ListVolumesRequest { max_entries, starting_token }).await?;
        check_page(&page.answer.entries, max_entries).map_or(Ok(()), |wants| Err(page.wrong(wants)))?;
        entries.extend(page.answer.entries);
        if page.answer.next_token.is_empty() {
            return Ok(entries);
        }
        starting_token = page.answer.next_token;
    }
    Err(Stop::failed("ListVolumes, page after page", format_args!("{MOST_PAGES} pages"), "an end"))
}

fn check_page(entries: &[Entry], max_entries: i32) -> Option<&'static str> {
    if max_entries > 0 && entries.len() > usize::try_from(max_entries).unwrap_or(0) {
        return Some("no more than max_entries entries");
    }
    let whole = entries.iter().all(|entry| entry.volume.as_ref().is_some_and(|own| !own.volume_id.is_empty()));
    (!whole).then_some("a volume with a volume_id in each entry, both REQUIRED")
}

pub(super) async fn all_volumes(kit: &Kit, max_entries: i32) -> Checked<Vec<Volume>> {
    Ok(all_entries(kit, max_entries).await?.into_iter().filter_map(|entry| entry.volume).collect())
}

async fn several(kit: &Kit) -> Checked<Vec<Volume>> {
    let mut made = Vec::new();
    for _ in 0..kit.params().many {
        made.push(kit.volume("list").await?);
    }
    Ok(made)
}

/// "The Plugin SHALL return the information about all the volumes that it knows about."
async fn all(kit: &Kit) -> Checked {
    let made = several(kit).await?;
    let listed = all_volumes(kit, 0).await?;
    for volume in &made {
        let Some(found) = listed.iter().find(|own| own.volume_id == volume.volume_id) else {
            let came = format!("{} volumes, without {}", listed.len(), volume.volume_id);
            return Err(Stop::failed("ListVolumes {}", came, "all volumes that the plugin knows about"));
        };
        // "An unspecified value (0)" means that it is unknown.
        if found.capacity_bytes != 0 && found.capacity_bytes != volume.capacity_bytes {
            let came = format!("{found:?}, and of CreateVolume {volume:?}");
            return Err(Stop::failed("ListVolumes {}", came, "the capacity_bytes of the volume"));
        }
    }
    Ok(())
}

/// Nothing changes meanwhile: every volume is in exactly one page.
async fn pages(kit: &Kit) -> Checked {
    let made = several(kit).await?;
    let whole = all_volumes(kit, 0).await?;
    for max_entries in [1, 2, 3] {
        let listed = all_volumes(kit, max_entries).await?;
        let ids: HashSet<_> = listed.iter().map(|own| own.volume_id.as_str()).collect();
        let sent = format!("ListVolumes with max_entries {max_entries}, page after page");
        if ids.len() != listed.len() {
            let came = format!("{} entries of {} volumes", listed.len(), ids.len());
            return Err(Stop::failed(sent, came, "each volume once: nothing has changed meanwhile"));
        }
        if let Some(lost) = made.iter().find(|own| !ids.contains(own.volume_id.as_str())) {
            let came = format!("{} volumes, without {}", ids.len(), lost.volume_id);
            return Err(Stop::failed(sent, came, format_args!("all {} volumes", whole.len())));
        }
    }
    Ok(())
}

/// Entries may be lost and repeated while volumes come and go; the pages still have an end, and each its limit.
async fn under_change(kit: &Kit) -> Checked {
    several(kit).await?;
    let mut starting_token = String::new();
    for _ in 0..MOST_PAGES {
        let request = ListVolumesRequest { max_entries: 2, starting_token };
        let why = "a token may become invalid while volumes are created and deleted";
        let Some(page) = kit.ok_or_refused(request, &[Code::Aborted], why).await? else { return Ok(()) };
        check_page(&page.answer.entries, 2).map_or(Ok(()), |wants| Err(page.wrong(wants)))?;
        if page.answer.next_token.is_empty() {
            return Ok(());
        }
        starting_token = page.answer.next_token;
        // What has just been listed goes: the place that the token names may go with it.
        let (kept, last) = (kit.volume("new").await?, page.answer.entries.into_iter().next_back());
        let last = last.and_then(|entry| entry.volume).map(|own| own.volume_id).unwrap_or_default();
        let ours = kit.noted().iter().any(|undo| matches!(undo, super::super::undo::Undo::Volume(id) if *id == last));
        kit.delete_volume(if ours { last } else { kept.volume_id }).await?;
    }
    Err(Stop::failed("ListVolumes, page after page", format_args!("{MOST_PAGES} pages"), "an end"))
}

async fn invalid_token(kit: &Kit) -> Checked {
    let request = ListVolumesRequest { starting_token: "conformance: no such token".to_owned(), max_entries: 1 };
    kit.refused(request, &[Code::Aborted], "the starting_token is not valid").await
}

async fn negative(kit: &Kit) -> Checked {
    let request = ListVolumesRequest { max_entries: -1, ..Default::default() };
    kit.refused(request, &[Code::InvalidArgument], "the value of max_entries MUST NOT be negative").await
}

async fn after_expand(kit: &Kit) -> Checked {
    let volume = kit.volume("list").await?;
    let grown = kit.ok(super::expand::request(kit, &volume, kit.params().larger())).await?;
    let listed = all_volumes(kit, 0).await?;
    let found = listed.iter().find(|own| own.volume_id == volume.volume_id);
    if found.is_some_and(|own| own.capacity_bytes == grown.capacity_bytes || own.capacity_bytes == 0) {
        return Ok(());
    }
    let wants = format!("the capacity after expansion, {}", grown.capacity_bytes);
    Err(Stop::failed("ListVolumes, after ControllerExpandVolume", format_args!("{found:?}"), wants))
}

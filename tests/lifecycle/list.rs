//! ListVolumes in pages.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, MIB, Setup, create, mount};
use tonic::Code;

use crate::{DIR, DUNNAGE, is, rig};

fn page(client: &Client, max_entries: i32, starting_token: &str) -> Result<(Vec<String>, String)> {
    let request = csi::ListVolumesRequest { max_entries, starting_token: starting_token.into() };
    let answer = client.list_volumes(request)?;
    let ids = answer.entries.into_iter().map(|entry| entry.volume.expect("no volume").volume_id);
    Ok((ids.collect(), answer.next_token))
}

fn make(client: &Client, name: &str) -> Result<String> {
    Ok(client.create_volume(create(name, MIB, mount()))?.volume.expect("no volume").volume_id)
}

#[test]
fn pages_stay_right_while_volumes_come_and_go() -> Result<()> {
    let Some(rig) = rig("pages_stay_right_while_volumes_come_and_go")? else { return Ok(()) };
    let client = &rig.files;
    let mut made: Vec<_> = (0..20).map(|number| make(client, &format!("v{number:02}"))).collect::<Result<_>>()?;
    made.sort();
    let (first, token) = page(client, 5, "")?;
    assert_eq!(first, made[..5]);
    // The last that was listed, one that was not yet, and a new one before and behind the token.
    for id in [&made[4], &made[10]] {
        client.delete_volume(csi::DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() })?;
    }
    let (before, behind) = (make(client, "v00a")?, make(client, "v19a")?);
    let (mut rest, mut next) = (Vec::new(), token.clone());
    while !next.is_empty() {
        let (more, token) = page(client, 4, &next)?;
        ensure!(more.len() <= 4, "{} entries", more.len());
        rest.extend(more);
        next = token;
    }
    ensure!(!rest.contains(&before) && rest.contains(&behind) && !rest.contains(&made[10]), "{rest:?}");
    ensure!(made[5..].iter().filter(|id| **id != made[10]).all(|id| rest.contains(id)), "one is missing: {rest:?}");
    ensure!(rest.iter().collect::<BTreeSet<_>>().len() == rest.len(), "one is listed twice");
    // A token stays good.
    assert_eq!(page(client, 1, &token)?.0, made[5..6]);
    let (all, end) = page(client, 0, "")?;
    ensure!(all.len() == 20 && end.is_empty(), "{} and {end:?}", all.len());
    Ok(())
}

#[test]
fn a_bad_token_is_aborted_and_negative_entries_are_invalid() -> Result<()> {
    let Some(rig) = rig("a_bad_token_is_aborted_and_negative_entries_are_invalid")? else { return Ok(()) };
    make(&rig.files, "a")?;
    for token in ["nonsense", "5", "../..", "a.b", "\0", &"x".repeat(5000)] {
        let request = csi::ListVolumesRequest { max_entries: 1, starting_token: token.into() };
        let message = is(token, rig.files.list_volumes(request), Code::Aborted)?;
        ensure!(message.contains("starting_token"), "{message}");
    }
    let request = csi::ListVolumesRequest { max_entries: -1, ..Default::default() };
    let message = is("-1", rig.files.list_volumes(request), Code::InvalidArgument)?;
    ensure!(message.contains("-1"), "{message}");
    Ok(())
}

/// More entries than gRPC lets through at once, 4 MiB: their records are written beside the host.
#[test]
fn a_list_of_everything_stays_below_what_clients_take() -> Result<()> {
    if !dunnage_test_common::can_run("a_list_of_everything_stays_below_what_clients_take", &[])? {
        return Ok(());
    }
    const MANY: usize = 40_000;
    let mut host = Setup::new()?.backend("files", "dir", "quota: none")?.start(DUNNAGE)?;
    make(&host.client(DIR)?, "a")?;
    host.kill()?;
    let records = host.setup().root("files").join(".dunnage/volumes");
    let one = std::fs::read_dir(&records)?.next().expect("no record")?.path();
    let (key, text) = (one.file_name().unwrap().to_str().unwrap(), std::fs::read_to_string(&one)?);
    // A key ends with a digest of its name where the name is not plain; any key of the right form is read.
    for number in 0..MANY {
        let other = format!("a-volume-with-a-long-name-{number:08}");
        std::fs::write(records.join(&other), text.replace(&format!("\"{key}\""), &format!("\"{other}\"")))?;
    }
    host.restart()?;
    let client = host.client(DIR)?;
    let (mut listed, mut token, mut pages) = (0, String::new(), 0);
    loop {
        let (ids, next) = page(&client, 0, &token)?;
        (listed, pages, token) = (listed + ids.len(), pages + 1, next);
        if token.is_empty() {
            break;
        }
    }
    ensure!(listed == MANY + 1, "{listed} are listed");
    ensure!(pages > 1, "all came in one page: the test does not test");
    Ok(())
}

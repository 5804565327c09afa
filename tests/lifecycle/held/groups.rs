//! Snapshots of several volumes at one moment.

use super::*;

fn group(client: &Client, name: &str, members: &[&Volume]) -> Result<csi::VolumeGroupSnapshot, tonic::Status> {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: name.into(),
        source_volume_ids: members.iter().map(|volume| volume.id()).collect(),
        ..Default::default()
    };
    Ok(client.create_volume_group_snapshot(request)?.group_snapshot.unwrap_or_default())
}

fn ids(group: &csi::VolumeGroupSnapshot) -> Vec<String> {
    group.snapshots.iter().map(|snapshot| snapshot.snapshot_id.clone()).collect()
}

fn delete(client: &Client, group: &csi::VolumeGroupSnapshot) -> Result<(), tonic::Status> {
    let (group_snapshot_id, snapshot_ids) = (group.group_snapshot_id.clone(), ids(group));
    let request = csi::DeleteVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids, ..Default::default() };
    client.delete_volume_group_snapshot(request).map(drop)
}

/// Writes the numbers 1, 2, 3, ... to each of the folders in turns, and waits for the disk each time.
fn write_across(folders: &[&Path], stop: &AtomicBool) -> Result<u64> {
    let files = folders.iter().map(|folder| File::create(folder.join("number"))).collect::<Result<Vec<_>, _>>()?;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        for file in &files {
            file.write_all_at(&number.to_le_bytes(), 0)?;
            file.sync_data()?;
        }
    }
    Ok(number)
}

#[test]
fn writes_in_order_across_the_members_of_a_group_are_never_torn() -> Result<()> {
    let test = "writes_in_order_across_the_members_of_a_group_are_never_torn";
    let Some((host, client)) = start(test)? else { return Ok(()) };
    let first = volume(&host, &client, create("first", 64 * MIB, filesystem("ext4")), "ext4")?;
    let second = volume(&host, &client, create("second", 320 * MIB, filesystem("xfs")), "xfs")?;
    let third = volume(&host, &client, create("third", 64 * MIB, filesystem("ext4")), "ext4")?;
    let all = [&first, &second, &third];
    all.iter().try_for_each(|volume| bring(&client, volume))?;
    let folders = all.map(|volume| volume.target.as_path());
    let stop = AtomicBool::new(false);
    let groups: Result<Vec<csi::VolumeGroupSnapshot>> = thread::scope(|scope| {
        let writer = scope.spawn(|| write_across(&folders, &stop));
        let cut_some = || -> Result<Vec<csi::VolumeGroupSnapshot>> {
            wait_until("the writer to write", Duration::from_secs(60), || {
                Ok(number(&third.target, "number").is_ok_and(|number| number > 3))
            })?;
            // The order in which they are named is not that of the writes.
            (0..5).map(|index| Ok(group(&client, &format!("g{index}"), &[&third, &first, &second])?)).collect()
        };
        let groups = cut_some();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the writer panicked")))?;
        groups
    });
    let mut before = 0;
    for taken in &groups? {
        ensure!(taken.ready_to_use && taken.snapshots.len() == 3, "{taken:?}");
        let mut numbers = Vec::new();
        for source in all {
            let of_source = |snapshot: &&csi::Snapshot| snapshot.source_volume_id == source.id();
            let snapshot = taken.snapshots.iter().find(of_source).context("a member is missing")?;
            ensure!(snapshot.group_snapshot_id == taken.group_snapshot_id, "{snapshot:?}");
            let fs_type = if source.id() == second.id() { "xfs" } else { "ext4" };
            let request =
                restore(&format!("of-{}", snapshot.snapshot_id), source.made.capacity_bytes, snapshot, fs_type);
            let restored = volume(&host, &client, request, fs_type)?;
            bring(&client, &restored)?;
            numbers.push(number(&restored.target, "number")?);
            take(&client, &restored)?;
            client.delete_volume(restored.delete())?;
        }
        let in_order = numbers.is_sorted_by(|one, next| one >= next) && numbers[0] - numbers[2] <= 1;
        ensure!(in_order && numbers[0] > before, "torn, or not of its time: {numbers:?} after {before}");
        before = numbers[0];
        delete(&client, taken)?;
        delete(&client, taken)?;
    }
    ensure!(client.list_snapshots(Default::default())?.entries.is_empty(), "a member is left");
    all.iter().try_for_each(|volume| take(&client, volume))
}

#[test]
fn a_group_is_whole_or_it_is_not_there() -> Result<()> {
    let Some((host, client)) = start("a_group_is_whole_or_it_is_not_there")? else { return Ok(()) };
    let one = volume(&host, &client, create("one", 64 * MIB, filesystem("ext4")), "ext4")?;
    let mut raw = volume(&host, &client, create("raw", 16 * MIB, block()), "ext4")?;
    raw.capability = block();
    bring(&client, &one)?;
    // Unused, it can be in a group; used, nobody holds its writers back.
    let taken = group(&client, "g", &[&one, &raw])?;
    ensure!(group(&client, "g", &[&raw, &one])? == taken, "another answer");
    is("of other members", group(&client, "g", &[&one]), Code::AlreadyExists)?;
    bring(&client, &raw)?;
    let refused = is("with a raw device in use", group(&client, "h", &[&one, &raw]), Code::FailedPrecondition)?;
    ensure!(refused.contains(&raw.id()) && refused.contains("raw block"), "{refused}");
    is("twice", group(&client, "h", &[&one, &one]), Code::InvalidArgument)?;
    is("of none", group(&client, "h", &[]), Code::InvalidArgument)?;
    let listed = client.list_snapshots(Default::default())?;
    ensure!(listed.entries.len() == 2, "{:?}", listed.entries);
    // A snapshot that is called as a member is shown, and its group, have nothing to do with each other.
    let other = volume(&host, &client, create("other", 64 * MIB, filesystem("ext4")), "ext4")?;
    let plain = cut(&client, &format!("p/{}", one.id()), &other)?;
    is("with a raw device in use", group(&client, "p", &[&one, &raw]), Code::FailedPrecondition)?;
    let pair = group(&client, "p", &[&one, &other])?;
    delete(&client, &pair)?;
    let request = csi::GetSnapshotRequest { snapshot_id: plain.snapshot_id.clone(), ..Default::default() };
    ensure!(client.get_snapshot(request)?.snapshot == Some(plain.clone()), "it went with a group that it is not of");
    client.delete_snapshot(csi::DeleteSnapshotRequest { snapshot_id: plain.snapshot_id, ..Default::default() })?;
    let get = |group_snapshot_id: &str, snapshot_ids: Vec<String>| {
        let group_snapshot_id = group_snapshot_id.into();
        let request = csi::GetVolumeGroupSnapshotRequest { group_snapshot_id, snapshot_ids, ..Default::default() };
        client.get_volume_group_snapshot(request).map(|answer| answer.group_snapshot.unwrap_or_default())
    };
    ensure!(get(&taken.group_snapshot_id, ids(&taken))? == taken, "another answer");
    is("with a member less", get(&taken.group_snapshot_id, ids(&taken)[1..].to_vec()), Code::InvalidArgument)?;
    is("without members", get(&taken.group_snapshot_id, Vec::new()), Code::InvalidArgument)?;
    is("of a foreign id", get("nobody's", Vec::new()), Code::NotFound)?;
    let member = csi::DeleteSnapshotRequest { snapshot_id: ids(&taken)[0].clone(), ..Default::default() };
    is("one member alone", client.delete_snapshot(member), Code::InvalidArgument)?;
    delete(&client, &taken)?;
    is("of one that is gone", get(&taken.group_snapshot_id, ids(&taken)), Code::NotFound)?;
    delete(&client, &taken)?;
    take(&client, &raw)?;
    take(&client, &one)
}

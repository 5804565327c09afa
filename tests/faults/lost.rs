//! Stores that do not come back, come back as others, or twice.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{
    Fault, Host, MIB, Setup, block, create, loop_devices_beneath, mount, mounts_beneath, wait_until,
};
use tonic::Code;

use crate::{DUNNAGE, FAULTY, SOUND, needs_root, setup, volume};

const LIMIT: Duration = Duration::from_secs(100);

#[test]
fn volumes_of_a_store_that_does_not_come_back_are_taken_away_and_its_data_is_there_when_it_does() -> Result<()> {
    if !needs_root("volumes_of_a_store_that_does_not_come_back_are_taken_away_and_its_data_is_there_when_it_does")? {
        return Ok(());
    }
    for driver in ["dir", "image"] {
        let mut host = setup(driver, if driver == "dir" { "quota: none" } else { "" })?.start(DUNNAGE)?;
        let client = host.client(FAULTY)?;
        let used = volume(&host, &client, "used", mount())?;
        let raw = (driver == "image").then(|| volume(&host, &client, "raw", block())).transpose()?;
        for one in std::iter::once(&used).chain(&raw) {
            if one.staging.is_some() {
                client.node_stage_volume(one.stage())?;
            }
            client.node_publish_volume(one.publish())?;
        }
        fs::write(used.target.join("data"), "data")?;
        host.kill()?;
        let root = host.setup().root("faulty");
        let away = root.with_file_name("away");
        fs::rename(&root, &away)?;

        // What it offered is remembered, so that its plugin is served.
        host.spawn()?;
        host.wait_for(FAULTY)?;
        let client = host.client(FAULTY)?.under(driver, Fault::StoreGone);
        client.node_get_volume_stats(used.stats())?;
        let refused = client.node_publish_volume(used.publish()).expect_err("a publish without a store");
        ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");
        ensure!(refused.message().contains("the store of backend faulty is not open"), "{refused:?}");
        let refused = client.create_volume(create("new", MIB, mount())).expect_err("a create without a store");
        ensure!(refused.code() == Code::ResourceExhausted, "{refused:?}");
        let listed = client.list_volumes(Default::default()).expect_err("a list without a store");
        ensure!(listed.code() == Code::FailedPrecondition && listed.message().contains("faulty"), "{listed:?}");
        let health = client.node_get_storage_health(Default::default())?;
        ensure!(
            health.backend_health.len() == 1 && health.backend_health[0].message.contains("not open"),
            "{health:?}"
        );
        let room = client.get_capacity(Default::default())?;
        ensure!(room.available_capacity == 0, "{room:?}");
        for one in std::iter::once(&used).chain(&raw) {
            for _ in 0..2 {
                client.node_unpublish_volume(one.unpublish())?;
                if one.staging.is_some() {
                    client.node_unstage_volume(one.unstage())?;
                }
            }
        }
        ensure!(mounts_beneath(host.setup().scratch().path())?.is_empty(), "something stays mounted");
        ensure!(loop_devices_beneath(host.setup().scratch().path()).is_empty(), "a loop device stays");

        fs::rename(&away, &root)?;
        wait_until("the store to be open again", LIMIT, || Ok(client.list_volumes(Default::default()).is_ok()))?;
        if used.staging.is_some() {
            client.node_stage_volume(used.stage())?;
        }
        client.node_publish_volume(used.publish())?;
        assert_eq!(fs::read_to_string(used.target.join("data"))?, "data");
    }
    Ok(())
}

#[test]
fn an_empty_place_where_a_store_was_is_not_marked_anew() -> Result<()> {
    if !needs_root("an_empty_place_where_a_store_was_is_not_marked_anew")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none\ninit: true")?.start(DUNNAGE)?;
    let made = host.client(FAULTY)?.create_volume(create("a", MIB, mount()))?;
    host.kill()?;
    let root = host.setup().root("faulty");
    let away = root.with_file_name("away");
    fs::rename(&root, &away)?;
    fs::create_dir(&root)?;
    host.spawn()?;
    host.wait_for_log("no marker")?;
    ensure!(fs::read_dir(&root)?.next().is_none(), "the mount point of a missing disk was marked");
    fs::remove_dir(&root)?;
    fs::rename(&away, &root)?;
    wait_until("the store to be open again", LIMIT, || {
        let client = host.client(FAULTY);
        Ok(client.is_ok_and(|client| client.create_volume(create("a", MIB, mount())).is_ok_and(|again| again == made)))
    })
}

#[test]
fn another_store_in_the_place_of_one_is_refused_until_it_is_accepted() -> Result<()> {
    if !needs_root("another_store_in_the_place_of_one_is_refused_until_it_is_accepted")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.start(DUNNAGE)?;
    host.client(FAULTY)?.create_volume(create("a", MIB, mount()))?;
    host.kill()?;
    let (root, sound) = (host.setup().root("faulty"), host.setup().root("sound"));
    let between = root.with_file_name("between");
    fs::rename(&root, &between)?;
    fs::rename(&sound, &root)?;
    fs::rename(&between, &sound)?;
    host.spawn()?;
    host.wait_for_log("mount the right disk")?;
    let refused = host.wait_for(FAULTY).and_then(|()| {
        let client = host.client(FAULTY)?.under("dir", Fault::ForeignStore);
        Ok(client.create_volume(create("b", MIB, mount()))?)
    });
    ensure!(refused.is_err(), "it serves the disk of another backend");
    let checked = String::from_utf8(host.run(&["check"])?.stdout)?;
    ensure!(checked.contains("in its place is instance"), "{checked}");
    // Who marks what is new has not meant it; who names the backends has.
    let unnamed = host.run(&["init"])?;
    ensure!(!unnamed.status.success(), "{unnamed:?}");
    let accepted = host.run(&["init", "faulty", "sound"])?;
    ensure!(accepted.status.success(), "{accepted:?}");
    ensure!(String::from_utf8_lossy(&accepted.stdout).contains("takes the place of instance"), "{accepted:?}");
    wait_until("the volume behind the other name", LIMIT, || {
        let listed = host.client(SOUND)?.list_volumes(Default::default());
        Ok(listed.is_ok_and(|listed| listed.entries.len() == 1))
    })
}

#[test]
fn volumes_of_a_store_that_was_replaced_are_taken_away() -> Result<()> {
    if !needs_root("volumes_of_a_store_that_was_replaced_are_taken_away")? {
        return Ok(());
    }
    let mut host = setup("image", "")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let used = volume(&host, &client, "used", mount())?;
    client.node_stage_volume(used.stage())?;
    client.node_publish_volume(used.publish())?;
    host.kill()?;
    let root = host.setup().root("faulty");
    fs::rename(&root, root.with_file_name("away"))?;
    fs::create_dir(&root)?;
    let unnamed = host.run(&["init"])?;
    ensure!(!unnamed.status.success() && fs::read_dir(&root)?.next().is_none(), "{unnamed:?}");
    ensure!(host.run(&["init", "faulty"])?.status.success());
    host.spawn()?;
    host.wait_for(FAULTY)?;
    let client = host.client(FAULTY)?.under("image", Fault::ForeignStore);
    client.node_unpublish_volume(used.unpublish())?;
    client.node_unstage_volume(used.unstage())?;
    ensure!(loop_devices_beneath(host.setup().scratch().path()).is_empty(), "a loop device stays");
    client.create_volume(create("new", 16 * MIB, mount()))?;
    Ok(())
}

#[test]
fn a_copy_of_a_root_is_not_served_beside_it() -> Result<()> {
    if !needs_root("a_copy_of_a_root_is_not_served_beside_it")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.prepare(DUNNAGE)?;
    ensure!(host.run(&["init", "sound"])?.status.success());
    let (root, sound) = (host.setup().root("faulty"), host.setup().root("sound"));
    fs::remove_dir(&root)?;
    let copied = std::process::Command::new("cp").arg("-a").args([&sound, &root]).status()?;
    ensure!(copied.success());
    // Not whichever opens first, but the one that this node knows the store of.
    for _ in 0..3 {
        host.spawn()?;
        host.wait_for(SOUND)?;
        host.wait_for_log("so the place of faulty is a copy of that one's")?;
        ensure!(host.client(FAULTY).is_err(), "the copy is served");
        host.kill()?;
    }
    Ok(())
}

#[test]
fn behind_a_shared_name_a_closed_backend_is_still_one_of_several() -> Result<()> {
    if !needs_root("behind_a_shared_name_a_closed_backend_is_still_one_of_several")? {
        return Ok(());
    }
    let shared = "all.csi.dunnage.dev";
    let setup = Setup::new()?.backend("faulty", "dir", "quota: none")?.backend("sound", "dir", "quota: none")?;
    let setup = setup.plugin(shared, &["faulty", "sound"]);
    let mut host = setup.start(DUNNAGE)?;
    let with = |name: Option<&str>| csi::CreateVolumeRequest {
        parameters: name.map(|name| ("backend".to_owned(), name.to_owned())).into_iter().collect(),
        ..create("a", MIB, mount())
    };
    host.kill()?;
    let root = host.setup().root("faulty");
    let away = root.with_file_name("away");
    fs::rename(&root, &away)?;
    host.spawn()?;
    host.wait_for(shared)?;
    let client = host.client(shared)?;
    let unnamed = client.create_volume(with(None)).expect_err("a volume in whichever backend is open");
    ensure!(unnamed.code() == Code::InvalidArgument && unnamed.message().contains("faulty, sound"), "{unnamed:?}");
    let closed = client.create_volume(with(Some("faulty"))).expect_err("a volume in a closed backend");
    ensure!(closed.code() == Code::ResourceExhausted, "{closed:?}");
    client.create_volume(with(Some("sound")))?.volume.context("no volume")?;
    fs::rename(&away, &root)?;
    wait_until("the backend to join", LIMIT, || Ok(client.create_volume(with(Some("faulty"))).is_ok()))
}

#[test]
fn volumes_of_a_backend_that_left_the_node_are_told_at_the_start() -> Result<()> {
    if !needs_root("volumes_of_a_backend_that_left_the_node_are_told_at_the_start")? {
        return Ok(());
    }
    let mut host = setup("dir", "quota: none")?.start(DUNNAGE)?;
    let client = host.client(FAULTY)?;
    let used = volume(&host, &client, "used", mount())?;
    client.node_publish_volume(used.publish())?;
    let says = |host: &Host| host.log().contains("add its backend again");
    host.restart()?;
    ensure!(!says(&host), "{}", host.log());
    host.kill()?;
    let config = host.setup().config();
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replacen("name: faulty\n", "name: faulty\n    nodes: [elsewhere]\n", 1))?;
    host.spawn()?;
    host.wait_for(SOUND)?;
    ensure!(says(&host), "{}", host.log());
    host.kill()?;
    fs::write(&config, text)?;
    host.spawn()?;
    host.wait_for(FAULTY)?;
    host.client(FAULTY)?.node_unpublish_volume(used.unpublish())?;
    Ok(())
}

//! What this release writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_test_common::{Client, Host, MIB, Volume, block, create, mount};
use serde_json::Value;

use crate::{DISKS, DUNNAGE, FILES, POD, boot, fixture, needs_root, setup};

/// The names of fields and the kinds of their values. Paths as keys are all the same.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (if name.starts_with('/') { "/" } else { name }.to_owned(), shape(value)))
            .collect(),
        Value::Array(values) => values.iter().take(1).map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "yes or no".into(),
        Value::Null => Value::Null,
    }
}

fn made(client: &Client, name: &str, capability: csi::VolumeCapability, scratch: &Path) -> Result<Volume> {
    let made = client.create_volume(create(name, 16 * MIB, capability.clone()))?.volume.context("no volume")?;
    let stages = !name.starts_with("notes");
    Ok(Volume::new(made, capability, &scratch.join("pods").join(name), stages))
}

/// Every file with the name of its fixture, of a host at work on a volume of each kind.
fn written(host: &Host) -> Result<BTreeMap<String, Value>> {
    let scratch = host.setup().scratch().path();
    let (files, disks) = (host.client(FILES)?, host.client(DISKS)?);
    let notes = made(&files, "notes", mount(), scratch)?;
    files.node_publish_volume(notes.publish())?;
    let weekly =
        csi::CreateSnapshotRequest { source_volume_id: notes.id(), name: "weekly".into(), ..Default::default() };
    files.create_snapshot(weekly)?;
    let inline = csi::NodePublishVolumeRequest {
        volume_id: POD.0.into(),
        target_path: scratch.join("pods/pod").display().to_string(),
        volume_capability: Some(mount()),
        volume_context: [("csi.storage.k8s.io/ephemeral".into(), "true".into())].into(),
        ..Default::default()
    };
    files.node_publish_volume(inline)?;
    let (database, raw) = (made(&disks, "database", mount(), scratch)?, made(&disks, "raw", block(), scratch)?);
    for volume in [&database, &raw] {
        disks.node_stage_volume(volume.stage())?;
        disks.node_publish_volume(volume.publish())?;
    }
    // A program that fails leaves behind that the device was blank.
    fs::write(scratch.join("tools/mkfs.ext4"), "#!/bin/sh\nexit 1\n")?;
    fs::set_permissions(scratch.join("tools/mkfs.ext4"), fs::Permissions::from_mode(0o755))?;
    let half = made(&disks, "half", mount(), scratch)?;
    disks.node_stage_volume(half.stage()).expect_err("mkfs does not fail");

    // What was cut cannot be copied: the snapshot waits.
    let cut = made(&disks, "cut", block(), scratch)?;
    fs::File::options().write(true).open(host.setup().root("disks").join("images/cut"))?.set_len(0)?;
    let request =
        csi::CreateSnapshotRequest { source_volume_id: cut.id(), name: "nightly".into(), ..Default::default() };
    let nightly = disks.create_snapshot(request)?.snapshot.context("no snapshot")?;
    ensure!(!nightly.ready_to_use, "what was cut was copied");

    let mut found = BTreeMap::new();
    let mut take = |name: &str, path: &Path| -> Result<()> {
        let text = fs::read(path).with_context(|| format!("no {}", path.display()))?;
        found.insert(name.to_owned(), serde_json::from_slice(&text)?);
        Ok(())
    };
    for (driver, root) in [("dir", host.setup().root("files")), ("image", host.setup().root("disks"))] {
        take(&format!("{driver}/instance.json"), &root.join(".dunnage/instance.json"))?;
        for record in fs::read_dir(root.join(".dunnage/volumes"))? {
            let record = record?;
            let name = record.file_name().into_string().expect("not UTF-8");
            if name != "cut" {
                take(&format!("{driver}/{}.json", if name == POD.0 { "pod" } else { &name }), &record.path())?;
            }
        }
    }
    take("dir/weekly.snapshot.json", &host.setup().root("files").join(".dunnage/snapshots/weekly"))?;
    let disks = host.setup().root("disks").join(".dunnage");
    take("image/nightly.snapshot.json", &disks.join("snapshots/nightly"))?;
    take("image/nightly.job.json", &disks.join("jobs/snapshot.nightly"))?;
    for (name, volume) in [("notes", &notes), ("database", &database), ("raw", &raw)] {
        take(&format!("node/{name}.json"), &boot(host)?.join(format!("{}.json", volume.id())))?;
    }
    take("node/half.formatting.json", &scratch.join(format!("state/node/{}.formatting", half.id())))?;
    let marks: Vec<_> = fs::read_dir(scratch.join("state/ephemeral"))?.map(|mark| mark.unwrap().path()).collect();
    ensure!(marks.len() == 1, "{marks:?}");
    take("node/pod.ephemeral.json", &marks[0])?;
    take("node/disks.backend.json", &scratch.join("state/backends/disks.json"))?;
    Ok(found)
}

#[test]
fn what_is_written_has_the_form_of_this_release() -> Result<()> {
    if !needs_root("what_is_written_has_the_form_of_this_release")? {
        return Ok(());
    }
    let setup = setup()?;
    let path = format!("{}:{}", setup.scratch().folder("tools")?.display(), std::env::var("PATH").unwrap_or_default());
    let host = setup.env("PATH", path).start(DUNNAGE)?;
    let written = written(&host)?;
    for (name, value) in &written {
        let frozen = fixture(name, host.setup().scratch().path())?;
        assert_eq!(shape(value), shape(&frozen), "{name} has another form, which needs another version");
        assert_eq!(value["version"], frozen["version"], "{name}");
    }
    ensure!(written.len() == 16, "{:?}", written.keys());
    Ok(())
}

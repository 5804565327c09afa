//! `serve` and `volumes`: what they say to a person.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dunnage_test_common::{MIB, NOBODY, Need, Setup, Volume, can_run, create, mount};
use serde_json::Value;

use crate::DUNNAGE;

const FILES: &str = "files.csi.dunnage.dev";

#[test]
fn volumes_shows_what_is_on_this_node_its_use_and_its_id() -> Result<()> {
    if !can_run("volumes_shows_what_is_on_this_node_its_use_and_its_id", &[Need::Root])? {
        return Ok(());
    }
    let mut host = Setup::new()?
        .backend("files", "dir", "quota: none")?
        .backend("far", "dir", "quota: none\nnodes: [elsewhere]")?
        .prepare(DUNNAGE)?;
    host.init()?;
    host.spawn()?;
    host.wait_for(FILES)?;
    let client = host.client(FILES)?;
    let made = client.create_volume(create("notes", 64 * MIB, mount()))?.volume.context("no volume")?;
    let volume = Volume::new(made, mount(), &host.setup().scratch().path().join("pod"), false);
    client.node_publish_volume(volume.publish())?;
    let said = |more: &[&str]| -> Result<String> {
        let output = host.run(&[&["volumes"], more].concat())?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let table = said(&[])?;
    // The file system is the whole disk's: nothing of it is this volume's use.
    let row: Vec<_> = table.lines().nth(1).context("no volume")?.split_whitespace().collect();
    assert_eq!(row[..6], ["files", "notes", "64", "MiB", "-", "-"], "{table}");
    ensure!(!table.contains(&volume.id()), "{table}");
    ensure!(said(&["--wide"])?.contains(&volume.id()), "no id");
    let row: Value = serde_json::from_str(&said(&["--json"])?)?;
    assert_eq!((&row["volume_id"], &row["used_bytes"]), (&volume.id().into(), &Value::Null));
    client.node_unpublish_volume(volume.unpublish())?;
    Ok(())
}

#[test]
fn serve_says_what_starts_that_it_may_not_mount_and_what_ends_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let (file, state) = (folder.path().join("dunnage.yaml"), folder.path().join("dunnage.yaml/state"));
    let text = format!(
        "node: here\nlog: json\nstate: {}\nbackends: [{{name: a, driver: dir, root: /none, quota: none}}]\n",
        state.display()
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    let mut serve = Command::new(DUNNAGE);
    serve.args(["serve", "--config"]).arg(&file).env_remove("RUST_LOG");
    if rustix::process::geteuid().is_root() {
        serve.uid(NOBODY).gid(NOBODY);
    }
    let output = serve.output()?;
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> =
        String::from_utf8(output.stderr)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [start, rights, end] = lines.as_slice() else { anyhow::bail!("{lines:#?}") };
    assert_eq!((&start["version"], &start["node"]), (&env!("CARGO_PKG_VERSION").into(), &"here".into()));
    assert_eq!(start["config"], file.display().to_string());
    assert_eq!(rights["level"], "ERROR");
    ensure!(rights["message"].as_str().is_some_and(|text| text.contains("CAP_SYS_ADMIN")), "{rights}");
    ensure!(
        end["message"] == "cannot serve" && end["error"].as_str().is_some_and(|text| text.contains("state")),
        "{end}"
    );
    Ok(())
}

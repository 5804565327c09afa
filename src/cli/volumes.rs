//! `dunnage volumes`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dunnage_csi_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use dunnage_driver_api::{Bytes, SnapshotId, VolumeId};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{ConfigFile, Output, Program, Run, Status, Table};
use crate::client::{Endpoint, Plugin};
use crate::config::{Config, PluginConfig};
use crate::mount::{Engine, Uses};
use crate::registry::{BackgroundCopy, copies_in, untold_in};

/// How long a socket is waited for: a plugin that is served answers at once.
const WAIT: Duration = Duration::from_secs(2);
/// How many volumes or snapshots are asked for at once.
const PAGE: i32 = 1000;

/// List the volumes and snapshots of a running host: size, use, where they are on this node, and what is being copied
#[derive(Debug, clap::Args)]
pub(super) struct Volumes {
    /// The configuration.
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON: one object for each volume and each snapshot, one a line
    #[arg(long)]
    json: bool,

    /// Print the ids of the volumes too
    #[arg(long, conflicts_with = "json")]
    wide: bool,
}

/// What a plugin has.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Row {
    Volume(VolumeRow),
    Snapshot(SnapshotRow),
}

/// One volume.
#[derive(Debug, Serialize)]
struct VolumeRow {
    backend: String,
    volume_id: String,
    name: String,
    capacity_bytes: u64,
    /// Unknown where the volume is not mounted on this node, and where its file system is not its own.
    used_bytes: Option<u64>,
    staged: Option<String>,
    published: Vec<String>,
    /// It is not there yet.
    copying: Option<BackgroundCopy>,
}

/// One snapshot.
#[derive(Debug, Serialize)]
struct SnapshotRow {
    backend: String,
    snapshot_id: String,
    name: String,
    size_bytes: u64,
    source_volume_id: String,
    ready_to_use: bool,
    /// It is not ready yet.
    copying: Option<BackgroundCopy>,
}

impl Run for Volumes {
    fn run(self, program: &Program, output: &mut Output) -> anyhow::Result<Status> {
        let config = self.config.load(program.drivers())?;
        let uses = uses(&config)?;
        let runtime = crate::host::runtime().context("cannot start the runtime")?;
        let mut status = Status::Success;
        let mut rows = Vec::new();
        for (plugin, listed) in runtime.block_on(lists(&config, uses)) {
            match listed {
                Ok(listed) => {
                    rows.extend(listed.rows);
                    if listed.untold > 0 {
                        let (name, untold) = (&plugin.csi_name, listed.untold);
                        output.note(format_args!(
                            "{name}: {untold} more copies are being made, too many to be listed\n"
                        ))?;
                    }
                }
                Err(error) => {
                    output.note(format_args!("{}: {error:#}\n", plugin.csi_name))?;
                    status = Status::Failure;
                }
            }
        }
        if self.json {
            rows.iter().try_for_each(|row| output.line(serde_json::to_string(row)?).map_err(anyhow::Error::from))?;
        } else {
            output.table(&volumes_table(&rows, self.wide))?;
            if rows.iter().any(|row| matches!(row, Row::Snapshot(_))) {
                output.line("")?;
                output.table(&snapshots_table(&rows, self.wide))?;
            }
        }
        Ok(status)
    }
}

/// What one plugin says.
struct Listed {
    rows: Vec<Row>,
    /// How many more copies are being made.
    untold: u64,
}

/// What this node's own records say of where volumes are.
fn uses(config: &Config) -> anyhow::Result<BTreeMap<VolumeId, Uses>> {
    let uses = Engine::uses_in(&config.state)?;
    Ok(uses.into_iter().map(|one| (one.volume.clone(), one)).collect())
}

/// What each plugin of this node says, in the order of the configuration. All are asked at once: one that does not answer
/// is waited for no longer than that alone.
async fn lists(config: &Config, uses: BTreeMap<VolumeId, Uses>) -> Vec<(PluginConfig, anyhow::Result<Listed>)> {
    let uses = Arc::new(uses);
    let here = |plugin: &&PluginConfig| {
        plugin
            .backends
            .iter()
            .filter_map(|index| config.backends.get(*index))
            .any(|one| one.is_on(&config.node, config.mode))
    };
    let mut asked = JoinSet::new();
    for (order, plugin) in config.plugins.iter().filter(here).cloned().enumerate() {
        let uses = uses.clone();
        asked.spawn(async move {
            let listed = list(&plugin, &uses).await;
            (order, plugin, listed)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(order, ..)| *order);
    answers.into_iter().map(|(_, plugin, listed)| (plugin, listed)).collect()
}

async fn list(plugin: &PluginConfig, uses: &BTreeMap<VolumeId, Uses>) -> anyhow::Result<Listed> {
    let client = Plugin::connect(&Endpoint::at(&plugin.socket)?, WAIT).await?;
    let manifest = &client.offers().manifest;
    let mut copies = copies_in(manifest);
    let backend = |instance: Option<&str>| {
        instance.and_then(|instance| manifest.get(instance).cloned()).unwrap_or_else(|| plugin.csi_name.to_string())
    };
    let mut rows = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.list_volumes(PAGE, &token).await?;
        for volume in page.volumes {
            let id = volume.volume_id.parse::<VolumeId>();
            let used = id.as_ref().ok().and_then(|id| uses.get(id));
            // Whole since the plugin was asked.
            copies.remove(&volume.volume_id);
            rows.push(Row::Volume(VolumeRow {
                backend: backend(id.as_ref().ok().map(|id| id.instance.as_str())),
                name: id.map(|id| id.key.to_string()).unwrap_or_default(),
                capacity_bytes: volume.capacity_bytes.try_into().unwrap_or_default(),
                used_bytes: match used {
                    Some(used) => used_bytes(&client, &volume.volume_id, volume.capacity_bytes, used).await,
                    None => None,
                },
                staged: used.and_then(|used| used.staged.as_ref()).map(ToString::to_string),
                published: used
                    .map(|used| used.published.iter().map(ToString::to_string).collect())
                    .unwrap_or_default(),
                volume_id: volume.volume_id,
                copying: None,
            }));
        }
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    if client.offers().controller(ControllerRpc::ListSnapshots) {
        snapshots(&client, &backend, &mut copies, &mut rows).await?;
    }
    rows.extend(copies.into_iter().map(|(id, copy)| copied(id, copy, backend)));
    Ok(Listed { rows, untold: untold_in(manifest) })
}

/// What is not there before it is copied.
fn copied(id: String, copy: BackgroundCopy, backend: impl Fn(Option<&str>) -> String) -> Row {
    let name = copy.name.clone();
    if copy.kind == "snapshot" {
        let instance = id.parse::<SnapshotId>().ok().map(|id| id.instance);
        return Row::Snapshot(SnapshotRow {
            backend: backend(instance.as_ref().map(|instance| instance.as_str())),
            name,
            size_bytes: copy.total,
            source_volume_id: copy.source.clone(),
            ready_to_use: false,
            snapshot_id: id,
            copying: Some(copy),
        });
    }
    let instance = id.parse::<VolumeId>().ok().map(|id| id.instance);
    Row::Volume(VolumeRow {
        backend: backend(instance.as_ref().map(|instance| instance.as_str())),
        name,
        capacity_bytes: copy.capacity.unwrap_or_default(),
        used_bytes: None,
        staged: None,
        published: Vec::new(),
        volume_id: id,
        copying: Some(copy),
    })
}

/// Adds the snapshots, each with how far its copy is.
async fn snapshots(
    client: &Plugin,
    backend: impl Fn(Option<&str>) -> String,
    copies: &mut HashMap<String, BackgroundCopy>,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let mut token = String::new();
    loop {
        let (page, next) = client.list_snapshots(PAGE, &token).await?;
        for snapshot in page {
            let id = snapshot.snapshot_id.parse::<SnapshotId>().ok();
            rows.push(Row::Snapshot(SnapshotRow {
                backend: backend(id.as_ref().map(|id| id.instance.as_str())),
                name: id.map(|id| id.key.to_string()).unwrap_or_default(),
                size_bytes: snapshot.size_bytes.try_into().unwrap_or_default(),
                copying: copies.remove(&snapshot.snapshot_id).filter(|_| !snapshot.ready_to_use),
                snapshot_id: snapshot.snapshot_id,
                source_volume_id: snapshot.source_volume_id,
                ready_to_use: snapshot.ready_to_use,
            }));
        }
        token = next;
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// What the volume's file system says is taken; unknown for raw block, where it does not answer, and where it is larger
/// than the volume: a folder without a quota shares the file system of its disk.
async fn used_bytes(client: &Plugin, volume_id: &str, capacity: i64, uses: &Uses) -> Option<u64> {
    let staging = uses.staged.as_ref().map(AsRef::as_ref);
    let path = uses.published.first().map(AsRef::as_ref).or(staging)?;
    let usage = client.node_get_volume_stats(volume_id, path, staging).await.ok()?;
    let bytes = usage.iter().find(|usage| usage.unit == 1 && usage.total <= capacity)?;
    bytes.used.try_into().ok().filter(|used| *used > 0)
}

fn volumes_table(rows: &[Row], wide: bool) -> Table {
    let mut table =
        Table::with_head(["BACKEND", "VOLUME", "SIZE", "USED", "STAGED", "PUBLISHED", if wide { "ID" } else { "" }]);
    for row in rows {
        let Row::Volume(row) = row else { continue };
        let dash = || "-".to_owned();
        let used = row.used_bytes.map_or_else(dash, |bytes| Bytes::new(bytes).to_string());
        table.row([
            row.backend.as_str().into(),
            row.name.as_str().into(),
            Bytes::new(row.capacity_bytes).into(),
            row.copying.as_ref().map_or(used, BackgroundCopy::state).into(),
            row.staged.clone().unwrap_or_else(dash).into(),
            if row.published.is_empty() { dash() } else { row.published.join(" ") }.into(),
            if wide { row.volume_id.as_str() } else { "" }.into(),
        ]);
    }
    table
}

fn snapshots_table(rows: &[Row], wide: bool) -> Table {
    let mut table = Table::with_head(["BACKEND", "SNAPSHOT", "SIZE", "OF", "STATE", if wide { "ID" } else { "" }]);
    for row in rows {
        let Row::Snapshot(row) = row else { continue };
        let state = match &row.copying {
            Some(copy) => copy.state(),
            None if row.ready_to_use => "ready".into(),
            None => "not ready".into(),
        };
        let source = row.source_volume_id.parse::<VolumeId>();
        table.row([
            row.backend.as_str().into(),
            row.name.as_str().into(),
            Bytes::new(row.size_bytes).into(),
            source.map_or_else(|_| row.source_volume_id.clone(), |id| id.key.to_string()).into(),
            state.into(),
            if wide { row.snapshot_id.as_str() } else { "" }.into(),
        ]);
    }
    table
}

//! `dunnage volumes`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dunnage_driver_api::{Bytes, VolumeId};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{ConfigFile, Output, Program, Run, Status, Table};
use crate::client::{Endpoint, Plugin};
use crate::config::{Config, PluginConfig};
use crate::mount::{Engine, Uses};

/// How long a socket is waited for: a plugin that is served answers at once.
const WAIT: Duration = Duration::from_secs(2);
/// How many volumes are asked for at once.
const PAGE: i32 = 1000;

/// List the volumes of a running host: size, use, and where they are on this node
#[derive(Debug, clap::Args)]
pub(super) struct Volumes {
    /// The configuration.
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON: one object for each volume, one a line
    #[arg(long)]
    json: bool,

    /// Print the ids of the volumes too
    #[arg(long, conflicts_with = "json")]
    wide: bool,
}

/// One volume.
#[derive(Debug, Serialize)]
struct Row {
    backend: String,
    volume_id: String,
    name: String,
    capacity_bytes: u64,
    /// Unknown where the volume is not mounted on this node, and where its file system is not its own.
    used_bytes: Option<u64>,
    staged: Option<String>,
    published: Vec<String>,
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
                Ok(listed) => rows.extend(listed),
                Err(error) => {
                    output.note(format_args!("{}: {error:#}\n", plugin.csi_name))?;
                    status = Status::Failure;
                }
            }
        }
        if self.json {
            rows.iter().try_for_each(|row| output.line(serde_json::to_string(row)?).map_err(anyhow::Error::from))?;
        } else {
            output.table(&table(&rows, self.wide))?;
        }
        Ok(status)
    }
}

/// What this node's own records say of where volumes are.
fn uses(config: &Config) -> anyhow::Result<BTreeMap<VolumeId, Uses>> {
    let uses = Engine::uses_in(&config.state)?;
    Ok(uses.into_iter().map(|one| (one.volume.clone(), one)).collect())
}

/// What each plugin of this node says, in the order of the configuration. All are asked at once: one that does not answer
/// is waited for no longer than that alone.
async fn lists(config: &Config, uses: BTreeMap<VolumeId, Uses>) -> Vec<(PluginConfig, anyhow::Result<Vec<Row>>)> {
    let uses = Arc::new(uses);
    let here = |plugin: &&PluginConfig| {
        plugin.backends.iter().filter_map(|index| config.backends.get(*index)).any(|one| one.is_on(&config.node))
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

async fn list(plugin: &PluginConfig, uses: &BTreeMap<VolumeId, Uses>) -> anyhow::Result<Vec<Row>> {
    let client = Plugin::connect(&Endpoint::at(&plugin.socket)?, WAIT).await?;
    let mut rows = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.list_volumes(PAGE, &token).await?;
        for volume in page.volumes {
            let id = volume.volume_id.parse::<VolumeId>();
            let used = id.as_ref().ok().and_then(|id| uses.get(id));
            let backend = id.as_ref().ok().and_then(|id| client.offers().manifest.get(id.instance.as_str()));
            rows.push(Row {
                backend: backend.cloned().unwrap_or_else(|| plugin.csi_name.to_string()),
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
            });
        }
        token = page.next_token;
        if token.is_empty() {
            return Ok(rows);
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

fn table(rows: &[Row], wide: bool) -> Table {
    let mut table =
        Table::with_head(["BACKEND", "VOLUME", "SIZE", "USED", "STAGED", "PUBLISHED", if wide { "ID" } else { "" }]);
    for row in rows {
        let dash = || "-".to_owned();
        table.row([
            row.backend.as_str().into(),
            row.name.as_str().into(),
            Bytes::new(row.capacity_bytes).into(),
            row.used_bytes.map_or_else(dash, |bytes| Bytes::new(bytes).to_string()).into(),
            row.staged.clone().unwrap_or_else(dash).into(),
            if row.published.is_empty() { dash() } else { row.published.join(" ") }.into(),
            if wide { row.volume_id.as_str() } else { "" }.into(),
        ]);
    }
    table
}

//! `dunnage volumes`

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use dunnage_driver_api::{Bytes, DriverEntry, VolumeId};
use serde::Serialize;

use super::{ConfigFile, Output, Run, Status, Table};
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
}

/// One volume.
#[derive(Debug, Serialize)]
struct Row {
    backend: String,
    volume_id: String,
    name: String,
    capacity_bytes: u64,
    /// Unknown where the volume is not mounted on this node.
    used_bytes: Option<u64>,
    staged: Option<String>,
    published: Vec<String>,
}

impl Run for Volumes {
    fn run(self, drivers: &[DriverEntry], output: &mut Output) -> anyhow::Result<Status> {
        let config = self.config.load(drivers)?;
        let uses = uses(&config)?;
        let runtime = crate::host::runtime().context("cannot start the runtime")?;
        let mut status = Status::Success;
        let mut rows = Vec::new();
        for plugin in &config.plugins {
            match runtime.block_on(list(plugin, &uses)) {
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
            output.table(&table(&rows))?;
        }
        Ok(status)
    }
}

/// What this node's own records say of where volumes are.
fn uses(config: &Config) -> anyhow::Result<BTreeMap<VolumeId, Uses>> {
    let uses = Engine::uses_in(&config.state)?;
    Ok(uses.into_iter().map(|one| (one.volume.clone(), one)).collect())
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
                    Some(used) => used_bytes(&client, &volume.volume_id, used).await,
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

/// What the volume's file system says is taken; unknown for raw block, or where it does not answer.
async fn used_bytes(client: &Plugin, volume_id: &str, uses: &Uses) -> Option<u64> {
    let staging = uses.staged.as_ref().map(AsRef::as_ref);
    let path = uses.published.first().map(AsRef::as_ref).or(staging)?;
    let usage = client.node_get_volume_stats(volume_id, path, staging).await.ok()?;
    usage.iter().find(|usage| usage.unit == 1).and_then(|usage| usage.used.try_into().ok()).filter(|used| *used > 0)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::with_head(["BACKEND", "VOLUME", "SIZE", "USED", "STAGED", "PUBLISHED"]);
    for row in rows {
        let dash = || "-".to_owned();
        table.row([
            row.backend.as_str().into(),
            row.name.as_str().into(),
            Bytes::new(row.capacity_bytes).into(),
            row.used_bytes.map_or_else(dash, |bytes| Bytes::new(bytes).to_string()).into(),
            row.staged.clone().unwrap_or_else(dash).into(),
            if row.published.is_empty() { dash() } else { row.published.join(" ") }.into(),
        ]);
    }
    table
}

//! One plugin: served as soon as its backends are open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dunnage_csi_proto::FILE_DESCRIPTOR_SET;
use dunnage_driver_api::{Error, Result};
use tokio::sync::watch;
use tower::ServiceBuilder;

use super::backend::{Slot, State};
use super::status::Status;
use crate::config::CsiName;
use crate::registry::Plugin;
use crate::server::{self, Socket, introspection};
use crate::service::{self, Environment, Services};
use crate::telemetry::Telemetry;

/// How long a plugin waits for the last of its backends, once one of them is open or all are remembered: what it
/// advertises is fixed when it is served.
const GRACE: Duration = Duration::from_secs(10);
/// How soon a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What it takes to serve one plugin.
pub(super) struct Serving {
    pub(super) name: CsiName,
    pub(super) socket: PathBuf,
    pub(super) slots: Vec<Slot>,
    pub(super) environment: Environment,
    pub(super) telemetry: Telemetry,
    pub(super) status: Arc<Status>,
    /// Its place in the status.
    pub(super) index: usize,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) drain: Duration,
}

impl Serving {
    /// Serves the plugin until the process stops. One whose backends are all on other nodes has no socket here.
    pub(super) async fn run(mut self) {
        self.slots.retain(|slot| !matches!(slot.state(), State::Elsewhere));
        if self.slots.is_empty() {
            return;
        }
        while !*self.stopping.borrow() {
            match self.serve().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(plugin = %self.name, error = error.report(), "plugin is not served; it is tried again");
                    self.status.down(self.index, error.report());
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn serve(&self) -> Result<()> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.opened() => {}
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        }
        let members: Vec<_> = self.slots.iter().map(Slot::member).collect();
        // By what the plugin is made of: one that opens from here on is late.
        let late: Vec<_> = self.slots.iter().zip(&members).filter(|(_, member)| member.open.is_none()).collect();
        let late = late.into_iter().map(|(slot, _)| slot.clone()).collect();
        let (node, mode) = (self.environment.node.clone(), self.environment.mode);
        let plugin = Plugin::new(self.name.clone(), node, mode, members)
            .ok_or_else(|| Error::internal("none of the plugin's backends is open or remembered"))?;
        let plugin = Arc::new(plugin);
        let folder = self.socket.parent().map(PathBuf::from).unwrap_or_default();
        let services = Services::new(plugin.clone(), folder, &self.environment);
        let mut routes = services.routes();
        let _health = introspection::add(&mut routes, &[FILE_DESCRIPTOR_SET], &service::NAMES).await?;
        let observed =
            ServiceBuilder::new().layer(self.telemetry.layer(self.name.as_str())).service(routes.routes().prepare());
        let socket = Socket::bind(&self.socket).await?;
        tracing::info!(plugin = %self.name, socket = %self.socket.display(), offers = %plugin.offers, "plugin is served");
        for (backend, loss) in plugin.losses() {
            tracing::info!(plugin = %self.name, %backend, loss, "a shared name takes away what this backend offers alone");
        }
        self.status.up(self.index);
        let joining = join(plugin, late);
        let serving =
            server::serve(socket, observed, async move { drop(stopping.wait_for(|stop| *stop).await) }, self.drain);
        tokio::select! {
            served = serving => served,
            never = joining => match never {},
        }
    }

    /// Waits until it is known what to advertise: all backends are open, or a while has passed since the first one is,
    /// or since the start where what the others offered is remembered.
    async fn opened(&self) {
        let all = async {
            for slot in &self.slots {
                slot.opened().await;
            }
        };
        let grace = async {
            if self.slots.iter().any(|slot| slot.remembered.is_none()) {
                first_opened(&self.slots).await;
            }
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = all => {}
            () = grace => {}
        }
    }
}

/// Waits until one of the backends is open.
async fn first_opened(slots: &[Slot]) {
    let mut waiting: tokio::task::JoinSet<_> = slots
        .iter()
        .cloned()
        .map(|slot| async move {
            slot.opened().await;
        })
        .collect();
    waiting.join_next().await;
}

/// Lets those that open late answer too, for ever.
async fn join(plugin: Arc<Plugin>, late: Vec<Slot>) -> std::convert::Infallible {
    let mut joining = tokio::task::JoinSet::new();
    for slot in late {
        let plugin = plugin.clone();
        joining.spawn(async move {
            let backend = slot.opened().await;
            if let Err(error) = plugin.join(backend) {
                slot.leave_out(error.report());
            }
        });
    }
    while joining.join_next().await.is_some() {}
    std::future::pending().await
}

//! Making a connection.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use dunnage_driver_api::{Error, NodeId, Result};
use rustix::io::Errno;

use crate::config::NvmeTcp;
use crate::names::{self, Uuid};
use crate::wanted::Wanted;

/// How long a target may take to accept a connection.
const ACCEPTS: Duration = Duration::from_secs(5);

/// How this node connects.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    host: String,
    id: Uuid,
    text: String,
}

impl Options {
    /// Those of a node with this configuration.
    pub(crate) fn new(config: &NvmeTcp, node: &NodeId) -> Self {
        let mut text = format!(
            "ctrl_loss_tmo={},reconnect_delay={},keep_alive_tmo={},queue_size={}",
            config.loss_seconds, config.reconnect_seconds, config.keep_alive_seconds, config.queue_size
        );
        if let Some(queues) = config.queues {
            text.push_str(&format!(",nr_io_queues={queues}"));
        }
        Self { host: names::host(node), id: names::host_id(node), text }
    }

    /// The name by which it connects.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// What the kernel is told to connect to a target.
    fn line(&self, wanted: &Wanted) -> String {
        format!(
            "transport=tcp,traddr={},trsvcid={},nqn={},hostnqn={},hostid={},{}",
            wanted.target.ip(),
            wanted.target.port(),
            wanted.nqn,
            self.host,
            self.id,
            self.text
        )
    }
}

/// Looks whether anybody is there: the kernel waits for minutes where nobody answers.
pub(super) fn knock(target: SocketAddr, until: Instant) -> Result<()> {
    let within = ACCEPTS.min(until.saturating_duration_since(Instant::now())).max(Duration::from_millis(100));
    TcpStream::connect_timeout(&target, within).map(drop).map_err(|error| {
        Error::precondition(format!(
            "the NVMe target at {target} cannot be reached: see to the network and to that node"
        ))
        .caused_by(error)
        .retry(true)
    })
}

/// Connects, unless somebody else just did; answers whether it was done here.
pub(super) fn connect(fabrics: &Path, wanted: &Wanted, options: &Options) -> Result<bool> {
    let mut file = File::options().read(true).write(true).open(fabrics).map_err(|error| {
        Error::precondition(format!(
            "{} cannot be opened: run `modprobe nvme-tcp` on the node at each start, and give the container the node's \
             /dev",
            fabrics.display()
        ))
        .caused_by(error)
    })?;
    match file.write_all(options.line(wanted).as_bytes()) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ALREADY) => return Ok(false),
        Err(error) => {
            let why = match Errno::from_io_error(&error) {
                Some(Errno::INVAL) => "this kernel does not take these settings",
                _ => "the volume is attached to another node, or its target has come back without it",
            };
            return Err(Error::precondition(format!(
                "the NVMe target at {} does not let this node in: {why}",
                wanted.target
            ))
            .with("nqn", &wanted.nqn)
            .caused_by(error)
            .retry(true));
        }
    }
    // It says which controller it is, as sysfs does.
    let mut said = String::new();
    let _ = file.read_to_string(&mut said);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::NamespaceId;

    fn wanted(address: &str) -> Wanted {
        let uuid: Uuid = "12345678-1234-1234-1234-123456789abc".parse().unwrap();
        Wanted { nqn: "nqn.x:y".into(), namespace: NamespaceId::Uuid(uuid), target: address.parse().unwrap() }
    }

    #[test]
    fn the_kernel_is_told_who_connects_to_what_and_how() {
        let config: NvmeTcp =
            serde_json::from_str(r#"{"address": "10.0.0.1", "loss_seconds": 60, "queues": 2}"#).unwrap();
        let node = NodeId::of(&"node-7".parse().unwrap());
        let options = Options::new(&config, &node);
        let (host, id) = (names::host(&node), names::host_id(&node));
        assert_eq!(
            options.line(&wanted("[fd00::1]:4420")),
            format!(
                "transport=tcp,traddr=fd00::1,trsvcid=4420,nqn=nqn.x:y,hostnqn={host},hostid={id},ctrl_loss_tmo=60,\
                 reconnect_delay=2,keep_alive_tmo=5,queue_size=128,nr_io_queues=2"
            )
        );
    }

    #[test]
    fn a_target_that_is_not_there_is_told_soon() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        knock(address, Instant::now() + ACCEPTS).unwrap();
        drop(free);
        let error = knock(address, Instant::now() + ACCEPTS).unwrap_err();
        assert!(error.to_string().contains("cannot be reached") && error.retry_can_help(), "{error}");
    }
}

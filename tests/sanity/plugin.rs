//! What a plugin advertises.

use std::collections::BTreeSet;

use anyhow::Result;
use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_csi_proto::csi::v1::controller_service_capability::Type as ControllerType;
use dunnage_csi_proto::csi::v1::identity_client::IdentityClient;
use dunnage_csi_proto::csi::v1::node_client::NodeClient;
use dunnage_csi_proto::csi::v1::node_service_capability::Type as NodeType;
use dunnage_csi_proto::csi::v1::plugin_capability::Type as PluginType;
use dunnage_csi_proto::csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, NodeGetCapabilitiesRequest,
};
use dunnage_test_common::Host;

/// A capability of a service: `controller`, `node` or `plugin`, and its name in the specification.
pub(crate) type Advertised = BTreeSet<String>;

pub(crate) fn advertised(host: &Host, csi_name: &str) -> Result<Advertised> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let channel = host.channel(csi_name).await?;
        let mut names = BTreeSet::new();
        let answer =
            IdentityClient::new(channel.clone()).get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await?;
        for capability in answer.into_inner().capabilities {
            if let Some(PluginType::Service(service)) = capability.r#type {
                names.insert(format!("plugin {}", service.r#type().as_str_name()));
            }
        }
        let request = ControllerGetCapabilitiesRequest {};
        let answer = ControllerClient::new(channel.clone()).controller_get_capabilities(request).await?;
        for capability in answer.into_inner().capabilities {
            if let Some(ControllerType::Rpc(rpc)) = capability.r#type {
                names.insert(format!("controller {}", rpc.r#type().as_str_name()));
            }
        }
        let answer = NodeClient::new(channel).node_get_capabilities(NodeGetCapabilitiesRequest {}).await?;
        for capability in answer.into_inner().capabilities {
            if let Some(NodeType::Rpc(rpc)) = capability.r#type {
                names.insert(format!("node {}", rpc.r#type().as_str_name()));
            }
        }
        Ok(names)
    })
}

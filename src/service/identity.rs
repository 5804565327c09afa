//! The Identity service.

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::identity_server::Identity;
use tonic::{Request, Response};

use super::call::Answer;
use super::{Services, capabilities};

#[tonic::async_trait]
impl Identity for Services {
    async fn get_plugin_info(&self, _: Request<csi::GetPluginInfoRequest>) -> Answer<csi::GetPluginInfoResponse> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: self.0.plugin.name.to_string(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: self.0.plugin.manifest(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Answer<csi::GetPluginCapabilitiesResponse> {
        let capabilities = capabilities::plugin(self.0.plugin.offers);
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Always ready: the socket is there only while the plugin is (some orchestrators never ask twice).
    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Answer<csi::ProbeResponse> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

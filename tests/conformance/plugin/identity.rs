//! Who the plugin is.

use dunnage_csi_proto::csi::v1::identity_server::Identity;
use dunnage_csi_proto::csi::v1::plugin_capability::service::Type as Service;
use dunnage_csi_proto::csi::v1::plugin_capability::{self, VolumeExpansion, volume_expansion};
use dunnage_csi_proto::csi::v1::*;
use tonic::Request;

use super::{Answer, Plugin, ok};
use crate::mutant::Mutant;

#[tonic::async_trait]
impl Identity for Plugin {
    async fn get_plugin_info(&self, _: Request<GetPluginInfoRequest>) -> Answer<GetPluginInfoResponse> {
        let name = if self.is(Mutant::BadPluginName) { "right_plugin-" } else { "right.example.com" };
        let version = if self.is(Mutant::NoVendorVersion) { "" } else { "1" };
        let (name, vendor_version) = (name.to_owned(), version.to_owned());
        ok(GetPluginInfoResponse { name, vendor_version, ..Default::default() })
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        let mut services = vec![
            Service::ControllerService,
            Service::GroupControllerService,
            Service::SnapshotMetadataService,
            Service::VolumeAccessibilityConstraints,
        ];
        if self.is(Mutant::TopologyNotAdvertised) {
            services.pop();
        }
        if self.is(Mutant::OtherCapabilitiesEachTime) {
            let mut state = self.state();
            state.next += 1;
            services.truncate(3 + usize::try_from(state.next % 2).unwrap());
        }
        let service = |service: Service| PluginCapability {
            r#type: Some(plugin_capability::Type::Service(plugin_capability::Service { r#type: service.into() })),
        };
        let mut capabilities: Vec<_> = services.into_iter().map(service).collect();
        let expansion = VolumeExpansion { r#type: volume_expansion::Type::Online.into() };
        capabilities.push(PluginCapability { r#type: Some(plugin_capability::Type::VolumeExpansion(expansion)) });
        ok(GetPluginCapabilitiesResponse { capabilities })
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        if self.is(Mutant::ProbeFails) {
            return Err(tonic::Status::failed_precondition("not well"));
        }
        ok(ProbeResponse { ready: Some(true) })
    }
}

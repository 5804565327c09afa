//! ControllerPublishVolume and its way back.

use dunnage_csi_proto::csi::v1::controller_service_capability::rpc;
use dunnage_driver_api::{Attachment, NodeId};

use super::fake::{attaching, services};
use super::*;
use crate::service::Services;

fn raw(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(AccessType::Block(Default::default())), ..capability(mode, &[]) }
}

fn node(name: &str) -> String {
    NodeId::of(&name.parse().unwrap()).to_string()
}

struct Rig {
    services: Services,
    volume: String,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// A volume of a backend that attaches, behind one name with backends that may not.
    async fn new(plain: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut backends = vec![attaching("a")];
        backends.extend(plain.iter().map(|name| backend(name, &Arc::default(), 1 << 30)));
        let services = services(backends, folder.path());
        let volume = Self::make(&services, "a").await;
        Self { services, volume, _folder: folder }
    }

    async fn make(services: &Services, backend: &str) -> String {
        let mut request = create(raw(Mode::SingleNodeWriter), "here");
        request.get_mut().parameters = [("backend".to_owned(), backend.to_owned())].into();
        if backend == "b" {
            request.get_mut().volume_capabilities = vec![capability(Mode::SingleNodeWriter, &[])];
        }
        services.create_volume(request).await.unwrap().into_inner().volume.unwrap().volume_id
    }

    fn request(&self, node_id: &str, mode: Mode) -> csi::ControllerPublishVolumeRequest {
        csi::ControllerPublishVolumeRequest {
            volume_id: self.volume.clone(),
            node_id: node_id.to_owned(),
            volume_capability: Some(raw(mode)),
            ..Default::default()
        }
    }

    async fn publish(
        &self,
        request: csi::ControllerPublishVolumeRequest,
    ) -> Result<std::collections::HashMap<String, String>, tonic::Status> {
        let answer = self.services.controller_publish_volume(Request::new(request)).await;
        answer.map(|answer| answer.into_inner().publish_context)
    }

    async fn unpublish(&self, volume_id: &str, node_id: &str) -> Result<(), tonic::Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: node_id.to_owned(),
            ..Default::default()
        };
        self.services.controller_unpublish_volume(Request::new(request)).await.map(drop)
    }

    async fn refused(&self, request: csi::ControllerPublishVolumeRequest, code: Code, words: &str) {
        let status = self.publish(request).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(words), "{status}, wanted {code:?} with {words:?}");
    }

    async fn nodes(&self) -> Vec<String> {
        let got = csi::ControllerGetVolumeRequest { volume_id: self.volume.clone() };
        let got = self.services.controller_get_volume(Request::new(got)).await.unwrap().into_inner();
        let listed = self.services.list_volumes(Request::new(Default::default())).await.unwrap().into_inner();
        let mut entries = listed.entries.into_iter();
        let entry = entries.find(|entry| entry.volume.as_ref().unwrap().volume_id == self.volume).unwrap();
        let nodes = got.status.unwrap().published_node_ids;
        assert_eq!(entry.status.unwrap().published_node_ids, nodes);
        nodes
    }

    async fn capabilities(&self) -> Vec<rpc::Type> {
        use dunnage_csi_proto::csi::v1::controller_service_capability as capability;
        let said = self.services.controller_get_capabilities(Request::new(Default::default())).await.unwrap();
        let all = said.into_inner().capabilities.into_iter().filter_map(|one| one.r#type);
        all.map(|capability::Type::Rpc(rpc)| rpc.r#type()).collect()
    }
}

const ONE: Mode = Mode::SingleNodeWriter;
const MANY: Mode = Mode::MultiNodeMultiWriter;

#[tokio::test]
async fn a_volume_is_one_nodes_until_it_is_unpublished_from_there() {
    let rig = Rig::new(&[]).await;
    let (one, two) = (node("one"), node("two"));
    let first = rig.publish(rig.request(&one, ONE)).await.unwrap();
    assert!(first.contains_key(Attachment::WORD) && first["shelf"] == "7");
    assert_eq!(rig.publish(rig.request(&one, ONE)).await.unwrap(), first);
    assert_eq!(rig.nodes().await, std::slice::from_ref(&one));
    for mode in [ONE, MANY] {
        rig.refused(rig.request(&two, mode), Code::FailedPrecondition, &format!("attached to node {one}")).await;
    }
    let delete = || csi::DeleteVolumeRequest { volume_id: rig.volume.clone(), ..Default::default() };
    let status = rig.services.delete_volume(Request::new(delete())).await.unwrap_err();
    assert!(status.code() == Code::FailedPrecondition && status.message().contains(&one), "{status}");
    for _ in 0..2 {
        rig.unpublish(&rig.volume, &one).await.unwrap();
    }
    let again = rig.publish(rig.request(&one, ONE)).await.unwrap();
    assert_ne!(again[Attachment::WORD], first[Attachment::WORD], "what comes late would be let in");
    rig.unpublish(&rig.volume, "").await.unwrap();
    rig.publish(rig.request(&two, ONE)).await.unwrap();
    rig.unpublish(&rig.volume, &two).await.unwrap();
    rig.services.delete_volume(Request::new(delete())).await.unwrap();
    rig.unpublish(&rig.volume, &two).await.unwrap();
    rig.refused(rig.request(&one, ONE), Code::NotFound, "does not exist").await;
}

#[tokio::test]
async fn several_nodes_have_a_raw_volume_together_where_all_say_so() {
    let rig = Rig::new(&[]).await;
    let (one, two) = (node("one"), node("two"));
    rig.publish(rig.request(&one, MANY)).await.unwrap();
    rig.refused(rig.request(&two, ONE), Code::FailedPrecondition, &one).await;
    rig.publish(rig.request(&two, MANY)).await.unwrap();
    assert_eq!(rig.nodes().await, [one.clone(), two.clone()]);
    rig.unpublish(&rig.volume, &one).await.unwrap();
    assert_eq!(rig.nodes().await, [two]);
    rig.unpublish(&rig.volume, "").await.unwrap();
    assert!(rig.nodes().await.is_empty());
}

#[tokio::test]
async fn a_volume_that_has_one_writer_is_written_by_one_node_and_read_by_others() {
    const SINGLE_WRITER: Mode = Mode::MultiNodeSingleWriter;
    let rig = Rig::new(&[]).await;
    let (one, two) = (node("one"), node("two"));
    let reader = |mode| csi::ControllerPublishVolumeRequest { readonly: true, ..rig.request(&two, mode) };
    for (first, second) in [(SINGLE_WRITER, SINGLE_WRITER), (SINGLE_WRITER, MANY), (MANY, SINGLE_WRITER)] {
        rig.publish(rig.request(&one, first)).await.unwrap();
        rig.refused(rig.request(&two, second), Code::FailedPrecondition, &format!("attached to node {one}")).await;
        rig.publish(reader(second)).await.unwrap();
        assert_eq!(rig.nodes().await.len(), 2);
        rig.unpublish(&rig.volume, "").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_asked_otherwise_or_wrongly_is_refused() {
    let rig = Rig::new(&[]).await;
    let one = node("one");
    rig.publish(rig.request(&one, ONE)).await.unwrap();
    let readonly = csi::ControllerPublishVolumeRequest { readonly: true, ..rig.request(&one, ONE) };
    rig.refused(readonly.clone(), Code::AlreadyExists, "in another way").await;
    rig.refused(rig.request(&one, MANY), Code::AlreadyExists, "in another way").await;
    let mounted = Some(capability(ONE, &[]));
    let mounted = csi::ControllerPublishVolumeRequest { volume_capability: mounted, ..rig.request(&one, ONE) };
    rig.refused(mounted, Code::AlreadyExists, "in another way").await;
    let context = [("shelf".to_owned(), "8".to_owned())].into();
    let wrong = csi::ControllerPublishVolumeRequest { volume_context: context, ..rig.request(&one, ONE) };
    rig.refused(wrong, Code::InvalidArgument, "volume_context").await;
    for (name, code) in
        [("one", Code::NotFound), ("", Code::InvalidArgument), (&"n".repeat(300), Code::InvalidArgument)]
    {
        rig.refused(rig.request(name, ONE), code, "node").await;
    }
    for (volume, node_id) in [(rig.volume.as_str(), "one"), ("no-id-of-ours", &one)] {
        rig.unpublish(volume, node_id).await.unwrap();
    }
    assert_eq!(rig.nodes().await, std::slice::from_ref(&one));
    rig.unpublish(&rig.volume, &one).await.unwrap();
    let context = rig.publish(readonly).await.unwrap();
    assert_eq!(context[Attachment::READONLY], "true");
}

#[tokio::test]
async fn behind_a_shared_name_a_volume_that_needs_no_attaching_has_an_empty_context() {
    let mut rig = Rig::new(&["b"]).await;
    let wanted = [rpc::Type::PublishUnpublishVolume, rpc::Type::PublishReadonly, rpc::Type::ListVolumesPublishedNodes];
    let said = rig.capabilities().await;
    assert_eq!(wanted.map(|one| said.contains(&one)), [true, false, false]);
    let alone = Rig::new(&[]).await.capabilities().await;
    assert_eq!(wanted.map(|one| alone.contains(&one)), [true; 3]);
    rig.volume = Rig::make(&rig.services, "b").await;
    let request = csi::ControllerPublishVolumeRequest {
        volume_capability: Some(capability(ONE, &[])),
        ..rig.request(&node("one"), ONE)
    };
    for _ in 0..2 {
        assert!(rig.publish(request.clone()).await.unwrap().is_empty());
    }
    let readonly = csi::ControllerPublishVolumeRequest { readonly: true, ..request };
    rig.refused(readonly, Code::InvalidArgument, "readonly").await;
    rig.unpublish(&rig.volume, &node("one")).await.unwrap();
}

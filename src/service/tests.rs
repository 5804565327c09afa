//! The way of a request on stores in memory.

mod attach;
mod fake;
mod snapshot_metadata;
mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::controller_server::Controller;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use dunnage_driver_api::TargetPath;
use tonic::{Code, Request};

use self::fake::{Door, backend, services};
use super::call::Call;
use super::{ephemeral, storage_health};
use crate::wire::{self, EphemeralRequest, Publish};

fn capability(mode: Mode, flags: &[&str]) -> csi::VolumeCapability {
    let mount_flags = flags.iter().map(ToString::to_string).collect();
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume { mount_flags, ..MountVolume::default() })),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

fn create(capability: csi::VolumeCapability, node: &str) -> Request<csi::CreateVolumeRequest> {
    let here = csi::Topology { segments: [(wire::TOPOLOGY_KEY.to_owned(), node.to_owned())].into() };
    Request::new(csi::CreateVolumeRequest {
        name: "a".into(),
        capacity_range: Some(csi::CapacityRange { required_bytes: 4096, limit_bytes: 0 }),
        volume_capabilities: vec![capability],
        accessibility_requirements: Some(csi::TopologyRequirement { requisite: vec![here], preferred: vec![] }),
        ..Default::default()
    })
}

/// A request of a client that waits only so long.
fn waiting<T>(request: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(limit);
    request
}

async fn until(mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("what the test waits for has not come within a minute");
}

#[tokio::test]
async fn a_store_that_hangs_is_not_the_word_on_the_others() {
    let (folder, hung, well) = (tempfile::tempdir().unwrap(), Arc::new(Door::default()), Arc::default());
    let services = services(vec![backend("a-hung", &hung, 0), backend("b-well", &well, 0)], folder.path());
    hung.shut();
    let request = waiting((), Duration::from_millis(500));
    let adverse = storage_health::of(&services.0, Call::of("NodeGetStorageHealth", &request)).await;
    hung.open();
    let [adverse] = &adverse[..] else { panic!("{adverse:?}") };
    assert!(adverse.message.contains("a-hung") && !adverse.message.contains("b-well"), "{}", adverse.message);
}

#[tokio::test]
async fn all_backends_are_asked_for_their_room_at_once() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Arc::new(Door::default()));
    let all = [("a", 5), ("b", 7), ("c", 6)].map(|(name, room)| backend(name, &door, room));
    let services = services(all.into(), folder.path());
    door.shut();
    let asked = tokio::spawn(async move { services.get_capacity(Request::new(Default::default())).await });
    until(|| door.holds(3)).await;
    door.open();
    assert_eq!(asked.await.unwrap().unwrap().into_inner().available_capacity, 7);
}

#[tokio::test]
async fn creates_that_differ_in_what_they_want_never_join() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Arc::new(Door::default()));
    let services = services(vec![backend("a", &door, 0)], folder.path());
    let first = || create(capability(Mode::SingleNodeWriter, &[]), "here");
    door.shut();
    let running = {
        let (services, request) = (services.clone(), first());
        tokio::spawn(async move { services.create_volume(request).await })
    };
    until(|| door.holds(1)).await;
    for (what, other) in [
        ("mode", create(capability(Mode::SingleNodeSingleWriter, &[]), "here")),
        ("flags", create(capability(Mode::SingleNodeWriter, &["noatime"]), "here")),
        ("topology", create(capability(Mode::SingleNodeWriter, &[]), "there")),
    ] {
        let answer = tokio::time::timeout(Duration::from_secs(20), services.create_volume(other)).await;
        assert_eq!(answer.expect("it joined").unwrap_err().code(), Code::Aborted, "{what}");
    }
    door.open();
    let made = running.await.unwrap().unwrap().into_inner();
    assert_eq!(services.create_volume(first()).await.unwrap().into_inner(), made);
}

#[tokio::test]
async fn a_name_that_is_taken_here_exists_wherever_it_is_asked_for() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Arc::default());
    let services = services(vec![backend("a", &door, 0)], folder.path());
    let at = |node| create(capability(Mode::SingleNodeWriter, &[]), node);
    let nowhere = services.create_volume(at("there")).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::ResourceExhausted, "{nowhere}");
    services.create_volume(at("here")).await.unwrap();
    let taken = services.create_volume(at("there")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    assert!(taken.message().contains("dunnage.dev/node=here"), "{taken}");
}

#[tokio::test]
async fn a_context_is_confirmed_only_where_it_is_that_of_the_volume() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Arc::default());
    let services = services(vec![backend("a", &door, 0)], folder.path());
    let one = capability(Mode::SingleNodeWriter, &[]);
    let made = services.create_volume(create(one.clone(), "here")).await.unwrap().into_inner().volume.unwrap();
    let context = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    for (volume_context, is_right) in [
        (made.volume_context.clone(), true),
        (context(&[]), true),
        (context(&[("shelf", "7"), ("storage.kubernetes.io/csiProvisionerIdentity", "x")]), true),
        (context(&[("shelf", "8")]), false),
        (context(&[("shelf", "7"), ("colour", "red")]), false),
    ] {
        let request = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: made.volume_id.clone(),
            volume_context: volume_context.clone(),
            volume_capabilities: vec![one.clone()],
            ..Default::default()
        };
        let answer = services.validate_volume_capabilities(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(answer.confirmed.is_some(), is_right, "{volume_context:?}");
        assert_eq!(answer.message.contains("volume_context"), !is_right, "{}", answer.message);
    }
}

#[tokio::test]
async fn an_unpublish_does_not_overtake_a_publish_that_has_no_mark_yet() {
    let (folder, door) = (tempfile::tempdir().unwrap(), Arc::new(Door::default()));
    let services = services(vec![backend("a", &door, 0)], folder.path());
    let shared = services.0.clone();
    // The one thread of the backend is in a call.
    door.shut();
    let held = tokio::spawn(async move { services.list_volumes(Request::new(Default::default())).await.map(drop) });
    until(|| door.holds(1)).await;
    let publishing = {
        let (shared, request) = (shared.clone(), inline());
        let call = Call::of("NodePublishVolume", &Request::new(()));
        tokio::spawn(async move { ephemeral::publish(&shared, call, request).await })
    };
    until(|| shared.operations.count().running == 1).await;
    let unpublish = || {
        let call = Call::of("NodeUnpublishVolume", &Request::new(()));
        ephemeral::unpublish(&shared, call, "csi-1".into(), TargetPath::new("/pods/a").unwrap())
    };
    assert_eq!(unpublish().await.unwrap_err().code(), Code::Aborted);
    door.open();
    held.await.unwrap().unwrap();
    // No node can use volumes of this store: the publish fails, and takes back what it made.
    publishing.await.unwrap().unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path().join("ephemeral")).unwrap().count(), 0);
    let backend = &shared.plugin.backends()[0];
    let cx = dunnage_driver_api::Context::new(Duration::from_secs(1), Arc::new(dunnage_driver_api::System));
    assert_eq!(backend.volumes().unwrap().list(&cx, None, 10).unwrap(), []);
}

fn inline() -> EphemeralRequest {
    let request = csi::NodePublishVolumeRequest {
        volume_id: "csi-1".into(),
        target_path: "/pods/a".into(),
        volume_capability: Some(capability(Mode::SingleNodeWriter, &[])),
        volume_context: [("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned())].into(),
        ..Default::default()
    };
    match wire::publish(request).unwrap() {
        Publish::Ephemeral(request, _) => request,
        Publish::Volume(..) => panic!("not ephemeral"),
    }
}

//! Snapshots and what is made from them, over a store in memory.

use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_csi_proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use tonic::Status;

use super::fake::{Door, backend, services, snapshotting};
use super::*;
use crate::service::Services;

fn two_stores() -> (tempfile::TempDir, Services) {
    let folder = tempfile::tempdir().unwrap();
    let services = services(vec![snapshotting("a-one"), snapshotting("b-two")], folder.path());
    (folder, services)
}

pub(super) async fn volume(services: &Services, name: &str, backend: &str) -> String {
    made(services, name, Some(backend), None, 4096).await.unwrap().volume_id
}

async fn made(
    services: &Services,
    name: &str,
    backend: Option<&str>,
    source: Option<Type>,
    limit: i64,
) -> Result<csi::Volume, Status> {
    let mut request = create(capability(Mode::SingleNodeWriter, &[]), "here").into_inner();
    request.name = name.into();
    request.capacity_range = Some(csi::CapacityRange { required_bytes: 0, limit_bytes: limit });
    request.parameters = backend.map(|name| ("backend".to_owned(), name.to_owned())).into_iter().collect();
    request.volume_content_source = source.map(|source| csi::VolumeContentSource { r#type: Some(source) });
    let answer = services.create_volume(Request::new(request)).await?;
    Ok(answer.into_inner().volume.unwrap())
}

pub(super) async fn cut(services: &Services, name: &str, source: &str) -> Result<csi::Snapshot, Status> {
    let request =
        csi::CreateSnapshotRequest { name: name.into(), source_volume_id: source.into(), ..Default::default() };
    Ok(services.create_snapshot(Request::new(request)).await?.into_inner().snapshot.unwrap())
}

async fn list(services: &Services, request: csi::ListSnapshotsRequest) -> (Vec<String>, String) {
    let answer = services.list_snapshots(Request::new(request)).await.unwrap().into_inner();
    let ids = answer.entries.into_iter().map(|entry| entry.snapshot.unwrap().snapshot_id).collect();
    (ids, answer.next_token)
}

fn of(snapshot: &csi::Snapshot) -> Option<Type> {
    Some(Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id.clone() }))
}

#[tokio::test]
async fn a_repeated_snapshot_is_the_same_and_another_of_its_name_is_refused() {
    let (_folder, services) = two_stores();
    let (one, other) = (volume(&services, "v", "a-one").await, volume(&services, "w", "a-one").await);
    let snapshot = cut(&services, "s", &one).await.unwrap();
    assert_eq!(cut(&services, "s", &one).await.unwrap(), snapshot);
    assert_eq!((snapshot.size_bytes, &snapshot.source_volume_id), (4096, &one));
    assert_eq!(snapshot.accessible_topology[0].segments[wire::TOPOLOGY_KEY], "here");
    assert_eq!(cut(&services, "s", &other).await.unwrap_err().code(), Code::AlreadyExists);
    let gone = cut(&services, "t", "nobody's").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    // The source may go; the snapshot and the answer to a late retry stay.
    let delete = csi::DeleteVolumeRequest { volume_id: one.clone(), ..Default::default() };
    services.delete_volume(Request::new(delete)).await.unwrap();
    assert_eq!(cut(&services, "s", &one).await.unwrap(), snapshot);
    assert_eq!(cut(&services, "t", &one).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_deleted_snapshot_is_gone_and_so_is_every_late_call_for_it() {
    let (_folder, services) = two_stores();
    let source = volume(&services, "v", "a-one").await;
    let first = cut(&services, "s", &source).await.unwrap();
    let delete = |id: &str| Request::new(csi::DeleteSnapshotRequest { snapshot_id: id.into(), ..Default::default() });
    let get = |id: &str| Request::new(csi::GetSnapshotRequest { snapshot_id: id.into(), ..Default::default() });
    assert_eq!(services.get_snapshot(get(&first.snapshot_id)).await.unwrap().into_inner().snapshot.unwrap(), first);
    for id in [&first.snapshot_id, &first.snapshot_id, &source, "nonsense"] {
        services.delete_snapshot(delete(id)).await.unwrap();
    }
    let second = cut(&services, "s", &source).await.unwrap();
    assert_ne!(first.snapshot_id, second.snapshot_id);
    services.delete_snapshot(delete(&first.snapshot_id)).await.unwrap();
    services.get_snapshot(get(&second.snapshot_id)).await.unwrap();
    for id in [&first.snapshot_id, &source, "nonsense"] {
        assert_eq!(services.get_snapshot(get(id)).await.unwrap_err().code(), Code::NotFound, "{id}");
    }
    assert_eq!(services.delete_snapshot(delete("")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_made_from_a_source_lies_where_the_source_does_and_is_not_smaller() {
    let (_folder, services) = two_stores();
    let source = volume(&services, "v", "b-two").await;
    let snapshot = cut(&services, "s", &source).await.unwrap();
    // Nobody has to name the backend again.
    let restored = made(&services, "r", None, of(&snapshot), 0).await.unwrap();
    assert_eq!(restored.capacity_bytes, 4096);
    assert_eq!(restored.content_source.unwrap().r#type, of(&snapshot));
    let clone = Some(Type::Volume(VolumeSource { volume_id: source.clone() }));
    made(&services, "c", Some("b-two"), clone.clone(), 0).await.unwrap();
    let elsewhere = made(&services, "x", Some("a-one"), clone.clone(), 0).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::InvalidArgument, "{elsewhere}");
    let smaller = made(&services, "x", None, of(&snapshot), 4095).await.unwrap_err();
    assert_eq!(smaller.code(), Code::OutOfRange, "{smaller}");
    // The same name from another source is another volume.
    assert_eq!(made(&services, "r", None, clone, 0).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(made(&services, "r", Some("b-two"), None, 0).await.unwrap_err().code(), Code::AlreadyExists);
    let delete = csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    services.delete_snapshot(Request::new(delete)).await.unwrap();
    // A retry of what was made is answered also when the source is gone.
    made(&services, "r", None, of(&snapshot), 0).await.unwrap();
    assert_eq!(made(&services, "x", None, of(&snapshot), 0).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_source_that_the_plugin_does_not_offer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(vec![backend("a-one", &Arc::new(Door::default()), 1 << 20)], folder.path());
    let source = volume(&services, "v", "a-one").await;
    let clone = Some(Type::Volume(VolumeSource { volume_id: source.clone() }));
    let refused = made(&services, "c", None, clone, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("CLONE_VOLUME"), "{refused}");
    assert_eq!(cut(&services, "s", &source).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn pages_go_over_all_stores_and_filters_find_what_they_name() {
    let (_folder, services) = two_stores();
    let (one, other) = (volume(&services, "v", "a-one").await, volume(&services, "w", "b-two").await);
    let mut all = Vec::new();
    for (source, name) in [(&one, "s1"), (&one, "s2"), (&one, "s3"), (&other, "s1"), (&other, "s2")] {
        all.push(cut(&services, name, source).await.unwrap().snapshot_id);
    }
    assert_eq!(list(&services, Default::default()).await, (all.clone(), String::new()));
    let (mut walked, mut token) = (Vec::new(), String::new());
    for _ in 0..3 {
        let request = csi::ListSnapshotsRequest { max_entries: 2, starting_token: token, ..Default::default() };
        let (page, next) = list(&services, request).await;
        walked.extend(page);
        token = next;
    }
    assert_eq!((walked, token), (all.clone(), String::new()));
    let filter = |source: &str, snapshot: &str| csi::ListSnapshotsRequest {
        source_volume_id: source.into(),
        snapshot_id: snapshot.into(),
        max_entries: 2,
        ..Default::default()
    };
    let (page, token) = list(&services, filter(&one, "")).await;
    assert_eq!((&page[..], token.is_empty()), (&all[..2], false));
    assert_eq!(list(&services, filter(&other, "")).await, (all[3..].to_vec(), String::new()));
    assert_eq!(list(&services, filter("", &all[4])).await, (vec![all[4].clone()], String::new()));
    for nothing in [filter(&one, &all[4]), filter("nobody's", ""), filter("", "nobody's"), filter("", &one)] {
        assert_eq!(list(&services, nothing).await, (Vec::new(), String::new()));
    }
    let bad = csi::ListSnapshotsRequest { starting_token: "nonsense".into(), ..Default::default() };
    assert_eq!(services.list_snapshots(Request::new(bad)).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn only_parameters_that_can_change_are_changed_and_all_or_none() {
    let (_folder, services) = two_stores();
    let id = volume(&services, "v", "a-one").await;
    let modify = |id: &str, pairs: &[(&str, &str)]| {
        let mutable_parameters = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Request::new(csi::ControllerModifyVolumeRequest {
            volume_id: id.into(),
            mutable_parameters,
            ..Default::default()
        })
    };
    services.controller_modify_volume(modify(&id, &[("colour", "red")])).await.unwrap();
    for (id, pairs, code) in [
        (&*id, &[("colour", "red"), ("taste", "sweet")][..], Code::InvalidArgument),
        (&id, &[], Code::InvalidArgument),
        (&id, &[("backend", "b-two")], Code::InvalidArgument),
        ("", &[("colour", "red")], Code::InvalidArgument),
        ("nobody's", &[("colour", "red")], Code::NotFound),
    ] {
        let refused = services.controller_modify_volume(modify(id, pairs)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{id} {pairs:?} {refused}");
    }
}

#[tokio::test]
async fn a_source_on_another_node_sends_the_orchestrator_there() {
    let (_folder, services) = two_stores();
    let volume = volume(&services, "v", "a-one").await;
    let snapshot = cut(&services, "s", &volume).await.unwrap().snapshot_id;
    let elsewhere = |id: &str| id.replacen(&"a".repeat(26), &"y".repeat(26), 1);
    let sources = [
        Type::Snapshot(SnapshotSource { snapshot_id: elsewhere(&snapshot) }),
        Type::Volume(VolumeSource { volume_id: elsewhere(&volume) }),
    ];
    for source in sources {
        for backend in [Some("a-one"), None] {
            let status = made(&services, "w", backend, Some(source.clone()), 8192).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert!(status.message().contains("Call the node that has the store"), "{status}");
        }
    }
}

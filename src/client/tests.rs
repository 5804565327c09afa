//! The client against plugins that differ in their protocol and in their faults.

use std::collections::HashMap;
use std::time::Duration;

use crate::client::fake::{Fake, Protocol};
use crate::client::{Access, Endpoint, Life, Plain, Plugin, VolumeRequest};

async fn life(fake: &Fake) -> Life {
    let plugin = Plugin::connect(&fake.endpoint, Duration::from_secs(10)).await.unwrap();
    let request = VolumeRequest {
        name: "v".to_owned(),
        required_bytes: 1 << 20,
        access: Access::Block,
        parameters: HashMap::new(),
        snapshot_id: None,
    };
    Life::new(&plugin, request, fake.folder.path().join("v"))
}

async fn begin(life: &mut Life) -> crate::client::Result<()> {
    life.prepare(&["pod"]).await?;
    life.create().await?;
    life.attach().await?;
    life.stage().await?;
    life.publish("pod", false).await.map(drop)
}

#[tokio::test]
async fn a_life_has_only_the_calls_that_are_advertised() {
    let fake = Fake::serve(Protocol::default());
    let mut life = life(&fake).await;
    begin(&mut life).await.unwrap();
    assert!(life.end(&mut Plain).await.is_empty());
    assert_eq!(fake.calls(), ["CreateVolume", "NodePublishVolume", "NodeUnpublishVolume", "DeleteVolume"]);
    assert!(!fake.folder.path().join("v").exists());
}

#[tokio::test]
async fn the_publish_context_goes_along_and_the_life_is_taken_back_in_reverse() {
    let fake = Fake::serve(Protocol { stages: true, attaches: true, ..Protocol::default() });
    let mut life = life(&fake).await;
    begin(&mut life).await.unwrap();
    assert!(life.end(&mut Plain).await.is_empty());
    let expected = [
        "CreateVolume",
        "ControllerPublishVolume",
        "NodeStageVolume (attached)",
        "NodePublishVolume (attached)",
        "NodeUnpublishVolume",
        "NodeUnstageVolume",
        "ControllerUnpublishVolume",
        "DeleteVolume",
    ];
    assert_eq!(fake.calls(), expected);
}

#[tokio::test]
async fn a_call_that_failed_is_taken_back_since_it_may_have_done_its_work() {
    let fake = Fake::serve(Protocol { stages: true, fails: Some("NodeStageVolume"), ..Protocol::default() });
    let mut life = life(&fake).await;
    let error = begin(&mut life).await.unwrap_err();
    assert_eq!(error.to_string(), "NodeStageVolume answered INTERNAL: as the test wants it");
    assert!(life.end(&mut Plain).await.is_empty());
    assert_eq!(fake.calls()[2..], ["NodeUnstageVolume", "DeleteVolume"]);
    assert_eq!(fake.volumes(), 0);
}

#[tokio::test]
async fn a_volume_whose_create_was_never_answered_is_found_by_its_name_and_deleted() {
    let fake = Fake::serve(Protocol { loses_first_answer: true, ..Protocol::default() });
    let mut life = life(&fake).await;
    assert!(life.create().await.is_err());
    assert_eq!(fake.volumes(), 1);
    assert!(life.end(&mut Plain).await.is_empty());
    assert_eq!(fake.volumes(), 0);
}

#[tokio::test]
async fn the_plugins_process_is_known_by_its_socket() {
    let fake = Fake::serve(Protocol::default());
    let plugin = Plugin::connect(&fake.endpoint, Duration::from_secs(10)).await.unwrap();
    assert_eq!(plugin.pid(), Some(std::process::id()));
    assert_eq!(plugin.offers().name, "fake.example.com");
}

#[tokio::test]
async fn a_socket_that_nobody_serves_is_told_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::at(folder.path().join("csi.sock")).unwrap();
    let error = Plugin::connect(&endpoint, Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("csi.sock") && error.contains("is the plugin running"), "{error}");
}

//! No `Debug` output shows a secret, whatever message carries it.
//!
//! What is secret is read from the descriptors, not from the list the crate exports.

// The lints know a test by its attribute, and not what only tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use dunnage_csi_proto::csi::v1;
use dunnage_csi_proto::{FILE_DESCRIPTOR_SET, SECRET_FIELDS};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

const CANARY: &str = "canary-that-must-not-sing";

/// Both `Debug` forms of the concrete type behind a dynamic message.
type Render = fn(&DynamicMessage) -> [String; 2];

fn render<T: prost::Message + Debug + Default>(message: &DynamicMessage) -> [String; 2] {
    let typed: T = message.transcode_to().unwrap();
    [format!("{typed:?}"), format!("{typed:#?}")]
}

macro_rules! renderers {
    ($($message:ident)*) => {
        BTreeMap::from([$((
            concat!("csi.v1.", stringify!($message)).to_owned(),
            render::<v1::$message> as Render,
        )),*])
    };
}

/// The concrete types with secrets; `every_message_with_secrets_is_rendered_here` keeps it whole.
fn renderers() -> BTreeMap<String, Render> {
    renderers! {
        ControllerExpandVolumeRequest
        ControllerGetVolumeHealthRequest
        ControllerListVolumeHealthRequest
        ControllerModifyVolumeRequest
        ControllerPublishVolumeRequest
        ControllerUnpublishVolumeRequest
        CreateSnapshotRequest
        CreateVolumeGroupSnapshotRequest
        CreateVolumeRequest
        DeleteSnapshotRequest
        DeleteVolumeGroupSnapshotRequest
        DeleteVolumeRequest
        GetMetadataAllocatedRequest
        GetMetadataDeltaRequest
        GetSnapshotRequest
        GetVolumeGroupSnapshotRequest
        ListSnapshotsRequest
        NodeExpandVolumeRequest
        NodeGetStorageHealthRequest
        NodePublishVolumeRequest
        NodeStageVolumeRequest
        ValidateVolumeCapabilitiesRequest
    }
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn is_secret(field: &FieldDescriptor) -> bool {
    let pool = field.parent_pool();
    let csi_secret = pool.get_extension_by_name("csi.v1.csi_secret").unwrap();
    field.options().get_extension(&csi_secret).as_bool().unwrap()
}

fn messages_with_secrets() -> Vec<MessageDescriptor> {
    let has_secret = |message: &MessageDescriptor| message.fields().any(|f| is_secret(&f));
    pool().all_messages().filter(has_secret).collect()
}

/// `text` as the field's value, or as key and value of its only entry; none if it takes no text.
fn holding(field: &FieldDescriptor, text: &str) -> Option<Value> {
    let text_value = Value::String(text.to_owned());
    if field.is_map() {
        let entry = (MapKey::String(text.to_owned()), text_value);
        return Some(Value::Map(HashMap::from([entry])));
    }
    match field.kind() {
        Kind::String if field.is_list() => Some(Value::List(vec![text_value])),
        Kind::String => Some(text_value),
        _ => None,
    }
}

/// A message with the canary in each secret field, and a name of its own in every other that
/// takes text; also those names.
fn with_canary(descriptor: &MessageDescriptor) -> (DynamicMessage, Vec<String>) {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut visible = Vec::new();
    for field in descriptor.fields() {
        if is_secret(&field) {
            let value = holding(&field, CANARY).expect("a secret is text");
            message.set_field(&field, value);
            continue;
        }
        let name = format!("seen-{}", field.name());
        if let Some(value) = holding(&field, &name) {
            message.set_field(&field, value);
            visible.push(name);
        }
    }
    (message, visible)
}

#[test]
fn every_message_with_secrets_is_rendered_here() {
    let described: BTreeSet<String> = messages_with_secrets().iter().map(|m| m.full_name().to_owned()).collect();
    let rendered: BTreeSet<String> = renderers().into_keys().collect();
    assert_eq!(described, rendered);
}

#[test]
fn debug_shows_every_text_but_the_secret_ones() {
    let renderers = renderers();
    for descriptor in messages_with_secrets() {
        let name = descriptor.full_name();
        let (message, visible) = with_canary(&descriptor);
        for output in renderers[name](&message) {
            assert!(!output.contains(CANARY), "{name} shows a secret: {output}");
            assert!(output.starts_with(descriptor.name()), "no {name}: {output}");
            for text in &visible {
                assert!(output.contains(text), "{name} hides {text}: {output}");
            }
        }
    }
}

#[test]
fn a_message_within_which_secrets_travel_shows_them_neither() {
    let request = v1::DeleteVolumeRequest {
        volume_id: "v".to_owned(),
        secrets: HashMap::from([(CANARY.to_owned(), CANARY.to_owned())]),
    };
    let output = format!("{:?}", tonic::Request::new(request));
    assert!(!output.contains(CANARY), "{output}");
}

#[test]
fn debug_reads_as_if_derived_with_secrets_counted() {
    let access_mode = v1::volume_capability::AccessMode { mode: 1 };
    let block = v1::volume_capability::BlockVolume {};
    let request = v1::ControllerExpandVolumeRequest {
        volume_id: "v".to_owned(),
        capacity_range: None,
        secrets: HashMap::from([("k1".to_owned(), "p".to_owned()), ("k2".to_owned(), "q".to_owned())]),
        volume_capability: Some(v1::VolumeCapability {
            access_mode: Some(access_mode),
            access_type: Some(v1::volume_capability::AccessType::Block(block)),
        }),
    };
    assert_eq!(
        format!("{request:?}"),
        "ControllerExpandVolumeRequest { volume_id: \"v\", capacity_range: None, \
         secrets: <2 redacted>, volume_capability: Some(VolumeCapability { \
         access_mode: Some(AccessMode { mode: SingleNodeWriter }), \
         access_type: Some(Block(BlockVolume)) }) }"
    );
}

#[test]
fn the_exported_list_names_exactly_the_secret_fields() {
    let mut described = Vec::new();
    for message in messages_with_secrets() {
        let secret = message.fields().filter(is_secret);
        described.extend(secret.map(|f| (message.full_name().to_owned(), f.name().to_owned())));
    }
    let exported: Vec<(String, String)> = SECRET_FIELDS.iter().map(|(m, f)| (m.to_string(), f.to_string())).collect();
    assert_eq!(exported, described);
    assert_eq!(exported.len(), 22);
}

//! The descriptors shipped here say the same as the original protos.

// The lints know a test by its attribute, and not what only tests call.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod diff;
mod original;

use dunnage_csi_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use crate::diff::differences;
use crate::original::{CSI, Original, PLUGIN_REGISTRATION};

/// The file called `name` in an encoded descriptor set, as data, with its custom options known.
fn file(encoded_set: &[u8], name: &str) -> DynamicMessage {
    // csi.proto brings along the descriptor of descriptors and the options it adds to it.
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let set = pool.get_message_by_name("google.protobuf.FileDescriptorSet").unwrap();
    let set = DynamicMessage::decode(set, encoded_set).unwrap();
    let files = set.get_field_by_name("file").unwrap();
    let named = |file: &&DynamicMessage| file.get_field_by_name("name").unwrap().as_str() == Some(name);
    let mut files = files.as_list().unwrap().iter().filter_map(Value::as_message);
    files.find(named).unwrap_or_else(|| panic!("no file {name}")).clone()
}

/// The original compiled; none, said on stderr, where it cannot be had and need not be.
fn compile(original: &Original) -> Option<DynamicMessage> {
    let folder = match original.folder() {
        Ok(folder) => folder,
        Err(why) if std::env::var_os("DUNNAGE_REQUIRE_ALL").is_some_and(|v| v == "1") => {
            panic!("{why}")
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let mut compiler = protox::Compiler::new([&folder]).unwrap();
    compiler.include_imports(true).open_file(original.file).unwrap();
    Some(file(&compiler.encode_file_descriptor_set(), original.file))
}

#[test]
fn csi_is_the_original_in_every_part() {
    let Some(original) = compile(&CSI) else {
        return;
    };
    let found = differences(&file(FILE_DESCRIPTOR_SET, "csi.proto"), &original);
    assert!(found.is_empty(), "ours, then the original's:\n{}", found.join("\n"));
}

#[test]
fn plugin_registration_is_the_original_but_for_file_name_and_file_options() {
    let Some(mut original) = compile(&PLUGIN_REGISTRATION) else {
        return;
    };
    let ours = file(FILE_DESCRIPTOR_SET, "pluginregistration.proto");
    original.set_field_by_name("name", Value::String("pluginregistration.proto".to_owned()));
    original.clear_field_by_name("options");
    let found = differences(&ours, &original);
    assert!(found.is_empty(), "ours, then the original's:\n{}", found.join("\n"));
}

#[test]
fn csi_has_five_services_and_36_rpcs() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let csi = pool.get_file_by_name("csi.proto").unwrap();
    assert_eq!(csi.services().count(), 5);
    assert_eq!(csi.services().map(|service| service.methods().count()).sum::<usize>(), 36);
}

/// Facts of csi.proto told wrongly: the text, what to say instead, where that must be found.
const LIES: &str = "\
package csi.v1; | package csi.v2; | .package
bool alpha_enum = 1060; | bool alpha_enum = 1061; | extension[alpha_enum].number
bool alpha_enum = 1060; | int32 alpha_enum = 1060; | extension[alpha_enum].type
option (alpha_service) = true; | | service[SnapshotMetadata].options
rpc Probe(ProbeRequest) | rpc Probe(NodeGetInfoRequest) | method[Probe].input_type
returns (stream GetMetadataDelta | returns (GetMetadataDelta | server_streaming
message ProbeRequest {} | message ProbeRequest {} message More {} | message_type[More]
string node_id = 2; | string node_id = 9; | field[node_id].number
string node_id = 2; | repeated string node_id = 2; | field[node_id].label
string node_id = 2; | string node_id = 2 [json_name = 'n']; | field[node_id].json_name
string node_id = 2; | string node_ids = 2; | field[node_ids].name
string node_id = 2; | optional string node_id = 2; | field[node_id].proto3_optional
int32 max_entries = 1; | int64 max_entries = 1; | field[max_entries].type
map<string, string> segments | map<string, int32> segments | [SegmentsEntry].field[value].type
secrets = 2 [(csi_secret) = true]; | secrets = 2; | field[secrets].options
oneof access_type | oneof access_kind | oneof_decl[access_kind].name
reserved 2; | reserved 3; | reserved_range[0].start
reserved 11; | reserved 18; | reserved_range[0].start
STORAGE_DEGRADED = 1; | STORAGE_DEGRADED = 3; | value[STORAGE_DEGRADED].number
GET_VOLUME = 12 [(alpha_enum_value) = true]; | GET_VOLUME = 12; | value[GET_VOLUME].options";

#[test]
fn a_change_in_any_part_is_found_and_named() {
    let text = include_str!("../../proto/csi.proto");
    let ours = file(FILE_DESCRIPTOR_SET, "csi.proto");
    for lie in LIES.lines() {
        let [right, wrong, place] = lie.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("not three parts: {lie}");
        };
        assert!(text.contains(right), "no such text any more: {right}");
        let found = differences(&changed(&text.replacen(right, wrong, 1)), &ours);
        let named = found.iter().any(|line| line.contains(place));
        assert!(named, "{lie}: {found:?}");
    }
    assert_eq!(differences(&changed(text), &ours), Vec::<String>::new());
}

#[test]
fn another_syntax_is_found_and_named() {
    let ours = file(FILE_DESCRIPTOR_SET, "csi.proto");
    let mut other = ours.clone();
    other.set_field_by_name("syntax", Value::String("proto2".to_owned()));
    let expected = ".syntax: String(\"proto3\") != String(\"proto2\")";
    assert_eq!(differences(&ours, &other), [expected]);
}

fn changed(text: &str) -> DynamicMessage {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("csi.proto"), text).unwrap();
    let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
    compiler.include_imports(true).open_file("csi.proto").unwrap();
    file(&compiler.encode_file_descriptor_set(), "csi.proto")
}

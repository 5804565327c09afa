//! Sizes, access modes and what else a volume cannot be.

use anyhow::{Result, ensure};
use dunnage_csi_proto::csi::v1 as csi;
use dunnage_csi_proto::csi::v1::volume_capability::AccessMode;
use dunnage_csi_proto::csi::v1::volume_capability::access_mode::Mode;
use dunnage_test_common::{MIB, block, create, filesystem, mount};
use tonic::Code;

use crate::{refused, rig};

const EIB: i64 = 1 << 60;

fn range(required_bytes: i64, limit_bytes: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange { required_bytes, limit_bytes })
}

#[test]
fn sizes_that_cannot_be_are_refused_on_create() -> Result<()> {
    let Some(rig) = rig("sizes_that_cannot_be_are_refused_on_create")? else { return Ok(()) };
    for (client, name) in [(&rig.files, "dir"), (&rig.disks, "image")] {
        for (capacity_range, code, words) in [
            (range(-1, 0), Code::InvalidArgument, &["required_bytes", "-1"][..]),
            (range(0, -5), Code::InvalidArgument, &["limit_bytes", "-5"]),
            (range(i64::MIN, i64::MIN), Code::InvalidArgument, &["required_bytes"]),
            (range(2 * MIB, MIB), Code::OutOfRange, &["1048576", "2097152"]),
            (range(EIB, 0), Code::OutOfRange, &["EiB"]),
            (range(i64::MAX, i64::MAX), Code::OutOfRange, &["disk"]),
        ] {
            let request = csi::CreateVolumeRequest { capacity_range, ..create("a", 0, mount()) };
            refused(&format!("{name} {capacity_range:?}"), client.create_volume(request), code, words)?;
        }
        // Nothing said, or nothing required: a size of the plugin's own.
        for (volume, capacity_range) in [("absent", None), ("zero", range(0, 0))] {
            let request = csi::CreateVolumeRequest { capacity_range, ..create(volume, 0, mount()) };
            ensure!(client.create_volume(request)?.volume.expect("no volume").capacity_bytes > 0);
        }
    }
    let small = csi::CreateVolumeRequest { capacity_range: range(0, MIB), ..create("xfs", 0, filesystem("xfs")) };
    refused("a limit below what xfs needs", rig.disks.create_volume(small), Code::OutOfRange, &["xfs", "300 MiB"])
}

#[test]
fn sizes_that_cannot_be_are_refused_on_expand_and_nothing_is_changed() -> Result<()> {
    let Some(rig) = rig("sizes_that_cannot_be_are_refused_on_expand_and_nothing_is_changed")? else { return Ok(()) };
    for (client, name) in [(&rig.files, "dir"), (&rig.disks, "image")] {
        let volume = rig.volume(client, "a", mount())?;
        for (capacity_range, code, word) in [
            (None, Code::InvalidArgument, "capacity_range"),
            (range(0, 0), Code::InvalidArgument, "required_bytes"),
            (range(-1, 0), Code::InvalidArgument, "-1"),
            (range(64 * MIB, 32 * MIB), Code::OutOfRange, "67108864"),
            (range(0, MIB), Code::OutOfRange, "limit"),
            (range(EIB, 0), Code::OutOfRange, "disk"),
        ] {
            let volume_id = volume.id();
            let request = csi::ControllerExpandVolumeRequest { volume_id, capacity_range, ..Default::default() };
            refused(&format!("{name} {capacity_range:?}"), client.controller_expand_volume(request), code, &[word])?;
        }
        let found = client.controller_get_volume(csi::ControllerGetVolumeRequest { volume_id: volume.id() })?;
        assert_eq!(found.volume.as_ref(), Some(&volume.made), "{name}");
    }
    Ok(())
}

#[test]
fn access_modes_that_cannot_be_are_refused_and_named() -> Result<()> {
    let Some(rig) = rig("access_modes_that_cannot_be_are_refused_and_named")? else { return Ok(()) };
    let with = |mode: i32| csi::VolumeCapability { access_mode: Some(AccessMode { mode }), ..mount() };
    for (client, name) in [(&rig.files, "dir"), (&rig.disks, "image")] {
        let volume = rig.volume(client, "a", mount())?;
        for (mode, word) in [
            (0, "UNKNOWN"),
            (99, "99"),
            (Mode::MultiNodeReaderOnly.into(), "MULTI_NODE_READER_ONLY"),
            (Mode::MultiNodeSingleWriter.into(), "MULTI_NODE_SINGLE_WRITER"),
            (Mode::MultiNodeMultiWriter.into(), "MULTI_NODE_MULTI_WRITER"),
        ] {
            let case = format!("{name} {word}");
            let answer = client.create_volume(create("b", MIB, with(mode)));
            refused(&case, answer, Code::InvalidArgument, &[word])?;
            let request = csi::NodePublishVolumeRequest { volume_capability: Some(with(mode)), ..volume.publish() };
            let answer = client.node_publish_volume(request);
            // What is no mode at all is wrong; a mode that the volume cannot have exceeds it.
            let code = if matches!(mode, 0 | 99) { Code::InvalidArgument } else { Code::FailedPrecondition };
            refused(&case, answer, code, &[])?;
            let request = csi::ValidateVolumeCapabilitiesRequest {
                volume_id: volume.id(),
                volume_capabilities: vec![with(mode)],
                ..Default::default()
            };
            let answer = client.validate_volume_capabilities(request);
            match mode {
                0 | 99 => refused(&case, answer, Code::InvalidArgument, &[word])?,
                _ => {
                    let answer = answer?;
                    ensure!(answer.confirmed.is_none() && answer.message.contains(word), "{case}: {answer:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_a_driver_has_not_is_refused_with_what_it_has() -> Result<()> {
    let Some(rig) = rig("what_a_driver_has_not_is_refused_with_what_it_has")? else { return Ok(()) };
    let answer = rig.files.create_volume(create("a", MIB, block()));
    refused("raw block of a directory", answer, Code::InvalidArgument, &["mount access"])?;
    let answer = rig.disks.create_volume(create("a", MIB, filesystem("ntfs")));
    refused("an unknown file system", answer, Code::InvalidArgument, &["ntfs", "ext4", "xfs", "btrfs"])?;
    for (field, request) in [
        (
            "volume_content_source",
            csi::CreateVolumeRequest { volume_content_source: Some(Default::default()), ..create("a", MIB, mount()) },
        ),
        (
            "mutable_parameters",
            csi::CreateVolumeRequest {
                mutable_parameters: [("iops".into(), "1".into())].into(),
                ..create("a", MIB, mount())
            },
        ),
        (
            "sparse",
            csi::CreateVolumeRequest {
                parameters: [("sparse".into(), "yes".into())].into(),
                ..create("a", MIB, mount())
            },
        ),
        (
            "backend",
            csi::CreateVolumeRequest {
                parameters: [("backend".into(), "other".into())].into(),
                ..create("a", MIB, mount())
            },
        ),
    ] {
        refused(field, rig.disks.create_volume(request), Code::InvalidArgument, &[field])?;
    }
    let elsewhere = csi::Topology { segments: [("dunnage.dev/node".into(), "node-8".into())].into() };
    let request = csi::CreateVolumeRequest {
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![elsewhere.clone()],
            preferred: vec![elsewhere],
        }),
        ..create("a", MIB, mount())
    };
    refused("another node", rig.disks.create_volume(request), Code::ResourceExhausted, &["dunnage.dev/node=node-7"])?;
    let empty =
        csi::CreateVolumeRequest { accessibility_requirements: Some(Default::default()), ..create("a", MIB, mount()) };
    refused("no topology", rig.disks.create_volume(empty), Code::InvalidArgument, &["requisite"])?;
    let listed = rig.disks.list_volumes(Default::default())?.entries;
    ensure!(listed.is_empty(), "a refused create left {listed:?}");
    Ok(())
}

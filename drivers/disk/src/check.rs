//! What `check` says of a node, its disks and a root.

use std::collections::BTreeMap;

use dunnage_driver_api::root::{Folder, Root};
use dunnage_driver_api::{Bytes, Finding, FsType};
use serde::Deserialize;

use crate::config::Disk;
use crate::identity::DiskId;
use crate::kernel::Kernel;
use crate::rules::{self, Named};
use crate::store::WIPING;
use crate::wiping::Wipings;

/// Looks at everything this configuration needs, and changes nothing.
pub(crate) fn check(config: &Disk, driver: &str) -> Vec<Finding> {
    let mut findings = Root::check(&config.root, driver);
    findings.push(mkfs(config.fs_type));
    let kernel = Kernel::of_node();
    let named = match rules::named(config, &kernel) {
        Ok(named) => named,
        Err(error) => {
            findings
                .push(Finding::error(error.report(), "run this as root, in a container with the node's /dev and /sys"));
            return findings;
        }
    };
    if named.is_empty() {
        let text = format!("no device of this node is named by {}", config.devices.join(", "));
        findings.push(Finding::warning(text, "see to the key `devices`; a container needs the node's /dev"));
    }
    for moves in config.devices.iter().filter(|pattern| is_name_that_moves(pattern)) {
        findings.push(Finding::warning(
            format!("{moves} is a name that the kernel gives to another disk after a boot"),
            "name the disks by /dev/disk/by-id: a disk that is meant to be left alone may come to have this name",
        ));
    }
    findings.push(Finding::ok(
        "a disk that another machine sees too must not be named: nobody on this node can tell, except by its transport",
    ));
    let (volumes, unreadable) = volumes(config);
    if unreadable > 0 {
        findings.push(Finding::error(
            format!("{unreadable} records of volumes cannot be read: which disks are theirs is not known"),
            "restore them from a backup; until then nothing is made",
        ));
    }
    let wiping = wiping(config);
    findings.extend(named.iter().map(|named| one(named, &kernel, &volumes, &wiping)));
    findings
}

/// Whether a pattern names disks as the kernel does, and means some of them alone.
fn is_name_that_moves(pattern: &str) -> bool {
    let name = pattern.strip_prefix("/dev/").unwrap_or_default();
    !name.contains('/') && !name.starts_with('*')
}

fn mkfs(fs_type: FsType) -> Finding {
    let tool = fs_type.mkfs();
    match tool.find() {
        Some(path) => Finding::ok(format!("new volumes are formatted by {}", path.display())),
        None => Finding::error(
            format!("{} is not installed", tool.program),
            format!("install the package {}", tool.package),
        ),
    }
}

fn one(named: &Named, kernel: &Kernel, volumes: &BTreeMap<DiskId, String>, wiping: &[DiskId]) -> Finding {
    let path = kernel.path(&named.device);
    let shown = format!("{} ({})", path.display(), Bytes::new(named.device.size));
    let id = kernel.identity(&named.device);
    let volume = id.as_ref().and_then(|id| volumes.iter().find(|(disk, _)| disk.overlaps(id)));
    let finding = match (&named.fit, volume) {
        (_, Some((disk, volume))) if id.as_ref() == Some(disk) => {
            Finding::ok(format!("{shown} is the volume {volume}"))
        }
        (_, Some((_, volume))) => {
            return Finding::ok(format!("{shown} is left alone: the volume {volume} is on the same disk"));
        }
        (Err(why), _) => return Finding::ok(format!("{shown} is left alone: {why}")),
        (Ok(disk), _) if wiping.iter().any(|other| other.overlaps(disk)) => {
            Finding::ok(format!("{shown} is to be wiped, and is free then"))
        }
        (Ok(disk), _) => match rules::refuse_used(kernel, disk, &named.device, |_| false) {
            Ok(()) => Finding::ok(format!("{shown} is free, and is known by {disk}")),
            Err(why) => Finding::ok(format!("{shown} is left alone: {why}")),
        },
    };
    let clash = || {
        Finding::error(
            format!("the disk {} is named by more than one backend", path.display()),
            "give each backend disks of its own by the keys `devices`, `size` and `rotational`",
        )
    };
    // A disk is claimed with its partitions, which others may name; a partition alone, since others may have the rest.
    let parts = named
        .device
        .partitions()
        .unwrap_or_default()
        .into_iter()
        .filter_map(|part| kernel.identity(&kernel.named(&part).ok()??));
    let claimed = id.into_iter().chain(parts);
    claimed.fold(finding, |finding, id| finding.claiming(format!("disk {id}"), clash()))
}

/// The disks of volumes, by the records as they lie there, and how many cannot be read: the root may be served at this
/// moment.
fn volumes(config: &Disk) -> (BTreeMap<DiskId, String>, usize) {
    #[derive(Deserialize)]
    struct Stored {
        extra: Extra,
    }
    #[derive(Deserialize)]
    struct Extra {
        disk: DiskId,
    }
    let (mut found, mut unreadable) = (BTreeMap::new(), 0);
    let folder = config.root.join(".dunnage/volumes");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = match std::fs::read(entry.path()) {
            // What is written at this moment, and what was deleted at this moment.
            _ if name.starts_with('.') => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text,
        };
        match text.ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok()) {
            Some(stored) => drop(found.insert(stored.extra.disk, name)),
            None => unreadable += 1,
        }
    }
    (found, unreadable)
}

fn wiping(config: &Disk) -> Vec<DiskId> {
    Folder::at(&config.root)
        .and_then(|root| root.folder(WIPING))
        .ok()
        .and_then(|folder| Wipings::read(&folder).ok())
        .unwrap_or_default()
        .into_keys()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::tests::Fake;

    #[test]
    fn names_of_the_kernel_move() {
        for (pattern, moves) in [("/dev/sd[b-d]", true), ("/dev/nvme1n1", true), ("/dev/disk/by-id/*", false)] {
            assert_eq!(is_name_that_moves(pattern), moves, "{pattern}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(".dunnage/volumes");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a"), r#"{"extra": {"disk": "serial:a"}}"#).unwrap();
        fs::write(folder.join("b"), "{").unwrap();
        fs::write(folder.join(".c"), "{").unwrap();
        let text = format!(r#"{{"root": {:?}, "devices": ["/dev/sd*"]}}"#, root.path());
        let (found, unreadable) = volumes(&serde_json::from_str(&text).unwrap());
        assert_eq!((found.into_keys().collect::<Vec<_>>(), unreadable), (vec![DiskId("serial:a".into())], 1));
    }

    #[test]
    fn a_partition_of_a_disk_that_is_a_volume_is_left_alone() {
        let fake = Fake::new();
        fake.device("vda", "254:0", &[("serial", "a")]);
        let volumes = [(DiskId::of_partition("g", "serial:a"), "pvc".to_owned())].into();
        let named = Named { device: fake.named("vda"), fit: Ok(DiskId("serial:a".into())) };
        let finding = one(&named, &fake.kernel(), &volumes, &[]);
        assert!(
            finding.text.contains("the volume pvc is on the same disk") && finding.claims.is_empty(),
            "{finding:?}"
        );
        let volumes = [(DiskId("serial:a".into()), "pvc".to_owned())].into();
        let finding = one(&named, &fake.kernel(), &volumes, &[]);
        assert_eq!(finding.claims.len(), 1);
    }
}
